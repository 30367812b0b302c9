"""What commands and tests need to know of a bundle, and its configs do not say: its ``recipe.json``."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from . import bundle_folder, bundle_names


class Recipe(NamedTuple):
    """How a bundle, or an overlay with weights of its own, is made and tried; an archive does without it.

    Attributes:
        modality: ``CT``, ``MR`` or ``X-ray``.
        body: part of the body that is shown.
        phantom: of ``common.phantoms``, what draws it.
        demo: options of the data set in ``demo/``.
        data: options of the data set that the weights are trained on; its patients are not those of the tests.
        real: ``fractions`` and ``seed`` of the split of real data, where the weights may learn from such.
        trainings: in the order they are run, each the name of a ``config`` and its options; one may come again, as to
            ``finetune``.
        half: the weights are published in half precision, to be small; they are loaded into single precision.
        demo_scores: of the shipped weights on ``cases`` of the demonstration, or on all for testing, with the defaults
            or other ``settings``: ``scores`` by metric, and the ``margin`` within which they are to be found again.
        task_differs: arguments of the inferer and its parts that a training's task sets otherwise than inference, or
            leaves at their defaults.
        fast: keys that make a run short, by config.
        study: its ``kind``, options of the ``patients`` that are drawn for it, of a study of trainings of each data
            set, and what the plan of that kind has, see ``common.studies``.
        studies: further ones, by name; one with a ``base`` has what another one has, but for what it says itself, and
            what is null there.
        benchmark: settings that ``ci.benchmark`` compares; ``long`` ones take minutes.
        gpu_check: ``settings`` of the inferer at the paper's size, which cost less than the paper's own and find
            something to do in the demonstration, and options of its ``gates``, see ``ci.gpu_check``.
        no_torchscript: why TorchScript cannot be made of the network without tracing it, where it cannot; the model zoo
            has a list of such bundles, and the card says so.
        overlays: recipes of overlays, by name.
    """

    modality: str
    body: str
    phantom: str
    demo: Mapping[str, Any]
    data: Mapping[str, Any]
    trainings: Sequence[Mapping[str, Any]]
    half: bool = False
    real: Mapping[str, Any] = {}
    demo_scores: Sequence[Mapping[str, Any]] = ()
    task_differs: Sequence[str] = ()
    fast: Mapping[str, Mapping[str, Any]] = {}
    study: Mapping[str, Any] = {}
    studies: Mapping[str, Mapping[str, Any]] = {}
    benchmark: Sequence[Mapping[str, Any]] = ()
    gpu_check: Mapping[str, Mapping[str, Any]] = {}
    no_torchscript: str = ""
    overlays: Mapping[str, Mapping[str, Any]] = {}

    def plan(self, name: str) -> dict[str, Any]:
        """Return a study, ``study`` or one of ``studies``."""
        fields = dict({"study": self.study, **self.studies}[name])
        whole = {**self.plan(fields.pop("base")), **fields} if "base" in fields else fields
        return {name: value for name, value in whole.items() if value is not None}


def stages(bundle: str) -> list[str]:
    """Return the parts that ``train.json`` trains, that of the main stage last."""
    config = json.loads((bundle_folder(bundle) / "configs" / "train.json").read_text())
    return re.findall(r"@train_(\w+)", json.dumps([config.get("stages"), config["run"]]))


def recipe_of(bundle: str, overlay: str = "") -> Recipe:
    """Return the recipe of a bundle, or of its overlay.

    Raises:
        ValueError: if the overlay has none.
    """
    recipe = Recipe(**json.loads((bundle_folder(bundle) / "recipe.json").read_text()))
    if not overlay:
        return recipe
    if overlay not in recipe.overlays:
        there = ", ".join(recipe.overlays) or "none"
        raise ValueError(f"expected an overlay of {bundle} that has a recipe, one of {there}, got {overlay}.")
    return Recipe(**recipe.overlays[overlay])


def find_bundle(modality: str, body: str) -> tuple[str, str]:
    """Return a bundle for images of a kind, and the overlay that makes it one, empty where it is one without.

    Raises:
        LookupError: if there is no such bundle.
    """
    for bundle in bundle_names():
        for overlay in ("", *recipe_of(bundle).overlays):
            recipe = recipe_of(bundle, overlay)
            if (recipe.modality, recipe.body) == (modality, body):
                return bundle, overlay
    raise LookupError(f"expected a bundle for {modality} of the {body}, found none.")
