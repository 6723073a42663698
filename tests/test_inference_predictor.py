"""A predictor gives masks on the scan's own grid; a batch of scans survives its bad ones."""

import csv
import json
from dataclasses import replace
from functools import partial

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from medseg.core.errors import CheckpointError, ConfigError, PlanError, ReadError
from medseg.core.findings import Finding
from medseg.core.fingerprint import Fingerprint, Intensity
from medseg.core.geometry import Geometry
from medseg.core.labels import Label, LabelSet, Region, label_set
from medseg.core.objects import ObjectPlan
from medseg.core.plan import IntensityPlan, NetworkPlan, Plan, TrainingPlan
from medseg.core.volume import Volume
from medseg.inference.batch import Outcome, Outputs, predict_sources, recorded
from medseg.inference.object_files import FoundObject
from medseg.inference.predictor import Predictor, windows_of
from medseg.inference.sources import Source, sources_in
from medseg.io.formats import read_volume
from medseg.metrics.volumes import ClassVolume
from medseg.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from medseg.models.registry import build_model
from medseg.tasks.predict import predict_into

CPU = torch.device("cpu")
LABELS = label_set({"bright": 7})


def plan_of(dims=3, spacing_mm=(None, None, None)):
    flat = dims == 2
    return Plan(
        dataset="test",
        spatial_dims=dims,
        orientation="RAS",
        spacing_mm=spacing_mm,
        patch_vox=(16, 16, 1 if flat else 8),
        intensity=(IntensityPlan(channel="image", scheme="none"),),
        network=NetworkPlan(
            widths=(4, 8), strides=((2, 2, 1 if flat else 2),), kernels=((3, 3, 3),) * 2
        ),
        training=TrainingPlan(batch_size=2, num_steps=1),
        device="cpu",
    )


class Threshold(torch.nn.Module):
    """Calls a voxel bright above 0.5."""

    def forward(self, image):
        return torch.cat([0.5 - image, image - 0.5], dim=1)


def threshold_predictor(plan, num=1):
    return Predictor.of(
        [Threshold() for _ in range(num)],
        plan=plan,
        labels=LABELS,
        device=CPU,
        windows=windows_of(plan, LABELS),
    )


def scan_of(shape=(20, 17, 9), seed=0):
    rng = np.random.default_rng(seed)
    affine = np.diag([-0.8, 1.5, 3.0, 1.0])
    affine[:3, 3] = (10, -20, 30)
    voxels = (rng.random((1, *shape)) > 0.7).astype(np.float32)
    return Volume(voxels, Geometry(shape, affine))


@pytest.mark.parametrize("dims", [2, 3])
def test_the_mask_lies_on_the_scans_own_grid(dims):
    scan = scan_of()
    done = threshold_predictor(plan_of(dims)).segment(scan)
    assert done.geometry is scan.geometry
    assert np.array_equal(done.label_map, scan.voxels[0] > 0.5)


def test_probabilities_add_up_to_one_and_agree_with_the_mask():
    done = threshold_predictor(plan_of(spacing_mm=(1.0, 1.0, 2.0)), num=2).segment(
        scan_of(), probabilities=True
    )
    assert np.allclose(done.probabilities.sum(axis=0), 1, atol=1e-5)
    assert np.array_equal(done.probabilities.argmax(axis=0), done.label_map)


def test_a_scan_with_other_channels_is_refused():
    scan = Volume(np.zeros((2, 4, 4, 4), np.float32), Geometry((4, 4, 4), np.eye(4)), ("a", "b"))
    with pytest.raises(PlanError, match=r"channels \('a', 'b'\)"):
        threshold_predictor(plan_of()).segment(scan)


def checkpoint_at(path, plan=None, seed=0):
    plan = plan or plan_of()
    torch.manual_seed(seed)
    network = build_model("unet", plan=plan, num_inputs=1, num_outputs=2)
    checkpoint = Checkpoint(
        weights=network.state_dict(), plan=plan, labels=LABELS, fingerprint=None, model="unet",
        settings={}, scores={}, versions={}, trained_with={},
    )  # fmt: skip
    save_checkpoint(checkpoint, path)
    return path


def test_an_ensemble_averages_probabilities(tmp_path):
    paths = [checkpoint_at(tmp_path / f"{n}.pt", seed=n) for n in range(2)]
    image = torch.randn(1, 16, 16, 8)
    both = Predictor.load(paths, device=CPU).scores(image)
    alone = [Predictor.load(path, device=CPU).scores(image) for path in paths]
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2)


