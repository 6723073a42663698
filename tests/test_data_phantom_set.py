"""The folder of phantoms: half DICOM, half NIfTI, references on the grid each reader returns."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from medseg.core.errors import ManifestError
from medseg.core.geometry import require_match
from medseg.data.anatomy import LABELS
from medseg.data.phantom_set import write_phantoms
from medseg.data.tables import read_table
from medseg.io.formats import read_label_map, read_volume


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("phantoms")
    write_phantoms(path, num_cases=4, num_test=1, seed=7)
    return path


def rows(folder: Path) -> list[dict[str, str]]:
    return [dict(row.values) for row in read_table(folder / "cases.csv").rows]


def test_half_are_dicom_and_half_nifti_and_the_last_are_for_testing(folder):
    assert [(folder / row["image.CT"]).is_dir() for row in rows(folder)] == [True, False] * 2
    assert [row["split"] for row in rows(folder)] == ["train"] * 3 + ["test"]
    assert len({row["patient_id"] for row in rows(folder)}) == 4


def test_every_reference_lies_on_the_grid_its_scan_is_read_on(folder):
    for row in rows(folder):
        scan = read_volume(folder / row["image.CT"])
        reference = read_label_map(folder / row["label"], LABELS)
        require_match(
            reference.geometry, scan.geometry, name=row["label"], reference_name=row["image.CT"]
        )
        liver = scan.only_channel[reference.only_channel == 1]
        assert 80 < np.median(liver) < 140


def test_a_case_is_the_same_however_many_others_there_are(folder, tmp_path):
    write_phantoms(tmp_path, num_cases=2, num_test=0, seed=7)
    for row in rows(tmp_path):
        again, first = (
            read_volume(tmp_path / row["image.CT"]),
            read_volume(folder / row["image.CT"]),
        )
        assert np.array_equal(again.voxels, first.voxels)
        assert again.geometry.matches(first.geometry)


def test_no_slice_carries_more_of_a_patient_than_an_invented_id(folder):
    row = rows(folder)[0]
    for path in (folder / row["image.CT"]).iterdir():
        header = pydicom.dcmread(path, stop_before_pixels=True)
        assert header.PatientID == row["patient_id"]
        assert not header.get("PatientBirthDate")


def test_a_set_without_a_case_to_train_on_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="at least one case"):
        write_phantoms(tmp_path, num_cases=2, num_test=2, seed=0)
    assert not list(tmp_path.iterdir())
