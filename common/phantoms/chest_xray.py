"""A synthetic frontal chest X-ray, with or without pleural effusion. Not a patient, and not for training a product."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label

from .canvas import Array, Canvas

WATER_PER_MM = 0.0185
"""Nepers a mm of soft tissue, of a chest film's beam."""

LUNG_DENSITY = 0.27
"""Of lung filled with air, relative to soft tissue."""

VISIBLE_GREY = 5.0
"""Fluid that brightens a pixel by less, before noise, is left out: nobody could outline it."""

SPECK_MM2 = 100.0
"""So is fluid in pieces of this size or less."""

RIGHT, LEFT = 1, -1
LETTERS = {RIGHT: ((0, 0), (0, 2), (-1, 2), (-1, 1), (0, 1), (-1, 0)), LEFT: ((0, 2), (0, 0), (-1, 0))}
"""Strokes of the R and the L that mark a side."""


@dataclass(frozen=True)
class Scanner:
    """What a machine and its processing add to the shadows.

    Attributes:
        noise: range of the standard deviation of the noise behind air, nepers; behind the patient it is larger.
        grain_mm: range of the width of the noise's correlation, mm (standard deviation).
        grid: range of the amplitude of the lines of the anti-scatter grid, nepers.
        scatter: range of the share of radiation that arrives scattered, which takes contrast from dense parts.
        slope: range of the steepness of the curve from exposure to grey.
        brightness: range of the shift along that curve, in parts of the range from lung to mediastinum.
    """

    noise: tuple[float, float] = (0.004, 0.009)
    grain_mm: tuple[float, float] = (1.0, 2.2)
    grid: tuple[float, float] = (0.0, 0.015)
    scatter: tuple[float, float] = (0.02, 0.06)
    slope: tuple[float, float] = (3.0, 4.2)
    brightness: tuple[float, float] = (-0.08, 0.08)


SCANNERS = {
    "a": Scanner(),
    "b": Scanner((0.010, 0.018), (1.8, 3.2), (0.010, 0.030), (0.06, 0.12), (2.3, 3.2), (0.0, 0.15)),
}
"""``a``: a fixed unit. ``b``: a mobile one, noisier, with less contrast and brighter; for tests of transfer."""


@dataclass(frozen=True)
class ChestXRay:
    """One film; the first axis points to the patient's right, the second to the head.

    Attributes:
        image: grey values, 0 black (air) to 255 white, uint8, shape (X, Y).
        healthy: the same patient, pose, exposure and noise without the effusion, uint8.
        effusion: 1 where pleural fluid brightens the film, 0 elsewhere, uint8; elsewhere the two films are equal.
        affine: pixel to mm, shape (4, 4): x to the right, y to the head; z, along the beam, stands for nothing.
    """

    image: NDArray[np.uint8]
    healthy: NDArray[np.uint8]
    effusion: NDArray[np.uint8]
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class Chest:
    """Sizes and places in one patient's chest, mm.

    Attributes:
        width: from the midline to the inside of the ribs where these are furthest apart.
        depth: half of the lung's extent along the beam.
        apex: height of the lung's top.
        domes: height of the diaphragm's top on each side.
        dome_height: of the diaphragm's top above the costophrenic angle.
        fat: what lies around the ribs.
    """

    width: float
    depth: float
    apex: float
    domes: dict[int, float]
    dome_height: float
    fat: float


