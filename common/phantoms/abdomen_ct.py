"""A synthetic CT of the upper abdomen, with or without lesions of liver, pancreas or kidneys.

Not a patient, and not for training a product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, gaussian_filter

from .canvas import Array, Canvas

ORGANS = {"spleen": 1, "kidney_right": 2, "kidney_left": 3, "gallbladder": 4, "liver": 5, "stomach": 6, "pancreas": 7}
"""Values of ``AbdomenCT.organs``, TotalSegmentator's numbers."""

AIR, LUNG, MUSCLE = -1000.0, -850.0, 55.0

MIDDLE_MM = {"liver": (-14.0, 22.0), "pancreas": (-43.0, -29.0), "kidney": (-60.0, -48.0)}
"""Range of the height of the volume's middle, by the organ that has the lesions and is to be in the volume."""

BESIDE_MM = {"liver": (48.0, 0.0), "pancreas": (-22.0, 4.0), "kidney": (0.0, -38.0)}
"""Where the middle of a small volume lies that is to show the organ, to the right and front of the body's."""

PLAIN_SHARE = {"liver": 0.4, "pancreas": 0.1, "kidney": 0.2}
"""Share of the volumes without contrast agent: a pancreas is rarely searched without."""

PARTS = {"liver": ("liver",), "pancreas": ("pancreas",), "kidney": ("kidney_right", "kidney_left")}
"""Names in ``ORGANS`` of what may have lesions."""


@dataclass(frozen=True)
class Scanner:
    """What a machine and its protocol add to the anatomy.

    Attributes:
        noise_hu: range of the standard deviation of the noise, HU.
        grain_mm: range of the width of the noise's correlation in the slice, mm (standard deviation).
        iodine: enhancement relative to 120 kVp, larger at a low tube voltage.
        fat_hu: HU of fat, lower at a low tube voltage.
        hardening: probability of dark bands by beam hardening.
    """

    noise_hu: tuple[float, float] = (9.0, 20.0)
    grain_mm: tuple[float, float] = (0.6, 1.6)
    iodine: float = 1.0
    fat_hu: float = -100.0
    hardening: float = 0.5


SCANNERS = {
    "a": Scanner(),
    "b": Scanner(noise_hu=(13.0, 22.0), grain_mm=(1.2, 2.4), iodine=1.35, fat_hu=-112.0, hardening=0.6),
}
"""``a``: 120 kVp. ``b``: 100 kVp, noisier, coarser grain; for tests of transfer, as networks are trained on ``a``."""


@dataclass(frozen=True)
class AbdomenCT:
    """One volume; axes point to the patient's right, front and head.

    Attributes:
        image: CT in HU, int16, shape (X, Y, Z).
        healthy: the same patient, noise and artefacts without the lesions, int16; a dilated duct stays.
        organs: labels by ``ORGANS``, uint8; those with lesions contain them.
        lesions: 1, 2, ... for each lesion, 0 elsewhere, uint8.
        affine: voxel to world in mm, RAS.
    """

    image: NDArray[np.int16]
    healthy: NDArray[np.int16]
    organs: NDArray[np.uint8]
    lesions: NDArray[np.uint8]
    affine: NDArray[np.float64]

    def organ(self, name: str) -> NDArray[np.bool_]:
        """Return the mask of an organ that may have lesions, a name in ``PARTS``."""
        return np.isin(self.organs, [ORGANS[part] for part in PARTS[name]])


