"""A frame: one plane of pixels with its place in the patient, whatever kind of file it came in.

Directions and positions are DICOM's own, LPS in mm (x to the patient's left, y posterior, z
superior; PS3.3 C.7.6.2.1.1). `i` counts columns and `j` counts rows, as in a voxel index.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from medseg.core.errors import GeometryError, ReadError
from medseg.io.dicom.headers.attributes import item, number, numbers, text, whole, words
from medseg.io.dicom.headers.scan import Header
from medseg.io.dicom.headers.sources import DicomFile
from medseg.io.dicom.pixels.storage import Storage, storage_of

Vector = tuple[float, float, float]
# What may tell apart several volumes taken at the same place, the likeliest first.
_MARKS = (
    ("t", "TemporalPositionIdentifier"),
    ("reference_ms", "FrameReferenceTime"),
    ("echo", "EchoTime"),
    ("echo_number", "EchoNumbers"),
    ("b", "DiffusionBValue"),
    ("gradient", "DiffusionGradientOrientation"),
    ("inversion", "InversionTime"),
    ("type", "ImageType"),
    ("trigger", "TriggerTime"),
    ("acquisition", "AcquisitionNumber"),
)
_LOCALIZERS = frozenset({"LOCALIZER", "SCOUT"})
# Direction cosines are unit vectors at right angles (PS3.3 C.7.6.2.1.1), up to their rounding.
_COSINE_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """The place of a frame.

    Attributes:
        position_mm: centre of the first pixel, LPS.
        i_direction: unit vector along a row, as the column index grows, LPS.
        j_direction: unit vector along a column, as the row index grows, LPS.
        spacing_mm: distance of pixel centres along i and j.
        thickness_mm: distance to the next slice as the header claims it; None when it does not.

    Raises:
        GeometryError: DCM-019 a spacing that is not positive; DCM-020 directions that are no unit
            vectors at right angles.
    """

    position_mm: Vector
    i_direction: Vector
    j_direction: Vector
    spacing_mm: tuple[float, float]
    thickness_mm: float | None = None

    def __post_init__(self) -> None:
        if min(self.spacing_mm) <= 0:
            raise GeometryError(
                f"pixel spacing {self.spacing_mm} mm, expected two positive lengths",
                code="DCM-019",
            )
        i, j = np.array(self.i_direction), np.array(self.j_direction)
        off = max(abs(np.linalg.norm(i) - 1), abs(np.linalg.norm(j) - 1), abs(i @ j))
        if off > _COSINE_TOLERANCE:
            raise GeometryError(
                f"direction cosines {self.i_direction} and {self.j_direction} are no unit vectors "
                f"at right angles (off by {off:.2g}, tolerance {_COSINE_TOLERANCE})",
                code="DCM-020",
            )

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector across the plane: i cross j, LPS."""
        normal = np.cross(self.i_direction, self.j_direction)
        return np.asarray(normal / np.linalg.norm(normal))


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One plane of pixels in a file.

    Attributes:
        storage: where the pixels lie, and how.
        index: which frame of the file, from 0.
        sop_uid: SOPInstanceUID of the file.
        plane: its place.
        slope: by which stored values are multiplied.
        intercept: what is added to the product.
        marks: names and values of what may tell it from another frame at the same place.
        stack: `StackID` of an enhanced frame; frames of two stacks never share a volume.
        localizer: the frame is a scout, not part of a volume.
    """

    storage: Storage
    index: int
    sop_uid: str
    plane: Plane
    slope: float
    intercept: float
    marks: tuple[tuple[str, str], ...] = ()
    stack: str = ""
    localizer: bool = False

    @property
    def file(self) -> DicomFile:
        """The file that holds it."""
        return self.storage.file

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels along i and j."""
        return self.storage.columns, self.storage.rows


def single_frame(header: Header) -> Frame:
    """Return the frame of a file that holds one.

    Raises:
        ReadError: DCM-008 a rescale slope of 0, DCM-026 colours, DCM-037 unreadable attributes.
        GeometryError: DCM-018 no position, DCM-019 no pixel spacing, DCM-020 bad directions.
    """
    dataset, name = header.dataset, header.file.name
    require_gray(dataset, name)
    slope, intercept = rescale_of(dataset, name)
    return Frame(
        storage=storage_of(header),
        index=0,
        sop_uid=text(dataset, "SOPInstanceUID"),
        plane=_plane(dataset, name),
        slope=slope,
        intercept=intercept,
        marks=_marks(dataset),
        localizer=is_localizer(dataset),
    )