def chest_xray(
    seed: int,
    shape: Sequence[int] = (96, 96),
    spacing: Sequence[float] = (4.0, 4.0),
    diseased: bool | None = None,
    scanner: str = "a",
) -> ChestXRay:
    """Return the chest film of a patient who does not exist; the same arguments give the same film.

    Each pixel is a beam, and its grey value follows from the mm of soft tissue, lung and bone that it crosses. What
    makes reading hard has no label: breasts and fat, high diaphragms, large hearts, plates of collapsed lung, gas in
    the stomach, pacemakers, wires, letters, exposure. The effusion is water in the place of lung, from a blunt angle to
    half of a lung, on one side or both. It lies around the lung, higher where it is thinner, and is seen highest at
    the side wall, where the beam runs along it.

    Args:
        seed: of the patient, the effusion and the noise.
        shape: pixels to the right and to the head.
        spacing: mm a pixel along these.
        diseased: whether there is an effusion, None for half of the seeds.
        scanner: name in ``SCANNERS``.

    Raises:
        ValueError: if there is no scanner of that name, or if shape or spacing are not two numbers.
    """
    if scanner not in SCANNERS:
        raise ValueError(f"scanner must be one of {sorted(SCANNERS)}, got {scanner!r}.")
    if len(shape) != 2 or len(spacing) != 2:
        raise ValueError(f"shape and spacing must have two numbers each for a film, got {shape} and {spacing}.")
    machine = SCANNERS[scanner]
    rng = np.random.default_rng(seed)
    coin = rng.uniform() < 0.5
    canvas = Canvas((*shape, 1), (*spacing, 1.0), rng, background=0.0)
    _pose(canvas)
    chest = _chest(rng)

    heart, lungs = _heart_mm(canvas, chest), {}
    for side in (RIGHT, LEFT):
        lungs[side] = np.maximum(_pleura_mm(canvas, chest, side) - _dome_mm(canvas, chest, side) - heart, 0)
    lung = lungs[RIGHT] + lungs[LEFT]
    body = _body_mm(canvas, chest)
    water = body - (1 - LUNG_DENSITY) * np.minimum(lung, body)
    water += _breasts_mm(canvas, chest) - _gas_mm(canvas, chest)
    shadows = _shadows_in_the_lung_mm(canvas, chest, lung)
    water += (1 - LUNG_DENSITY) * shadows
    water = np.maximum(water, 0) + _bones_mm(canvas, chest) * (body > 0) + _devices_mm(canvas, chest)

    fluid = _effusion_mm(canvas, chest, lungs)
    flooded = water + (1 - LUNG_DENSITY) * (fluid - shadows * fluid / np.maximum(lung, 1))
    (healthy, noiseless), (image, noiseless_flooded) = _films(canvas, machine, (water, flooded), body > 0)
    visible = (noiseless_flooded - noiseless > VISIBLE_GREY) & (image > healthy)
    pieces, _ = label(visible, np.ones((3, 3, 3)))
    effusion = visible & (np.bincount(pieces.ravel())[pieces] * np.prod(spacing) > SPECK_MM2)
    if not (coin if diseased is None else diseased):
        effusion[:] = False
    affine = np.diag([*spacing, 1.0, 1.0])
    affine[:2, 3] = [axis[0] for axis in canvas.axes[:2]]
    image = np.where(effusion, image, healthy)
    return ChestXRay(image[..., 0], healthy[..., 0], effusion[..., 0].astype(np.uint8), affine)


def _pose(canvas: Canvas) -> None:
    """Bend, turn and shift the space, by less than ``Canvas.add_tube`` allows for."""
    uniform = canvas.rng.uniform
    canvas.warp(uniform(1.5, 3.5), 110)
    turn, (x, y, _) = uniform(-0.035, 0.035), canvas.points
    canvas.points = np.stack([x + turn * y + uniform(-6, 6), y - turn * x, np.zeros_like(x)])  # a film has no depth


def _chest(rng: np.random.Generator) -> Chest:
    dome, size = rng.uniform(-108, -72), rng.uniform(0.93, 1.07)
    return Chest(
        width=size * rng.uniform(134, 150),
        depth=size * rng.uniform(74, 90),
        apex=rng.uniform(116, 136),
        domes={RIGHT: dome, LEFT: dome - rng.uniform(0, 22)},
        dome_height=rng.uniform(34, 52),
        fat=10 + 35 * rng.uniform() ** 2,
    )


def _chord(x: Array, half_width: Array | float, depth: Array | float, exponent: float) -> Array:
    """Return the mm a beam crosses in a rounded box, ``x`` mm beside its middle."""
    inside = 1 - np.minimum(np.abs(x) / np.maximum(half_width, 1e-3), 1) ** exponent
    return 2 * depth * inside ** (1 / exponent)


