"""A folder of phantoms as a hospital might hand them over: DICOM, NIfTI and a table."""

import csv
import io
from pathlib import Path

import numpy as np

from medseg.core.errors import ManifestError
from medseg.data.phantoms import AXIAL, make_phantom
from medseg.io.dicom.series_writer import write_series
from medseg.io.formats import write_label_map, write_volume
from medseg.runtime.files import write_text

SCANS = "scans"
REFERENCES = "references"
TABLE = "cases.csv"

# Voxels along the patient's x and y, and along z: scanners cover more or less of a patient.
_IN_PLANE_VOX = (92, 104)
_SLICES = (36, 44)


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
        The table: columns case_id, patient_id, image.CT, label and split, as `ingest` reads them.

    Raises:
        ManifestError: no case, or none left to train on.
    """
    if not 0 <= num_test < num_cases:
        raise ManifestError(
            f"phantoms: num_cases {num_cases}, num_test {num_test}; expected at least one case "
            "that is not for testing"
        )
    cases = []
    for number in range(num_cases):
        split = "train" if number < num_cases - num_test else "test"
        cases.append({**_write_case(folder, number=number, seed=seed), "split": split})
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, fieldnames=list(cases[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(cases)
    write_text(text.getvalue(), folder / TABLE)
    return folder / TABLE


def _write_case(folder: Path, *, number: int, seed: int) -> dict[str, str]:
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
    row = {
        "case_id": case_id,
        "patient_id": f"invented-{number:03d}",
        "image.CT": f"{SCANS}/{case_id}" if as_dicom else f"{SCANS}/{case_id}.nii.gz",
        "label": f"{REFERENCES}/{case_id}.nii.gz",
    }
    scan = folder / row["image.CT"]
    if as_dicom:
        patient_id = row["patient_id"]
        write_series(
            phantom.image, scan, modality="CT", patient_id=patient_id, seed=f"{seed}-{number}"
        )
    else:
        write_volume(phantom.image, scan)
    write_label_map(
        phantom.label_map,
        folder / row["label"],
        geometry=phantom.image.geometry,
        labels=phantom.labels,
    )
    return row
