"""A synthetic MR of a skull-stripped brain, with or without a glioma. Not a patient, and not for training a product."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from ..sequences import SEQUENCES
from .canvas import Array, Canvas

Painter = Callable[[str, Array], None]
"""Paints one of ``MATERIALS`` on as much of each voxel as a share says."""

TISSUES = {"csf": 1, "grey": 2, "white": 3}
"""Values of ``BrainMR.tissue``."""

TUMOUR = {"necrosis": 1, "oedema": 2, "enhancing": 3}
"""Values of ``BrainMR.tumour``; as in BraTS, ``necrosis`` is all of the core that does not enhance."""

MATERIALS = {
    "csf": (0.44, 0.44, 1.00, 0.36),
    "grey": (0.80, 0.82, 0.60, 0.72),
    "white": (1.00, 1.00, 0.48, 0.64),
    "nucleus": (0.87, 0.89, 0.52, 0.67),
    "blood": (0.60, 1.65, 0.35, 0.40),
    "hyperintensity": (0.82, 0.83, 0.74, 1.06),
}
"""Signal by ``SEQUENCES``, relative to white matter in T1; the last one is a lesion of ageing white matter."""

GROWTHS = {
    "necrosis": (0.40, 0.42, 1.00, 0.72),
    "solid": (0.48, 0.50, 0.97, 0.98),
    "oedema": (0.50, 0.51, 0.96, 1.03),
    "enhancing": (0.58, 1.60, 0.82, 0.98),
}
"""The same for the parts of a tumour; ``solid`` is a core that has no necrosis and does not enhance."""


@dataclass(frozen=True)
class Scanner:
    """What a machine and its protocol add to the anatomy.

    Attributes:
        noise: range of the standard deviation of the noise, relative to white matter in T1.
        grain_mm: range of the width of the noise's correlation in the slice, mm (standard deviation).
        bias: range of the standard deviation of the coil's uneven gain; it stays within +-22 %.
        contrast: by ``SEQUENCES``, how far the signal of other materials is from that of white matter.
    """

    noise: tuple[float, float] = (0.02, 0.045)
    grain_mm: tuple[float, float] = (0.8, 1.6)
    bias: tuple[float, float] = (0.04, 0.09)
    contrast: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)


SCANNERS = {
    "a": Scanner(),
    "b": Scanner(noise=(0.035, 0.065), grain_mm=(1.2, 2.4), bias=(0.07, 0.12), contrast=(0.8, 0.85, 1.2, 0.85)),
    "c": Scanner(noise=(0.015, 0.03), grain_mm=(0.5, 1.0), bias=(0.02, 0.05), contrast=(1.15, 1.1, 0.85, 1.15)),
}
"""``a``: 3 T. ``b``: 1.5 T, noisier, other contrasts; for tests of transfer, as networks are trained on ``a``. ``c``:
less noise and stronger contrasts than ``a``, for trainings of several scanners."""


@dataclass(frozen=True)
class BrainMR:
    """One patient; axes point to the patient's right, front and head.

    Attributes:
        image: the four ``SEQUENCES`` in arbitrary units, outside the brain exactly 0, int16, shape (4, X, Y, Z).
        healthy: the same patient, noise and gain without the tumour, int16.
        tissue: labels by ``TISSUES`` of the healthy anatomy, 0 outside the brain, uint8, shape (X, Y, Z).
        tumour: labels by ``TUMOUR``, 0 elsewhere, uint8.
        affine: voxel to world in mm, RAS.
    """

    image: NDArray[np.int16]
    healthy: NDArray[np.int16]
    tissue: NDArray[np.uint8]
    tumour: NDArray[np.uint8]
    affine: NDArray[np.float64]


def brain_mr(
    seed: int,
    shape: Sequence[int] = (64, 76, 12),
    spacing: Sequence[float] = (3.0, 3.0, 5.0),
    tumour: bool | None = None,
    scanner: str = "a",
) -> BrainMR:
    """Return the brain of a patient who does not exist; the same arguments give the same volume.

    The slices lie between the basal ganglia and the upper end of the white matter. What makes the reading hard has no
    label: ventricles of any width, often asymmetric, hyperintensities of the white matter around them, sulci filled
    with fluid, vessels that enhance, uneven gain and noise. Gliomas are 15 to 60 mm wide with their oedema, which
    follows the white matter; a quarter does not enhance, and some are faint.

    Args:
        seed: of the patient, the noise and the tumour.
        shape: voxels to the right, front and head.
        spacing: mm a voxel along these.
        tumour: whether there is one (sometimes two), None for half of the patients.
        scanner: name in ``SCANNERS``.

    Raises:
        ValueError: if there is no scanner of that name.
    """
    if scanner not in SCANNERS:
        raise ValueError(f"scanner must be one of {sorted(SCANNERS)}, got {scanner!r}.")
    machine = SCANNERS[scanner]
    rng = np.random.default_rng(seed)
    canvas = Canvas(shape, spacing, rng, background=0.0, middle=(0, -6, rng.uniform(22, 30)))
    by_chance = bool(rng.uniform() < 0.5)

    brain, pia = _anatomy(canvas)
    head, materials = brain < 0, canvas.image
    signal = np.tensordot(_signals(canvas, machine, MATERIALS, 0.03), materials, axes=1)
    signal *= 1 + 0.02 * np.stack([canvas.field(7) for _ in SEQUENCES])
    gain, noise = _coils(canvas, machine)

    # The tumour comes last: what is drawn for it changes nothing of the patient.
    grown, labels = signal, np.zeros(canvas.shape, dtype=np.uint8)
    if by_chance if tumour is None else tumour:
        for _ in range(2 if rng.uniform() < 0.15 else 1):
            grown = _with_tumour(canvas, machine, pia, materials, grown, labels)

    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [axis[0] for axis in canvas.axes]
    image, healthy = (_measure(each, gain, noise, head) for each in (grown, signal))
    return BrainMR(image, healthy, _tissue(materials) * head, labels, affine)


def _anatomy(canvas: Canvas) -> tuple[Array, Array]:
    """Paint the share of each of ``MATERIALS``; return the distances to the outline of the brain and to the pia."""
    uniform = canvas.rng.uniform
    paint = _painter(canvas)
    canvas.warp(3.5, 90)
    canvas.points += 1.2 * np.stack([canvas.field(20) for _ in range(3)])
    canvas.points[0] *= 1 + uniform(0.0005, 0.002) * canvas.points[1]  # narrower in front
    apart, radii = uniform(10, 16), (uniform(52, 57), uniform(79, 87), uniform(64, 70))
    brain = np.minimum(*(canvas.ellipsoid((side * apart, -6, 8), radii) for side in (-1, 1)))
    atrophy = uniform(0, 1)
    cleft = _clefts(canvas, atrophy)
    depth = -np.maximum(brain + uniform(-0.6, 0.2) + atrophy, -cleft)
    pia = np.maximum(-depth, -_sulci(canvas, depth, atrophy))
    paint("csf", canvas.soft(brain))
    paint("grey", canvas.soft(pia))
    paint("white", canvas.soft(pia + uniform(3.4, 4.4) + 0.7 * canvas.field(12)))
    _deep_parts(canvas, paint, atrophy)
    _vessels(canvas, paint, brain, cleft)
    return brain, pia


def _painter(canvas: Canvas) -> Painter:
    """Empty the canvas, and return what paints one of ``MATERIALS`` on it."""
    canvas.image = np.zeros((len(MATERIALS), *canvas.shape), dtype=np.float32)
    pure = dict(zip(MATERIALS, np.eye(len(MATERIALS), dtype=np.float32)[..., None, None, None], strict=True))
    return lambda material, share: canvas.paint(share, pure[material])


def _wall(canvas: Canvas, start: Sequence[float], end: Sequence[float]) -> Array:
    """Return the distance in the slice to a straight line from ``start`` to ``end``, mm to the right and front."""
    line, offset = (np.subtract(end, start), [canvas.points[i] - start[i] for i in range(2)])
    along = np.clip((offset[0] * line[0] + offset[1] * line[1]) / (line**2).sum(), 0, 1)
    return np.hypot(offset[0] - along * line[0], offset[1] - along * line[1])


def _clefts(canvas: Canvas, atrophy: float) -> Array:
    """Return the distance to the fluid between the hemispheres, down to the callosum, and beside the insulae."""
    uniform = canvas.rng.uniform
    x, _, z = canvas.points
    middle = canvas.ellipsoid((0, -6, 0), (32, uniform(37, 42), uniform(27, 33)))
    cleft = np.maximum(np.abs(x) + 0.2 - 1.2 * atrophy, -middle)
    for side in (-1, 1):
        width = -0.2 + 2.2 * atrophy * uniform(0.5, 1.2)
        insula = _wall(canvas, (38 * side, uniform(-18, -8)), (40 * side, uniform(14, 22)))
        opening = _wall(canvas, (39 * side, uniform(-2, 8)), (80 * side, uniform(-4, 12)))
        top = z - uniform(14, 22)
        cleft = np.minimum(cleft, np.maximum(np.minimum(insula, opening) - width, top))
    return cleft


def _sulci(canvas: Canvas, depth: Array, atrophy: float) -> Array:
    """Return the distance to the fluid of the sulci: where a random field changes its sign, down to some depth.

    The field is read towards the surface, from where the sulci hence lead straight inwards.
    """
    uniform = canvas.rng.uniform
    inwards = np.array(np.gradient(depth, *canvas.spacing[:2], axis=(0, 1)))
    inwards /= np.maximum(np.hypot(*inwards), 1e-3)
    nearest = np.indices(canvas.shape, dtype=np.float32)
    nearest[:2] -= 0.8 * np.clip(depth, 0, 20) * inwards / np.reshape(canvas.spacing[:2], (2, 1, 1, 1))
    field = map_coordinates(canvas.field(uniform(7, 9)), nearest, order=1, mode="nearest")
    slope = np.hypot(*np.gradient(field, *canvas.spacing[:2], axis=(0, 1)))
    below = np.maximum(depth - uniform(13, 18) - 6 * canvas.field(20), 0)
    width = 1.4 * atrophy - 0.9 + 0.4 * canvas.field(30)
    return np.hypot(field / (slope + 1e-2), below) - width


def _deep_parts(canvas: Canvas, paint: Painter, atrophy: float) -> None:
    """Paint the hyperintensities of ageing, ventricles and cisterns, and the nuclei around them."""
    uniform = canvas.rng.uniform
    x, _, z = canvas.points
    width = 2.8 * np.exp(uniform(0, 0.5) + 0.7 * atrophy)
    widths = {side: width * uniform(0.75, 1.3) for side in (-1, 1)}
    _hyperintensities(canvas, paint, widths, uniform() < 0.25 + 0.5 * atrophy)
    septum = canvas.soft(0.5 - np.abs(x))
    for side in (-1, 1):
        outwards = 0.6 * (widths[side] - 4)
        paint("csf", _ventricle(canvas, side, widths[side]) * septum)
        thalamus = canvas.ellipsoid(((10 + 0.3 * outwards) * side, -15, 4), (8.5, 14, 11))
        caudate = canvas.ellipsoid(((14 + outwards) * side, 19, 10), (5, 9, 12))
        putamen = canvas.ellipsoid((28 * side, 4, 3), (6, 17, 13))
        pallidum = canvas.ellipsoid((21.5 * side, 1, 1), (5, 10, 8))
        paint("grey", canvas.soft(np.minimum(caudate, putamen)))
        paint("nucleus", canvas.soft(np.minimum(thalamus, pallidum)))
    third = np.maximum(canvas.cylinder((0, -10), (0.5 + 0.35 * width, 14)), z - uniform(6, 12))
    cistern = canvas.ellipsoid((0, -42, 0), (uniform(7, 12), uniform(4, 8), uniform(7, 13)))
    paint("csf", canvas.soft(np.minimum(third, cistern)))


def _hyperintensities(canvas: Canvas, paint: Painter, widths: dict[int, float], present: bool) -> None:
    """Paint, if present, patchy rims around the ventricles and spots in the white matter."""
    uniform = canvas.rng.uniform
    margin_mm = uniform(1.5, 6.0)
    rim = np.maximum(*(_ventricle(canvas, side, width, margin_mm) for side, width in widths.items()))
    rim *= np.clip(0.8 + 0.8 * canvas.field(15), 0, 1)
    spots = canvas.soft(3 * (uniform(1.9, 2.5) - canvas.field(uniform(8, 14))))
    _, _, white, *_ = canvas.image
    paint("hyperintensity", present * uniform(0.5, 1.0) * white * np.maximum(rim, spots))


VENTRICLE = ((6, 35, 3), (8, 22, 12), (12, 2, 22), (17, -18, 22), (25, -36, 12), (22, -56, 6))
"""Middle line of a lateral ventricle from the frontal to the occipital horn, mm aside, to the front and head."""


def _ventricle(canvas: Canvas, side: int, width: float, margin_mm: float = 0.0) -> Array:
    """Return the share of each voxel within a margin of a lateral ventricle."""
    line = np.add(VENTRICLE, [0.6 * (width - 4), 0, 0])
    line[:, 0] *= side
    radii = width * np.array([0.5, 1.0, 0.9, 0.8, 1.15, 0.4]) + margin_mm
    share = np.zeros(canvas.shape, dtype=np.float32)
    for start, end, thick, thin in zip(line, line[1:], radii, radii[1:], strict=False):
        canvas.add_tube(share, start, end, thick, thin)
    return share


def _vessels(canvas: Canvas, paint: Painter, brain: Array, cleft: Array) -> None:
    """Paint what enhances in a healthy head: sinus, deep and cortical veins, arteries, choroid plexus."""
    uniform = canvas.rng.uniform
    x, y, _ = canvas.points
    sinus = np.maximum(np.abs(x) - uniform(1.5, 3.5), -brain - uniform(2, 6))
    paint("blood", canvas.soft(sinus) * uniform(0.3, 1.0) * (np.abs(y + 6) > 20))
    rim = np.maximum(-brain - 4, -uniform(1, 4))
    paint("blood", canvas.soft(rim) * np.clip(canvas.field(9) - 1.5, 0, 1))
    share = np.zeros(canvas.shape, dtype=np.float32)
    for side in (-1, 1):
        deep = np.array([[2 * side, 10, 12], [2 * side, -30, 10], [0, -44, 14], [0, -52, 26]])
        front = np.array([[1.5 * side, 36, -20], [1.5 * side, 42, 8], [1.5 * side, 30, 34]])
        plexus = np.array([[(20 + uniform(0, 4)) * side, -30, 14], [24 * side, -40, 8]])
        for line, radius in ((deep, uniform(0.8, 1.6)), (front, uniform(0.6, 1.4)), (plexus, uniform(1, 2.5))):
            for start, end in pairwise(line):
                canvas.add_tube(share, start, end, radius, radius)
        for _ in range(3):
            place = np.array([uniform(37, 44) * side, uniform(-14, 20), uniform(-10, 16)])
            canvas.add_tube(share, place, place + canvas.rng.normal(0, 8, 3), uniform(0.8, 1.5), 0.7)
    paint("blood", share * uniform(0.5, 1.0))


def _tissue(materials: Array) -> NDArray[np.uint8]:
    """Return which of ``TISSUES`` has the largest share; vessels run in fluid."""
    csf, grey, white, nucleus, blood, hyperintensity = materials
    shares = np.stack([csf + blood, grey + nucleus, white + hyperintensity])
    return (shares.argmax(0) + 1).astype(np.uint8)


def _signals(canvas: Canvas, machine: Scanner, materials: Mapping[str, Sequence[float]], spread: float) -> Array:
    """Return this patient's signal of each material, shape (4, materials), a share of ``spread`` around the mean."""
    mean = np.array(list(materials.values()))
    white = np.array(MATERIALS["white"])
    contrasted = white + machine.contrast * (mean - white)
    return (contrasted * canvas.rng.uniform(1 - spread, 1 + spread, mean.shape)).T


