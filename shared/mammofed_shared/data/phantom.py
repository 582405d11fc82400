"""Phantom exams: four synthetic mammograms of a patient with known findings. No clinical evidence.

A breast is a half ellipse with its chest wall at the edge of the image; MLO views carry the pectoral muscle;
fibroglandular tissue is band-limited noise, stronger from density A to D. Masses and calcification clusters
are drawn independently of each other and of density, each in one breast, at the same depth in CC and MLO; so are
asymmetries where a hospital has them. All lengths below are in pixels of an image of 760 rows and scale with it.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from mammofed_shared.data.phantom_asymmetry import draw_asymmetry
from mammofed_shared.exam import Laterality, View
from mammofed_shared.report.grammar import StructuredFinding

FindingKind: TypeAlias = Literal["mass", "calcification", "asymmetry"]
Box: TypeAlias = tuple[int, int, int, int]
"""Top, left, height, width in pixels of the image as given."""

SUBTYPES: dict[FindingKind, tuple[str, ...]] = {
    "mass": ("spiculated", "circumscribed", "obscured"),
    "calcification": ("pleomorphic", "amorphous"),
    "asymmetry": ("focal", "global"),
}
POSITIONS = ("upper", "lower")
DEPTHS = ("anterior", "middle", "posterior")

_REFERENCE_HEIGHT = 760
_DEPTH_RANGE = {"posterior": (0.25, 0.38), "middle": (0.42, 0.58), "anterior": (0.62, 0.74)}
"""Distance from the chest wall as a fraction of the breast's length."""
_TISSUE = {"A": 0.03, "B": 0.07, "C": 0.11, "D": 0.15}
"""Standard deviation of the fibroglandular noise by density."""
_DIAMETER: dict[str, tuple[float, float]] = {"focal": (110.0, 170.0), "global": (200.0, 280.0)}
"""Least and most of an asymmetry by subtype, in pixels of the reference height."""
_ASYMMETRY_STREAM = 1001
"""Keeps the random numbers of asymmetries apart from all others of a patient."""
_FAT = 0.30
_MUSCLE = 0.22


@dataclass(frozen=True)
class Population:
    """What sets one hospital's patients and machines apart.

    ``mass_prevalence``, ``calcification_prevalence`` and ``asymmetry_prevalence`` are probabilities per patient; where
    the last is 0, no report speaks of asymmetries. ``density`` weighs A, B, C and D; ``contrast_gamma`` is the
    exponent of the vendor's tone curve; ``noise`` the deviation of its grain in units of full scale.
    """

    mass_prevalence: float
    calcification_prevalence: float
    density: tuple[float, float, float, float] = (0.1, 0.4, 0.4, 0.1)
    contrast_gamma: float = 1.0
    noise: float = 0.01
    asymmetry_prevalence: float = 0.0

    @property
    def kinds(self) -> tuple[FindingKind, ...]:
        """Kinds of findings that this hospital's radiologists look for."""
        return tuple(kind for kind in SUBTYPES if kind != "asymmetry" or self.asymmetry_prevalence > 0)


@dataclass(frozen=True)
class PhantomFinding:
    """One finding and where it is in each view of its breast."""

    kind: FindingKind
    laterality: Laterality
    boxes: dict[View, Box]
    subtype: str
    position: str
    depth: str


@dataclass(frozen=True)
class PhantomExam:
    """One screening exam. Images are 0..1, chest wall left for a left breast and right for a right one.

    ``kinds`` are those of ``Population.kinds``: what was looked for.
    """

    patient: int
    number: int
    age: int
    density: str
    findings: tuple[PhantomFinding, ...]
    images: dict[tuple[Laterality, View], NDArray[np.float32]]
    birads: int
    kinds: tuple[FindingKind, ...]

    def has(self, kind: FindingKind) -> bool:
        """Whether the exam shows a finding of this kind."""
        return any(finding.kind == kind for finding in self.findings)

    def structured(self) -> list[StructuredFinding]:
        """What a radiologist would record: each finding that is there, and of each other kind that it is not."""
        recorded: list[StructuredFinding] = []
        for kind in self.kinds:
            here = [finding for finding in self.findings if finding.kind == kind]
            recorded += [
                StructuredFinding(kind, True, found.subtype, str(found.laterality), found.position, found.depth)
                for found in here
            ] or [StructuredFinding(kind, False)]
        return recorded