def abdomen_ct(
    seed: int,
    shape: Sequence[int] = (120, 96, 16),
    spacing: Sequence[float] = (3.0, 3.0, 4.0),
    num_lesions: int | None = None,
    scanner: str = "a",
    lesion_organ: str = "liver",
    close: bool = False,
) -> AbdomenCT:
    """Return the CT of a patient who does not exist; the same arguments give the same volume.

    The liver has what makes its reading hard and has no label: vessels (brighter than its tissue after contrast, darker
    without), a fissure with fat, a gallbladder fossa, uneven perfusion, in some patients fatty change, cysts or gas in
    the bile ducts. Noise, its grain, partial volume and dark bands of beam hardening come from the scanner. Lesions
    have diameters of 4 to 40 mm, are 15 to 60 HU darker than the tissue around them and have soft edges.

    With ``lesion_organ="pancreas"`` the liver has no lesions, the volume lies lower, and the pancreas is drawn in
    detail: lobules with fat between them, bile duct, veins, duodenum. Its tumours have diameters of 10 to 40 mm, lie in
    the head more often than not, are 10 to 45 HU darker than the gland, most so after contrast, and may bulge beyond
    it. In some patients, more often if there is a tumour, the duct towards the tail is dilated: dark, benign, no label.

    With ``lesion_organ="kidney"`` the volume lies lower still, and the kidneys have 1 to 3 tumours of 8 to 40 mm, which
    take up less contrast agent than they do, are uneven, often with a core that has died, and bulge.

    Args:
        seed: of the patient, the lesions and the noise.
        shape: voxels to the right, front and head.
        spacing: mm a voxel along these.
        num_lesions: 0 for a healthy patient, None for 2 to 8 at random in the liver, 1 or rarely 2 in the pancreas, 1
            to 3 in the kidneys.
        scanner: name in ``SCANNERS``.
        lesion_organ: ``liver``, ``pancreas`` or ``kidney``; patients with the same seed differ.
        close: the volume's middle is the organ's, not the body's.

    Raises:
        ValueError: if there is no scanner or no such organ of that name.
    """
    if scanner not in SCANNERS:
        raise ValueError(f"scanner must be one of {sorted(SCANNERS)}, got {scanner!r}.")
    if lesion_organ not in MIDDLE_MM:
        raise ValueError(f"lesion_organ must be one of {sorted(MIDDLE_MM)}, got {lesion_organ!r}.")
    machine = SCANNERS[scanner]
    rng = np.random.default_rng(seed)
    beside_mm = BESIDE_MM[lesion_organ] if close else (0.0, 0.0)
    canvas = Canvas(shape, spacing, rng, background=AIR, middle=(*beside_mm, rng.uniform(*MIDDLE_MM[lesion_organ])))
    organs = np.zeros(canvas.shape, dtype=np.uint8)

    enhancement = 0.0 if rng.uniform() < PLAIN_SHARE[lesion_organ] else machine.iodine * rng.uniform(0.5, 1.0)
    body, cavity, cavity_radii = _torso(canvas, machine)
    aorta_y = _spine_and_blood(canvas, cavity_radii, enhancement)
    beside = _organs_beside_the_liver(canvas, organs, cavity, cavity_radii, aorta_y, enhancement, machine, lesion_organ)
    room = np.maximum(cavity, -beside["kidney_right"])
    if lesion_organ == "pancreas":
        gland = _gland(canvas, beside, aorta_y)
        parenchyma = _paint_gland(canvas, organs, gland, enhancement, machine)
        room = np.maximum.reduce([room, 3 - gland.surface, 0.5 - gland.duodenum])
    liver, fissure, bladder = _liver_shape(canvas, room, cavity_radii, aorta_y)
    tissue = _liver_tissue(canvas, liver, fissure, aorta_y, enhancement)

    # A reader's outline takes in the fissure's rim, and misses the surface by up to half a voxel.
    inside = (liver < rng.uniform(-1.0, 1.0)) & (fissure > rng.uniform(-2.0, 1.0)) & (bladder > rng.uniform(-1.5, 1.5))
    lesions, diseased_tissue = np.zeros_like(organs), tissue
    if lesion_organ == "liver":
        lesions, darker = _lesions(canvas, inside, int(rng.integers(2, 9)) if num_lesions is None else num_lesions)
        diseased_tissue = tissue - darker
    organs[bladder < 0] = ORGANS["gallbladder"]
    organs[inside] = ORGANS["liver"]

    around, disturbance = canvas.image, _noise(canvas, machine, body, aorta_y)
    diseased_around = around
    if lesion_organ == "pancreas":
        canvas.rng = np.random.default_rng((seed, 1))  # so that all else does not depend on the number of tumours
        one_or_two = 1 + int(canvas.rng.uniform() < 0.1)
        count = one_or_two if num_lesions is None else num_lesions
        lesions, growth, tumour = _tumours(canvas, organs, gland, parenchyma, enhancement, count)
        _paint_duct(canvas, gland, lesions)
        around = canvas.image
        diseased_around = around + growth * (tumour - around)
        organs[lesions > 0] = ORGANS["pancreas"]
    if lesion_organ == "kidney":
        canvas.rng = np.random.default_rng((seed, 1))
        count = int(canvas.rng.integers(1, 4)) if num_lesions is None else num_lesions
        kidneys = {name: beside[name] for name in PARTS["kidney"]}
        lesions, growth, tumour = _renal_tumours(canvas, organs, kidneys, enhancement, count)
        diseased_around = around + growth * (tumour - around)

    volumes = []
    for background, content in ((diseased_around, diseased_tissue), (around, tissue)):
        canvas.image = background.copy()
        canvas.paint(canvas.soft(liver), content)
        canvas.paint(canvas.soft(np.maximum(fissure, liver - 2)), 0.85 * machine.fat_hu)
        canvas.paint(canvas.soft(bladder), 8.0)
        volumes.append(np.clip(np.round(canvas.image + disturbance), -1024, 3071).astype(np.int16))

    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [axis[0] for axis in canvas.axes]
    image, healthy = volumes
    return AbdomenCT(image, healthy, organs, lesions, affine)


