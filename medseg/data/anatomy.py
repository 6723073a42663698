"""Where the organs of the phantoms lie, how they are shaped, and how bright each tissue is.

Coordinates are mm from the middle of the body: x to the patient's right, y anterior, z superior.
The sizes are those of a small child's upper abdomen, so that a grid of 96 x 96 x 40 voxels holds
all of it at a clinical spacing.
"""

from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from medseg.core.labels import CodedTerm, Label, LabelSet

Field = NDArray[np.float32]
Point = tuple[float, float, float]

_TUBE = float("inf")
_TINY = np.float32(1e-6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tissue:
    """How bright a tissue is.

    Attributes:
        hu: mean over patients in CT (portal venous phase), Hounsfield units.
        hu_spread: how far a patient may lie from that mean.
        mr: mean in a T1-weighted MR scan, arbitrary units from 0 to 1000.
    """

    hu: float
    hu_spread: float
    mr: float


# Liver, spleen, kidneys, blood and bowel overlap on purpose: no threshold tells them apart.
TISSUES = {
    "air": Tissue(hu=-1000, hu_spread=0, mr=5),
    "fat": Tissue(hu=-100, hu_spread=9, mr=820),
    "muscle": Tissue(hu=62, hu_spread=10.5, mr=330),
    "lung": Tissue(hu=-820, hu_spread=45, mr=30),
    "disc": Tissue(hu=85, hu_spread=15, mr=240),
    "marrow": Tissue(hu=190, hu_spread=37.5, mr=520),
    "cortex": Tissue(hu=420, hu_spread=75, mr=90),
    "nerve": Tissue(hu=30, hu_spread=7.5, mr=260),
    "blood": Tissue(hu=145, hu_spread=22.5, mr=140),
    "bile": Tissue(hu=10, hu_spread=9, mr=150),
    "stomach": Tissue(hu=45, hu_spread=37.5, mr=220),
    "bowel": Tissue(hu=70, hu_spread=37.5, mr=300),
    "liver": Tissue(hu=108, hu_spread=12, mr=480),
    "spleen": Tissue(hu=118, hu_spread=19.5, mr=360),
    "kidney": Tissue(hu=132, hu_spread=24, mr=400),
    "tumour": Tissue(hu=62, hu_spread=4.5, mr=350),
}  # fmt: skip

LABELS = LabelSet(
    labels=(
        Label(
            name="liver",
            values=(1,),
            colour=(221, 130, 101),
            code=CodedTerm(value="10200004", scheme="SCT", meaning="Liver"),
        ),
        Label(
            name="spleen",
            values=(2,),
            colour=(157, 108, 162),
            code=CodedTerm(value="78961009", scheme="SCT", meaning="Spleen"),
        ),
        Label(
            name="right_kidney",
            values=(3,),
            colour=(240, 228, 66),
            code=CodedTerm(value="9846003", scheme="SCT", meaning="Right kidney"),
            partner="left_kidney",
        ),
        Label(
            name="left_kidney",
            values=(4,),
            colour=(0, 158, 115),
            code=CodedTerm(value="18639004", scheme="SCT", meaning="Left kidney"),
            partner="right_kidney",
        ),
        Label(
            name="tumour",
            values=(5,),
            colour=(213, 94, 0),
            code=CodedTerm(value="108369006", scheme="SCT", meaning="Neoplasm"),
            kind="thing",
        ),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ellipsoid:
    """An axis-parallel ellipsoid, or a tube where a radius is infinite.

    Attributes:
        tissue: key of `TISSUES`, or `cavity` for loops of bowel in fat.
        centre_mm, radii_mm: along x, y, z.
        label: index in `LABELS`; 0 takes the place from whatever lay there.
    """

    tissue: str
    centre_mm: Point
    radii_mm: Point
    label: int = 0

    def distance_mm(self, points_mm: Field) -> Field:
        """Return the signed distance of points (3, ...) to the surface, negative inside.

        First-order estimate f / |grad f| (Taubin, 1994): exact on the surface, where it is used.
        """
        radii_mm = [np.float32(radius_mm) for radius_mm in self.radii_mm]
        unit = [
            (p - np.float32(c)) / r
            for p, c, r in zip(points_mm, self.centre_mm, radii_mm, strict=True)
        ]
        level = np.sqrt(unit[0] ** 2 + unit[1] ** 2 + unit[2] ** 2)
        slope = np.sqrt(sum((u / r) ** 2 for u, r in zip(unit, radii_mm, strict=True)))
        # The very centre has no slope: _TINY makes the distance -1 mm there, which is inside.
        return np.asarray((level - 1) * (level + _TINY) / (slope + _TINY), dtype=np.float32)

    def varied(self, rng: np.random.Generator) -> "Ellipsoid":
        """Return another patient's: centre off by up to 3 mm, radii by up to 8 %."""
        shift = rng.uniform(-3, 3, size=3)
        scale = rng.uniform(0.92, 1.08, size=3)
        return replace(
            self,
            centre_mm=tuple((np.array(self.centre_mm) + shift).tolist()),
            radii_mm=tuple((np.array(self.radii_mm) * scale).tolist()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ribs:
    """Hoops in the wall of the chest, falling towards the front; none below `lowest_mm`."""

    wall: Ellipsoid
    pitch_mm: float
    radius_mm: float
    lowest_mm: float
    fall: float
    tissue: str = "cortex"
    label: int = 0

    def distance_mm(self, points_mm: Field) -> Field:
        """Return the signed distance of points (3, ...) to the nearest rib, negative inside."""
        height = points_mm[2] + np.float32(self.fall) * points_mm[1]
        nearest = np.maximum(
            np.round(height / self.pitch_mm), np.ceil(self.lowest_mm / self.pitch_mm)
        )
        off = height - np.float32(self.pitch_mm) * nearest
        return np.asarray(
            np.hypot(self.wall.distance_mm(points_mm), off) - self.radius_mm, dtype=np.float32
        )

    def varied(self, rng: np.random.Generator) -> "Ribs":
        """Return another patient's: spaced and inclined a little differently."""
        return replace(
            self, pitch_mm=self.pitch_mm * rng.uniform(0.92, 1.08), fall=rng.uniform(0.2, 0.5)
        )


Structure = Ellipsoid | Ribs


def _at(tissue: str, centre_mm: Point, radii_mm: Point, label: str = "background") -> Ellipsoid:
    index = {"background": 0, **{name: n for n, name in enumerate(LABELS.names, start=1)}}[label]
    return Ellipsoid(tissue=tissue, centre_mm=centre_mm, radii_mm=radii_mm, label=index)


def _vertebra(height_mm: float) -> tuple[Ellipsoid, Ellipsoid]:
    centre = (0.0, -27.0, height_mm)
    return _at("cortex", centre, (13, 11, 10)), _at("marrow", centre, (11, 9, 8.5))


# Painted in this order, each over what came before.
ABDOMEN: tuple[Structure, ...] = (
    _at("fat", (0, 0, 0), (79, 57, _TUBE)),
    _at("muscle", (0, -1, 0), (71, 48, _TUBE)),
    Ribs(
        wall=_at("cortex", (0, -1, 0), (67, 44, _TUBE)),
        pitch_mm=17,
        radius_mm=3,
        lowest_mm=-8,
        fall=0.35,
    ),
    _at("cavity", (0, 7, 0), (62, 36, _TUBE)),
    _at("cavity", (-36, -14, 0), (24, 22, _TUBE)),
    _at("cavity", (36, -14, 0), (24, 22, _TUBE)),
    _at("lung", (33, -2, 84), (28, 37, 52)),
    _at("lung", (-33, -2, 84), (28, 37, 52)),
    _at("blood", (-8, 12, 74), (27, 23, 27)),
    _at("disc", (0, -27, 0), (12.5, 10.5, _TUBE)),
    *chain.from_iterable(_vertebra(height_mm) for height_mm in range(-120, 121, 20)),
    _at("cortex", (0, -46, 0), (4, 9, _TUBE)),
    _at("nerve", (0, -41, 0), (6.5, 5, _TUBE)),
    _at("blood", (-6, -11, 0), (6, 6, _TUBE)),
    _at("blood", (9, -11, 0), (7, 5.5, _TUBE)),
    _at("stomach", (-26, 14, 25), (21, 17, 27)),
    _at("air", (-25, 22, 28), (12, 7, 16)),
    _at("liver", (31, 5, 19), (31, 33, 40), "liver"),
    _at("liver", (2, 18, 31), (31, 15, 20), "liver"),
    _at("bile", (24, 26, -10), (7, 8, 14)),
    _at("spleen", (-44, -12, 25), (16, 23, 29), "spleen"),
    _at("kidney", (37, -22, -30), (17, 15, 31), "right_kidney"),
    _at("kidney", (-37, -22, -23), (17, 15, 31), "left_kidney"),
    _at("fat", (23, -17, -30), (7, 5, 11)),
    _at("fat", (-23, -17, -23), (7, 5, 11)),
)
