import json
import re
import shutil
import stat
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from medseg.core.errors import ManifestError
from medseg.core.geometry import Geometry
from medseg.core.labels import label_set
from medseg.core.volume import Volume
from medseg.data.ingest import Ingested, ingest
from medseg.data.layouts.found import Request
from medseg.data.manifest import write_manifest
from medseg.data.scans import read_reference, read_scan
from medseg.io.dicom.reader import read_dicom
from medseg.io.dicom.rtstruct.writing import write_rtstruct
from medseg.io.dicom.seg.segmentation import write_seg
from medseg.io.dicom.series_writer import write_series
from medseg.io.nifti_write import write_nifti

PATIENT = "CANARY-4711"


def series(folder: Path, *, seed: str, patient: str = PATIENT, modality: str = "CT") -> Volume:
    """A small series whose voxels depend on its seed."""
    rng = np.random.default_rng(list(seed.encode()))
    voxels = rng.integers(-1000, 1000, (1, 6, 5, 4)).astype(np.int16)
    volume = Volume(voxels, Geometry((6, 5, 4), np.diag([-1.0, -1.0, 2.5, 1.0])))
    write_series(volume, folder, modality=modality, patient_id=patient, seed=seed)
    return volume


def taken(source: Path, **settings: object) -> Ingested:
    request = Request(**{"source": source, "labels": {"liver": (1,)}, **settings})
    return ingest(request, num_workers=0)


def test_every_volume_is_a_case_and_patients_are_kept_together(tmp_path):
    for name, patient in (("a", "one"), ("b", "one"), ("c", "two")):
        series(tmp_path / name, seed=name, patient=patient)
    found = taken(tmp_path)
    assert found.layout == "dicom"
    assert len({case.case_id for case in found.manifest.cases}) == 3
    assert len({case.patient_id for case in found.manifest.cases}) == 2
    assert [channel.modality for channel in found.manifest.channels] == ["CT"]


def test_no_patient_id_or_uid_reaches_the_manifest_and_the_way_back_is_apart(tmp_path):
    series(tmp_path / "a", seed="a")
    found = taken(tmp_path)
    write_manifest(found.manifest, tmp_path / "out" / "manifest.json")
    text = (tmp_path / "out" / "manifest.json").read_text()
    assert PATIENT not in text
    assert "series_uids" not in json.loads(text)["cases"][0]
    assert PATIENT in found.originals.values()
    assert PATIENT not in repr(found)


def test_ids_stay_the_same_with_the_same_key_and_not_with_another(tmp_path, medseg_home):
    series(tmp_path / "a", seed="a")
    ids = [taken(tmp_path).manifest.cases[0].case_id for _ in range(2)]
    (medseg_home / "project.key").unlink()
    ids.append(taken(tmp_path).manifest.cases[0].case_id)
    assert ids[0] == ids[1] != ids[2]
    assert stat.S_IMODE((medseg_home / "project.key").stat().st_mode) == 0o600


def test_two_series_in_one_folder_are_two_cases_each_read_by_its_uid(tmp_path):
    for seed in ("a", "b"):
        series(tmp_path / seed, seed=seed)
    shared = tmp_path / "shared"
    shared.mkdir()
    for seed in ("a", "b"):
        for number, path in enumerate(sorted((tmp_path / seed).iterdir())):
            path.rename(shared / f"{seed}{number}.dcm")
    manifest = taken(shared).manifest
    assert [case.images for case in manifest.cases] == [{"CT": "."}] * 2
    first, second = (read_scan(manifest, case).voxels for case in manifest.cases)
    assert not np.array_equal(first, second)


def test_copies_of_a_series_in_other_folders_are_one_case_and_said_to_be_left_out(tmp_path):
    series(tmp_path / "a", seed="a")
    for name in ("b", "c"):
        shutil.copytree(tmp_path / "a", tmp_path / name)
    found = taken(tmp_path)
    assert len(found.manifest.cases) == 1
    (left,) = found.skipped
    assert left.reason == "8 files in 2 other folders are copies of its slices"
    assert not left.failed


def test_masks_are_found_by_the_name_of_the_series_folder(tmp_path):
    volume = series(tmp_path / "scans" / "visit 1", seed="a")
    mask = Volume(np.ones((1, 6, 5, 4), np.uint8), volume.geometry)
    (tmp_path / "masks").mkdir()
    write_nifti(mask, tmp_path / "masks" / "visit 1.nii.gz")
    found = taken(tmp_path, raters={"label": "masks/{case}.nii.gz"})
    (case,) = found.manifest.cases
    assert (case.labels, case.classes) == (("masks/visit 1.nii.gz",), ("liver",))


def test_one_modality_of_several_must_be_chosen(tmp_path):
    series(tmp_path / "ct", seed="a")
    series(tmp_path / "mr", seed="b", modality="MR")
    with pytest.raises(ManifestError, match=r"ING-013 all 2 cases lack a channel"):
        taken(tmp_path)
    found = taken(tmp_path, modalities={"T1": "MR"})
    assert [case.images for case in found.manifest.cases] == [{"T1": "mr"}]
    assert [one.reason for one in found.skipped] == ["modality CT was not asked for"]