def _torso(canvas: Canvas, machine: Scanner) -> tuple[Array, Array, tuple[float, float]]:
    """Paint skin, fat, muscle, ribs and the fat between the organs; return body, cavity and the cavity's radii."""
    uniform = canvas.rng.uniform
    canvas.warp(3, 120)
    width, depth, fat_mm, wall_mm = uniform(138, 168), uniform(100, 122), uniform(6, 24), uniform(9, 14)
    body = canvas.cylinder((0, 0), (width, depth), 2.4)
    wall = canvas.cylinder((0, 1), (width - fat_mm, depth - fat_mm), 2.4)
    radii = (width - fat_mm - wall_mm, depth - fat_mm - wall_mm)
    cavity = canvas.cylinder((0, 4), radii, 2.4)
    canvas.paint(canvas.soft(body), machine.fat_hu + uniform(-8, 8))
    canvas.paint(canvas.soft(wall), MUSCLE + uniform(-8, 8) + 4 * canvas.field(12))
    for angle in np.arange(0.25, 2 * np.pi, uniform(0.42, 0.55)):
        centre = ((radii[0] + wall_mm / 2) * np.sin(angle), 3 - (radii[1] + wall_mm / 2) * np.cos(angle))
        rib = canvas.cylinder(centre, (uniform(4, 7), uniform(4, 7)))
        slanted = np.abs(np.mod(canvas.points[2] + 40 * angle + 25 * np.cos(angle), 40) - 20) - uniform(9, 15)
        canvas.paint(canvas.soft(np.maximum(rib, slanted)), uniform(250, 600))
    canvas.paint(canvas.soft(cavity), machine.fat_hu + 10 + 9 * canvas.field(15))
    for _ in range(14):  # bowel: wall, then gas, fluid or stool
        middle = (uniform(-0.8, 0.8) * radii[0], uniform(-0.1, 0.8) * radii[1], uniform(-70, 20))
        loop = np.maximum(canvas.ellipsoid(middle, (uniform(12, 28), uniform(12, 24), uniform(14, 30))), cavity + 2)
        canvas.paint(canvas.soft(loop), uniform(25, 55))
        content = AIR if uniform() < 0.4 else uniform(-5, 60) + 25 * canvas.field(8)
        canvas.paint(canvas.soft(loop + uniform(3, 5)), content)
    return body, cavity, radii


def _spine_and_blood(canvas: Canvas, radii: tuple[float, float], enhancement: float) -> float:
    """Paint vertebra, muscles of the back, aorta and vena cava; return the height of the aorta's centre."""
    uniform = canvas.rng.uniform
    spine_y = 6 - 0.68 * radii[1]
    for side in (-1, 1):
        canvas.paint(canvas.soft(canvas.cylinder((38 * side, spine_y - 20), (30, 24))), MUSCLE + 5 * canvas.field(10))
    canvas.paint(canvas.soft(canvas.cylinder((0, spine_y - 34), (7, 22))), uniform(250, 450))
    vertebra = canvas.cylinder((0, spine_y), (uniform(21, 26), uniform(16, 20)))
    canvas.paint(canvas.soft(vertebra), uniform(350, 550))
    canvas.paint(canvas.soft(vertebra + 4), uniform(130, 260) + 25 * canvas.field(8))
    aorta_y = spine_y + uniform(26, 32)
    for x in (uniform(-14, -5), VENA_CAVA_X):
        vessel = canvas.cylinder((x, aorta_y), (uniform(9, 13), uniform(9, 12)))
        canvas.paint(canvas.soft(vessel), _blood_hu(enhancement))
    return aorta_y


VENA_CAVA_X = 24.0


def _blood_hu(enhancement: float) -> float:
    return 40.0 + 105.0 * enhancement


