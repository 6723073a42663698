"""medseg export: masks in other formats, on the grid of their scans, one failure at a time."""

import csv

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from highdicom.sr import srread

from medseg.cli import main as cli
from medseg.core.errors import EXIT_REFUSED, EXIT_SOME_FAILED, ReadError
from medseg.core.geometry import Geometry
from medseg.core.labels import label_set
from medseg.core.volume import Volume
from medseg.inference import batch
from medseg.io import writing
from medseg.io.dicom.reader import read_dicom
from medseg.io.dicom.seg.segmentation import read_seg
from medseg.io.dicom.series_writer import write_series
from medseg.io.formats import read_label_map, read_volume, write_label_map, write_volume
from medseg.io.sidecars import itksnap_text, write_sidecars
from medseg.tasks.export import labels_for, masks_in
from medseg.tasks.verify import verify_mask

LABELS = label_set({"left lung": 4, "liver": 9})
GEOMETRY = Geometry(
    (5, 6, 4), np.array([[-0.8, 0, 0, 9], [0, 0.8, 0, 8], [0, 0, 3, 7], [0, 0, 0, 1.0]])
)


@pytest.fixture
def folder(tmp_path, rng):
    """Two masks with their scans, as `medseg predict` leaves them."""
    for name in ("case 1", "b;$(x)"):
        mask = rng.integers(0, 3, (5, 6, 4)).astype(np.uint8)
        write_label_map(
            mask, tmp_path / "masks" / f"{name}.nii.gz", geometry=GEOMETRY, labels=LABELS
        )
        write_volume(Volume(mask[None], GEOMETRY), tmp_path / "scans" / f"{name}.nii.gz")
        probabilities = Volume(np.zeros((3, 5, 6, 4), np.float32), GEOMETRY, ("o", "a", "b"))
        write_volume(probabilities, tmp_path / "masks" / f"{name}_probabilities.nii.gz")
    write_sidecars(tmp_path / "masks", LABELS)
    return tmp_path


def export(folder, *settings: str) -> int:
    return cli(["export", f"prediction={folder / 'masks'}", f"output={folder / 'out'}", *settings])


def test_a_folder_of_masks_is_written_in_every_format_with_its_scans(folder, capsys):
    formats = "formats=[nrrd,seg_nrrd,mha,nifti]"
    assert export(folder, f"scan={folder / 'scans'}", formats, "per_class=true") == 0
    assert "2 exported, 0 failed" in capsys.readouterr().out
    names = {path.name for path in (folder / "out").iterdir()}
    assert {"b;$(x).seg.nrrd", "case 1_left_lung.nii.gz", "labels.ctbl", "run.json"} <= names
    for name in ("case 1", "b;$(x)"):
        original = read_label_map(folder / "masks" / f"{name}.nii.gz", LABELS).only_channel
        for suffix in ("nrrd", "seg.nrrd", "mha", "nii.gz"):
            path = folder / "out" / f"{name}.{suffix}"
            assert np.array_equal(read_label_map(path, LABELS).only_channel, original)
            assert verify_mask(path, folder / "scans" / f"{name}.nii.gz").passed


@pytest.mark.parametrize("name", ["dicom_seg", "rtstruct"])
def test_a_dicom_series_gets_its_mask_and_back(name, tmp_path, rng):
    mask = rng.integers(0, 3, (5, 6, 4)).astype(np.uint8)
    scan = Volume(mask[None].astype(np.int16), Geometry((5, 6, 4), np.diag([-0.8, -0.8, 3, 1])))
    write_series(scan, tmp_path / "series", modality="CT", patient_id="phantom", seed="scan")
    geometry = read_dicom(tmp_path / "series").geometry
    path = tmp_path / "masks" / "mask.nii.gz"
    write_label_map(mask, path, geometry=geometry, labels=LABELS)
    write_sidecars(path.parent, LABELS)
    line = ["export", f"scan={tmp_path / 'series'}", f"output={tmp_path / 'out'}"]
    assert cli([*line, f"prediction={path}", f"formats=[{name}]"]) == 0
    written = tmp_path / "out" / f"mask{writing.SUFFIX_OF[name]}"
    assert np.array_equal(read_label_map(written, LABELS, onto=geometry).only_channel, mask)
    assert verify_mask(written, tmp_path / "series").passed
    line[-1] = f"output={tmp_path / 'back'}"
    assert cli([*line, f"prediction={written}", f"manifest={path.parent / 'labels.json'}"]) == 0
    back = read_label_map(tmp_path / "back" / "mask.seg.nrrd", LABELS)
    assert np.array_equal(back.only_channel, mask)
    assert back.geometry.matches(geometry)


