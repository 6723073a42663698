"""Objects through the predictor: stitched, then grouped, on any grid, written and read."""

import csv
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from drawn_objects import whole_centre_targets
from PIL import Image
from scipy import ndimage

from medseg.core.geometry import Geometry
from medseg.core.labels import label_set
from medseg.core.objects import Centres, Components, Distances, ObjectPlan, labels_for
from medseg.core.plan import IntensityPlan, NetworkPlan, Plan, TrainingPlan
from medseg.core.volume import Volume
from medseg.inference.object_files import ids_paths, measure_objects, write_ids, write_objects
from medseg.inference.predictor import Predictor, windows_of
from medseg.io.formats import read_object_ids
from medseg.io.placement import image_affine
from medseg.postprocess.objects import Objects
from medseg.transforms.chains import Prepared
from medseg.transforms.object_targets import depth_targets

LABELS = labels_for(label_set({"cell": 1}), "instance", None)
WAYS = [Components(), Centres(), Distances()]


class Repeats(torch.nn.Module):
    """A network whose answer is its input: the truth, seen through windows."""

    def forward(self, x):
        return x


def plan_of(num_channels, dims, *, patch, spacing_mm):
    return Plan(
        dataset="drawn",
        spatial_dims=dims,
        orientation="RAS",
        spacing_mm=spacing_mm,
        patch_vox=patch,
        intensity=tuple(IntensityPlan(channel=f"c{n}", scheme="none") for n in range(num_channels)),
        network=NetworkPlan(widths=(4,), strides=(), kernels=((3, 3, 3),)),
        training=TrainingPlan(batch_size=2, num_steps=1),
        device="cpu",
    )


def mosaic(shape, rng, num, edges):
    """Objects that touch, most of them larger than half a window; one-voxel gaps for pieces."""
    seeds = rng.uniform(0, shape, (num, len(shape)))
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    distance = np.linalg.norm((grid[..., None, :] - seeds) * edges, axis=-1)
    nearest = np.sort(distance, axis=-1)
    gap = nearest[..., 1] - nearest[..., 0] < 2 * max(edges)
    return np.where(gap | (nearest[..., 0] > 14), 0, distance.argmin(-1) + 1)


def truth(ids, way, edges, dims):
    """The outputs of a network that knows: logits of classes, and the way's channels."""
    inside = torch.from_numpy(ids > 0)
    logits = [10 * (~inside).float(), 10 * inside.float()]
    tensor = torch.from_numpy(ids)[None]
    flat = tensor[..., 0] if dims == 2 else tensor
    own = []
    if isinstance(way, Centres):
        heat, offset = whole_centre_targets(flat, edges=edges[:dims], sigma_share=way.sigma_share)
        own = [heat[0], *(offset[0] / way.unit_vox)]
    elif isinstance(way, Distances):
        own = [depth_targets(flat, edges=edges[:dims])[0]]
    own = [one[..., None] if dims == 2 else one for one in own]
    return torch.stack([*logits, *own]).numpy()


def predictor_of(plan, way, labels=LABELS, **settings):
    objects = ObjectPlan(task="instance", way=way, **settings)
    return Predictor.of(
        [Repeats()],
        plan=plan,
        labels=labels,
        device=torch.device("cpu"),
        windows=windows_of(plan, labels, objects=objects),
        objects=objects,
    )


def same_objects(found, drawn):
    pairs = {(int(a), int(b)) for a, b in zip(found.ravel(), drawn.ravel(), strict=True)}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize("dims", [2, 3])
def test_objects_larger_than_windows_are_whole(way, dims, rng):
    shape, patch, edges = {
        2: ((70, 60, 1), (16, 16, 1), (1.0, 1.0, 1.0)),
        3: ((30, 28, 14), (12, 12, 6), (1.0, 1.0, 2.0)),
    }[dims]
    drawn = mosaic(shape[:dims], rng, 9 if dims == 2 else 5, edges[:dims]).reshape(shape)
    drawn, _ = ndimage.label(drawn > 0, structure=np.ones((3, 3, 3)))
    geometry = Geometry(shape, np.diag([*edges, 1]))
    outputs = truth(drawn, way, edges, dims)
    names = tuple(f"c{n}" for n in range(len(outputs)))
    plan = plan_of(len(outputs), dims, patch=patch, spacing_mm=edges)
    done = predictor_of(plan, way).segment(Volume(outputs, geometry, names))
    assert same_objects(done.objects.ids_IJK, drawn)
    assert np.array_equal(done.label_map > 0, drawn > 0)
    # At a border the blur moves a peak by a voxel.
    assert (done.objects.confidence_M > 0.8).all()