def _organs_beside_the_liver(
    canvas: Canvas,
    organs: NDArray[np.uint8],
    cavity: Array,
    radii: tuple[float, float],
    aorta_y: float,
    enhancement: float,
    machine: Scanner,
    lesion_organ: str,
) -> dict[str, Array]:
    """Paint and label spleen, kidneys, stomach and, unless it has the lesions, pancreas; paint the bases of the lungs.

    Returns:
        The distances to their surfaces, mm.
    """
    uniform = canvas.rng.uniform
    shapes = {}

    def draw(name: str, shape: Array, hu: Array | float) -> None:
        canvas.paint(canvas.soft(shape), hu)
        organs[shape < 0] = ORGANS[name]
        shapes[name] = shape

    canvas.warp(uniform(3, 6), 70)
    spleen = canvas.ellipsoid(
        (28 - radii[0], aorta_y + 4, uniform(-5, 25)), (uniform(26, 36), uniform(36, 50), uniform(38, 58))
    )
    draw("spleen", np.maximum(spleen, cavity + 3), uniform(44, 54) + 62 * enhancement + 3 * canvas.field(12))
    for name, x in (("kidney_left", -uniform(54, 64)), ("kidney_right", uniform(54, 64))):
        centre = (x, aorta_y - uniform(14, 26), uniform(-66, -42))
        kidney = canvas.ellipsoid(centre, (uniform(24, 29), uniform(25, 31), uniform(46, 56)))
        draw(name, kidney, uniform(28, 36) + 110 * enhancement)
        canvas.paint(canvas.soft(canvas.ellipsoid(centre, (11, 12, 28))), 0.6 * machine.fat_hu + 30 * enhancement)
    forward = 14 if lesion_organ == "pancreas" else 0  # else it would cut into a gland of true thickness
    centre = (-uniform(34, 58), uniform(25, 45) + forward, uniform(-10, 25))
    stomach = np.maximum(canvas.ellipsoid(centre, (uniform(30, 42), uniform(28, 40), uniform(40, 60))), cavity + 4)
    draw("stomach", stomach, uniform(40, 60))
    lumen = stomach + uniform(4, 7)
    canvas.paint(canvas.soft(lumen), uniform(0, 35) + 10 * canvas.field(10))
    canvas.paint(canvas.soft(np.maximum(lumen, centre[1] + uniform(0, 15) - canvas.points[1])), AIR)
    if lesion_organ != "pancreas":
        pancreas = np.full(canvas.shape, np.inf, dtype=np.float32)
        for share in np.linspace(0, 1, 7):
            bead = (40 - 95 * share, aorta_y + 32 - 20 * share + 14 * np.sin(3 * share), -42 + 32 * share)
            pancreas = np.minimum(pancreas, canvas.ellipsoid(bead, (14, 11 - 3 * share, 12)))
        draw("pancreas", pancreas, uniform(26, 42) + 52 * enhancement + 7 * canvas.field(9))

    floor = uniform(30, 65) + 0.6 * (canvas.points[1] - aorta_y) - 0.18 * np.abs(canvas.points[0])
    lung = np.maximum(cavity + 1, floor - canvas.points[2])
    canvas.paint(canvas.soft(lung), LUNG)
    organs[lung < 0] = 0
    shapes["lung"] = lung
    return shapes


def _liver_shape(canvas: Canvas, room: Array, radii: tuple[float, float], aorta_y: float) -> tuple[Array, Array, Array]:
    """Return the distances to the liver, which fills ``room`` at most, to its fissure's fat, and to the gallbladder."""
    uniform = canvas.rng.uniform
    canvas.warp(uniform(4, 7), 60)
    right = canvas.ellipsoid(
        (radii[0] - uniform(58, 66), uniform(-10, 8), 0), (uniform(58, 72), uniform(62, 80), uniform(70, 90))
    )
    left = canvas.ellipsoid(
        (uniform(8, 26), uniform(32, 46), uniform(8, 26)), (uniform(50, 66), uniform(24, 36), uniform(34, 50))
    )
    hilum = canvas.ellipsoid(
        (uniform(16, 30), aorta_y + uniform(14, 26), uniform(-40, -24)),
        (uniform(28, 38), uniform(20, 28), uniform(26, 38)),
    )
    cava = canvas.cylinder((VENA_CAVA_X, aorta_y), (14, 14))
    spine = canvas.cylinder((0, aorta_y - 24), (uniform(34, 44), uniform(36, 46)))
    liver = np.maximum.reduce([np.minimum(right, left), -hilum, -cava, -spine, room + uniform(1, 4)])
    x = uniform(22, 40)
    fissure = np.maximum.reduce(
        [
            np.abs(canvas.points[0] - x - 0.25 * canvas.points[1]) - uniform(1.0, 4.5),
            uniform(12, 32) - canvas.points[1],
            canvas.points[2] - uniform(-5, 30),
        ]
    )
    bladder = canvas.ellipsoid(
        (x + uniform(16, 30), uniform(8, 26), uniform(-46, -24)), (uniform(11, 17), uniform(14, 22), uniform(18, 30))
    )
    return liver, fissure, bladder