def test_a_labelmap_and_its_report_are_written_from_the_command_line(tmp_path, rng, capsys):
    mask = rng.integers(0, 3, (5, 6, 4)).astype(np.uint8)
    scan = Volume(mask[None].astype(np.int16), Geometry((5, 6, 4), np.diag([-0.8, -0.8, 3, 1])))
    write_series(scan, tmp_path / "series", modality="CT", patient_id="phantom", seed="scan")
    geometry = read_dicom(tmp_path / "series").geometry
    path = tmp_path / "masks" / "mask.nii.gz"
    write_label_map(mask, path, geometry=geometry, labels=LABELS)
    write_sidecars(path.parent, LABELS)
    line = ["export", f"prediction={path}", f"output={tmp_path / 'out'}"]
    line += [f"scan={tmp_path / 'series'}", "dicom_seg.type=LABELMAP"]
    assert cli([*line, "formats=[dicom_seg,sr]"]) == 0
    written = pydicom.dcmread(tmp_path / "out" / "mask.seg.dcm")
    assert written.SegmentationType == "LABELMAP"
    again = read_seg(tmp_path / "out" / "mask.seg.dcm", labels=LABELS, onto=geometry)
    assert np.array_equal(again.only_channel, mask)
    groups = srread(tmp_path / "out" / "mask.sr.dcm").content
    measured = {
        group.tracking_identifier: group.get_measurements()[0].value
        for group in groups.get_volumetric_roi_measurement_groups()
    }
    with (tmp_path / "out" / "volumes.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for index, (name, row) in enumerate(zip(LABELS.names, rows, strict=True), start=1):
        assert (row["case_id"], row["class"]) == ("mask", name)
        assert int(row["voxels"]) == (mask == index).sum()
        expected_ml = (mask == index).sum() * 0.8 * 0.8 * 3 / 1000
        assert float(row["ml"]) == pytest.approx(expected_ml, rel=1e-5)
        assert measured[name] == pytest.approx(expected_ml, rel=1e-9)
    # The report is no mask: the folder can be exported further.
    assert set(masks_in(tmp_path / "out")) == {"mask"}
    assert cli([*line, "formats=[sr]"]) == EXIT_REFUSED
    assert "ask for dicom_seg, too" in capsys.readouterr().err
    assert cli([*line, "dicom_seg.type=FRACTIONAL"]) == EXIT_REFUSED


def test_volumes_of_earlier_cases_stay_and_those_of_failed_ones_go(folder):
    assert export(folder) == 0
    (folder / "masks" / "case 1.nii.gz").write_bytes(b"no mask")
    (folder / "masks" / "b;$(x).nii.gz").unlink()
    assert export(folder) == EXIT_SOME_FAILED
    with (folder / "out" / "volumes.csv").open(newline="") as stream:
        assert {row["case_id"] for row in csv.DictReader(stream)} == {"b;$(x)"}


def test_one_bad_mask_does_not_stop_the_rest(folder, capsys):
    (folder / "masks" / "broken.nii.gz").write_bytes(b"")
    assert export(folder) == EXIT_SOME_FAILED
    told = capsys.readouterr()
    assert "2 exported, 1 failed" in told.out
    assert "broken: FIL-003" in told.err


def test_a_mask_beside_its_scan_is_refused(folder, capsys):
    moved = GEOMETRY.affine.copy()
    moved[0, 3] += 1
    scan = Volume(np.zeros((1, 5, 6, 4), np.uint8), Geometry((5, 6, 4), moved))
    write_volume(scan, folder / "scans" / "case 1.nii.gz")
    assert export(folder, f"scan={folder / 'scans'}") == EXIT_SOME_FAILED
    assert "case 1: GEO-002" in capsys.readouterr().err


def test_masks_that_are_not_there_are_told_before_their_classes(tmp_path, capsys):
    assert cli(["export", f"prediction={tmp_path / 'x'}", f"output={tmp_path / 'o'}"]) == 2
    assert "FIL-001 prediction=" in capsys.readouterr().err


def test_a_seg_of_a_scan_that_was_never_dicom_is_refused(folder, capsys):
    scans = f"scan={folder / 'scans'}"
    assert export(folder, scans, "formats=[dicom_seg]") == EXIT_SOME_FAILED
    assert "FIL-021" in capsys.readouterr().err


def test_the_grid_written_is_the_scans_to_the_bit(folder):
    nudged = GEOMETRY.affine.copy()
    nudged[0, 3] += 5e-4
    scan = Volume(np.zeros((1, 5, 6, 4), np.uint8), Geometry((5, 6, 4), nudged))
    write_volume(scan, folder / "scans" / "case 1.nii.gz")
    assert export(folder, f"scan={folder / 'scans'}", "formats=[nifti]") == 0
    written = nibabel.load(folder / "out" / "case 1.nii.gz").affine
    assert np.array_equal(written, nibabel.load(folder / "scans" / "case 1.nii.gz").affine)


def test_classes_come_from_an_itksnap_file_too(folder):
    path = folder / "atlas.txt"
    path.write_text(itksnap_text(LABELS))
    assert export(folder, f"manifest={path}", "formats=[seg_nrrd]") == 0
    keys = SimpleITK.ReadImage(folder / "out" / "case 1.seg.nrrd")
    assert keys.GetMetaData("Segment1_Name") == "liver"


def test_without_a_word_on_the_classes_nothing_is_written(folder, capsys):
    (folder / "masks" / "labels.json").unlink()
    assert export(folder) == EXIT_REFUSED
    assert not (folder / "out").exists()
    assert "manifest= is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    "settings", ["formats=[docx]", "formats=[]", "output_folder=x", "prediction=absent"]
)
def test_settings_that_mean_nothing_are_refused_in_one_line(folder, capsys, settings):
    assert export(folder, settings) == EXIT_REFUSED
    assert capsys.readouterr().err.count("\n") == 1