@pytest.mark.parametrize("way", [Centres(), Distances()], ids=lambda way: way.name)
def test_stuff_stays_and_things_are_told_apart(way):
    labels = label_set({"tissue": 1, "cell": 2}).with_things(["cell"])
    shape, edges = (40, 36, 1), (1.0, 1.0, 1.0)
    drawn = np.zeros(shape, np.int64)
    drawn[4:14, 5:15], drawn[14:23, 5:15], drawn[25:34, 20:30] = 1, 2, 3
    classes = np.where(drawn > 0, 2, np.indices(shape)[0] > 8)
    outputs = truth(drawn, way, edges, 2)
    logits = np.stack([10.0 * (classes == index) for index in range(3)]).astype(np.float32)
    outputs = np.concatenate([logits, outputs[2:]])
    plan = plan_of(len(outputs), 2, patch=(16, 16, 1), spacing_mm=edges)
    names = tuple(f"c{n}" for n in range(len(outputs)))
    scan = Volume(outputs, Geometry(shape, np.eye(4)), names)
    done = predictor_of(plan, way, labels).segment(scan)
    assert np.array_equal(done.label_map, classes)
    assert same_objects(done.objects.ids_IJK, drawn)
    assert set(done.objects.class_M) == {2}


def test_offsets_point_the_same_way_in_a_scan_that_lies_otherwise(rng):
    """The scan's axes are flipped and swapped against the plan's; its objects are the same ones."""
    edges = (1.0, 1.0, 2.0)
    drawn = mosaic((24, 28, 10), rng, 5, edges)
    way = Centres()
    outputs = truth(drawn, way, edges, 3)
    turned = outputs.transpose(0, 3, 2, 1)[:, :, ::-1].copy()
    affine = np.array([[0, 0, 1.0, 0], [0, -1.0, 0, 27], [2.0, 0, 0, 0], [0, 0, 0, 1]])
    plan = plan_of(len(outputs), 3, patch=(16, 16, 8), spacing_mm=edges)
    names = tuple(f"c{n}" for n in range(len(outputs)))
    scan = Volume(turned, Geometry(turned.shape[1:], affine), names)
    done = predictor_of(plan, way).segment(scan)
    assert same_objects(done.objects.ids_IJK, drawn.transpose(2, 1, 0)[:, ::-1])


def test_objects_come_back_onto_a_finer_grid_without_gaps():
    drawn = np.zeros((20, 20, 8), np.int64)
    drawn[2:9, 2:18], drawn[9:16, 2:18] = 1, 2
    coarse = Geometry(drawn.shape, np.diag([2.0, 2, 2, 1]))
    way = Centres()
    outputs = truth(drawn, way, (1.0, 1.0, 1.0), 3)
    plan = plan_of(len(outputs), 3, patch=(16, 16, 8), spacing_mm=(2.0, 2.0, 2.0))
    predictor = predictor_of(plan, way)
    fine = Geometry(
        (57, 57, 23), np.array([[0.7, 0, 0, 0], [0, 0.7, 0, 0], [0, 0, 0.7, 0], [0, 0, 0, 1]])
    )
    done = predictor.segment_prepared(Prepared(torch.from_numpy(outputs), None, coarse), onto=fine)
    ids = done.objects.ids_IJK
    assert np.array_equal(ids > 0, done.label_map > 0)
    assert ids.max() == 2
    nearest = np.rint(np.indices(fine.shape) * 0.35).astype(int)
    expected = drawn[tuple(np.minimum(nearest[a], drawn.shape[a] - 1) for a in range(3))]
    both = (ids > 0) & (expected > 0)
    assert same_objects(ids[both], expected[both])
    assert both.sum() / (expected > 0).sum() > 0.95
    # The rims of classes, which lie otherwise than those of ids, go to the nearest object.
    plain_plan = plan_of(2, 3, patch=(16, 16, 8), spacing_mm=(2.0, 2.0, 2.0))
    plain = Predictor.of(
        [Repeats()],
        plan=plain_plan,
        labels=LABELS,
        device=torch.device("cpu"),
        windows=windows_of(plain_plan, LABELS),
    )
    classes = Prepared(torch.from_numpy(outputs[:2]), None, coarse)
    assert np.array_equal(done.label_map, plain.segment_prepared(classes, onto=fine).label_map)


def test_small_objects_are_dropped_by_their_volume_in_ml():
    drawn = np.zeros((20, 20, 6), np.int64)
    drawn[2:6, 2:6, 1:5], drawn[10:12, 10:12, 2] = 1, 2
    geometry = Geometry(drawn.shape, np.diag([2.0, 2, 2, 1]))
    outputs = truth(drawn, Components(), (2.0, 2, 2), 3)
    plan = plan_of(2, 3, patch=(8, 8, 4), spacing_mm=(2.0, 2.0, 2.0))
    # 64 and 4 voxels of 8 cubic millimetres.
    for least_ml, kept in ((0.0, 2), (0.03, 2), (0.033, 1), (0.6, 0)):
        predictor = predictor_of(plan, Components(), least_ml=least_ml)
        done = predictor.segment(Volume(outputs, geometry, ("c0", "c1")))
        assert len(done.objects) == kept
        assert (done.label_map > 0).sum() == {2: 68, 1: 64, 0: 0}[kept]


