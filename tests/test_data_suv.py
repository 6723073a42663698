"""PET in SUV: declared once at ingest, converted where DICOM is read, never mixed with activity."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from medseg.core.errors import ManifestError
from medseg.core.fingerprint import Fingerprint
from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.data.ingest import ingest
from medseg.data.layouts.found import Request
from medseg.data.scans import read_scan
from medseg.inference.sources import sources_in, sources_of_manifest
from medseg.io.dicom.series_writer import write_series
from medseg.training.job import Job

SHAPE = (6, 5, 4)
# QIBA, "SUV body weight": grams over becquerel, which ADMIN says are corrected to the injection.
FACTOR = 70_000 / 370e6


@pytest.fixture
def activity(tmp_path, rng):
    """A PET series of known dose; returns its Bq/ml."""
    voxels = rng.integers(0, 30_000, SHAPE).astype(np.int16)
    scan = Volume(voxels[None], Geometry(SHAPE, np.diag([-1.0, -1.0, 2.5, 1.0])))
    for path in write_series(scan, tmp_path / "pet", modality="PT", patient_id="p", seed="x"):
        dataset = pydicom.dcmread(path)
        tracer = pydicom.Dataset()
        tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = "370e6", "6586.2"
        dataset.RadiopharmaceuticalInformationSequence = [tracer]
        dataset.PatientWeight, dataset.DecayCorrection = "70", "ADMIN"
        dataset.save_as(path)
    return voxels


def manifest_of(source: Path, modality: str):
    request = Request(
        source=source, labels={"tumour": (1,)}, modalities={"PET": modality}, name="pets"
    )
    return ingest(request, num_workers=0).manifest


def test_a_channel_declared_as_suv_is_read_as_suv_and_another_as_activity(activity, tmp_path):
    for modality, factor in (("SUV", FACTOR), ("PT", 1.0)):
        manifest = manifest_of(tmp_path / "pet", modality)
        assert [channel.modality for channel in manifest.channels] == [modality]
        found = read_scan(manifest, manifest.cases[0]).voxels[0]
        assert np.allclose(found, activity * factor, rtol=1e-6)


def test_scans_without_a_manifest_are_read_as_the_network_knows_them(activity, tmp_path):
    for suv, factor in ((True, FACTOR), (False, 1.0)):
        (source,) = sources_in(tmp_path / "pet", suv=suv)
        assert np.allclose(source.read().voxels[0], activity * factor, rtol=1e-6)


@pytest.mark.parametrize(("declared", "trained"), [("PT", "SUV"), ("SUV", "PT")])
@pytest.mark.usefixtures("activity")
def test_a_network_of_one_unit_refuses_a_dataset_of_the_other(tmp_path, declared, trained):
    manifest = manifest_of(tmp_path / "pet", declared)
    with pytest.raises(ManifestError, match=f"SCN-010 .*{declared}, but .* trained on {trained}"):
        sources_of_manifest(manifest, "all", trained_on={"PET": trained})
    assert sources_of_manifest(manifest, "all", trained_on={"PET": declared})


@pytest.mark.usefixtures("activity")
def test_a_plan_measured_in_one_unit_trains_on_no_dataset_of_the_other(tmp_path):
    manifest = manifest_of(tmp_path / "pet", "SUV")
    measured = Fingerprint(
        cases=(), channels=(("PET", "PT"),), foreground=(), whole=(), unit="mm", manifest_digest=""
    )
    with pytest.raises(ManifestError, match=r"SCN-010 .* its plan was measured on PT"):
        Job(manifest=manifest, plan=None, choices=None, fingerprint=measured)