def _coils(canvas: Canvas, machine: Scanner) -> tuple[Array, Array]:
    """Return the uneven gain of each sequence, shape (4, X, Y, Z), and the noise of both channels, (2, 4, X, Y, Z)."""
    rng, uniform = canvas.rng, canvas.rng.uniform
    bias = np.stack([uniform(*machine.bias) * canvas.field(110) for _ in SEQUENCES])
    noise = rng.standard_normal((2, *bias.shape)).astype(np.float32)
    grain = [uniform(*machine.grain_mm) / s for s in canvas.spacing[:2]]
    noise = gaussian_filter(noise, [0, 0, *grain, 0])
    noise *= (uniform(*machine.noise, (len(SEQUENCES), 1, 1, 1)) / noise.std()).astype(np.float32)
    scale = uniform(250, 1200, (len(SEQUENCES), 1, 1, 1))
    return scale * (1 + np.clip(bias, -0.22, 0.22)), noise


def _measure(signal: Array, gain: Array, noise: Array, head: NDArray[np.bool_]) -> NDArray[np.int16]:
    """Return the magnitude image in the scanner's units, at least 1 in the head and 0 around it."""
    magnitude = gain * np.hypot(signal + noise[0], noise[1])
    return (np.maximum(np.round(magnitude), 1) * head).astype(np.int16)