def _cage(canvas: Canvas, chest: Chest) -> tuple[Array, Array]:
    """Return how far the ribs are from the midline at each height, and 0 at the widest place to 1 at the apex."""
    y = canvas.points[1]
    rise = np.clip((y + 60) / (chest.apex + 60), 0, 1)
    return chest.width * (1 - rise**2.1) ** 0.6 - 0.08 * np.maximum(-60 - y, 0), rise


def _pleura_mm(canvas: Canvas, chest: Chest, side: int, layer: Array | float = 0.0) -> Array:
    """Return what a beam crosses between the ribs of one side, without a layer of so many mm along the walls."""
    x, y = side * canvas.points[0], canvas.points[1]
    lateral, rise = _cage(canvas, chest)
    medial = 20 + 5 * np.exp(-(((y - 30) / 30) ** 2))
    depth = chest.depth * np.sqrt(1 - 0.97 * rise**4) - 0.6 * np.asarray(layer)
    chord = _chord(x - (lateral - layer + medial) / 2, (lateral - layer - medial) / 2, np.maximum(depth, 0), 2.6)
    bottom = chest.domes[side] - 1.08 * chest.dome_height
    return chord * canvas.soft(bottom - y)


def _dome_mm(canvas: Canvas, chest: Chest, side: int) -> Array:
    """Return what a beam crosses below the diaphragm, between the ribs."""
    middle = 0.42 * chest.width
    x = (side * canvas.points[0] - middle) / (0.985 * chest.width - middle)
    x = np.where(x < 0, 0.55 * x, x)
    y = np.maximum((canvas.points[1] - chest.domes[side]) / chest.dome_height + 1, 0)
    return 1.94 * chest.depth * np.maximum(1 - np.abs(x) ** 2.2 - y**2.2, 0) ** (1 / 2.6)


def _heart_mm(canvas: Canvas, chest: Chest) -> Array:
    """Return what a beam crosses of heart and great vessels."""
    uniform = canvas.rng.uniform
    floor = chest.domes[LEFT]
    length, breadth, turn = uniform(58, 84), uniform(44, 60), uniform(0.3, 0.8)
    x, y = canvas.points[0] + uniform(18, 30), canvas.points[1] - floor - uniform(28, 42)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    parts = [_chord(np.hypot(along / length, across / breadth), 1.0, 52, 2)]
    for middle, radii, depth in (
        ((uniform(8, 18), floor + uniform(40, 55)), (uniform(26, 34), uniform(38, 50)), 42),  # right atrium
        ((-uniform(16, 26), uniform(58, 72)), (uniform(13, 21), uniform(13, 19)), 34),  # arch of the aorta
        ((-uniform(16, 24), uniform(14, 26)), (uniform(18, 26), 24), 38),  # pulmonary trunk
        ((uniform(4, 10), 60), (uniform(18, 28), 62), 40),  # upper vena cava
        ((-14, -20), (uniform(14, 20), 120), 14),  # descending aorta
    ):
        x, y = (canvas.points[i] - middle[i] for i in range(2))
        parts.append(_chord(np.hypot(x / radii[0], y / radii[1]), 1.0, depth, 2))
    return np.maximum.reduce(parts)


def _body_mm(canvas: Canvas, chest: Chest) -> Array:
    """Return what a beam crosses of the whole patient."""
    uniform = canvas.rng.uniform
    x, y = canvas.points[:2]
    depth = chest.depth + 12 + 0.6 * chest.fat
    trunk = _chord(x, chest.width + 8 + chest.fat + 0.12 * np.maximum(y, 0), depth, 2.8)
    slope = chest.apex + uniform(38, 56) - uniform(0.15, 0.35) * np.maximum(np.abs(x) - 45, 0)
    shoulders = _chord(x, 230, 0.75 * depth, 3) * np.clip((y - 30) / 90, 0, 1)
    neck = _chord(x, uniform(50, 62), 58, 2.2) * (y > 60)
    above = np.sqrt(np.clip((slope - y) / 70, 0, 1))
    return np.maximum(np.maximum(trunk, shoulders) * above, neck)


