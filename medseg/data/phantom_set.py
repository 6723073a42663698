"""A folder of phantoms as a hospital might hand them over: DICOM, NIfTI and a table."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.data.phantoms import AXIAL, Phantom, make_phantom
from medseg.io.dicom.series_writer import write_series
from medseg.io.formats import write_label_map, write_volume
from medseg.runtime.files import write_text

SCANS = "scans"
REFERENCES = "references"
TABLE = "cases.csv"
COLUMNS = ("case_id", "patient_id", "image", "label", "split")

# Voxels along the patient's x and y, and along z: scanners cover more or less of a patient.
_IN_PLANE_VOX = (92, 104)
_SLICES = (36, 44)


@dataclass(frozen=True, slots=True)
class PhantomCase:
    """One row of the table: paths are relative to the folder."""

    case_id: str
    patient_id: str
    image: str
    label: str
    split: str


def write_phantoms(folder: Path, *, num_cases: int, num_test: int, seed: int) -> Path:
    """Write phantoms, every other one as a DICOM series and the rest as NIfTI.

    References are NIfTI files on the grids of their scans. A case depends on the seed and on its
    own number alone, so that more cases never change the ones before.

    Args:
        folder: made if absent; holds `scans/`, `references/` and `cases.csv` afterwards.
        num_cases: in all.
        num_test: of these, the last ones, are marked `test`.
        seed: of all draws.

    Returns:
        The table: case_id, patient_id, image, label, split.
    """
    cases = []
    for number in range(num_cases):
        split = "train" if number < num_cases - num_test else "test"
        cases.append(_write_case(folder, number=number, split=split, seed=seed))
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    rows.writerows([getattr(case, column) for column in COLUMNS] for case in cases)
    write_text(text.getvalue(), folder / TABLE)
    return folder / TABLE


def _write_case(folder: Path, *, number: int, split: str, seed: int) -> PhantomCase:
    rng = np.random.default_rng((seed, number))
    case_id, as_dicom = f"phantom_{number:03d}", number % 2 == 0
    phantom = make_phantom(
        rng,
        shape=(
            int(rng.integers(*_IN_PLANE_VOX)),
            int(rng.integers(*_IN_PLANE_VOX)),
            int(rng.integers(*_SLICES)),
        ),
        # Other axes a DICOM reader would put in its own order, and the reference would lie askew.
        orientation=str(rng.choice(AXIAL)) if as_dicom else None,
    )
    case = PhantomCase(
        case_id,
        patient_id=f"invented-{rng.integers(10**6):06d}",
        image=f"{SCANS}/{case_id}" if as_dicom else f"{SCANS}/{case_id}.nii.gz",
        label=f"{REFERENCES}/{case_id}.nii.gz",
        split=split,
    )
    _write_scan(phantom, folder / case.image, patient_id=case.patient_id, seed=f"{seed}-{number}")
    write_label_map(
        phantom.label_map,
        folder / case.label,
        geometry=phantom.image.geometry,
        labels=phantom.labels,
    )
    return case


def _write_scan(phantom: Phantom, path: Path, *, patient_id: str, seed: str) -> None:
    if path.name.endswith(".nii.gz"):
        write_volume(phantom.image, path)
    else:
        write_series(phantom.image, path, modality="CT", patient_id=patient_id, seed=seed)
