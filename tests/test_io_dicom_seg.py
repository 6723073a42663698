"""DICOM SEG: what is written reads back voxel for voxel, here and with highdicom's own reader."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from oriented_scans import SHAPE, affine_of, signed_permutations, turned, write_scan

from medseg.core.errors import GeometryError, LabelError, ReadError, WriteError
from medseg.core.geometry import Geometry
from medseg.core.labels import CodedTerm, Label, LabelSet, label_set
from medseg.core.volume import Volume
from medseg.io.dicom.seg.segmentation import read_seg, read_seg_labels, write_seg

BIN = str(Path(sys.executable).parent)
ORGANS = label_set({"liver": 1, "spleen": 2})


def segment(label_map, scan, folder, labels=ORGANS, kind="BINARY"):
    write_seg(
        label_map,
        folder / "m.dcm",
        geometry=scan.geometry,
        labels=labels,
        source=folder / "scan",
        kind=kind,
    )


@pytest.mark.parametrize(
    ("oblique", "spacing_mm"),
    [
        (True, (0.8, 1.1, 2.3)),
        pytest.param(False, (0.8, 1.1, 2.3), marks=pytest.mark.slow),
        pytest.param(False, (1.0, 1.0, 1.0), marks=pytest.mark.slow),
    ],
    ids=["oblique", "anisotropic", "isotropic"],
)
@pytest.mark.parametrize(
    "axes",
    list(signed_permutations()),
    ids=lambda axes: Geometry((2, 2, 2), affine_of(axes)).orientation,
)
def test_every_orientation_survives_series_and_seg(axes, oblique, spacing_mm, tmp_path, rng):
    geometry = turned(axes, spacing_mm=spacing_mm, oblique=oblique)
    values = rng.permutation(np.prod(SHAPE)).astype(np.int16).reshape(SHAPE)
    scan = write_scan(geometry, tmp_path / "scan", values)
    # Every value of the scan must lie where it was, whichever way its grid now runs.
    index = np.argwhere(np.ones(SHAPE, dtype=bool))
    found = scan.geometry.to_index(geometry.to_world(index.astype(float)))
    assert np.abs(found - np.rint(found)).max() < 1e-6
    assert np.array_equal(
        scan.only_channel[tuple(np.rint(found).astype(int).T)], values[tuple(index.T)]
    )
    label_map = rng.integers(0, 3, SHAPE).astype(np.uint8)
    segment(label_map, scan, tmp_path)
    again = read_seg(tmp_path / "m.dcm", labels=ORGANS, onto=scan.geometry)
    assert np.array_equal(again.only_channel, label_map)
    assert again.geometry.matches(scan.geometry)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_highdicom_reads_the_same_voxels_at_the_same_places(kind, tmp_path, rng):
    scan = write_scan(turned(np.eye(3)), tmp_path / "scan")
    label_map = rng.integers(0, 3, SHAPE).astype(np.uint8)
    segment(label_map, scan, tmp_path, kind=kind)
    volume = highdicom.seg.segread(tmp_path / "m.dcm").get_volume(combine_segments=True)
    to_ras = np.diag([-1, -1, 1, 1])
    theirs = np.argwhere(np.ones(volume.array.shape, dtype=bool))
    world = Geometry(volume.array.shape, to_ras @ volume.affine).to_world(theirs.astype(float))
    ours = np.rint(scan.geometry.to_index(world)).astype(int)
    assert np.abs(scan.geometry.to_index(world) - ours).max() < 1e-4
    assert np.array_equal(label_map[tuple(ours.T)], volume.array[tuple(theirs.T)])


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_frames_without_a_voxel_are_left_out_and_come_back_empty(kind, tmp_path):
    scan = write_scan(turned(np.eye(3)), tmp_path / "scan")
    label_map = np.zeros(SHAPE, dtype=np.uint8)
    label_map[2, 1, 2] = 2
    segment(label_map, scan, tmp_path, kind=kind)
    assert pydicom.dcmread(tmp_path / "m.dcm").NumberOfFrames == 1
    again = read_seg(tmp_path / "m.dcm", labels=ORGANS, source=tmp_path / "scan")
    assert np.array_equal(again.only_channel, label_map)


def test_a_class_without_voxels_is_named_in_a_warning(tmp_path, caplog):
    scan = write_scan(turned(np.eye(3)), tmp_path / "scan")
    label_map = np.ones(SHAPE, dtype=np.uint8)
    with caplog.at_level(logging.WARNING):
        segment(label_map, scan, tmp_path)
    assert [record.getMessage() for record in caplog.records] == [
        "m.dcm: segment 2 (spleen) has no voxels"
    ]


def test_an_empty_label_map_is_written_and_read_back_empty(tmp_path):
    scan = write_scan(turned(np.eye(3)), tmp_path / "scan")
    label_map = np.zeros(SHAPE, dtype=np.uint8)
    segment(label_map, scan, tmp_path)
    again = read_seg(tmp_path / "m.dcm", labels=ORGANS, source=tmp_path / "scan")
    assert not again.voxels.any()


def test_overlapping_classes_come_back_as_a_channel_each(tmp_path, rng):
    scan = write_scan(turned(np.eye(3)), tmp_path / "scan")
    masks = rng.integers(0, 2, (2, *SHAPE)).astype(np.uint8)
    segment(masks, scan, tmp_path)
    again = read_seg(tmp_path / "m.dcm", labels=ORGANS, source=tmp_path / "scan")
    assert again.channels == ("liver", "spleen")
    assert np.array_equal(again.voxels, masks)


def test_names_codes_and_colours_survive(tmp_path):
    labels = LabelSet(
        labels=(
            Label(
                name="Milz",
                values=(7,),
                colour=(200, 30, 90),
                code=CodedTerm(value="78961009", scheme="SCT", meaning="Spleen"),
            ),
            Label(name="lesion", values=(9,), colour=(10, 240, 20)),
        )
    )
    scan = write_scan(turned(np.eye(3)), tmp_path / "scan")
    label_map = np.indices(SHAPE).sum(0).astype(np.uint8) % 3
    segment(label_map, scan, tmp_path, labels=labels)
    found = read_seg_labels(tmp_path / "m.dcm")
    assert found.names == labels.names
    assert [label.values for label in found.labels] == [(1,), (2,)]
    assert [label.code for label in found.labels] == [label.code for label in labels.labels]
    off = np.subtract([x.colour for x in found.labels], [x.colour for x in labels.labels])
    assert np.abs(off).max() <= 1


def test_segments_refer_to_the_slices_they_lie_on(tmp_path):
    scan = write_scan(turned(np.eye(3)), tmp_path / "scan")
    label_map = np.zeros(SHAPE, dtype=np.uint8)
    label_map[1, 1, 1] = 1
    segment(label_map, scan, tmp_path)
    seg = pydicom.dcmread(tmp_path / "m.dcm")
    group = seg.PerFrameFunctionalGroupsSequence[0]
    position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
    uid = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
    slices = [pydicom.dcmread(path) for path in (tmp_path / "scan").iterdir()]
    source = next(entry for entry in slices if entry.SOPInstanceUID == uid)
    expected = scan.geometry.to_world(np.array([[0, 0, 1.0]]))[0] * (-1, -1, 1)
    assert np.allclose(position, expected, atol=1e-6)
    assert np.allclose(np.array(source.ImagePositionPatient, dtype=float), expected, atol=1e-6)
    assert seg.FrameOfReferenceUID == source.FrameOfReferenceUID


def test_a_label_map_on_another_grid_is_refused(tmp_path):
    scan = write_scan(turned(np.eye(3)), tmp_path / "scan")
    moved = Volume(scan.voxels, Geometry(SHAPE, scan.geometry.affine + np.diag([0, 0, 0.5, 0])))
    with pytest.raises(GeometryError, match=r"GEO-002 m\.dcm: lies up to"):
        segment(np.zeros(SHAPE, dtype=np.uint8), moved, tmp_path)
    assert not (tmp_path / "m.dcm").exists()


def test_the_ids_that_a_source_lacks_are_named(tmp_path):
    scan = write_scan(turned(np.eye(3)), tmp_path / "scan")
    for path in (tmp_path / "scan").iterdir():
        image = pydicom.dcmread(path)
        del image.FrameOfReferenceUID
        image.save_as(path)
    with pytest.raises(WriteError, match=r"must refer to \(FrameOfReferenceUID\); export"):
        segment(np.ones(SHAPE, dtype=np.uint8), scan, tmp_path)
    assert not (tmp_path / "m.dcm").exists()


def test_values_that_are_no_class_are_refused(tmp_path):
    scan = write_scan(turned(np.eye(3)), tmp_path / "scan")
    with pytest.raises(LabelError, match="LBL-003 label map holds 3 to 3, expected 0 to 2"):
        segment(np.full(SHAPE, 3, dtype=np.uint8), scan, tmp_path)


def test_a_segment_of_no_class_and_a_scan_in_place_of_a_seg_are_refused(tmp_path):
    scan = write_scan(turned(np.eye(3)), tmp_path / "scan")
    segment(np.ones(SHAPE, dtype=np.uint8), scan, tmp_path)
    with pytest.raises(LabelError, match="segment 1 'liver' belongs to no class of kidney"):
        read_seg(tmp_path / "m.dcm", labels=label_set({"kidney": 5}), source=tmp_path / "scan")
    with pytest.raises(ReadError, match=r"DCM-034 .* 0 DICOM SEG files"):
        read_seg(tmp_path / "scan", labels=ORGANS)


@pytest.mark.skipif(shutil.which("segimage2itkimage", path=BIN) is None, reason="dcmqi is absent")
@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_dcmqi_reads_the_same_voxels_at_the_same_places(kind, tmp_path, rng):
    scan = write_scan(turned(np.eye(3)), tmp_path / "scan")
    label_map = rng.integers(0, 3, SHAPE).astype(np.uint8)
    segment(label_map, scan, tmp_path, kind=kind)
    command = [shutil.which("segimage2itkimage", path=BIN), "--inputDICOM", tmp_path / "m.dcm"]
    subprocess.run(
        [*command, "--outputDirectory", tmp_path, "--outputType", "nrrd"],
        check=True,
        capture_output=True,
    )
    for number in (1, 2):
        # Of a LABELMAP dcmqi makes one label map, of other segments a file each.
        file, value = (1, number) if kind == "LABELMAP" else (number, number)
        image = SimpleITK.ReadImage(str(tmp_path / f"{file}.nrrd"))
        theirs = np.argwhere(value == SimpleITK.GetArrayFromImage(image).T)
        world = [image.TransformIndexToPhysicalPoint(index) for index in theirs.tolist()]
        ours = scan.geometry.to_index(np.array(world) * (-1, -1, 1))
        assert np.abs(ours - np.rint(ours)).max() < 1e-3
        assert {tuple(i) for i in np.rint(ours).astype(int)} == {
            tuple(i) for i in np.argwhere(label_map == number)
        }


def test_names_outside_the_character_set_of_the_scan_survive_beside_those_inside(tmp_path):
    scan = write_scan(turned(np.eye(3)), tmp_path / "scan")
    for path in (tmp_path / "scan").iterdir():
        header = pydicom.dcmread(path)
        header.SpecificCharacterSet, header.PatientName = "ISO_IR 100", "Müller^Jörg"
        header.save_as(path)
    labels = label_set({"Läsion": 1, "脾臓": 2})
    segment(np.indices(SHAPE).sum(0).astype(np.uint8) % 3, scan, tmp_path, labels=labels)
    assert read_seg_labels(tmp_path / "m.dcm").names == ("Läsion", "脾臓")
    assert str(pydicom.dcmread(tmp_path / "m.dcm").PatientName) == "Müller^Jörg"
