"""Scans with a marker in every text field, folder and file name: what must never be seen again."""

import warnings
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from numpy.typing import NDArray

from benchmarks.tiny_set import AFFINE, SHAPE, ball
from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.io.dicom.series_writer import write_series
from medseg.io.mha import write_mha
from medseg.io.nrrd import write_nrrd

# As many as it takes for two folds.
NUM_CASES = 2
# Attributes of free text, by keyword, within the length that each may have.
_DICOM_TEXTS = (
    "PatientName", "PatientID", "OtherPatientNames", "OtherPatientIDs", "PatientBirthName",
    "PatientMotherBirthName", "PatientAddress", "PatientComments", "PatientTelephoneNumbers",
    "EthnicGroup", "Occupation", "AdditionalPatientHistory", "MedicalRecordLocator",
    "MilitaryRank", "CountryOfResidence", "ResponsiblePerson", "IssuerOfPatientID",
    "AccessionNumber", "StudyID", "StudyDescription", "SeriesDescription",
    "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy", "AdmittingDiagnosesDescription", "AdmissionID",
    "CurrentPatientLocation", "InstitutionName", "InstitutionAddress",
    "InstitutionalDepartmentName", "StationName", "DeviceSerialNumber", "ProtocolName",
    "Manufacturer", "ManufacturerModelName", "SoftwareVersions", "RequestingPhysician",
    "RequestedProcedureDescription", "PerformedProcedureStepDescription", "ImageComments",
    "DerivationDescription", "ConvolutionKernel",
)  # fmt: skip
_NIFTI_TEXTS = ("descrip", "aux_file", "intent_name", "db_name", "data_type")
_OTHERS = (
    "item", "private", "application", "preamble", "extension", "nrrd key", "nrrd value",
    "nrrd content", "mha comment", "mha field", "source folder", "series folder", "slice file",
    "mask file", "other file", "table folder", "table file",
)  # fmt: skip
# Ten characters fit the shortest field; none can be a code string.
_TEXTS = (*_DICOM_TEXTS, *_NIFTI_TEXTS, *_OTHERS)
MARKERS = {name: f"zq{number:02d}kanari" for number, name in enumerate(_TEXTS)} | {
    "PatientBirthDate": "19130713",
    "StudyDate": "19471123",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.66600666",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.77700777",
    "SOPInstanceUID": "1.2.826.0.1.3680043.8.498.88800888",
}
PATHS = frozenset(name for name in _OTHERS if name.endswith((" folder", " file")))


def write_canaries(folder: Path) -> tuple[Path, Path]:
    """Write a DICOM tree with masks, and a table of cases in four formats.

    Returns:
        The tree (`scans/` and `masks/` below it), and the table.
    """
    tree = folder / MARKERS["source folder"]
    for number in range(NUM_CASES):
        scan, mask = ball(np.random.default_rng((7, number)))
        name = f"{MARKERS['series folder']} {number}"
        _write_dicom(scan, tree / "scans" / name, number)
        _write_nifti(mask, tree / "masks" / f"{name}.nii.gz")
    (tree / "scans" / f"{MARKERS['other file']}.txt").write_text("a letter")
    return tree, _write_table(folder / MARKERS["table folder"])


def _write_table(folder: Path) -> Path:
    """Write cases called a to d: the user's own names stand in for what the files say."""
    writers = (_write_nifti, _write_nrrd, _write_mha, _write_dicom_case)
    suffixes = (".nii.gz", ".nrrd", ".mha", "")
    rows = ["case_id,patient_id,image.CT,label"]
    for number, (write, suffix) in enumerate(zip(writers, suffixes, strict=True)):
        scan, mask = ball(np.random.default_rng((8, number)))
        image = f"{MARKERS['table file']}{number}{suffix}"
        label = f"{MARKERS['mask file']}{number}{suffix or '.nii.gz'}"
        write(scan, folder / image)
        (_write_nifti if write is _write_dicom_case else write)(mask, folder / label)
        rows.append(f"{'abcd'[number]},p{number},{image},{label}")
    (folder / "cases.csv").write_text("\n".join(rows) + "\n")
    return folder / "cases.csv"


def _volume(voxels: NDArray[np.generic]) -> Volume:
    return Volume(voxels[None], Geometry(SHAPE, AFFINE))


def _write_dicom_case(voxels: NDArray[np.generic], folder: Path) -> None:
    _write_dicom(voxels, folder, NUM_CASES)


def _write_dicom(voxels: NDArray[np.generic], folder: Path, number: int) -> None:
    patient = f"{MARKERS['PatientID']} {number}"
    slices = write_series(
        _volume(voxels), folder, modality="CT", patient_id=patient, seed=f"canary {number}"
    )
    for k, path in enumerate(slices):
        dataset = pydicom.dcmread(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _mark(dataset, number, k)
            dataset.save_as(path)
        path.rename(path.with_name(f"{MARKERS['slice file']}{k:03d}.dcm"))


def _mark(dataset: pydicom.FileDataset, number: int, k: int) -> None:
    """Put every marker of DICOM into one slice."""
    for keyword in _DICOM_TEXTS:
        if keyword != "PatientID":
            setattr(dataset, keyword, MARKERS[keyword])
    for keyword in ("PatientBirthDate", "StudyDate"):
        setattr(dataset, keyword, MARKERS[keyword])
    dataset.StudyInstanceUID = f"{MARKERS['StudyInstanceUID']}.{number}"
    dataset.SeriesInstanceUID = f"{MARKERS['SeriesInstanceUID']}.{number}"
    dataset.SOPInstanceUID = f"{MARKERS['SOPInstanceUID']}.{number}.{k}"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    request = pydicom.Dataset()
    request.ScheduledProcedureStepDescription = MARKERS["item"]
    dataset.RequestAttributesSequence = [request]
    dataset.add_new(0x00090010, "LO", MARKERS["private"])
    dataset.add_new(0x00091001, "LO", MARKERS["private"])
    dataset.file_meta.SourceApplicationEntityTitle = MARKERS["application"]
    dataset.preamble = MARKERS["preamble"].encode().ljust(128, b"\0")


def _write_nifti(voxels: NDArray[np.generic], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(voxels, AFFINE, dtype=voxels.dtype)
    image.set_qform(AFFINE, 1)
    image.set_sform(AFFINE, 1)
    for name in _NIFTI_TEXTS:
        image.header[name] = MARKERS[name].encode()
    comment = nibabel.nifti1.Nifti1Extension("comment", MARKERS["extension"].encode())
    image.header.extensions.append(comment)
    nibabel.save(image, path)


def _write_nrrd(voxels: NDArray[np.generic], path: Path) -> None:
    write_nrrd(_volume(voxels), path)
    head, _, body = path.read_bytes().partition(b"\n\n")
    key, value, content = (MARKERS[f"nrrd {part}"] for part in ("key", "value", "content"))
    lines = f"\ncontent: {content}\n{key}:={value}\n# {value}".encode()
    path.write_bytes(head + lines + b"\n\n" + body)


def _write_mha(voxels: NDArray[np.generic], path: Path) -> None:
    write_mha(_volume(voxels), path)
    texts = f"Comment = {MARKERS['mha comment']}\nPatientName = {MARKERS['mha field']}\n"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"ElementDataFile", texts.encode() + b"ElementDataFile", 1))