def test_a_loaded_predictor_knows_the_modalities_it_was_trained_on(tmp_path):
    path = checkpoint_at(tmp_path / "a.pt")
    assert Predictor.load(path, device=CPU).modalities == {}
    size = Intensity(mean=1, std=1, low=0, high=5, minimum=0, maximum=9)
    measured = Fingerprint(
        cases=(), channels=(("image", "SUV"),), foreground=(size,), whole=(size,), unit="mm",
        manifest_digest="",
    )  # fmt: skip
    save_checkpoint(replace(load_checkpoint(path), fingerprint=measured), path)
    assert Predictor.load(path, device=CPU).modalities == {"image": "SUV"}


def test_folds_of_another_plan_are_no_ensemble(tmp_path):
    other = replace(plan_of(), orientation="LPS")
    paths = [checkpoint_at(tmp_path / "a.pt"), checkpoint_at(tmp_path / "b.pt", other)]
    with pytest.raises(CheckpointError, match=r"b\.pt: was trained with another plan"):
        Predictor.load(paths, device=CPU)


def test_folds_that_measured_other_least_sizes_are_an_ensemble_with_their_mean(tmp_path):
    paths = [checkpoint_at(tmp_path / f"{n}.pt", seed=n) for n in range(3)]
    for path, objects in zip(
        paths,
        (
            ObjectPlan(task="instance", least_ml=0.2),
            ObjectPlan(task="instance", least_ml=0.4),
            ObjectPlan(task="panoptic"),
        ),
        strict=True,
    ):
        save_checkpoint(replace(load_checkpoint(path), objects=objects), path)
    both = Predictor.load(paths[:2], device=CPU)
    assert both.objects.least_ml == pytest.approx(0.3)
    assert both.objects.least_px is None
    with pytest.raises(CheckpointError, match="another plan or other classes"):
        Predictor.load(paths[1:], device=CPU)


def broken(_path):
    raise ReadError("bad.nii.gz: truncated", code="NII-001")


@pytest.fixture
def folder_of_scans(tmp_path):
    folder = tmp_path / "in put;$(x)"
    folder.mkdir()
    for n in range(3):
        scan = scan_of(seed=n)
        image = nibabel.Nifti1Image(scan.voxels[0], scan.geometry.affine)
        nibabel.save(image, folder / f"scan {n}.nii.gz")
    return folder


def test_one_bad_scan_does_not_stop_the_rest_and_a_second_run_goes_on(tmp_path, folder_of_scans):
    checkpoint = checkpoint_at(tmp_path / "model.pt")
    predictor = threshold_predictor(plan_of())
    sources = [*sources_in(folder_of_scans), Source(case_id="bad", read=partial(broken, "x"))]
    outputs = Outputs(folder=tmp_path / "out")
    first = predict_into(sources, predictor, outputs=outputs, checkpoints=[checkpoint])
    assert [o.status for o in first] == ["written", "written", "written", "failed"]

    written = tmp_path / "out" / "scan 1.nii.gz"
    mask, scan = read_volume(written), read_volume(folder_of_scans / "scan 1.nii.gz")
    assert np.array_equal(mask.voxels, 7 * (scan.voxels > 0.5))
    assert np.array_equal(mask.geometry.affine, scan.geometry.affine)

    written.unlink()
    second = predict_into(sources, predictor, outputs=outputs, checkpoints=[checkpoint])
    assert [o.status for o in second] == ["kept", "written", "kept", "failed"]
    with (tmp_path / "out" / "predictions.csv").open(newline="") as stream:
        rows = {row["case_id"]: row for row in csv.DictReader(stream)}
    assert len(rows) == 4
    assert rows["bad"]["message"] == "NII-001 bad.nii.gz: truncated"
    volume_ml = float((scan.voxels > 0.5).sum()) * scan.geometry.voxel_ml
    assert float(rows["scan 1"]["bright_ml"]) == pytest.approx(volume_ml, rel=1e-4)
    assert float(rows["scan 0"]["seconds"]) > 0


def rows_of(table):
    with table.open(newline="") as stream:
        return {row["case_id"]: row for row in csv.DictReader(stream)}