@dataclass(frozen=True)
class _Breast:
    """Half ellipse of one view: centre row, half height and length from the chest wall, in pixels."""

    centre: float
    half_height: float
    length: float
    muscle: tuple[float, float] | None
    """Width at the top and length down the chest wall of the pectoral muscle; None in CC."""


@dataclass(frozen=True)
class _Plan:
    """A finding before it is drawn; the same in every exam of the patient."""

    kind: FindingKind
    laterality: Laterality
    subtype: str
    position: str
    depth: str
    depth_fraction: float
    size: float
    """Diameter in pixels of the reference height."""
    seed: int


def phantom_exam(
    seed: int, patient: int, population: Population, *, number: int = 0, shape: tuple[int, int] = (760, 456)
) -> PhantomExam:
    """Make one exam; equal arguments give equal exams.

    Density, age, size of the breasts and findings belong to the patient and are the same in all her exams;
    grain, tissue texture and positioning are new in each.

    Args:
        seed: of the whole population.
        patient: number of the patient.
        population: what is typical for this hospital.
        number: of the patient's exam, one a year.
        shape: (height, width) of the images.
    """
    of_patient = np.random.default_rng([seed, patient])
    of_exam = np.random.default_rng([seed, patient, number + 1])
    density = "ABCD"[int(of_patient.choice(4, p=np.array(population.density) / sum(population.density)))]
    age = int(of_patient.integers(40, 75)) + number
    size = float(of_patient.uniform(0.9, 1.1))
    plans = _draw_findings(of_patient, population)
    plans += _draw_asymmetries(np.random.default_rng([seed, patient, _ASYMMETRY_STREAM]), population)
    images: dict[tuple[Laterality, View], NDArray[np.float32]] = {}
    boxes: list[dict[View, Box]] = [{} for _ in plans]
    for laterality in Laterality:
        for view in View:
            breast = _draw_breast(of_exam, view, size, shape)
            image = _tissue(of_exam, breast, density, shape)
            _draw_single_specks(of_exam, image, breast)
            for plan, found in zip(plans, boxes, strict=True):
                if plan.laterality is laterality:
                    box = _draw_finding(image, plan, breast, view, shape)
                    found[view] = _mirror(box, shape[1]) if laterality is Laterality.R else box
            image = _expose(of_exam, image, breast, population, shape)
            images[laterality, view] = np.ascontiguousarray(image[:, ::-1]) if laterality is Laterality.R else image
    findings = tuple(
        PhantomFinding(plan.kind, plan.laterality, found, plan.subtype, plan.position, plan.depth)
        for plan, found in zip(plans, boxes, strict=True)
    )
    return PhantomExam(
        patient, number, age, density, findings, images, birads=0 if findings else 1, kinds=population.kinds
    )


def _draw_findings(random: np.random.Generator, population: Population) -> list[_Plan]:
    plans: list[_Plan] = []
    prevalences: tuple[tuple[FindingKind, float], ...] = (
        ("mass", population.mass_prevalence),
        ("calcification", population.calcification_prevalence),
    )
    for kind, prevalence in prevalences:
        present = bool(random.random() < prevalence)
        # Drawn whether present or not, so that one finding never moves the random numbers of the next.
        plan = _draw_plan(random, kind)
        if present:
            plans.append(plan)
    return plans


def _draw_asymmetries(random: np.random.Generator, population: Population) -> list[_Plan]:
    if random.random() >= population.asymmetry_prevalence:
        return []
    plan = _draw_plan(random, "asymmetry")
    return [replace(plan, size=float(random.uniform(*_DIAMETER[plan.subtype])))]


def _draw_plan(random: np.random.Generator, kind: FindingKind) -> _Plan:
    depth = str(random.choice(DEPTHS))
    return _Plan(
        kind=kind,
        laterality=Laterality(str(random.choice(["L", "R"]))),
        subtype=str(random.choice(SUBTYPES[kind])),
        position=str(random.choice(POSITIONS)),
        depth=depth,
        depth_fraction=float(random.uniform(*_DEPTH_RANGE[depth])),
        size=float(random.uniform(80, 160)),
        seed=int(random.integers(2**31)),
    )


def _draw_breast(random: np.random.Generator, view: View, size: float, shape: tuple[int, int]) -> _Breast:
    height, width = shape
    jitter = random.uniform(-1, 1, 4)
    if view is View.CC:
        return _Breast(
            centre=height * (0.5 + 0.02 * jitter[0]),
            half_height=height * (0.40 + 0.02 * jitter[1]) * size,
            length=width * (0.80 + 0.04 * jitter[2]) * size,
            muscle=None,
        )
    return _Breast(
        centre=height * (0.55 + 0.02 * jitter[0]),
        half_height=height * (0.40 + 0.02 * jitter[1]) * size,
        length=width * (0.78 + 0.04 * jitter[2]) * size,
        muscle=(width * (0.36 + 0.04 * jitter[3]), height * (0.52 + 0.05 * jitter[3])),
    )


