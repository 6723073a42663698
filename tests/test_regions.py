"""Overlapping regions, from their declaration to the mask: the way WT, TC and ET are learnt.

Axes: B batch, L label, R region, IJK voxels.
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch
from torch.nn import functional

from medseg.cli import main
from medseg.core.errors import ConfigError, LabelError
from medseg.core.geometry import Geometry
from medseg.core.labels import LabelSet, label_set
from medseg.core.regions import Region
from medseg.data.case import Case, Channel
from medseg.data.manifest import Manifest, read_manifest, write_manifest
from medseg.inference.decision import label_map_of, probabilities_of
from medseg.inference.restore import restore_label_map
from medseg.losses.regions import REGION_IGNORE_INDEX, RegionLoss
from medseg.losses.registry import build_loss, loss_names
from medseg.models.checkpoint import load_checkpoint
from medseg.training.parts import loss_for

CLASSES = label_set({"edema": 1, "necrosis": 2, "enhancing": 4})
REGIONS = (
    Region(name="WT", members=("edema", "necrosis", "enhancing")),
    Region(name="TC", members=("necrosis", "enhancing")),
    Region(name="ET", members=("enhancing",)),
)
NESTED = replace(CLASSES, regions=REGIONS, outputs="regions")
MEMBERS = ((1, 2, 3), (2, 3), (3,))
IGNORED = 4


def loss_of(name: str = "dice_ce", ignore_index: int | None = None) -> RegionLoss:
    one = build_loss(name, num_outputs=2, ignore_index=REGION_IGNORE_INDEX)
    return RegionLoss(losses=(one,) * 3, members=MEMBERS, ignore_index=ignore_index)


def labels_drawn(seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 4, (2, 6, 5, 4), generator=torch.Generator().manual_seed(seed))


def right_logits(label: torch.Tensor, size: float = 50.0) -> torch.Tensor:
    inside = torch.stack([torch.isin(label, torch.tensor(members)) for members in MEMBERS], dim=1)
    return torch.where(inside, size, -size)


def test_a_label_set_knows_what_a_network_of_regions_ends_in():
    assert CLASSES.num_outputs == 4
    assert NESTED.num_outputs == 3
    assert NESTED.output_names == ("WT", "TC", "ET")
    assert NESTED.targets == (("WT", (1, 2, 3)), ("TC", (2, 3)), ("ET", (3,)))
    assert NESTED.num_indices == 4
    assert LabelSet.from_json(json.loads(json.dumps(NESTED.to_json()))) == NESTED
    assert set(CLASSES.to_json()) == {"labels", "regions", "ignore_value"}


@pytest.mark.parametrize("label", [labels_drawn(), torch.zeros(1, 3, 3, 3, dtype=torch.int64)])
def test_classes_come_back_from_regions_whatever_they_are(label):
    for reference, logits in zip(label, right_logits(label), strict=True):
        found = label_map_of(probabilities_of(logits, NESTED), NESTED)
        assert found.dtype == np.uint8
        assert np.array_equal(found, reference.numpy())
        grid = Geometry(tuple(reference.shape), np.eye(4))
        turned = Geometry(
            tuple(reference.shape),
            np.diag([-1.0, 1, 1, 1]) + np.eye(4, k=3) * (reference.shape[0] - 1),
        )
        on_scan = restore_label_map(
            probabilities_of(logits, NESTED),
            grid,
            onto=turned,
            decide=lambda p: label_map_of(p, NESTED),
        )
        assert np.array_equal(on_scan, reference.numpy()[::-1])


def test_the_wrong_treatment_as_classes_that_exclude_each_other_fails():
    label = labels_drawn()
    logits = right_logits(label)
    # Right: perfect regions cost nothing.
    assert loss_of()(logits, label) < 1e-4
    # Wrong in training: where regions overlap, a softmax lets only one of them have the voxel.
    inside = torch.isin(label, torch.tensor([2, 3]))
    p_of_whole = logits.softmax(1)[:, 0]
    assert (p_of_whole[inside] <= 0.5 + 1e-6).all()
    # Wrong in prediction: the first of equal outputs wins, and inner classes are never seen.
    wrong = probabilities_of(logits[0], CLASSES)
    assert not np.array_equal(wrong.argmax(0).numpy(), label[0].numpy())
    assert not (wrong > 0.5).all(0)[label[0] == 3].any()


def test_order_decides_which_region_is_written_last():
    inner_first = replace(CLASSES, regions=REGIONS[::-1])
    with pytest.raises(LabelError, match=r"LBL-014 region 'ET': none of its members"):
        replace(inner_first, outputs="regions")
    said = tuple(replace(r, written_as=r.members[0]) for r in REGIONS[::-1])
    labels = replace(CLASSES, regions=said, outputs="regions")
    p = torch.ones(3, 1, 1, 1)
    # All three are there: the last one written, the whole tumour, covers the others.
    assert label_map_of(p, labels).item() == 1
    assert label_map_of(p, NESTED).item() == 3


def test_two_inner_regions_that_overlap_are_written_in_their_order():
    labels = replace(
        label_set({"a": 1, "b": 2}),
        regions=(Region(name="A", members=("a",)), Region(name="B", members=("b",))),
        outputs="regions",
    )
    assert label_map_of(torch.full((2, 1, 1, 1), 0.9), labels).item() == 2
    assert label_map_of(torch.full((2, 1, 1, 1), 0.5), labels).item() == 0


@pytest.mark.parametrize(
    ("regions", "told"),
    [
        (REGIONS[1:], "'edema' is in none"),
        (REGIONS[::2], r"\['edema', 'necrosis'\] would be written"),
        ((), "'edema' is in none"),
    ],
)
def test_regions_that_cannot_become_a_label_map_are_refused(regions, told):
    replace(CLASSES, regions=regions)  # to be scored only, they are fine
    with pytest.raises(LabelError, match=told):
        replace(CLASSES, regions=regions, outputs="regions")


def test_a_region_is_written_as_one_of_its_members():
    with pytest.raises(LabelError, match="expected one of its members"):
        Region(name="TC", members=("necrosis",), written_as="edema")


def test_mirrored_outputs_are_the_regions_of_the_partners():
    sided = LabelSet.from_json(
        {
            "labels": [
                {"name": "left", "values": 1, "partner": "right"},
                {"name": "left core", "values": 2, "partner": "right core"},
                {"name": "right", "values": 3, "partner": "left"},
                {"name": "right core", "values": 4, "partner": "left core"},
            ],
            "regions": [
                {"name": "L", "members": ["left", "left core"]},
                {"name": "LC", "members": ["left core"]},
                {"name": "R", "members": ["right", "right core"]},
                {"name": "RC", "members": ["right core"]},
            ],
            "outputs": "regions",
        }
    )
    assert sided.output_mirror_order == (2, 3, 0, 1)
    assert sided.mirror_order == (0, 3, 4, 1, 2)
    with pytest.raises(LabelError, match=r"'L': its mirror image \['right'\]"):
        replace(sided, regions=(replace(sided.regions[0], members=("left",)), *sided.regions[1:]))


def test_dice_ce_over_regions_is_binary_cross_entropy_and_the_dice_of_each():
    label = labels_drawn()
    logits = torch.randn(2, 3, 6, 5, 4, generator=torch.Generator().manual_seed(1))
    inside = (right_logits(label) > 0).float()
    bce = functional.binary_cross_entropy_with_logits(logits, inside)
    p = logits.sigmoid()
    both = 2 * (p * inside).flatten(2).sum(2)
    dice = (1 - both / (p + inside).flatten(2).sum(2)).mean()
    assert torch.allclose(loss_of()(logits, label), bce + dice, atol=1e-5)


@pytest.mark.parametrize("name", loss_names())
def test_every_loss_serves_regions_and_skips_what_nobody_labelled(name):
    label = labels_drawn()
    logits = torch.randn(2, 3, 6, 5, 4, generator=torch.Generator().manual_seed(2)) * 2
    label[:, 4:] = IGNORED
    logits[:, :, 4:] = 1e3
    logits.requires_grad_()
    loss = loss_of(name, ignore_index=IGNORED)(logits, label)
    loss.backward()
    cut = loss_of(name)(logits[:, :, :4], label[:, :4])
    assert torch.allclose(loss, cut, atol=1e-5)
    assert not logits.grad[:, :, 4:].any()
    assert logits.grad[:, :, :4].any()
    # The wrong treatment, ignored means outside, costs.
    outside = torch.where(label == IGNORED, 0, label)
    assert loss_of(name)(logits, outside) > loss + 1e-3


def test_a_region_counts_only_where_all_its_classes_were_annotated():
    label = torch.where(labels_drawn() == 3, 3, 0)
    annotated = torch.tensor([[True, False, False, True]]).expand(2, -1)
    logits = torch.full((2, 3, 6, 5, 4), 9.0)
    logits[:, 2] = right_logits(label)[:, 2]
    logits.requires_grad_()
    loss = loss_of()(logits, label, annotated)
    loss.backward()
    # Whole tumour and core are everywhere by this prediction, and nobody knows better.
    assert loss < 1e-4
    assert not logits.grad[:, :2].any()
    assert loss_of()(logits, label) > 0.3


@pytest.mark.parametrize("outputs", ["classes", "regions"])
def test_a_fingerprint_of_other_classes_than_the_labels_weighs_none(outputs):
    """Such as one from before a class was added to the manifest."""
    job = SimpleNamespace(
        labels=replace(NESTED, outputs=outputs),
        plan=SimpleNamespace(voxel_edges=(1.0, 1.0, 1.0)),
        fingerprint=SimpleNamespace(class_share=(0.9, 0.1)),
        choices=SimpleNamespace(loss=("dice_ce", {})),
    )
    assert loss_for(job) is not None
    job.choices.loss = ("dice_ce", {"class_weights": "inverse"})
    with pytest.raises(ConfigError, match=r"needs a fingerprint\.json of these classes"):
        loss_for(job)


@pytest.fixture
def nested_dataset(tmp_path: Path) -> Path:
    """Boxes in boxes: edema around necrosis around enhancing tumour."""
    cases = []
    for n in range(10):
        rng = np.random.default_rng(n)
        label = np.zeros((16, 16, 16), np.uint8)
        i, j, k = rng.integers(1, 5, 3)
        label[i : i + 10, j : j + 10, k : k + 10] = 1
        label[i + 2 : i + 8, j + 2 : j + 8, k + 2 : k + 8] = 2
        label[i + 3 : i + 7, j + 3 : j + 7, k + 3 : k + 7] = 4
        image = rng.normal(size=label.shape).astype(np.float32) * 0.3 + 2 * label
        for kind, voxels in (("image", image), ("label", label)):
            nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / f"{kind}{n}.nii.gz")
        cases.append(
            Case(
                case_id=f"c{n}",
                patient_id=f"p{n}",
                images={"MR": f"image{n}.nii.gz"},
                labels=(f"label{n}.nii.gz",),
            )
        )
    manifest = Manifest(
        name="nested",
        data_root=tmp_path,
        channels=(Channel(name="MR", modality="MR"),),
        labels=replace(CLASSES, regions=REGIONS),
        reference_channel="MR",
        spatial_dims=3,
        cases=tuple(cases),
    )
    write_manifest(manifest, tmp_path / "manifest.json")
    return tmp_path / "manifest.json"


@pytest.mark.parametrize(
    ("regions", "told"),
    [
        ("{WT:{members:[edema],writen_as:edema}}", "CFG-001 training.regions.WT.writen_as"),
        ("{WT:{written_as:edema}}", "training.regions.WT=.*expected classes, such as"),
        ("{WT:3}", "training.regions.WT=3: expected classes, such as"),
        ("{WT:{members:[edema],written_as:necrosis}}", "written as 'necrosis'; expected one of"),
        (
            "{WT:[edema,necrosis],TC:[enhancing]}",
            "or say written_as, such as WT: {members: .edema, necrosis., written_as: edema}",
        ),
    ],
)
def test_a_region_that_cannot_be_read_or_written_is_refused(
    nested_dataset, tmp_path, capsys, regions, told
):
    line = ["train", f"manifest={nested_dataset}", "device=cpu", "mlflow.enabled=false"]
    assert main([*line, f"output={tmp_path}/run", f"training.regions={regions}"]) == 2
    assert re.search(told, capsys.readouterr().err)


def test_what_a_region_is_written_as_can_be_said_where_it_is_named(nested_dataset, tmp_path):
    regions = "{WT:{members:[edema,necrosis],written_as:edema},ET:enhancing}"
    line = ["train", f"manifest={nested_dataset}", "device=cpu", "mlflow.enabled=false", "fold=all"]
    line += [f"output={tmp_path}/run", f"training.regions={regions}", "training.max_steps=1"]
    assert main(line) == 0
    assert load_checkpoint(tmp_path / "run" / "model.pt").labels.regions == (
        Region(name="WT", members=("edema", "necrosis"), written_as="edema"),
        Region(name="ET", members=("enhancing",)),
    )


def test_a_training_on_regions_predicts_classes_and_is_scored_by_region(
    nested_dataset, tmp_path, capsys
):
    run, quick = tmp_path / "run", ["device=cpu", "mlflow.enabled=false", f"output={tmp_path}/run"]
    line = [
        "train", f"manifest={nested_dataset}", *quick, "training.max_steps=60",
        "training.num_validations=1", "optimizer.lr=0.01",
    ]  # fmt: skip
    assert main([*line, "training.regions={WT:[edema],TC:[necrosis]}"]) == 2
    assert "LBL-014" in capsys.readouterr().err
    assert main([*line, "training.regions=declared"]) == 0
    scores = json.loads((run / "result.json").read_text())["scores"]
    assert list(scores) == ["WT", "TC", "ET", "mean"]
    assert scores["mean"] > 0.7
    checkpoint = load_checkpoint(run / "model.pt")
    assert checkpoint.labels == replace(read_manifest(nested_dataset).labels, outputs="regions")

    line = ["predict", f"manifest={nested_dataset}", "split=0", f"checkpoint={run}"]
    assert main([*line, f"output={tmp_path}/masks", "device=cpu"]) == 0
    line = ["evaluate", f"prediction={tmp_path}/masks", f"manifest={nested_dataset}", "split=0"]
    line += ["num_workers=0", f"output={tmp_path}/scores", "mlflow.enabled=false"]
    assert main(line) == 0
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    for name in ("WT", "TC", "ET"):
        measured = summary["classes"][name]["scores"]["dice"]["mean"]
        assert measured == pytest.approx(scores[name], abs=1e-6)