def test_the_masks_own_folder_is_never_written_into(folder, capsys):
    before = sorted((folder / "masks").iterdir())
    assert export(folder, f"output={folder / 'masks'}") == EXIT_REFUSED
    assert "choose another folder" in capsys.readouterr().err
    assert sorted((folder / "masks").iterdir()) == before


def test_masks_in_folders_below_are_exported_too(folder):
    below = folder / "masks" / "site a"
    below.mkdir()
    (folder / "masks" / "case 1.nii.gz").rename(below / "case 1.nii.gz")
    assert masks_in(folder / "masks")["case 1"] == below / "case 1.nii.gz"


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(folder, capsys):
    (folder / "out").write_text("a file")
    assert export(folder) == EXIT_REFUSED
    line = [f"prediction={folder / 'masks'}", f"reference={folder / 'masks'}"]
    assert cli(["evaluate", *line, f"output={folder / 'out'}"]) == EXIT_REFUSED
    said = capsys.readouterr()
    assert said.err.count("OUT-001") == 2
    assert "scored" not in said.err


def test_dicom_formats_without_the_series_are_refused_once(folder, capsys):
    assert export(folder, "formats=[nifti,dicom_seg]", "scan=null") == EXIT_REFUSED
    said = capsys.readouterr().err
    assert "CFG-003" in said
    assert "scan=" in said
    assert not (folder / "out" / "case 1.nii.gz").exists()


def test_of_all_that_predict_writes_the_masks_are_exported(folder):
    masks = folder / "masks"
    mask = read_volume(masks / "case 1.nii.gz")
    for beside in ("case 1.nrrd", "case 1_instances.nii.gz", "case 1_probabilities.nii.gz"):
        write_volume(mask, masks / beside)
    assert masks_in(masks)["case 1"] == masks / "case 1.nii.gz"
    assert len(masks_in(masks)) == 2


def test_two_masks_of_one_case_are_refused(folder):
    mask = read_volume(folder / "masks" / "case 1.nii.gz")
    (folder / "masks" / "case 1.nii.gz").unlink()
    for suffix in (".nrrd", ".mha"):
        write_volume(mask, folder / "masks" / f"case 1{suffix}")
    with pytest.raises(ReadError, match="are masks of one name"):
        masks_in(folder / "masks")
    assert labels_for(folder / "masks" / "case 1.nrrd", None) == LABELS


def test_export_and_predict_know_the_same_formats():
    assert writing.SUFFIX_OF == batch.SUFFIX_OF