def _with_tumour(
    canvas: Canvas, machine: Scanner, pia: Array, materials: Array, signal: Array, labels: NDArray[np.uint8]
) -> Array:
    """Return the signal with a glioma in it, and enter its parts in ``labels``."""
    uniform = canvas.rng.uniform
    shares = _glioma(canvas, pia, materials)
    contents = dict(zip(GROWTHS, _signals(canvas, machine, GROWTHS, 0.12).T[..., None, None, None], strict=True))
    visible = 1 - 0.6 * uniform() ** 1.5  # few are faint
    for part, share in shares.items():
        content = contents[part] * (1 + 0.06 * canvas.field(9))
        signal = signal + visible * uniform(0.8, 1.0) * share * (content - signal)
        labels[share > 0.5] = TUMOUR.get(part, TUMOUR["necrosis"])
    return signal


def _glioma(canvas: Canvas, pia: Array, materials: Array) -> dict[str, Array]:
    """Return the share of some of ``GROWTHS`` in each voxel, each one growing over those before."""
    rng, uniform = canvas.rng, canvas.rng.uniform

    def irregular(centre: Array, radii: Array, roughness: float) -> Array:
        size = radii.min()
        return canvas.ellipsoid(centre, radii) + roughness * size * canvas.field(max(size, 7)) + across_mm

    def blurred(distance: Array, edge_mm: float) -> Array:
        return gaussian_filter(canvas.soft(distance), [edge_mm / s for s in canvas.spacing])

    radii = 7.5 * 4 ** (uniform() ** 0.4) * uniform([0.85, 0.85, 0.6], [1.15, 1.15, 0.9])
    centre = _place(canvas, pia, radii)
    across_mm = 3.0 * np.maximum(-np.sign(centre[0]) * canvas.points[0] - 1, 0)  # the falx is in its way
    _, grey, white, nucleus, _, hyperintensity = materials
    room = white + hyperintensity + 0.7 * nucleus + 0.6 * grey
    oedema = room * blurred(irregular(centre, radii, 0.2), uniform(1.0, 3.0))

    enhances = uniform() < 0.75
    core_radii = np.maximum(radii * (uniform(0.35, 0.65) if enhances else uniform(0.55, 0.8)), 4)
    core = irregular(centre + rng.normal(0, 0.1, 3) * radii, core_radii, 0.13)
    core = np.maximum(core, pia + 1)
    if not enhances:
        return {"oedema": oedema, "solid": blurred(core, uniform(0.4, 1.5))}
    rim_mm = uniform(2.5, 5.5) * np.clip(1 + 0.4 * canvas.field(12), 0.3, 2)
    return {"oedema": oedema, "enhancing": blurred(core, uniform(0.4, 1.5)), "necrosis": blurred(core + rim_mm, 0.6)}


def _place(canvas: Canvas, pia: Array, radii: Array) -> Array:
    """Return the (bent) coordinates of a tumour's centre: deep enough, and with slices without tumour if possible."""
    deep = pia < -min(0.4 * radii.min(), 10)
    heights = canvas.axes[2]
    half = (heights[-1] - heights[0]) / 2
    free = np.abs(heights - heights.mean()) > radii[2] + 12 - half
    for where in (deep & free, deep, pia < pia.min() + 1):
        found = np.argwhere(where)
        if len(found):
            break
    return canvas.points[(slice(None), *found[canvas.rng.integers(len(found))])]