def _liver_tissue(canvas: Canvas, liver: Array, fissure: Array, aorta_y: float, enhancement: float) -> Array:
    """Return the HU within the liver of a patient without lesions: what is normal, and what is benign."""
    uniform = canvas.rng.uniform
    steatosis = uniform(10, 35) if uniform() < 0.25 else 0.0
    tissue = uniform(50, 62) + 52 * enhancement - steatosis + np.zeros(canvas.shape, dtype=np.float32)
    tissue += uniform(3, 8) * canvas.field(70) + uniform(1, 3) * canvas.field(9)
    tissue += uniform(-0.08, 0.08) * canvas.points[0]
    tissue += 0.8 * steatosis * np.clip(canvas.field(40) - 1, 0, 1)  # spared areas
    if uniform() < 0.2:  # fat gathers beside the fissure
        beside = gaussian_filter((np.abs(fissure - 4) < 7).astype(np.float32), 1)
        tissue -= uniform(12, 28) * beside * (canvas.field(30) > 0)
    vessels = _liver_vessels(canvas, aorta_y) * canvas.soft(liver + 2)
    tissue += vessels * (_blood_hu(enhancement) - tissue)
    if uniform() < 0.25:
        for _ in range(canvas.rng.integers(1, 4)):  # cysts
            radius = uniform(2.5, 8)
            cyst = canvas.ellipsoid(_random_point(canvas, liver < -radius), radius * canvas.rng.uniform(0.85, 1.2, 3))
            tissue += canvas.soft(cyst) * (uniform(0, 15) - tissue)
    if uniform() < 0.08:  # gas in the bile ducts
        gas = np.zeros(canvas.shape, dtype=np.float32)
        for _ in range(canvas.rng.integers(3, 8)):
            start = np.asarray(_random_point(canvas, (liver < -12) & (canvas.points[1] > aorta_y + 30)))
            canvas.add_tube(gas, start, start + canvas.rng.normal(0, 7, 3), 1.5, 0.8)
        tissue += gas * (uniform(-300, -120) - tissue)
    return tissue


def _liver_vessels(canvas: Canvas, aorta_y: float) -> Array:
    """Return the share of vessel in each voxel: three hepatic veins and the portal vein's branches."""
    rng = canvas.rng
    share = np.zeros(canvas.shape, dtype=np.float32)

    def grow(start: Array, direction: Array, radius: float, length: float, generation: int) -> None:
        direction = direction / np.linalg.norm(direction)
        end = start + length * direction
        canvas.add_tube(share, start, end, radius, 0.8 * radius)
        if generation == 0 or radius < 1.0:
            return
        for _ in range(2 if rng.uniform() < 0.8 else 3):
            turned = direction + rng.normal(0, 0.45, 3)
            grow(end, turned, radius * rng.uniform(0.6, 0.85), length * rng.uniform(0.65, 0.95), generation - 1)

    inflow = np.array([VENA_CAVA_X, aorta_y + 6, rng.uniform(30, 50)])
    for direction in ([1.0, 0.1, -0.5], [0.5, 1.0, -0.4], [-0.5, 1.0, -0.2]):
        grow(inflow, np.asarray(direction) + rng.normal(0, 0.15, 3), rng.uniform(3.5, 6), rng.uniform(26, 36), 3)
    porta = np.array([rng.uniform(20, 32), aorta_y + rng.uniform(26, 36), rng.uniform(-22, -4)])
    for direction in ([1.0, 0.1, 0.2], [0.9, -0.5, -0.3], [-0.3, 1.0, 0.5]):
        grow(porta, np.asarray(direction) + rng.normal(0, 0.2, 3), rng.uniform(3.5, 6), rng.uniform(20, 32), 3)
    return share


def _random_point(canvas: Canvas, where: NDArray[np.bool_]) -> Array:
    """Return the (bent) coordinates of a random voxel, of the middle one if there is none to choose from."""
    found = np.argwhere(where)
    index = found[canvas.rng.integers(len(found))] if len(found) else np.asarray(canvas.shape) // 2
    return canvas.points[(slice(None), *index)]


