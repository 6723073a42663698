"""`medseg ingest deidentify=true`: the manifest of the copies reads as that of the originals."""

import csv
import json
import re

import numpy as np
import pydicom
import pytest

from medseg.cli import main
from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.data.ingest import ingest
from medseg.data.layouts.found import CopyRequest, Request
from medseg.data.manifest import read_manifest
from medseg.data.scans import read_reference, read_scan
from medseg.io.dicom.series_writer import write_series
from medseg.io.nifti_write import write_nifti

MARKER = "GEHEIM"
SHAPE = (6, 5, 4)


def grid():
    return Geometry(SHAPE, np.diag([-1.0, -1.0, 2.5, 1.0]))


@pytest.fixture
def source(tmp_path, rng):
    """Two CT series with a mask each, below folders that name their patients."""
    for name in ("one", "two"):
        voxels = rng.integers(-1000, 1000, (1, *SHAPE)).astype(np.int16)
        folder = tmp_path / f"{MARKER}^source" / f"{MARKER}^{name}"
        write_series(
            Volume(voxels, grid()), folder, modality="CT", patient_id=f"{MARKER} {name}", seed=name
        )
        mask = Volume(rng.integers(0, 2, (1, *SHAPE)).astype(np.uint8), grid(), ("mask",))
        write_nifti(mask, folder.parent / "masks" / f"{folder.name}.nii.gz")
    return tmp_path / f"{MARKER}^source"


def line(source, output, *more):
    return main(
        ["ingest", f"source={source}", f"output={output}", "labels.liver=1",
         "label=masks/{case}.nii.gz", "num_workers=0", *more]
    )  # fmt: skip


def test_copies_read_as_their_originals_and_name_nobody(source, tmp_path, capsys):
    assert line(source, tmp_path / "plain") == 0
    assert line(source, tmp_path / "out", "deidentify=true") == 0
    original = read_manifest(tmp_path / "plain")
    copies = read_manifest(tmp_path / "out")
    assert copies.data_root.name == "deidentified"
    for case in copies.cases:
        before = original.case(case.case_id)
        assert case.patient_id == before.patient_id
        assert case.classes == before.classes == ("liver",)
        one, other = read_scan(original, before), read_scan(copies, case)
        assert one.geometry.matches(other.geometry)
        assert np.array_equal(one.voxels, other.voxels)
        masks = [
            read_reference(manifest, which, one.geometry).voxels
            for manifest, which in ((original, before), (copies, case))
        ]
        assert np.array_equal(*masks)
        slices = sorted((tmp_path / "out/deidentified" / case.images["CT"]).iterdir())
        assert pydicom.dcmread(slices[0]).PatientID == case.patient_id
    found = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [path for path in found if MARKER.encode() in path.read_bytes()]
    assert not [path for path in found if MARKER in path.name]
    assert "No tool is perfect" in capsys.readouterr().out


def test_the_table_says_what_was_dropped_without_a_value(source, tmp_path):
    assert line(source, tmp_path / "out", "deidentify=true") == 0
    with (tmp_path / "out/deidentified/treated.csv").open(newline="") as stream:
        rows = {row["keyword"]: row for row in csv.DictReader(stream)}
    assert rows["PatientName"]["treatment"] == "replaced"
    assert rows["PatientName"]["num_files"] == str(2 * SHAPE[2])
    assert rows["Manufacturer"]["treatment"] == "emptied"


def test_a_case_that_may_show_a_name_is_left_out_and_copied_only_when_forced(
    source, tmp_path, capsys
):
    for path in (source / f"{MARKER}^one").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.BurnedInAnnotation = "YES"
        dataset.save_as(path)
    assert line(source, tmp_path / "out", "deidentify=true") == 3
    assert "PRV-003" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "out/manifest.json").read_text())["cases"]) == 1
    assert not list((tmp_path / "out/deidentified").glob(".part*"))
    forced = ("deidentify=true", "burned_in=true", "overwrite=true")
    assert line(source, tmp_path / "out", *forced) == 0
    assert len(json.loads((tmp_path / "out/manifest.json").read_text())["cases"]) == 2


@pytest.mark.parametrize(
    ("more", "output", "said"),
    [
        (["deidentify=true"], "GEHEIM^source/out", "PRV-006 .*among the originals"),
        (["burned_in=true"], "out", "PRV-006 .*options of deidentify=true"),
    ],
)
def test_copies_among_originals_and_idle_options_are_refused(
    more, output, said, source, tmp_path, capsys
):
    assert line(source, tmp_path / output, *more) == 2
    assert re.search(said, capsys.readouterr().err)


def test_the_names_that_a_user_gives_in_a_table_are_kept(source, tmp_path):
    (source / "cases.csv").write_text(
        "case_id,patient_id,image.CT,mask.liver\n"
        f"a,p1,{MARKER}^one,masks/{MARKER}^one.nii.gz\nb,p2,{MARKER}^two,masks/{MARKER}^two.nii.gz\n"
    )
    found = ingest(
        Request(
            source=source / "cases.csv",
            modalities={"CT": "CT"},
            copies=CopyRequest(folder=tmp_path / "copies"),
        ),
        num_workers=0,
    )
    first = found.manifest.case("a")
    assert first.images == {"CT": "a/0_CT"}
    assert first.labels == ({"liver": "a/label_0_0.nii.gz"},)
    header = pydicom.dcmread(tmp_path / "copies/a/0_CT/00001.dcm")
    assert (header.PatientID, header.PatientName) == ("p1", "p1")


def test_an_image_that_is_not_dicom_is_refused(source, tmp_path):
    (source / "cases.csv").write_text(
        f"case_id,patient_id,image.CT,split\na,p1,masks/{MARKER}^one.nii.gz,unlabelled\n"
        f"b,p2,{MARKER}^two,unlabelled\n"
    )
    request = Request(
        source=source / "cases.csv",
        modalities={"CT": "CT"},
        labels={"liver": (1,)},
        copies=CopyRequest(folder=tmp_path / "copies"),
    )
    found = ingest(request, num_workers=0)
    assert [case.case_id for case in found.manifest.cases] == ["b"]
    assert found.skipped[0].reason.startswith("PRV-004")


def test_a_dataset_is_not_named_after_its_folder(source):
    request = Request(source=source, labels={"liver": (1,)})
    assert ingest(request, num_workers=0).manifest.name == "dataset"
