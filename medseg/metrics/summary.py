"""All scores of one case: a row for every class and region.

What is left out, and what is undefined: classes that nobody was asked to annotate in a case give no
row. Voxels that the reference marks as ignored belong to neither mask. For empty masks see
`overlap`: overlap with one empty mask is 0, with two NaN; a distance needs two surfaces, else NaN.
Volumes are always numbers, so what was found where nothing is remains visible.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy import ndimage

from medseg.core.errors import GeometryError
from medseg.core.geometry import Geometry, Unit
from medseg.core.labels import LabelMap, LabelSet
from medseg.metrics.overlap import Mask, measure_overlap
from medseg.metrics.surface import default_tolerance_mm, measure_surfaces

Box = tuple[slice, ...]

# What is averaged over cases, in the order of the columns of scores.csv.
MEASURES = (
    "dice", "iou", "surface_dice", "hd95_mm", "hd_mm", "assd_mm",
    "volume_error_ml", "volume_error_abs_ml",
)  # fmt: skip
_NO_TOLERANCES: Mapping[str, float] = MappingProxyType({})
_EMPTY_BOX: Box = (slice(0, 1),) * 3
_NO_INDEX = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One class in one case; on a grid without physical size mm are pixels, and ml their number.

    Attributes:
        class_name: the class or region.
        unit: `mm` or `px`.
        dice, iou, surface_dice: 0 to 1.
        hd95_mm, hd_mm, assd_mm: robust and plain Hausdorff distance, average surface distance.
        surface_tolerance_mm: within which surface Dice calls two surfaces one.
        volume_reference_ml, volume_prediction_ml: volumes of the masks.
        volume_error_ml, volume_error_abs_ml: prediction less reference, with and without its sign.
        reference_empty, prediction_empty: the mask has no voxel.
    """

    class_name: str
    unit: Unit
    dice: float
    iou: float
    surface_dice: float
    hd95_mm: float
    hd_mm: float
    assd_mm: float
    surface_tolerance_mm: float
    volume_reference_ml: float
    volume_prediction_ml: float
    volume_error_ml: float
    volume_error_abs_ml: float
    reference_empty: bool
    prediction_empty: bool

    def to_row(self) -> dict[str, Any]:
        """Return the columns of scores.csv by name, `_px` for `_mm` and `_ml` where unit is px."""
        return {column(name, self.unit): value for name, value in asdict(self).items()}


def column(name: str, unit: Unit) -> str:
    """Return what a value is called in a table: pixels are named pixels."""
    if name == "class_name":
        return "class"
    if unit == "px" and name.endswith(("_mm", "_ml")):
        return f"{name[:-3]}_px"
    return name


def score_case(
    prediction: LabelMap,
    reference: LabelMap,
    *,
    geometry: Geometry,
    labels: LabelSet,
    surface_tolerance_mm: float | None = None,
    class_tolerance_mm: Mapping[str, float] = _NO_TOLERANCES,
    annotated: Collection[str] | None = None,
) -> list[Score]:
    """Score every class of a case, then every region.

    Args:
        prediction: (I, J, K), indices 0..N.
        reference: (I, J, K), indices 0..N, and N + 1 for voxels to ignore.
        geometry: the grid both lie on.
        labels: the classes.
        surface_tolerance_mm: for surface Dice (pixels on a grid without physical size); None:
            `default_tolerance_mm`.
        class_tolerance_mm: tolerances of classes or regions that have their own.
        annotated: classes that were annotated in this case; None: all.

    Raises:
        GeometryError: GEO-001: a label map that does not have the grid's shape.
    """
    for name, label_map in (("prediction", prediction), ("reference", reference)):
        if label_map.shape != geometry.shape:
            raise GeometryError(
                f"{name}: {label_map.shape} voxels on a grid of {geometry.shape}", code="GEO-001"
            )
    tolerance_mm = surface_tolerance_mm
    if tolerance_mm is None:
        tolerance_mm = default_tolerance_mm(geometry)
    boxes = [
        ndimage.find_objects(label_map, max_label=len(labels))
        for label_map in (prediction, reference)
    ]
    ignored = _NO_INDEX if labels.ignore_index is None else labels.ignore_index
    scores = []
    for name, members in _classes(labels, annotated):
        box = _joint_box([found[index - 1] for found in boxes for index in members])
        known = reference[box] != ignored
        scores.append(
            score_masks(
                np.isin(prediction[box], members) & known,
                np.isin(reference[box], members) & known,
                class_name=name,
                geometry=geometry,
                surface_tolerance_mm=class_tolerance_mm.get(name, tolerance_mm),
            )
        )
    return scores


def score_masks(
    prediction: Mask,
    reference: Mask,
    *,
    class_name: str,
    geometry: Geometry,
    surface_tolerance_mm: float,
) -> Score:
    """Score one mask against another, both (I, J, K) or the same part of it that holds them."""
    overlap = measure_overlap(prediction, reference)
    surfaces = measure_surfaces(prediction, reference, geometry=geometry)
    voxel = geometry.voxel_ml if geometry.unit == "mm" else 1.0
    error = voxel * overlap.error_vox
    return Score(
        class_name=class_name,
        unit=geometry.unit,
        dice=overlap.dice,
        iou=overlap.iou,
        surface_dice=surfaces.surface_dice(surface_tolerance_mm),
        hd95_mm=surfaces.hausdorff_mm(95),
        hd_mm=surfaces.hausdorff_mm(),
        assd_mm=surfaces.average_mm,
        surface_tolerance_mm=float(surface_tolerance_mm),
        volume_reference_ml=voxel * overlap.reference_vox,
        volume_prediction_ml=voxel * overlap.prediction_vox,
        volume_error_ml=error,
        volume_error_abs_ml=abs(error),
        reference_empty=not overlap.reference_vox,
        prediction_empty=not overlap.prediction_vox,
    )


def _classes(
    labels: LabelSet, annotated: Collection[str] | None
) -> list[tuple[str, tuple[int, ...]]]:
    """Names and member indices of the classes and regions that were annotated."""
    index_of = {name: index for index, name in enumerate(labels.names, start=1)}
    groups: list[tuple[str, tuple[str, ...]]] = [(name, (name,)) for name in labels.names]
    groups += [(region.name, region.members) for region in labels.regions]
    return [
        (name, tuple(index_of[member] for member in members))
        for name, members in groups
        if annotated is None or set(members) <= set(annotated)
    ]


def _joint_box(boxes: Sequence[Box | None]) -> Box:
    found = [box for box in boxes if box is not None]
    if not found:
        return _EMPTY_BOX
    return tuple(
        slice(min(box[axis].start for box in found), max(box[axis].stop for box in found))
        for axis in range(3)
    )