def _lesions(canvas: Canvas, inside: NDArray[np.bool_], count: int) -> tuple[NDArray[np.uint8], Array]:
    """Return the labels of lesions in the liver, and by how many HU they darken it."""
    rng = canvas.rng
    labels, darker = np.zeros(canvas.shape, dtype=np.uint8), np.zeros(canvas.shape, dtype=np.float32)
    deep = binary_erosion(inside, iterations=1)
    for number in range(1, count + 1):
        radius = 2 * 10 ** (rng.uniform() ** 1.4)  # 2 to 20 mm, small ones are more frequent
        contrast, edge_mm = np.full(canvas.shape, rng.uniform(15, 60)), rng.uniform(0.5, 2.5)
        radii = radius * rng.uniform(0.8, 1.25, 3)
        shape = canvas.ellipsoid(_random_point(canvas, deep), radii) + 0.15 * radius * canvas.field(max(radius, 6.0))
        share = gaussian_filter(canvas.soft(shape), [edge_mm / s for s in canvas.spacing])
        if rng.uniform() < 0.25:  # a core with less blood
            contrast *= 1 + 0.4 * canvas.soft(shape + 0.5 * radius)
        darker = np.maximum(darker, share * np.minimum(contrast, 60))
        labels[(shape < 0) & inside] = number
    return labels, darker


@dataclass(frozen=True)
class Gland:
    """A pancreas in detail, with what runs through and beside it; distances in mm, negative inside.

    Attributes:
        surface: distance to the outline, lobules included.
        axis: bent coordinates of points from the lower head to the tail's tip, shape (7, 3).
        duodenum: distance to its outer wall.
        vessels: share of each voxel that is vein or artery.
        bile_duct: share of each voxel that is common bile duct.
    """

    surface: Array
    axis: Array
    duodenum: Array
    vessels: Array
    bile_duct: Array


def _gland(canvas: Canvas, beside: dict[str, Array], aorta_y: float) -> Gland:
    """Return where pancreas, duodenum, bile duct and the vessels around them lie."""
    uniform = canvas.rng.uniform
    head = np.array([uniform(24, 34), aorta_y + uniform(24, 32), uniform(-50, -38)])
    rise = uniform(14, 32)
    tail_x, tail_y = uniform(-88, -72), aorta_y + uniform(0, 12)
    axis = np.array(
        [
            head - (3, 3, 16),
            head,
            (9, head[1] + 10, head[2] + 0.4 * rise),
            (-14, aorta_y + uniform(33, 39), head[2] + 0.55 * rise),
            (-40, aorta_y + uniform(22, 30), head[2] + 0.7 * rise),
            (0.75 * tail_x, tail_y + 5, head[2] + 0.85 * rise),
            (tail_x, tail_y, head[2] + rise),
        ]
    )
    stout = uniform(0.95, 1.25)
    uncinate = np.array([axis[0], (5, aorta_y + 16, head[2] - 18)])
    surface = np.minimum(
        _strand(canvas, axis, stout * np.array([13, 16, 9.5, 11, 11, 10, 7]), stretch=1.5),
        _strand(canvas, uncinate, (9, 5), stretch=1.5),
    )
    surface += uniform(0.4, 1.4) * canvas.field(9)

    loop = head + np.array([(-10, 28, 26), (24, 12, 18), (26, 2, -4), (24, -2, -24)]) + (0, 0, uniform(-4, 4))
    below_head = np.array([(head[0] + 2, aorta_y + 14, head[2] - 38), (-26, aorta_y + 24, head[2] - 40)])
    duodenum = _strand(canvas, np.concatenate([loop, below_head]), np.full(6, uniform(9, 12.5)))

    obstacles = [1 - beside[name] for name in ("spleen", "kidney_left", "kidney_right", "stomach", "lung")]
    obstacles += [-canvas.cylinder((x, aorta_y), (13, 13)) for x in (-9, VENA_CAVA_X)]
    duodenum = np.maximum.reduce([duodenum, *obstacles])
    surface = np.maximum.reduce([surface, 1 - duodenum, *obstacles])

    vessels, bile_duct = (np.zeros(canvas.shape, dtype=np.float32) for _ in range(2))
    confluence = np.array([uniform(5, 11), aorta_y + uniform(25, 29), head[2] + 0.3 * rise])
    spleen_vein = np.array([confluence, *(axis[3:] - (0, 11, 0))])
    trunk = confluence + np.array([(0, 0, -90), (0, 0, 0), (14, 5, 24)])
    artery = [(-6, aorta_y + 19, -120), (-6, aorta_y + 19, head[2] + 10), (-9, aorta_y, head[2] + 24)]
    bile = head + np.array([(4, 12, 30), (7, -5, 8), (10, -5, -14)])
    for share, line, radius in (
        (vessels, trunk, uniform(5, 7)),
        (vessels, spleen_vein, uniform(3, 4.5)),
        (vessels, np.array(artery), uniform(3, 4)),
        (bile_duct, bile, uniform(2, 4)),
    ):
        for start, end in pairwise(line):
            canvas.add_tube(share, start, end, radius, radius)
    return Gland(surface, axis, duodenum, vessels, bile_duct)