def _tissue(random: np.random.Generator, breast: _Breast, density: str, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Fat and fibroglandular tissue before exposure; (height, width), not yet cut to the silhouette."""
    unit = shape[0] / _REFERENCE_HEIGHT
    coarse_shape = _coarse(shape)
    texture = np.zeros(coarse_shape, np.float32)
    for grain, weight in ((140.0, 0.5), (48.0, 0.65), (18.0, 0.55)):
        seeds = random.standard_normal(
            (int(shape[0] / unit / grain) + 3, int(shape[1] / unit / grain) + 3), dtype=np.float32
        )
        texture += weight * cv2.resize(seeds, coarse_shape[::-1], interpolation=cv2.INTER_CUBIC)
    amplitude = _TISSUE[density]
    glandular = np.exp(-0.5 * (_radius(breast, shape, shift=0.35) / 0.6) ** 2)
    return _enlarge(_FAT + glandular * amplitude * (texture + 1.2), shape)


def _radius(breast: _Breast, shape: tuple[int, int], shift: float = 0.0) -> NDArray[np.float32]:
    """Distance from the centre of the ellipse in units of its axes, coarse grid; 1 is the skin."""
    height, width = _coarse(shape)
    rows = ((np.arange(height, dtype=np.float32) + 0.5) * (shape[0] / height) - breast.centre) / breast.half_height
    columns = (np.arange(width, dtype=np.float32) + 0.5) * (shape[1] / width) / breast.length - shift
    return np.sqrt(rows[:, None] ** 2 + columns[None, :] ** 2)


def _coarse(shape: tuple[int, int]) -> tuple[int, int]:
    """The grid on which smooth things are computed; at full size an exam takes twice as long."""
    return max(shape[0] // 4, 8), max(shape[1] // 4, 8)


def _enlarge(coarse: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _draw_finding(image: NDArray[np.float32], plan: _Plan, breast: _Breast, view: View, shape: tuple[int, int]) -> Box:
    """Add one finding to the image and give its box, both with the chest wall left."""
    random = np.random.default_rng([plan.seed, 0 if view is View.CC else 1])
    radius = 0.5 * plan.size * shape[0] / _REFERENCE_HEIGHT
    # Upper and lower are told apart in MLO; the rows of a CC view run from lateral to medial.
    side = random.choice([-1.0, 1.0]) if view is View.CC else (-1.0 if plan.position == "upper" else 1.0)
    reach = breast.half_height * np.sqrt(1 - plan.depth_fraction**2)
    row = float(breast.centre + side * random.uniform(0.12, 0.45) * reach)
    column = max(plan.depth_fraction * breast.length, radius)
    top, left = max(int(row - radius), 0), max(int(column - radius), 0)
    bottom, right = min(int(row + radius) + 1, shape[0]), min(int(column + radius) + 1, shape[1])
    if plan.kind == "mass":
        _draw_mass(image, random, plan.subtype, row, column, radius)
    elif plan.kind == "asymmetry":
        draw_asymmetry(image, random, plan.subtype, row, column, radius)
    else:
        _draw_cluster(image, random, plan.subtype, row, column, radius)
    return top, left, bottom - top, right - left


def _draw_mass(
    image: NDArray[np.float32],
    random: np.random.Generator,
    subtype: str,
    row: float,
    column: float,
    radius: float,
) -> None:
    """Add a bright lobulated disc with a margin by subtype."""
    extent = int(1.25 * radius) + 2
    top, left = max(int(row) - extent, 0), max(int(column) - extent, 0)
    patch = image[top : int(row) + extent, left : int(column) + extent]
    y, x = np.mgrid[0 : patch.shape[0], 0 : patch.shape[1]].astype(np.float32)
    y, x = y + (top - row), x + (left - column)
    angle = np.arctan2(y, x)
    phase = random.uniform(0, 2 * np.pi, 2)
    outline = 0.88 + 0.07 * np.sin(3 * angle + phase[0])
    if subtype == "spiculated":
        outline = outline + 0.10 * np.sin(14 * angle + phase[1])
    softness = {"circumscribed": 0.05, "spiculated": 0.07, "obscured": 0.16}[subtype]
    contrast = {"circumscribed": 0.46, "spiculated": 0.48, "obscured": 0.42}[subtype]
    distance = np.sqrt(y**2 + x**2) / radius
    patch += (contrast / (1 + np.exp(np.clip((distance - outline) / softness, -30, 30)))).astype(np.float32)


def _draw_cluster(
    image: NDArray[np.float32],
    random: np.random.Generator,
    subtype: str,
    row: float,
    column: float,
    radius: float,
) -> None:
    """Add bright specks: pleomorphic ones differ in size and shape, amorphous ones are small and faint."""
    unit = image.shape[0] / _REFERENCE_HEIGHT
    pleomorphic = subtype == "pleomorphic"
    specks = np.zeros_like(image)
    for _ in range(int(random.integers(22, 40))):
        distance, angle = 0.9 * radius * np.sqrt(random.random()), random.uniform(0, 2 * np.pi)
        centre = (int(column + distance * np.cos(angle)), int(row + distance * np.sin(angle)))
        long = random.uniform(2.2, 4.2) if pleomorphic else random.uniform(2.0, 2.8)
        short = long * (random.uniform(0.5, 1.0) if pleomorphic else 1.0)
        axes = (max(round(long * unit), 1), max(round(short * unit), 1))
        value = float(random.uniform(0.45, 0.6) if pleomorphic else random.uniform(0.38, 0.48))
        cv2.ellipse(specks, centre, axes, float(random.uniform(0, 180)), 0, 360, value, thickness=-1)
    image += cv2.GaussianBlur(specks, (0, 0), 0.6 * unit)


def _draw_single_specks(random: np.random.Generator, image: NDArray[np.float32], breast: _Breast) -> None:
    """Add up to five lone bright specks, as of skin and vessels, which no report mentions.

    Without them the brightest point of an image would tell calcification from none, and nothing would be learned.
    """
    unit = image.shape[0] / _REFERENCE_HEIGHT
    for _ in range(int(random.integers(0, 6))):
        depth, side = random.uniform(0.05, 0.85), random.uniform(-0.85, 0.85)
        row = int(breast.centre + side * breast.half_height * np.sqrt(1 - depth**2))
        centre = (int(depth * breast.length), row)
        value = float(random.uniform(0.38, 0.6))
        extent = math.ceil(8 * unit)
        top, left = max(centre[1] - extent, 0), max(centre[0] - extent, 0)
        patch = image[top : centre[1] + extent, left : centre[0] + extent]
        speck = np.zeros_like(patch)
        radius = max(round(random.uniform(2.0, 4.2) * unit), 1)
        cv2.circle(speck, (centre[0] - left, centre[1] - top), radius, value, thickness=-1)
        patch += cv2.GaussianBlur(speck, (0, 0), 0.6 * unit)


def _expose(
    random: np.random.Generator,
    tissue: NDArray[np.float32],
    breast: _Breast,
    population: Population,
    shape: tuple[int, int],
) -> NDArray[np.float32]:
    """Cut to the silhouette, add muscle, tone curve and grain; (height, width) in 0..1, 0 outside."""
    image = tissue * _enlarge(np.sqrt(np.clip((1 - _radius(breast, shape)) / 0.12, 0, 1)), shape)
    if breast.muscle is not None:
        muscle = _enlarge(_muscle(breast.muscle, shape), shape)
        image = np.maximum(image, _FAT * muscle) + _MUSCLE * muscle
    image = np.asarray(cv2.pow(np.clip(image, 0, 1), population.contrast_gamma), np.float32)
    grain = random.standard_normal(shape, dtype=np.float32)
    grain *= np.float32(population.noise)
    grain *= image > 0.02
    image += grain
    return np.asarray(np.clip(image, 0, 1, out=image), np.float32)


def _muscle(extent: tuple[float, float], shape: tuple[int, int]) -> NDArray[np.float32]:
    """The pectoral muscle as a mask with a soft edge, on the coarse grid."""
    coarse = np.zeros(_coarse(shape), np.float32)
    across, down = extent[0] * coarse.shape[1] / shape[1], extent[1] * coarse.shape[0] / shape[0]
    cv2.fillConvexPoly(coarse, np.array([[0, 0], [int(across), 0], [0, int(down)]], np.int32), 1.0)
    return np.asarray(cv2.GaussianBlur(coarse, (0, 0), 1.0), np.float32)


def _mirror(box: Box, width: int) -> Box:
    top, left, box_height, box_width = box
    return top, width - left - box_width, box_height, box_width
