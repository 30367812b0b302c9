"""Translations with many settings, which share what they can: for sweeps, not for a single answer."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product

from torch import Tensor, nn

from .ddim import DdimTranslator, Guidance
from .patches import Generators
from .slices import Progress
from .translation import Batch, TranslationInferer, Translator


class Variants(ABC):
    """Several translations of the same batches.

    Attributes:
        settings: what each of them is made with, by the names of keys.
    """

    settings: list[dict[str, float]]

    @property
    @abstractmethod
    def num_steps(self) -> int:
        """Steps that are handed to ``progress`` for a batch."""

    @abstractmethod
    def __call__(self, batch: Batch, network: nn.Module, generators: Generators, progress: Progress) -> list[Tensor]:
        """Return a batch in all versions."""

    def examine(
        self, inferer: TranslationInferer, volume: Tensor, pixel_mm: tuple[float, float], network: nn.Module
    ) -> list[Tensor]:
        """Return what an inferer says of one image in each version.

        Args:
            inferer: whose translator is replaced.
            volume: shape (C, X, Y[, Z]), finite.
            pixel_mm: of its pixels along X and Y.
            network: the container.
        """
        return inferer.examine_versions(volume, pixel_mm, network, self, self.num_steps)


class SharedEncoding(Variants):
    """All combinations of noise levels, guidances and scales; one encoding serves all of them.

    Args:
        translator: whose noise level, guidance and scale are replaced.
        noise_levels: see ``DdimTranslator``.
        guidance_scales: see ``DdimTranslator``.
        guidances: of several tasks, their number is a setting; that of the translator by default.

    Raises:
        ValueError: if no step lies below a noise level.
    """

    def __init__(
        self,
        *,
        translator: DdimTranslator,
        noise_levels: Sequence[int] | None = None,
        guidance_scales: Sequence[float] | None = None,
        guidances: Sequence[Guidance] | None = None,
    ) -> None:
        self.translator = translator
        self.noise_levels = list(noise_levels or [translator.noise_level])
        for level in self.noise_levels:
            translator.steps(level)
        self.guidance_scales = list(guidance_scales or [translator.guidance_scale])
        self.guidances = list(guidances or [translator.guidance])
        several = len(self.guidances) > 1
        self.settings = [
            {"noise_level": level, **({"task": task} if several else {}), "guidance_scale": scale}
            for level, task, scale in product(self.noise_levels, range(len(self.guidances)), self.guidance_scales)
        ]

    @property
    def num_steps(self) -> int:
        """The steps of one encoding, up to the highest level, and of all decodings."""
        steps = [self.translator.steps(level) for level in self.noise_levels]
        return max(steps) + sum(steps) * len(self.guidances) * len(self.guidance_scales)

    def __call__(self, batch: Batch, network: nn.Module, generators: Generators, progress: Progress) -> list[Tensor]:
        """Return a batch in all versions."""
        latents = self.translator.encode(batch, network, generators, progress, self.noise_levels)
        return [
            self.translator.decode(latent, batch, network, progress, level, guidance, scale)
            for level, latent in zip(self.noise_levels, latents, strict=True)
            for guidance, scale in product(self.guidances, self.guidance_scales)
        ]


class EachByItself(Variants):
    """Several translators, which all see the same noise.

    Args:
        translators: by which each version is made.
        settings: what each is made with, by the names of keys.
    """

    def __init__(self, *, translators: Sequence[Translator], settings: Sequence[dict[str, float]]) -> None:
        self.translators, self.settings = translators, list(settings)

    @property
    def num_steps(self) -> int:
        """The steps of all translators."""
        return sum(translator.num_steps for translator in self.translators)

    def __call__(self, batch: Batch, network: nn.Module, generators: Generators, progress: Progress) -> list[Tensor]:
        """Return a batch in all versions."""
        return [
            translate(batch, network, [generator.clone_state() for generator in generators], progress)
            for translate in self.translators
        ]


def one_at_a_time(translator: partial[Translator], values: Mapping[str, Sequence[float]]) -> list[EachByItself]:
    """Return variants for each of several keys, in which it alone has other values.

    Args:
        translator: callable that makes a translator, with all of these keys given.
        values: of each key.
    """
    given = {key: translator.keywords[key] for key in values}
    return [
        EachByItself(
            translators=[translator(**{key: value}) for value in several],
            settings=[given | {key: value} for value in several],
        )
        for key, several in values.items()
    ]
