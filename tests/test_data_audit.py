import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dataset_on_paper import paper_case, paper_manifest

from medseg.core.errors import ManifestError, ReadError
from medseg.data.audit_dataset import Audit, audit
from medseg.data.contents import digest_of_case
from medseg.data.manifest import Manifest
from medseg.data.pool import outcomes


def save(path: Path, voxels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(voxels, np.diag([1.0, 1, 2, 1]))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def dataset(root: Path, masks: dict[str, list[float]], **changes: dict[str, object]) -> Manifest:
    """A manifest on disk: an image of noise a case, and a mask that begins with these values."""
    cases = []
    for number, (name, values) in enumerate(masks.items()):
        rng = np.random.default_rng(number)
        kind = np.uint8 if all(float(v).is_integer() and v >= 0 for v in values) else np.float32
        mask = np.zeros((4, 4, 4), kind)
        mask.ravel()[: len(values)] = values
        save(root / f"images/{name}.nii.gz", rng.normal(size=(4, 4, 4)).astype(np.float32))
        save(root / f"labels/{name}.nii.gz", mask)
        cases.append(paper_case(name, **changes.get(name, {})))
    return paper_manifest(cases, data_root=root, num_folds=2)


def seen(found: Audit) -> Counter[tuple[str, str, str]]:
    return Counter((one.severity, one.code, one.subject) for one in found.findings)


def audited(manifest: Manifest) -> Audit:
    return audit(manifest, num_workers=0)


def test_a_sound_dataset_has_no_findings_and_its_voxels_are_counted(tmp_path):
    found = audited(dataset(tmp_path, {"a": [1, 1, 2], "b": [1, 2, 2]}))
    assert found.findings == ()
    assert [case.class_vox for case in found.cases] == [(61, 2, 1), (61, 1, 2)]
    assert [case.spacing_mm for case in found.cases] == [(1, 1, 2)] * 2


@pytest.mark.parametrize(
    ("values", "code", "said"),
    [
        ([1, 7, 7], "LBL-003", "7 (2 voxels)"),
        ([1, -1], "LBL-003", "-1 (1 voxels)"),
        ([1, 255], "LBL-003", "255 (1 voxels)"),
        ([1, 0.6], "LBL-002", "0.6"),
        ([1, float("nan")], "LBL-001", "NaN"),
    ],
)
def test_a_mask_of_other_values_is_an_error_with_file_value_and_count(values, code, said, tmp_path):
    found = audited(dataset(tmp_path, {"a": values, "b": [1, 2], "c": [1, 2]}))
    (error,) = (one for one in found.findings if one.severity == "error")
    assert (error.code, error.subject) == (code, "a")
    assert "labels/a.nii.gz" in error.message
    assert said in error.message


def test_labels_that_are_off_by_round_off_are_read(tmp_path):
    found = audited(dataset(tmp_path, {"a": [0.9999, 2.0001], "b": [1, 2]}))
    assert found.cases[0].class_vox == (62, 1, 1)
    assert not [one for one in found.findings if one.severity == "error"]


def test_empty_masks_are_listed(tmp_path):
    found = audited(dataset(tmp_path, {"a": [0], "b": [1, 2], "c": [1, 2]}))
    assert ("warning", "CHK-003", "a") in seen(found)


def test_a_missing_file_is_an_error_and_the_others_are_still_checked(tmp_path):
    manifest = dataset(tmp_path, {"a": [1, 2], "b": [1, 2], "c": [1, 7]})
    (tmp_path / "images/a.nii.gz").unlink()
    (tmp_path / "labels/b.nii.gz").unlink()
    errors = {(one.code, one.subject) for one in audited(manifest).findings}
    assert {("MAN-007", "a"), ("MAN-007", "b"), ("LBL-003", "c")} <= errors


def test_a_link_out_of_the_data_root_is_an_error(tmp_path):
    manifest = dataset(tmp_path / "root", {"a": [1, 2], "b": [1, 2]})
    (tmp_path / "root/images/a.nii.gz").rename(tmp_path / "away.nii.gz")
    (tmp_path / "root/images/a.nii.gz").symlink_to(tmp_path / "away.nii.gz")
    assert ("error", "MAN-003", "a") in seen(audited(manifest))


def test_a_truncated_scan_is_an_error(tmp_path):
    manifest = dataset(tmp_path, {"a": [1, 2], "b": [1, 2]})
    path = tmp_path / "images/a.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    assert {one.subject for one in audited(manifest).findings if one.severity == "error"} == {"a"}


def test_a_mask_on_another_grid_is_an_error(tmp_path):
    manifest = dataset(tmp_path, {"a": [1, 2], "b": [1, 2]})
    nibabel.save(
        nibabel.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.diag([-1.0, 1, 2, 1])),
        tmp_path / "labels/a.nii.gz",
    )
    assert ("error", "GEO-002", "a") in seen(audited(manifest))


