"""Writing DICOM: a volume becomes a CT, MR or PT image series of one file a slice.

Made for phantoms and tests, so that the whole way from a scanner's format on can be walked with
data that belong to nobody; a series written here carries no acquisition parameters.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)
from pydicom.valuerep import format_number_as_ds

from medseg.core.errors import WriteError
from medseg.core.volume import Volume
from medseg.io.dicom.series.stack import ORIENTATION_TOLERANCE
from medseg.runtime.files import written_whole

_CLASSES = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "PT": PositronEmissionTomographyImageStorage,
}
_INT16 = np.iinfo(np.int16)
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Dates are part of the standard's required attributes; a phantom was never scanned.
_DATE, _TIME = "20000101", "000000"


def write_series(
    volume: Volume,
    folder: Path,
    *,
    modality: str,
    patient_id: str,
    seed: str,
    rescale: tuple[float, float] | None = None,
) -> tuple[Path, ...]:
    """Write a volume as a DICOM image series; the same arguments give the same bytes.

    Axis i becomes the columns, j the rows, k the slices. Slices are numbered along the normal of
    the image plane, so a left-handed grid comes back with k reversed, and nothing is mirrored.

    Args:
        volume: one channel; whole numbers within int16 are stored exactly.
        folder: made if absent; holds `slice_0001.dcm` and so on afterwards.
        modality: `CT`, `MR` or `PT`.
        patient_id: PatientID, and the patient's name as well.
        seed: what the UIDs of study, series and instances are drawn from.
        rescale: slope and intercept that turn stored int16 into values; None stores whole numbers
            as they are and spreads other values over all of int16.

    Returns:
        The files, in the order of their instance numbers.

    Raises:
        WriteError: DCM-050 a grid DICOM cannot express (axes i and j not at right angles, no
            physical size), a modality other than these, or values that do not fit.
    """
    if modality not in _CLASSES:
        raise WriteError(
            f"modality {modality!r}: expected one of {', '.join(_CLASSES)}", code="DCM-050"
        )
    affine = _lps_affine(volume)
    voxels = volume.only_channel
    slope, intercept = rescale or _rescale_for(voxels)
    stored = _stored(voxels, slope, intercept)
    common = _common(affine, modality=modality, patient_id=patient_id, seed=seed)
    if modality == "PT":
        common.NumberOfSlices = volume.geometry.shape[2]
    common.Columns, common.Rows = volume.geometry.shape[:2]
    common.RescaleSlope = format_number_as_ds(float(slope))
    common.RescaleIntercept = format_number_as_ds(float(intercept))
    order = range(volume.geometry.shape[2])
    if np.linalg.det(affine[:3, :3]) < 0:
        order = range(volume.geometry.shape[2] - 1, -1, -1)
    paths = []
    for number, k in enumerate(order, start=1):
        path = folder / f"slice_{number:04d}.dcm"
        _write_slice(
            common,
            path,
            number=number,
            position=affine @ (0, 0, k, 1),
            seed=seed,
            pixels=stored[:, :, k].T,
        )
        paths.append(path)
    return tuple(paths)


def _write_slice(
    common: Dataset,
    path: Path,
    *,
    number: int,
    position: NDArray[np.float64],
    pixels: NDArray[np.int16],
    seed: str,
) -> None:
    instance = Dataset()
    instance.update(common)
    instance.SOPInstanceUID = _uid(seed, f"instance {number}")
    instance.InstanceNumber = number
    instance.ImagePositionPatient = _decimals(position[:3])
    instance.PixelData = np.ascontiguousarray(pixels, dtype="<i2").tobytes()
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with written_whole(path) as stream:
        instance.save_as(stream, enforce_file_format=True)


def _common(affine: NDArray[np.float64], *, modality: str, patient_id: str, seed: str) -> Dataset:
    """Return the attributes that all slices share (PS3.3 A.3, A.4, A.21), less the pixels."""
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = (affine[:3, :2] / spacing_mm[:2]).T.reshape(-1)
    shared = Dataset()
    shared.SOPClassUID = _CLASSES[modality]
    shared.Modality = modality
    shared.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    shared.PatientID = shared.PatientName = patient_id
    shared.PatientBirthDate = shared.PatientSex = ""
    shared.StudyInstanceUID = _uid(seed, "study")
    shared.SeriesInstanceUID = _uid(seed, "series")
    shared.FrameOfReferenceUID = _uid(seed, "frame of reference")
    shared.StudyDate = shared.SeriesDate = shared.AcquisitionDate = shared.ContentDate = _DATE
    shared.StudyTime = shared.SeriesTime = shared.AcquisitionTime = shared.ContentTime = _TIME
    shared.StudyID = shared.SeriesNumber = "1"
    shared.AccessionNumber = shared.ReferringPhysicianName = shared.PatientPosition = ""
    shared.PositionReferenceIndicator = shared.AcquisitionNumber = ""
    shared.Manufacturer = "medseg"
    shared.ImageOrientationPatient = _decimals(cosines)
    shared.PixelSpacing = _decimals(spacing_mm[1::-1])
    shared.SliceThickness = format_number_as_ds(float(spacing_mm[2]))
    shared.SamplesPerPixel = 1
    shared.PhotometricInterpretation = "MONOCHROME2"
    shared.BitsAllocated = shared.BitsStored = 16
    shared.HighBit = 15
    shared.PixelRepresentation = 1
    _add_modality_attributes(shared, modality)
    return shared


def _add_modality_attributes(shared: Dataset, modality: str) -> None:
    if modality == "CT":
        shared.KVP = ""
        shared.RescaleType = "HU"
    elif modality == "MR":
        shared.ScanningSequence, shared.SequenceVariant = "RM", "NONE"
        shared.ScanOptions = shared.EchoTrainLength = shared.EchoTime = shared.RepetitionTime = ""
        shared.MRAcquisitionType = "3D"
    else:
        shared.Units, shared.CountsSource = "BQML", "EMISSION"
        shared.SeriesType = ["STATIC", "IMAGE"]
        shared.CorrectedImage = shared.DecayCorrection = ""
        shared.CollimatorType = ""
        shared.ActualFrameDuration = shared.FrameReferenceTime = 0


def _lps_affine(volume: Volume) -> NDArray[np.float64]:
    geometry = volume.geometry
    if geometry.unit != "mm":
        raise WriteError("DICOM needs a volume placed in mm, found pixels", code="DCM-050")
    skew = abs(float(geometry.direction[:, 0] @ geometry.direction[:, 1]))
    if skew > ORIENTATION_TOLERANCE:
        raise WriteError(
            f"axes i and j meet at {np.degrees(np.arccos(skew)):.2f} degrees; rows and columns of "
            "a DICOM slice are at right angles",
            code="DCM-050",
            hint="resample the volume onto a grid with right angles first",
        )
    return np.asarray(_RAS_TO_LPS @ geometry.affine)


def _rescale_for(voxels: NDArray[np.generic]) -> tuple[float, float]:
    """Return slope and intercept that store whole numbers exactly, others as finely as can be."""
    low, high = float(voxels.min()), float(voxels.max())
    fits = low >= _INT16.min and high <= _INT16.max
    if (fits and np.array_equal(voxels, np.rint(voxels))) or low == high:
        return (1.0, 0.0) if fits and low.is_integer() else (1.0, low)
    slope = float(format_number_as_ds((high - low) / (_INT16.max - _INT16.min)))
    intercept = float(format_number_as_ds((high + low) / 2))
    return slope, intercept


def _stored(voxels: NDArray[np.generic], slope: float, intercept: float) -> NDArray[np.int16]:
    stored = np.rint((voxels.astype(np.float64) - intercept) / slope)
    if not (np.isfinite(stored).all() and stored.min() >= -32769 and stored.max() <= 32768):
        raise WriteError(
            f"values {voxels.min()} to {voxels.max()} do not fit int16 with slope {slope:g} and "
            f"intercept {intercept:g}",
            code="DCM-050",
        )
    # A step of rounding beyond either end is the slope's own rounding to 16 characters.
    return np.asarray(np.clip(stored, _INT16.min, _INT16.max).astype(np.int16))


def _uid(seed: str, what: str) -> UID:
    return generate_uid(entropy_srcs=["medseg", seed, what])


def _decimals(numbers: NDArray[np.float64]) -> list[str]:
    # A decimal string holds 16 characters at most (PS3.5 6.2).
    return [format_number_as_ds(float(number)) for number in numbers]