def _strand(canvas: Canvas, line: Array, radii: Sequence[float] | Array, stretch: float = 1.0) -> Array:
    """Return the distance to a bent, tapered strand, whose cross-section is longer along the patient by ``stretch``."""
    scale = np.array([1, 1, 1 / stretch], dtype=np.float32)
    points = canvas.points * scale[:, None, None, None]
    nearest = np.full(canvas.shape, np.inf, dtype=np.float32)
    for (start, end), (first, last) in zip(pairwise(line * scale), pairwise(radii), strict=True):
        step = (end - start).astype(np.float32)
        offset = points - start.astype(np.float32)[:, None, None, None]
        along = np.clip(np.tensordot(step, offset, 1) / (step @ step), 0, 1)
        gap = np.sqrt(((offset - along * step[:, None, None, None]) ** 2).sum(0))
        nearest = np.minimum(nearest, gap - (first + along * (last - first)))
    return nearest


def _paint_gland(
    canvas: Canvas, organs: NDArray[np.uint8], gland: Gland, enhancement: float, machine: Scanner
) -> Array:
    """Paint and label a pancreas without tumours, and paint its neighbours; return the HU of its tissue."""
    uniform = canvas.rng.uniform
    fat = machine.fat_hu + 10 + 9 * canvas.field(15)
    canvas.paint(canvas.soft(np.minimum(gland.surface, gland.duodenum) - uniform(3, 8)), fat)
    canvas.paint(canvas.soft(gland.duodenum), uniform(30, 50) + 30 * enhancement)
    content = uniform(0, 30) + 12 * canvas.field(10)
    content = np.where(canvas.field(25) > uniform(0.3, 2.5), AIR, content)
    canvas.paint(canvas.soft(gland.duodenum + uniform(2.5, 4)), content)

    parenchyma = uniform(30, 44) + 52 * enhancement + uniform(2, 5) * canvas.field(8)
    canvas.paint(canvas.soft(gland.surface), parenchyma)
    cleft = 5 * np.abs(canvas.field(11)) - uniform(-1.5, 0.8) * np.clip(1 + gland.surface / 6, 0, 1)
    canvas.paint(canvas.soft(np.maximum(cleft, gland.surface)), fat)
    canvas.paint(gland.vessels, _blood_hu(enhancement))
    canvas.paint(gland.bile_duct, 8.0)
    outline = (gland.surface < uniform(-3.2, -1.8)) & (gland.vessels < 0.5)
    organs[outline] = ORGANS["pancreas"]
    return parenchyma


def _tumours(
    canvas: Canvas, organs: NDArray[np.uint8], gland: Gland, parenchyma: Array, enhancement: float, count: int
) -> tuple[NDArray[np.uint8], Array, Array]:
    """Return the labels of tumours in the pancreas, their share of each voxel, and their HU."""
    rng, uniform = canvas.rng, canvas.rng.uniform
    labels, growth = np.zeros_like(organs), np.zeros(canvas.shape, dtype=np.float32)
    tissue = organs == ORGANS["pancreas"]
    passable = (tissue | (organs == 0)) & (gland.duodenum > 0) & (gland.vessels < 0.5)
    hu = np.zeros(canvas.shape, dtype=np.float32)
    for number in range(1, count + 1):
        radius = 6.5 + 13.5 * uniform() ** 1.2
        free = tissue & (labels == 0) & (canvas.points[2] > gland.axis[1, 2] - 10)
        part = free & ((canvas.points[0] > 8) == (uniform() < 0.75))
        part = part if part.any() else free
        deep = gland.surface <= np.quantile(gland.surface[part], 0.35) if part.any() else part
        centre = _random_point(canvas, part & deep)
        shape = canvas.ellipsoid(centre, radius * rng.uniform(0.85, 1.2, 3)) + 0.15 * radius * canvas.field(radius + 2)
        shape = np.maximum(shape, gland.surface - uniform(0, 1.5) - 0.1 * radius)
        edge_mm = uniform(0.8, 3.0)
        share = gaussian_filter(canvas.soft(shape), [edge_mm / s for s in canvas.spacing]) * (1 - gland.vessels)
        contrast = min(uniform(11, 24) + enhancement * uniform(20, 40), 45)
        hu = np.where(share > growth, parenchyma.mean() - contrast + 2 * canvas.field(9), hu)
        growth = np.maximum(growth, share * (gland.duodenum > -1))
        labels[(shape < 0) & passable & (labels == 0)] = number
    return labels, growth, hu