def _breasts_mm(canvas: Canvas, chest: Chest) -> Array:
    """Return what breasts, if there are any to be seen, add to the body."""
    uniform = canvas.rng.uniform
    size, thickness, y = uniform(45, 75), uniform(15, 50) * (uniform() < 0.5), uniform(-62, -20)
    total = np.zeros(canvas.shape, dtype=np.float32)
    for side in (RIGHT, LEFT):
        x = (side * canvas.points[0] - uniform(0.55, 0.72) * chest.width) / size
        down = (y + uniform(-5, 5) - canvas.points[1]) / size
        down = np.where(down < 0, 0.6 * down, 1.4 * down)  # hanging: the lower edge is the sharp one
        total += thickness * np.maximum(1 - x**2 - down**2, 0) ** 0.6
    return total


def _gas_mm(canvas: Canvas, chest: Chest) -> Array:
    """Return the mm of gas in the windpipe, its branches and the stomach."""
    uniform = canvas.rng.uniform
    windpipe, carina = np.zeros(canvas.shape, dtype=np.float32), np.array([uniform(-3, 5), uniform(34, 48), 0.0])
    canvas.add_tube(windpipe, np.array([uniform(-4, 4), 220.0, 0.0]), carina, 8, 8)
    for side, fall in ((RIGHT, 24), (LEFT, 20)):
        canvas.add_tube(windpipe, carina, carina + np.array([side * 30, -fall, 0]), 6, 4)
    middle = (-uniform(0.35, 0.6) * chest.width, chest.domes[LEFT] - uniform(24, 34))
    x, y = ((canvas.points[i] - middle[i]) / r for i, r in enumerate((uniform(18, 38), uniform(10, 18))))
    bubble = _chord(np.hypot(x, y), 1.0, uniform(10, 34), 2) * (uniform() < 0.7)
    return 13 * windpipe + bubble


def _shadows_in_the_lung_mm(canvas: Canvas, chest: Chest, lung: Array) -> Array:
    """Return the mm of vessels, and in some patients plates of collapsed lung, that beams cross within the lungs."""
    rng, uniform = canvas.rng, canvas.rng.uniform
    total = np.zeros(canvas.shape, dtype=np.float32)
    share = [np.zeros(canvas.shape, dtype=np.float32) for _ in range(4)]
    fullness = uniform(0.7, 1.4)

    def grow(start: Array, angle: float, side: int, radius: float, length: float, generation: int) -> None:
        end = start + length * np.array([side * np.cos(angle), np.sin(angle), 0])
        canvas.add_tube(share[generation], start, end, radius, 0.75 * radius)
        if generation < 3:
            for turn in (-uniform(0.1, 0.5), uniform(0.1, 0.5)):
                grow(end, angle + turn, side, radius * uniform(0.55, 0.72), length * uniform(0.65, 0.9), generation + 1)

    for side in (RIGHT, LEFT):
        hilum = np.array([side * uniform(30, 40), uniform(12, 24) + 8 * (side == LEFT), 0])
        blob = canvas.ellipsoid(hilum, (uniform(9, 14), uniform(14, 22), 30))
        total += 22 * np.clip(-blob / 9, 0, 1)
        for angle in (-1.35, -0.9, -0.4, 0.15, 0.75, 1.25):
            grow(hilum, angle + rng.normal(0, 0.12), side, uniform(4, 5.5), uniform(24, 36), 0)
        start = np.array([side * uniform(50, 85), chest.domes[side] + uniform(8, 28), 0.0])
        plate = np.zeros(canvas.shape, dtype=np.float32)
        canvas.add_tube(plate, start, start + np.array([side * uniform(15, 40), uniform(-10, 10), 0]), 2.5, 1.5)
        total += uniform(10, 28) * plate * (uniform() < 0.15)
    for vessels, thickness in zip(share, (16, 12, 9, 6), strict=True):
        total = np.maximum(total, fullness * thickness * vessels)
    texture = 1.5 * canvas.field(9) + 2.5 * canvas.field(30)
    return np.clip(total + texture, 0, None) * np.clip(lung / 60, 0, 1)


