"""What methods answer for cases; a study keeps it, so that it can be continued."""

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser
from monai.utils import convert_to_tensor
from numpy.typing import NDArray
from torch import Tensor

from ..checkpoints import load_parts
from ..files import replacing
from ..metrics.statistics import Record, Row, Statistic, mean_of, mean_of_cases
from ..timing import Stopwatch
from .cases import Case, Configs
from .plan import Method

COSTS = ("calls", "gradients", "seconds")
"""Of an answer: evaluations of networks, each image of a batch for itself, those with a gradient, and its time."""


def costs_of(seeds: Sequence[Sequence[Record]]) -> dict[str, Statistic]:
    """Return the mean over cases and seeds of each of ``COSTS`` a slice, of those that the records tell."""

    def mean(name: str) -> Statistic:
        return mean_of([mean_of_cases([record.row[name] for record in records]) for records in seeds])

    return {f"{name}_a_slice": mean(name) for name in COSTS if name in seeds[0][0].row}


def digest_of(inputs: Tensor) -> str:
    """Return a few characters that tell images from others."""
    values = np.ascontiguousarray(convert_to_tensor(inputs, track_meta=False).cpu().numpy())
    return hashlib.sha256(values.tobytes()).hexdigest()[:8]


class Answers:
    """Channels of what a method answers for a case; an answer that lies in the folder is not made again.

    Args:
        configs: of the bundle.
        method: that answers.
        folder: of the answers; each method has a folder in it, named after all that it is made of, in which each
            answer is named after its case and what this is made of.
        channels: of the result.
        settings: keys of the config, below those of the method.
        seed: where the method draws.
    """

    def __init__(
        self,
        configs: Configs,
        method: Method,
        folder: Path,
        channels: int | slice,
        settings: dict[str, Any],
        seed: int | None = None,
    ) -> None:
        given = {} if seed is None else {"seed": seed}
        self.parser: ConfigParser = configs(method.config, **{**settings, **method.settings, **given})
        made_from = json.dumps(self.parser.config).encode()
        self.model_path = Path(self.parser.get_parsed_content("model_path"))
        digest = hashlib.sha256(made_from + self.model_path.read_bytes()).hexdigest()[:12]
        self.folder = folder / f"{method.inferer.replace('::', ' ')}_{digest}"
        self.inferer_id, self.channels = method.inferer, channels
        self.inferer: Any = None

    def __call__(self, case: Case) -> NDArray[np.float32]:
        """Return the channels of the answer, shape (X, Y, Z) or (K, X, Y, Z)."""
        with np.load(self._kept(case)) as kept:
            return kept["answer"]

    def cost(self, case: Case) -> Row:
        """Return what a slice has taken: ``calls`` of networks, ``gradients`` through them, ``seconds``."""
        with np.load(self._kept(case)) as kept:
            return {name: float(kept[name]) / case.image.shape[-1] for name in COSTS}

    def _kept(self, case: Case) -> Path:
        """Return the file of an answer, which is made if it is not there."""
        path = self.folder / f"{case.name}_{digest_of(case.inputs)}.npz"
        if not path.is_file():
            answer, cost = self.made(case)
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                np.savez_compressed(temporary, answer=answer, **cost)
        return path

    def made(self, case: Case) -> tuple[NDArray[np.float32], Row]:
        """Return what the inferer answers, with the weights of the config, and ``COSTS``."""
        if self.inferer is None:
            self.inferer = self.parser.get_parsed_content(self.inferer_id)
            self.network = self.parser.get_parsed_content("network")
            self.inferer.progress = False
            load_parts(self.network, str(self.model_path))
            self.network.eval()
        inputs = case.inputs.to(self.parser.get_parsed_content("device"))
        start = time.perf_counter()
        with ExitStack() as listening:
            watches = [listening.enter_context(Stopwatch(part)) for part in self.network.children()]
            answer = self.inferer(inputs, self.network)[0][self.channels].cpu().numpy()
        taken = (sum(w.images for w in watches), sum(w.gradients for w in watches), time.perf_counter() - start)
        return answer, dict(zip(COSTS, taken, strict=True))