def plane_of(position: Dataset, orientation: Dataset, measures: Dataset, *, name: str) -> Plane:
    """Make a plane of the three groups of attributes that describe it.

    Raises:
        GeometryError: DCM-018 no position or orientation, DCM-019 no pixel spacing, DCM-020 bad
            directions.
        ReadError: DCM-037, attributes that are not numbers.
    """
    origin = numbers(position, "ImagePositionPatient", 3, name=name)
    cosines = numbers(orientation, "ImageOrientationPatient", 6, name=name)
    if origin is None or cosines is None:
        missing = "ImagePositionPatient" if origin is None else "ImageOrientationPatient"
        raise GeometryError(
            f"{name}: has no {missing}, so its pixels cannot be placed in the patient",
            code="DCM-018",
            hint="export the original images, not screenshots or secondary captures of them",
        )
    rows_and_columns = numbers(measures, "PixelSpacing", 2, name=name)
    if rows_and_columns is None:
        raise _no_spacing(measures, name)
    try:
        return Plane(
            position_mm=(origin[0], origin[1], origin[2]),
            i_direction=(cosines[0], cosines[1], cosines[2]),
            j_direction=(cosines[3], cosines[4], cosines[5]),
            # DICOM lists the distance between rows first (PS3.3 10.7.1.3).
            spacing_mm=(rows_and_columns[1], rows_and_columns[0]),
            thickness_mm=_thickness(measures, name),
        )
    except GeometryError as fault:
        raise GeometryError(
            f"{name}: {fault.message}",
            code=fault.code,
            hint="export the original series again; its header does not place the pixels",
        ) from fault


def rescale_of(dataset: Dataset, name: str) -> tuple[float, float]:
    """Return slope and intercept; 1 and 0 where the file gives none.

    Raises:
        ReadError: DCM-008, a slope of 0, or a look-up table in place of a slope.
    """
    if item(dataset, "ModalityLUTSequence") is not None:
        raise ReadError(
            f"{name}: stored values pass through a modality look-up table, expected a slope",
            code="DCM-008",
            hint="export the series with RescaleSlope and RescaleIntercept",
        )
    slope = number(dataset, "RescaleSlope", name=name)
    intercept = number(dataset, "RescaleIntercept", name=name)
    if slope == 0:
        raise ReadError(
            f"{name}: RescaleSlope is 0, which makes every voxel the same",
            code="DCM-008",
            hint="export the series again; the stored values carry no unit",
        )
    return 1.0 if slope is None else slope, 0.0 if intercept is None else intercept


def require_gray(dataset: Dataset, name: str) -> None:
    """Refuse colours, which are pictures of scans rather than scans.

    Raises:
        ReadError: DCM-026.
    """
    samples = whole(dataset, "SamplesPerPixel", name=name) or 1
    colours = text(dataset, "PhotometricInterpretation")
    if samples != 1 or not colours.startswith("MONOCHROME"):
        raise ReadError(
            f"{name}: holds colours ({colours or 'unknown'}, {samples} samples a pixel), "
            "expected gray values; it is a picture of a scan, not a volume",
            code="DCM-026",
            hint="export the original series instead of the secondary capture",
        )


def is_localizer(dataset: Dataset) -> bool:
    """Tell whether `ImageType` calls the file a scout."""
    return not _LOCALIZERS.isdisjoint(word.upper() for word in words(dataset, "ImageType"))


def _plane(dataset: Dataset, name: str) -> Plane:
    return plane_of(dataset, dataset, dataset, name=name)


def _marks(dataset: Dataset) -> tuple[tuple[str, str], ...]:
    present = ((mark, keyword) for mark, keyword in _MARKS if keyword in dataset)
    return tuple((mark, "/".join(words(dataset, keyword))) for mark, keyword in present)


def _thickness(measures: Dataset, name: str) -> float | None:
    """The distance between slices, else the thickness of one; neither is trusted for a stack."""
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        found = number(measures, keyword, name=name)
        if found is not None and abs(found) > 0:
            return abs(found)
    return None


def _no_spacing(dataset: Dataset, name: str) -> GeometryError:
    detector = "ImagerPixelSpacing" in dataset
    found = "; ImagerPixelSpacing is there, but it is measured at the detector" if detector else ""
    return GeometryError(
        f"{name}: has no PixelSpacing, so its pixels have no size in the patient{found}",
        code="DCM-019",
        hint="export a calibrated series; no spacing is made up",
    )
