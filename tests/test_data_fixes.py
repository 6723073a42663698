"""`medseg check fix=true`: repaired copies of what is certain, originals untouched."""

import hashlib
import json

import nibabel
import numpy as np
import pytest

from medseg.cli import main
from medseg.core.labels import label_set
from medseg.data.case import Case, Channel
from medseg.data.fixes import FOLDER, fixed_copies
from medseg.data.manifest import Manifest, read_manifest, write_manifest
from medseg.data.scans import read_reference, read_scan

SHAPE = (6, 5, 4)
AFFINE = np.array([[1.0, 0, 0, -9], [0, 1.1, 0, 4], [0, 0, 1.3, 30], [0, 0, 0, 1]])


def save(voxels, path, affine=AFFINE, qform=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(voxels, affine, dtype=voxels.dtype)
    image.set_sform(affine, 1)
    image.set_qform(affine if qform is None else qform, 1)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


@pytest.fixture
def mask():
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[2:4, 1:3, 1:3] = 7
    return voxels


@pytest.fixture
def dataset(tmp_path, mask):
    """A sound case, to whose mask each test gives one fault."""
    scan = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    save(scan, tmp_path / "data/images/a.nii.gz")
    save(mask, tmp_path / "data/labels/a.nii.gz")
    return Manifest(
        name="tiny",
        data_root=tmp_path / "data",
        channels=(Channel(name="CT", modality="CT"),),
        labels=label_set({"liver": 7}),
        reference_channel="CT",
        spatial_dims=3,
        cases=(
            Case(
                case_id="a",
                patient_id="p",
                images={"CT": "images/a.nii.gz"},
                labels=("labels/a.nii.gz",),
            ),
        ),
    )


def shifted(distance_mm):
    affine = AFFINE.copy()
    affine[0, 3] += distance_mm
    return affine


def bytes_below(folder):
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and FOLDER not in path.parts
    }


def fixed(dataset):
    before = bytes_below(dataset.data_root)
    copies, fixes = fixed_copies(dataset, num_workers=0)
    assert bytes_below(dataset.data_root) == before
    return copies, fixes


def test_nothing_is_done_to_a_sound_dataset(dataset):
    assert fixed(dataset) == (dataset, ())
    assert not (dataset.data_root / FOLDER).exists()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda mask, path: save(mask.astype(np.float32) - 0.0004, path), "FIX-002"),
        (lambda mask, path: save(mask, path, shifted(0.0005)), "FIX-003"),
        (lambda mask, path: save(mask, path, qform=np.diag([-1, 1, 1, 1]) @ AFFINE), "FIX-004"),
    ],
    ids=["float", "rounding", "forms"],
)
def test_a_mask_is_written_anew_as_integers_on_the_grid_of_its_scan(spoil, code, dataset, mask):
    spoil(mask, dataset.data_root / "labels/a.nii.gz")
    copies, (fix,) = fixed(dataset)
    assert fix.codes == (code,)
    assert (fix.original, fix.copy) == ("labels/a.nii.gz", f"{FOLDER}/labels/a.nii.gz")
    (case,) = copies.cases
    assert case.labels == (fix.copy,)
    written = nibabel.load(dataset.data_root / fix.copy)
    assert written.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(written.dataobj), mask)
    assert np.array_equal(
        written.affine, nibabel.load(dataset.data_root / "images/a.nii.gz").affine
    )
    scan = read_scan(copies, case)
    reference = read_reference(copies, case, scan.geometry)
    assert np.array_equal(reference.only_channel, mask == 7)
    assert reference.findings == ()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda mask, path: save(mask * np.float32(0.6), path),
        lambda mask, path: save(mask, path, shifted(0.5)),
        lambda mask, path: save(mask.astype(np.float32) * np.nan, path),
        lambda mask, path: save(mask[::-1].copy(), path, np.diag([-1, 1, 1, 1]) @ AFFINE),
        lambda _, path: path.write_bytes(path.read_bytes()[:90]),
    ],
    ids=["fractions", "off", "nan", "flipped", "cut"],
)
def test_what_could_be_meant_in_two_ways_is_left_alone(spoil, dataset, mask):
    spoil(mask, dataset.data_root / "labels/a.nii.gz")
    assert fixed(dataset) == (dataset, ())


def test_a_file_is_copied_byte_by_byte_under_the_name_of_its_content(dataset, tmp_path):
    packed = dataset.data_root / "images/a.nii.gz"
    packed.rename(packed.with_name("a.nii"))
    (case,) = dataset.cases
    renamed = {**vars_of(case), "images": {"CT": "images/a.nii"}}
    wrong = Manifest(**{**vars_of(dataset), "cases": (Case(**renamed),)})
    copies, (fix,) = fixed(wrong)
    assert (fix.codes, fix.copy) == (("FIX-001",), f"{FOLDER}/images/a.nii.gz")
    original = (dataset.data_root / "images/a.nii").read_bytes()
    assert (dataset.data_root / fix.copy).read_bytes() == original
    assert read_scan(copies, copies.cases[0]).findings == ()


def vars_of(value):
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def test_check_records_repairs_beside_its_findings(dataset, mask, tmp_path, capsys):
    save(mask.astype(np.float64), dataset.data_root / "labels/a.nii.gz")
    write_manifest(dataset, tmp_path / "manifest.json")
    line = ["check", f"manifest={tmp_path}", "num_workers=0"]
    main(line)
    assert "fixes" not in json.loads((tmp_path / "check.json").read_text())
    main([*line, "fix=true"])
    told = json.loads((tmp_path / "check.json").read_text())
    assert [one["codes"] for one in told["fixes"]] == [["FIX-002"]]
    assert "FIX-002" in capsys.readouterr().out
    again = read_manifest(tmp_path / "manifest.fixed.json")
    assert again.cases[0].labels == (f"{FOLDER}/labels/a.nii.gz",)
    assert fixed_copies(again, num_workers=0)[1] == ()