@pytest.fixture
def drawn(tmp_path):
    """Two series, each with an RTSTRUCT beside it: a liver of 8 voxels, a spleen of 1."""
    label_map = np.zeros((6, 5, 4), np.uint8)
    label_map[1:3, 1:3, 1:3] = 1
    label_map[4, 4, 0] = 2
    labels = label_set({"Liver": 1, "spleen": 2})
    for name in ("a", "b"):
        series(tmp_path / "tree" / name / "ct", seed=name, patient=name)
        source = tmp_path / "tree" / name / "ct"
        path = tmp_path / "tree" / name / "rs.dcm"
        geometry = read_dicom(source).geometry
        write_rtstruct(label_map, path, geometry=geometry, labels=labels, source=source)
    return tmp_path / "tree"


def references(manifest):
    for case in manifest.cases:
        geometry = read_scan(manifest, case).geometry
        yield read_reference(manifest, case, geometry)


def test_an_rtstruct_is_the_label_of_the_series_it_refers_to(drawn):
    found = taken(drawn, labels={"liver": (1,), "spleen": (2,)})
    assert [case.classes for case in found.manifest.cases] == [("liver", "spleen")] * 2
    assert sorted(case.labels[0] for case in found.manifest.cases) == ["a/rs.dcm", "b/rs.dcm"]
    for reference in references(found.manifest):
        assert np.bincount(reference.only_channel.ravel()).tolist() == [111, 8, 1]
    assert found.skipped == ()


def test_a_seg_is_a_label_too_and_declares_the_classes(tmp_path):
    series(tmp_path / "ct", seed="a")
    label_map = np.zeros((6, 5, 4), np.uint8)
    label_map[1:3, 1:3, 1:3] = 1
    write_seg(
        label_map,
        tmp_path / "seg.dcm",
        geometry=read_dicom(tmp_path / "ct").geometry,
        labels=label_set({"Liver": 1}),
        source=tmp_path / "ct",
    )
    found = taken(tmp_path, labels={})
    assert found.manifest.labels.names == ("Liver",)
    (reference,) = references(found.manifest)
    assert reference.only_channel.sum() == 8


def test_two_masks_of_a_series_are_not_guessed_at(drawn):
    shutil.copy(drawn / "a" / "rs.dcm", drawn / "a" / "rs2.dcm")
    found = taken(drawn, labels={"liver": (1,), "spleen": (2,)})
    assert sorted(len(case.labels) for case in found.manifest.cases) == [0, 1]
    assert [one.subject for one in found.skipped] == ["rs.dcm", "rs2.dcm"]
    assert all(one.failed and "raters, versions or classes" in one.reason for one in found.skipped)


@pytest.mark.parametrize(
    ("keyword", "message"),
    [
        ("FrameOfReferenceUID", "DCM-033"),
        ("SeriesInstanceUID", "drawn on 0 of the volumes found, expected one"),
    ],
)
def test_a_mask_of_another_series_or_space_is_left_out_and_said_so(drawn, keyword, message):
    path = drawn / "a" / "rs.dcm"
    dataset = pydicom.dcmread(path)
    space = dataset.ReferencedFrameOfReferenceSequence[0]
    if keyword == "FrameOfReferenceUID":
        dataset.FrameOfReferenceUID = space.FrameOfReferenceUID = generate_uid()
        for region in dataset.StructureSetROISequence:
            region.ReferencedFrameOfReferenceUID = dataset.FrameOfReferenceUID
    else:
        referenced = space.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
        referenced.SeriesInstanceUID = generate_uid()
    dataset.save_as(path)
    found = taken(drawn, labels={"liver": (1,), "spleen": (2,)})
    (skipped,) = found.skipped
    assert re.search(message, skipped.reason)


def test_a_mask_of_a_series_that_is_no_case_is_no_failure(drawn):
    series(drawn / "a" / "mr", seed="mr", patient="a", modality="MR")
    found = taken(drawn, labels={"liver": (1,), "spleen": (2,)}, modalities={"T1": "MR"})
    assert [case.labels for case in found.manifest.cases] == [()]
    reasons = {one.subject: (one.reason, one.failed) for one in found.skipped}
    assert reasons["rs.dcm"] == ("drawn on a series that is no case", False)


def test_masks_that_name_different_classes_need_them_declared(drawn):
    path = drawn / "b" / "rs.dcm"
    dataset = pydicom.dcmread(path)
    dataset.StructureSetROISequence[1].ROIName = "kidney"
    dataset.save_as(path)
    with pytest.raises(ManifestError, match=r"ING-011 .* kidney, liver, spleen"):
        taken(drawn, labels={})


def test_classes_of_an_rtstruct_that_overlap_are_merged_and_noticed(tmp_path):
    series(tmp_path / "ct", seed="a")
    masks = np.zeros((2, 6, 5, 4), np.uint8)
    masks[0, :4], masks[1, 3:] = 1, 1
    write_rtstruct(
        masks,
        tmp_path / "rs.dcm",
        geometry=read_dicom(tmp_path / "ct").geometry,
        labels=label_set({"organ": 1, "lesion": 2}),
        source=tmp_path / "ct",
    )
    (reference,) = references(taken(tmp_path, labels={}).manifest)
    assert np.bincount(reference.only_channel.ravel()).tolist() == [0, 60, 60]
    assert [finding.code for finding in reference.findings] == ["SCN-007"]
