"""Films as several scanners might have made them: real films of one source, painted."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.exposure import equalize_adapthist
from skimage.transform import resize

from ..files import write_bytes, write_text

Film = NDArray[np.float32]
PIXELS = 96
"""Along both sides of a painted film."""


def darker(film: Film, rng: np.random.Generator) -> Film:
    """Return a film with gamma 1.5, blurred by a pixel."""
    return gaussian_filter(film**1.5, 1.0)


def noisier(film: Film, rng: np.random.Generator) -> Film:
    """Return a film with gamma 0.7 and noise."""
    return film**0.7 + rng.normal(0, 0.02, film.shape).astype(np.float32)


def collimated(film: Film, rng: np.random.Generator) -> Film:
    """Return a film of half the resolution, whose border a collimator has kept dark."""
    half = resize(film, (PIXELS // 2, PIXELS // 2), anti_aliasing=True)
    coarse = np.zeros_like(film)
    edge = int(rng.integers(4, 8))
    coarse[edge:-edge, edge:-edge] = resize(half, film.shape, order=1)[edge:-edge, edge:-edge]
    return coarse


def marked(film: Film, rng: np.random.Generator) -> Film:
    """Return a film of enhanced local contrast with a bright mark in a corner, as of a burnt-in letter."""
    clear = equalize_adapthist(np.clip(film, 0, 1), kernel_size=24, clip_limit=0.02).astype(np.float32)
    x, y = rng.integers(2, 6, 2)
    clear[y : y + 9, x : x + 2] = clear[y + 7 : y + 9, x : x + 7] = 1.0
    return clear


SCANNERS: Mapping[str, Mapping[str, Callable[[Film, np.random.Generator], Film]]] = {
    "tone": {"T": lambda film, rng: film, "A": darker, "B": noisier},
    "marks": {"T": lambda film, rng: film, "A": collimated, "B": marked},
}
"""Two sets of three: of other tones and noise, and of what normalisation does not take away. T leaves films alone."""


def write_painted(
    src: str,
    dst: str,
    training: Mapping[str, Sequence[int]],
    validation: Mapping[str, Sequence[int]],
    scanners: str = "tone",
    seed: int = 0,
) -> None:
    """Write a data set of painted films: each film for training by one scanner, those for testing by all three.

    Args:
        src: data set of real films, with ``dataset.json`` and ``image_label`` 0 or 1.
        dst: folder, made if it is not there. The films are arrays in [0, 1].
        training: of each scanner, how many films of class 0 and of class 1.
        validation: the same.
        scanners: ``tone`` or ``marks``, see ``SCANNERS``.
        seed: of the draw, and of noise and marks.

    Raises:
        ValueError: if there are not as many films, or no such scanners.
    """
    if scanners not in SCANNERS:
        raise ValueError(f"scanners must be one of {', '.join(SCANNERS)}, got {scanners!r}.")
    source, folder = Path(src), Path(dst)
    films = json.loads((source / "dataset.json").read_text())
    content: dict[str, Any] = {
        "name": f"painted films, {scanners}",
        "description": f"real films of {source.name} as three scanners might have made them",
    }
    rng = np.random.default_rng(seed)
    for part, cells in (("training", training), ("validation", validation)):
        by_class = [[item for item in films[part] if item["image_label"] == k] for k in (0, 1)]
        left = [rng.permutation(own).tolist() for own in by_class]
        items = []
        for scanner, counts in cells.items():
            for k, count in enumerate(counts):
                if count > len(left[k]):
                    raise ValueError(f"expected {count} more films of class {k} for {part}, got {len(left[k])}.")
                items += [_painted(source, folder, part, left[k].pop(), scanner, scanners) for _ in range(count)]
        content[part] = items
    content["testing"] = [
        _painted(source, folder, "testing", item, scanner, scanners) for item in films["testing"] for scanner in "TAB"
    ]
    write_text(folder / "dataset.json", json.dumps(content, indent=1) + "\n")


def _painted(src: Path, dst: Path, part: str, item: Mapping[str, Any], scanner: str, scanners: str) -> dict[str, Any]:
    """Write a film as a scanner makes it and return its item; the same film and scanner give the same pixels."""
    name = f"{part}_{item['case']}_{scanner}"
    pixels = np.asarray(Image.open(src / item["image"]).convert("L"), dtype=np.float32) / 255
    film = resize(pixels, (PIXELS, PIXELS), anti_aliasing=True).astype(np.float32)
    rng = np.random.default_rng([ord(letter) for letter in name])
    painted = np.clip(SCANNERS[scanners][scanner](film, rng), 0, 1).astype(np.float32)
    write_array(dst / f"{name}.npy", painted)
    known = {"patient": item["patient"], "case": name, "site": scanner, "image_label": item["image_label"]}
    return {"image": f"{name}.npy", **known}


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as NPY; a killed run leaves no half of it."""
    content = io.BytesIO()
    np.save(content, array)
    write_bytes(path, content.getvalue())