def _bones_mm(canvas: Canvas, chest: Chest) -> Array:
    """Return the bones, as mm of soft tissue that would stop as much as they do beyond what they displace."""
    uniform = canvas.rng.uniform
    x, y = canvas.points[:2]
    density = uniform(0.7, 1.25)
    column = canvas.soft(np.abs(x) - uniform(15, 19))
    discs = np.abs(np.mod(y + uniform(0, 25), 25) - 12.5) > 9
    total = _ribs_mm(canvas, chest) + column * np.where(discs, 17.0, 25.0)
    for side in (RIGHT, LEFT):
        height, lift = chest.apex - uniform(2, 18), uniform(5, 30)
        clavicle = ((14, -6), (40, 4), (75, 2 + 0.5 * lift), (105, 4 + 0.9 * lift), (135, lift))
        total += 17 * _line(canvas, [(side * a, height + b) for a, b in clavicle], 6.0)
        medial = uniform(84, 116) - side * x
        upper, lower = y - uniform(88, 100), -40 - y
        lateral = 0.8 * (-medial - 25 - 0.45 * (y + 10))
        blade = np.maximum.reduce([medial - 0.12 * (y - 30), upper, 0.55 * lower - medial, lateral])
        total += 4 * canvas.soft(blade) + 4 * canvas.soft(np.abs(blade) - 2.5)
        arm = (side * uniform(160, 180), chest.apex - uniform(10, 36), 0)
        total += 20 * canvas.soft(canvas.ellipsoid(arm, (24, 25, 30)))
    return density * total


def _ribs_mm(canvas: Canvas, chest: Chest) -> Array:
    """Return the ribs: rings that fall from the spine to the front, each seen twice."""
    uniform = canvas.rng.uniform
    x, y = canvas.points[:2]
    fall, pitch, first, half_width = uniform(36, 52), uniform(23, 28), chest.apex + uniform(-4, 6), uniform(4.2, 5.8)
    ring = _cage(canvas, chest)[0] + 5
    across = np.clip(np.abs(x) / ring, 0, 1)
    backwards = np.sqrt(1 - across**2)
    slope = fall * across / (ring * np.maximum(backwards, 0.12))
    halves = []
    for back, thickness in ((1, 15), (-1, 11)):
        along = (y + fall * (1 - back * backwards) - first) / pitch
        number = np.clip(np.round(along), -9, 0)
        beside = np.abs(along - number) * pitch / np.sqrt(1 + slope**2)
        rim = 0.65 + 0.35 * canvas.soft(half_width - 2.5 - beside)
        begin, over = (14, 6) if back > 0 else (50 + 2 * number**2, 15)  # in front, lower ribs are cartilage earlier
        ends = np.clip((np.abs(x) - begin) / over, 0, 1) * (across < 1)
        grazing = np.minimum(1 / (backwards + 0.3), 2)
        halves.append(thickness * canvas.soft(beside - half_width) * rim * ends * grazing)
    return np.maximum(*halves)


def _line(canvas: Canvas, points: Sequence[tuple[float, float]], radius: float) -> Array:
    """Return the share of each pixel that a bent line of so many mm to each side covers."""
    share = np.zeros(canvas.shape, dtype=np.float32)
    for start, end in pairwise(np.array([*point, 0.0]) for point in points):
        canvas.add_tube(share, start, end, radius, radius)
    return share