def test_voxels_that_are_not_finite_and_flat_images_are_listed(tmp_path):
    manifest = dataset(tmp_path, {"a": [1, 2], "b": [1, 2]})
    save(tmp_path / "images/a.nii.gz", np.full((4, 4, 4), np.inf, np.float32))
    save(tmp_path / "images/b.nii.gz", np.full((4, 4, 4), 7, np.uint8))
    found = seen(audited(manifest))
    assert ("error", "CHK-006", "a") in found
    assert ("warning", "CHK-002", "b") in found


def test_one_image_packed_twice_under_two_patients_is_an_error_with_both_names(tmp_path):
    manifest = dataset(tmp_path, {"a": [1, 2], "b": [1, 2], "c": [1, 2]})
    image = nibabel.load(tmp_path / "images/a.nii.gz")
    image.header["descrip"] = b"a copy with other bytes"
    nibabel.save(image, tmp_path / "images/b.nii.gz")
    (error,) = (one for one in audited(manifest).findings if one.code == "SPL-003")
    assert error.severity == "error"
    assert "'a'" in error.message
    assert error.subject == "b"


def test_one_image_twice_under_one_patient_is_a_warning(tmp_path):
    same = {name: {"patient_id": "p"} for name in "ab"}
    manifest = dataset(tmp_path, {"a": [1, 2], "b": [1, 2], "c": [1, 2]}, **same)
    (tmp_path / "images/b.nii.gz").write_bytes((tmp_path / "images/a.nii.gz").read_bytes())
    assert ("warning", "CHK-012", "b") in seen(audited(manifest))


def test_a_class_in_no_case_is_an_error_and_one_absent_from_a_fold_a_warning(tmp_path):
    folds = {name: {"fold": fold} for name, fold in zip("abcd", (0, 0, 1, 1), strict=True)}
    manifest = dataset(tmp_path, {"a": [1, 2], "b": [1], "c": [1], "d": [1]}, **folds)
    found = audited(manifest)
    assert [(row.name, row.class_cases) for row in found.folds] == [
        ("fold 0", (2, 1)),
        ("fold 1", (2, 0)),
    ]
    assert [(one.severity, one.code) for one in found.findings] == [("warning", "CHK-011")]
    nobody = dataset(tmp_path, {"a": [1], "b": [1], "c": [1], "d": [1]}, **folds)
    assert [(one.severity, one.code) for one in audited(nobody).findings] == [("error", "CHK-010")]


def test_a_class_that_was_not_annotated_must_not_be_marked(tmp_path):
    changes = {"a": {"annotated": ("anterior",)}}
    manifest = dataset(tmp_path, {"a": [1, 2], "b": [1, 2]}, **changes)
    assert ("error", "CHK-004", "a") in seen(audited(manifest))


def test_files_that_changed_since_ingest_are_an_error(tmp_path):
    manifest = dataset(tmp_path, {"a": [1, 2], "b": [1, 2]})
    cases = tuple(
        replace(case, digest=digest_of_case(replace(manifest, cases=(case,))))
        for case in manifest.cases
    )
    manifest = replace(manifest, cases=cases)
    assert audited(manifest).findings == ()
    save(tmp_path / "labels/a.nii.gz", np.ones((4, 4, 4), np.uint8))
    assert ("error", "CHK-001", "a") in seen(audited(manifest))


def test_a_single_slice_is_no_volume(tmp_path):
    manifest = dataset(tmp_path, {"a": [1, 2], "b": [1, 2]})
    save(tmp_path / "images/a.nii.gz", np.arange(16, dtype=np.uint8).reshape(4, 4, 1))
    save(tmp_path / "labels/a.nii.gz", np.ones((4, 4, 1), np.uint8))
    assert ("error", "CHK-005", "a") in seen(audited(manifest))


def test_too_few_patients_for_folds_are_a_warning(tmp_path):
    found = audited(dataset(tmp_path, {"a": [1, 2]}))
    assert seen(found) == {("warning", "SPL-005", "paper"): 1}
    assert [row.name for row in found.folds] == ["train"]


def test_processes_and_none_find_the_same(tmp_path):
    manifest = dataset(tmp_path, {"a": [1, 7], "b": [1, 2], "c": [0]})
    one, other = (audit(manifest, num_workers=n) for n in (0, 2))
    assert one.findings == other.findings
    assert one.folds == other.folds


def strange(number: int) -> int:
    """Work in which one item is refused and one kills its process."""
    if number == 3:
        os._exit(1)
    if number == 1:
        raise ManifestError("one is refused", code="X-1", hint="h")
    return number * 10


def test_a_refusal_and_a_crash_stay_with_their_items():
    found = outcomes(strange, [0, 1, 2, 3, 4, 5], num_workers=2, label="test")
    assert [one for one in found if isinstance(one, int)] == [0, 20, 40, 50]
    assert isinstance(found[1], ManifestError)
    assert (found[1].code, found[1].hint) == ("X-1", "h")
    assert isinstance(found[3], ReadError)
    assert found[3].code == "RUN-001"


def test_nothing_to_do_gives_nothing():
    assert outcomes(strange, [], num_workers=None, label="test") == []