def drawn_objects(num=3):
    ids = np.zeros((12, 10, 6), np.int32)
    for number in range(num):
        ids[4 * number : 4 * number + 3, 2:7, 1:4] = number + 1
    return Objects(
        ids_IJK=ids,
        class_M=np.ones(num, np.int64),
        confidence_M=np.linspace(0.5, 1, num, dtype=np.float32),
    )


def test_the_table_has_volume_and_place_in_the_patient():
    affine = np.array([[0, -2.0, 0, 30], [1.5, 0, 0, -5], [0, 0, 3.0, 100], [0, 0, 0, 1]])
    geometry = Geometry((12, 10, 6), affine)
    found = measure_objects(drawn_objects(), geometry=geometry, labels=LABELS)
    assert [one.object_id for one in found] == [1, 2, 3]
    assert found[1].volume == pytest.approx(45 * 9 / 1000)
    assert found[1].centroid == pytest.approx((-2 * 4 + 30, 1.5 * 5 - 5, 3 * 2 + 100))
    row = found[2].to_row()
    assert (row["class"], row["confidence"]) == ("cell", "1.0000")
    assert "x_px" not in row
    flat = Geometry((12, 10, 6), np.eye(4), "px")
    row = measure_objects(drawn_objects(), geometry=flat, labels=LABELS)[0].to_row()
    assert (row["volume_px"], row["x_px"], row["y_px"]) == ("45", "1.00", "4.00")


def test_rows_of_other_cases_stay_in_the_table(tmp_path):
    geometry = Geometry((12, 10, 6), np.eye(4))
    one, three = (
        measure_objects(drawn_objects(n), geometry=geometry, labels=LABELS) for n in (1, 3)
    )
    write_objects({"a": three, "b": one}, tmp_path / "objects.csv")
    write_objects({"a": one, "c": ()}, tmp_path / "objects.csv", without=["d"])
    with (tmp_path / "objects.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case_id"] for row in rows] == ["b", "a"]
    assert rows[0]["x_px"] == ""


@pytest.mark.parametrize(
    ("suffix", "num"),
    [
        *((suffix, 300) for suffix in (".nii.gz", ".nrrd", ".mha", ".tif", ".png")),
        *((suffix, 70_000) for suffix in (".nii.gz", ".nrrd", ".mha", ".tif")),
    ],
)
def test_ids_come_back_from_every_format_that_holds_them(tmp_path, suffix, num):
    ids = np.arange(70_200, dtype=np.int32).reshape(270, 260, 1) % (num + 1)
    geometry = Geometry(ids.shape, np.eye(4), "px")
    if suffix in (".tif", ".png"):
        geometry = Geometry(ids.shape, image_affine(), "px")
    objects = Objects(
        ids_IJK=ids, class_M=np.ones(num, np.int64), confidence_M=np.ones(num, np.float32)
    )
    path = tmp_path / f"a_instances{suffix}"
    write_ids(objects, [path], geometry=geometry)
    assert np.array_equal(read_object_ids(path), ids)
    if suffix == ".nii.gz":
        assert nib.load(path).get_data_dtype() == (np.uint16 if num < 65_536 else np.uint32)
    if suffix == ".png":
        assert np.array_equal(np.array(Image.open(path)).T, ids[..., 0])


def test_formats_of_named_segments_leave_ids_to_nifti(tmp_path):
    assert [path.name for path in ids_paths(tmp_path, "a", ["seg_nrrd", "dicom_seg"])] == [
        "a_instances.nii.gz"
    ]
    assert [path.name for path in ids_paths(tmp_path, "a", ["png", "nrrd", "seg_nrrd"])] == [
        "a_instances.png",
        "a_instances.nrrd",
    ]


def test_left_and_right_partners_and_offsets_share_one_mirror():
    sided = label_set({"left": 1, "right": 2}).with_things(["left", "right"])
    labels = replace(
        sided,
        labels=(
            replace(sided.labels[0], partner="right"),
            replace(sided.labels[1], partner="left"),
        ),
    )
    plan = plan_of(1, 3, patch=(8, 8, 8), spacing_mm=(1.0, 1.0, 1.0))
    windows = windows_of(
        plan, labels, objects=ObjectPlan(task="instance", way=Centres()), mirror=True
    )
    assert windows.mirror_order == (0, 2, 1, 3, 4, 5, 6)
    assert windows.vector_outputs == (4, 5, 6)