def test_the_tables_tell_of_a_case_before_the_next_one_is_segmented(tmp_path, monkeypatch):
    volume = ClassVolume(class_name="bright", num_vox=4, ml=0.5)
    found = FoundObject(
        object_id=1, class_name="bright", unit="mm", volume=0.5, centroid=(0, 0, 0), confidence=1
    )
    told = {"status": "written", "volumes": (volume,), "objects": (found,)}
    monkeypatch.setattr("medseg.inference.batch._REST", 0)
    table = tmp_path / "predictions.csv"
    running = recorded(
        (Outcome(case_id=name, **told) for name in ("a", "b", "c")), table, labels=LABELS
    )
    next(running), next(running)
    for name in ("predictions.csv", "volumes.csv", "objects.csv"):
        assert list(rows_of(tmp_path / name)) == ["a", "b"]
    # Killed here and started again, with one mask that nothing is known of.
    kept = [Outcome(case_id=name, status="kept") for name in ("a", "b", "other")]
    list(recorded([*kept, Outcome(case_id="c", **told)], table, labels=LABELS))
    rows = rows_of(table)
    assert {name: row["status"] for name, row in rows.items()} == {
        **dict.fromkeys("abc", "written"), "other": "kept",
    }  # fmt: skip
    assert {name: float(row["bright_ml"] or "nan") for name, row in rows.items()} == pytest.approx(
        {"a": 0.5, "b": 0.5, "c": 0.5, "other": float("nan")}, nan_ok=True
    )
    assert "no table tells of it" in rows["other"]["message"]
    for name in ("volumes.csv", "objects.csv"):
        assert list(rows_of(tmp_path / name)) == ["a", "b", "c"]


def test_a_case_that_fails_now_leaves_the_table_of_objects(tmp_path):
    found = FoundObject(
        object_id=1, class_name="bright", unit="mm", volume=0.5, centroid=(0, 0, 0), confidence=1
    )
    table = tmp_path / "predictions.csv"
    list(recorded([Outcome(case_id="a", status="written", objects=(found,))], table, labels=LABELS))
    list(recorded([Outcome(case_id="a", status="failed")], table, labels=LABELS))
    assert rows_of(tmp_path / "objects.csv") == {}


def test_volumes_and_probabilities_stand_beside_the_masks(tmp_path, folder_of_scans):
    checkpoint = checkpoint_at(tmp_path / "model.pt")
    predictor = threshold_predictor(plan_of())
    outputs = Outputs(folder=tmp_path / "out", probabilities="uint8")
    sources = sources_in(folder_of_scans)
    predict_into(sources, predictor, outputs=outputs, checkpoints=[checkpoint])
    (tmp_path / "out" / "scan 1.nii.gz").unlink()
    predict_into(sources, predictor, outputs=outputs, checkpoints=[checkpoint])
    with (tmp_path / "out" / "volumes.csv").open(newline="") as stream:
        rows = {row["case_id"]: row for row in csv.DictReader(stream)}
    assert len(rows) == 3
    for source in sources:
        mask = read_volume(tmp_path / "out" / f"{source.case_id}.nii.gz")
        maps = nibabel.load(tmp_path / "out" / f"{source.case_id}_probabilities.nii.gz")
        assert np.array_equal(
            maps.affine, nibabel.load(tmp_path / "out" / f"{source.case_id}.nii.gz").affine
        )
        assert np.array_equal(maps.get_fdata().argmax(axis=-1) > 0, mask.voxels[0] > 0)
        assert maps.get_data_dtype() == np.uint8
        row = rows[source.case_id]
        assert int(row["voxels"]) == (mask.voxels > 0).sum()
        expected_ml = (mask.voxels > 0).sum() * mask.geometry.voxel_ml
        assert float(row["ml"]) == pytest.approx(expected_ml, rel=1e-5)


def test_what_a_reader_noticed_stands_beside_the_mask(tmp_path):
    scan = scan_of()
    noticed = Finding(code="NII-013", severity="warning", subject="a", message="forms disagree")
    outcomes = predict_into(
        [Source(case_id="a", read=lambda: replace(scan, findings=(noticed,)))],
        threshold_predictor(plan_of()),
        outputs=Outputs(folder=tmp_path / "out"),
        checkpoints=[checkpoint_at(tmp_path / "model.pt")],
    )
    assert [o.status for o in outcomes] == ["written"]
    with (tmp_path / "out" / "predictions.csv").open(newline="") as stream:
        assert [row["message"] for row in csv.DictReader(stream)] == ["NII-013 forms disagree"]