def _devices_mm(canvas: Canvas, chest: Chest) -> Array:
    """Return metal and plastic in and on the patient, as mm of soft tissue."""
    rng, uniform = canvas.rng, canvas.rng.uniform
    total = np.zeros(canvas.shape, dtype=np.float32)
    if uniform() < 0.12:  # pacemaker
        case = (-uniform(80, 100), uniform(66, 82))
        total += 110 * canvas.soft(canvas.ellipsoid((*case, 0), (uniform(18, 23), uniform(16, 21), 30)))
        tip = (-uniform(35, 60), chest.domes[LEFT] + uniform(12, 24))
        total += 40 * _line(canvas, [case, (-30, 92), (12, 70), (18, 10), (6, tip[1] + 8), tip], 1.2)
    for _ in range(rng.integers(1, 5) if uniform() < 0.35 else 0):  # electrodes
        pad = (uniform(-110, 110), uniform(-80, 80))
        turn = (pad[0] + uniform(-40, 40), pad[1] + uniform(20, 60))
        total += 25 * canvas.soft(canvas.ellipsoid((*pad, 0), (4.5, 4.5, 30)))
        total += 14 * _line(canvas, [pad, turn, (turn[0] + uniform(-30, 30), -210)], 0.9)
    if uniform() < 0.2:  # central line
        total += 18 * _line(canvas, [(uniform(40, 60), 200), (32, 110), (14, 72), (16, uniform(10, 40))], 1.0)
    if uniform() < 0.7:  # letter
        side = RIGHT if uniform() < 0.5 else LEFT
        x, y, size = side * uniform(135, 160), uniform(135, 165), uniform(10, 15)
        total += 220 * _line(canvas, [(x + size * a, y + size * b) for a, b in LETTERS[side]], 1.8)
    return total


def _effusion_mm(canvas: Canvas, chest: Chest, lungs: dict[int, Array]) -> Array:
    """Return the mm of fluid in the place of lung."""
    uniform = canvas.rng.uniform
    both, worse = uniform() < 0.25, RIGHT if uniform() < 0.5 else LEFT
    total = np.zeros(canvas.shape, dtype=np.float32)
    for side in (worse, -worse):
        angle = chest.domes[side] - chest.dome_height
        level = angle + 4 + 0.58 * uniform() ** 1.4 * (chest.apex - angle)
        height = uniform(13, 22) + 0.08 * (level - angle)
        layer = np.minimum(14 * np.exp((level - canvas.points[1] + 5 * canvas.field(50)) / height), 200)
        around = _pleura_mm(canvas, chest, side) - _pleura_mm(canvas, chest, side, layer)
        if side == worse or both:
            total += np.clip(around - 10, 0, lungs[side])
    return total


def _films(
    canvas: Canvas, machine: Scanner, patients: Sequence[Array], inside: NDArray[np.bool_]
) -> list[tuple[NDArray[np.uint8], Array]]:
    """Return a film of each patient in mm of water, all exposed like the first, and its grey values without noise."""
    rng, uniform = canvas.rng, canvas.rng.uniform
    sharp = [0.45, 0.45, 0]
    exposures = [gaussian_filter(np.exp(-WATER_PER_MM * water), sharp) for water in patients]
    wide = [30 / s for s in canvas.spacing[:2]] + [0]
    scattered = uniform(*machine.scatter) * (0.3 + gaussian_filter(exposures[0], wide))
    signal = -np.log(exposures[0] + scattered)
    detail = uniform(0, 0.35) * (gaussian_filter(signal, wide) - signal[inside].mean())
    low, high = np.percentile((signal - detail)[inside], (4, 92)) if inside.any() else (0.0, 1.0)
    slope, brightness = uniform(*machine.slope), uniform(*machine.brightness)

    grain = [uniform(*machine.grain_mm) / s for s in canvas.spacing[:2]] + [0]
    noise = gaussian_filter(rng.standard_normal(canvas.shape).astype(np.float32), grain)
    noise *= uniform(*machine.noise) / noise.std() / np.sqrt(exposures[0] + scattered)
    lines = np.sin(uniform(1.8, 2.8) * np.arange(canvas.shape[0]) + uniform(0, 6))
    noise += uniform(*machine.grid) * lines[:, None, None]
    noise += uniform(-0.25, 0.25) * canvas.points[0] / 190 + uniform(-0.15, 0.15) * canvas.points[1] / 190

    films = []
    for exposure in exposures:
        part = (-np.log(exposure + scattered) - detail - low) / (high - low) - 0.5 + brightness
        noiseless, noisy = (255 / (1 + np.exp(-slope * (part + n / (high - low)))) for n in (0.0, noise))
        films.append((np.round(noisy).astype(np.uint8), noiseless))
    return films