def _paint_duct(canvas: Canvas, gland: Gland, lesions: NDArray[np.uint8]) -> None:
    """Paint a dilated duct in some patients, from the tumour, if there is one, to the tail."""
    uniform = canvas.rng.uniform
    dilated, radius = uniform() < (0.5 if lesions.any() else 0.12), uniform(1.6, 3.2)
    start_x = canvas.points[0][lesions > 0].min() if lesions.any() else gland.axis[1, 0]
    share = np.zeros(canvas.shape, dtype=np.float32)
    for start, end in pairwise(gland.axis[1:]):
        canvas.add_tube(share, start, end, radius, 0.9 * radius)
    share *= (canvas.points[0] < start_x) * canvas.soft(gland.surface + 1) * dilated
    canvas.paint(share, 8.0)


def _renal_tumours(
    canvas: Canvas, organs: NDArray[np.uint8], kidneys: dict[str, Array], enhancement: float, count: int
) -> tuple[NDArray[np.uint8], Array, Array]:
    """Return the labels of tumours in the kidneys, which then hold them, their share of each voxel, and their HU."""
    rng, uniform = canvas.rng, canvas.rng.uniform
    labels, growth = np.zeros_like(organs), np.zeros(canvas.shape, dtype=np.float32)
    hu = np.zeros(canvas.shape, dtype=np.float32)
    for number in range(1, count + 1):
        radius = 4 * 10 ** (0.7 * uniform() ** 1.3)  # 4 to 20 mm, small ones are more frequent
        name = sorted(kidneys)[rng.integers(len(kidneys))]
        surface = kidneys[name]
        shell = (surface < -2) & (surface > -12) & (organs == ORGANS[name])
        centre = _random_point(canvas, shell if shell.any() else organs == ORGANS[name])
        shape = canvas.ellipsoid(centre, radius * rng.uniform(0.85, 1.2, 3)) + 0.12 * radius * canvas.field(radius + 3)
        shape = np.maximum(shape, surface - uniform(0, 0.35) * radius)  # it bulges
        passable = (organs == ORGANS[name]) | (organs == 0)
        edge_mm = uniform(0.5, 1.5)
        share = gaussian_filter(canvas.soft(shape), [edge_mm / s for s in canvas.spacing]) * passable
        core = uniform(0.3, 0.6) if uniform() < 0.5 else 0.0
        solid = uniform(28, 40) + enhancement * uniform(25, 80) + uniform(3, 8) * canvas.field(7)
        dead = core * canvas.soft(shape + 0.45 * radius)
        hu = np.where(share > growth, solid + dead * (uniform(8, 20) - solid), hu)
        growth = np.maximum(growth, share)
        mine = (shape < 0) & passable & (labels == 0)
        labels[mine], organs[mine] = number, ORGANS[name]
    return labels, growth, hu


def _noise(canvas: Canvas, machine: Scanner, body: Array, aorta_y: float) -> Array:
    """Return noise with the grain of a reconstruction kernel, streaks, and dark bands behind dense bone."""
    rng, uniform = canvas.rng, canvas.rng.uniform
    grain = [uniform(*machine.grain_mm) / s for s in canvas.spacing[:2]]
    white = rng.standard_normal(canvas.shape).astype(np.float32)
    noise = gaussian_filter(white, [*grain, 0]) - 0.5 * gaussian_filter(white, [4 * g + 0.5 for g in grain] + [0])
    middle = np.exp(-((canvas.points[0] / 110) ** 2) - (canvas.points[1] / 80) ** 2)
    noise *= uniform(*machine.noise_hu) / noise.std() * (0.85 + 0.3 * middle)
    streaks = gaussian_filter(rng.standard_normal(canvas.shape).astype(np.float32), [25 / canvas.spacing[0], 0.4, 0])
    noise += uniform(1, 4) * streaks / streaks.std()
    if uniform() < machine.hardening:
        for _ in range(rng.integers(1, 4)):
            height, width = aorta_y + uniform(-15, 45), uniform(6, 14)
            band = np.exp(-0.5 * ((canvas.points[1] - height) / width) ** 2)
            noise -= uniform(8, 22) * band * np.clip(0.7 + 0.5 * canvas.field(60), 0, 1.5)
    noise += uniform(-0.05, 0.05) * canvas.points[0] + uniform(-0.05, 0.05) * canvas.points[1]
    return noise * canvas.soft(body)