@pytest.mark.parametrize("name", ["tiff", "png"])
def test_a_format_that_cannot_hold_a_scans_mask_is_refused_before_it_is_segmented(
    tmp_path, folder_of_scans, monkeypatch, name
):
    predictor = threshold_predictor(plan_of())
    monkeypatch.setattr(Predictor, "segment", lambda *_, **__: pytest.fail("was segmented"))
    outputs = Outputs(folder=tmp_path / "out", formats=("nifti", name))
    outcomes = list(predict_sources(sources_in(folder_of_scans), predictor, outputs=outputs))
    assert [outcome.status for outcome in outcomes] == ["failed"] * 3
    assert all(outcome.message.startswith("FIL-022") for outcome in outcomes)


def test_masks_of_two_models_are_not_mixed(tmp_path, folder_of_scans):
    predictor = threshold_predictor(plan_of())
    sources, outputs = sources_in(folder_of_scans), Outputs(folder=tmp_path / "out")
    one, other = (checkpoint_at(tmp_path / f"{n}.pt", seed=n) for n in range(2))
    predict_into(sources, predictor, outputs=outputs, checkpoints=[one])
    assert "checkpoint_0" in json.loads((tmp_path / "out" / "run.json").read_text())["digests"]
    with pytest.raises(CheckpointError, match="masks of another checkpoint"):
        predict_into(sources, predictor, outputs=outputs, checkpoints=[other])


def test_contours_beside_a_scan_are_no_scan_that_failed(shared_data):
    folder = shared_data("sts_dicom_rtstruct") / "dicom" / "STS_008" / "MR_T1"
    (source,) = sources_in(folder)
    assert source.dicom == folder / "image"
    (alone,) = sources_in(folder / "mask")
    with pytest.raises(ReadError, match="is a set of contours"):
        alone.read()


def test_an_empty_folder_and_an_unknown_format_are_refused(tmp_path):
    with pytest.raises(ReadError, match="holds no scan"):
        sources_in(tmp_path)
    with pytest.raises(ConfigError, match="formats="):
        Outputs(folder=tmp_path, formats=("dicom",))


@pytest.mark.parametrize(("orientation", "axis"), [("RAS", 0), ("ARS", 1), ("SAL", 2)])
def test_mirror_images_swap_sides_along_the_plans_own_axis(orientation, axis):
    sided = LabelSet(
        labels=(
            Label(name="left", values=(1,), colour=(255, 0, 0), partner="right"),
            Label(name="right", values=(2,), colour=(0, 255, 0), partner="left"),
        )
    )
    plan = replace(plan_of(), orientation=orientation)
    windows = windows_of(plan, sided, mirror=True)
    assert windows.sided_axis == axis
    assert windows.mirror_order == (0, 2, 1)
    # Outputs that are regions have no background before them, and swap among themselves.
    regions = (
        Region(name="both", members=("left", "right"), written_as="left"),
        Region(name="R", members=("right",)),
        Region(name="L", members=("left",)),
    )
    overlapping = replace(sided, regions=regions, outputs="regions")
    assert windows_of(plan, overlapping, mirror=True).mirror_order == (0, 2, 1)
    assert windows_of(
        plan, replace(overlapping, regions=regions[1:]), mirror=True
    ).mirror_order == (
        1,
        0,
    )


@pytest.mark.parametrize("colours", [("image_red", "image_green", "image_blue"), ("image",)])
def test_a_gray_picture_is_read_in_the_colours_that_a_network_knows(tmp_path, colours):
    known = replace(
        threshold_predictor(plan_of(dims=2)),
        modalities=dict.fromkeys(colours, "RGB" if len(colours) == 3 else "optical"),
    )
    assert known.planes_of_one == colours
    gray = np.random.default_rng(0).integers(0, 255, (20, 24), np.uint8)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    Image.fromarray(np.stack([gray] * 3, axis=-1)).save(tmp_path / "equal.png")
    one, other = (s.read() for s in sources_in(tmp_path, planes=known.planes_of_one))
    assert one.voxels.shape == other.voxels.shape == (len(colours), *one.geometry.shape)
    assert np.array_equal(one.voxels, other.voxels)
    assert len(one.findings) + len(other.findings) == 1


def test_a_network_of_three_channels_gets_no_gray_picture_thrice():
    channels = {"CT": "CT", "PET": "PT", "MR": "MR"}
    assert replace(threshold_predictor(plan_of()), modalities=channels).planes_of_one == ()
