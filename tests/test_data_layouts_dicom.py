import json
import stat
from pathlib import Path

import numpy as np
import pytest

from medseg.core.errors import ManifestError
from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.data.ingest import Ingested, ingest
from medseg.data.layouts.found import Request
from medseg.data.manifest import write_manifest
from medseg.data.scans import read_scan
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
