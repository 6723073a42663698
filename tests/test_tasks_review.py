"""What to annotate next: scans on which the members of an ensemble differ, first."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch

from medseg.core.errors import ConfigError, ManifestError, ReadError
from medseg.core.geometry import Geometry
from medseg.core.labels import label_set
from medseg.core.plan import IntensityPlan, NetworkPlan, Plan, TrainingPlan
from medseg.core.volume import Volume
from medseg.data.case import Case, Channel
from medseg.data.manifest import Manifest, write_manifest
from medseg.inference.disagreement import disagreement_on
from medseg.inference.predictor import Predictor, windows_of
from medseg.inference.sources import Source
from medseg.tasks import review
from medseg.tasks.review import rank_sources, write_review

LABELS = label_set({"bright": 1})
PLAN = Plan(
    dataset="bars",
    spatial_dims=3,
    orientation="RAS",
    spacing_mm=(1.0, 1.0, 1.0),
    patch_vox=(8, 8, 8),
    intensity=(IntensityPlan(channel="MR", scheme="none"),),
    network=NetworkPlan(widths=(4,), strides=(), kernels=((3, 3, 3),)),
    training=TrainingPlan(batch_size=1, num_steps=1),
    device="cpu",
)


class Above(torch.nn.Module):
    """Is as sure as `steepness` that voxels above its level are bright."""

    def __init__(self, level: float, steepness: float = 50.0) -> None:
        super().__init__()
        self.level, self.steepness = level, steepness

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logit = (x - self.level) * self.steepness
        return torch.cat([torch.zeros_like(logit), logit], dim=1)


def ensemble(*networks: torch.nn.Module) -> Predictor:
    return Predictor.of(
        networks,
        plan=PLAN,
        labels=LABELS,
        device=torch.device("cpu"),
        windows=windows_of(PLAN, LABELS),
    )


def bars(*heights: float) -> Volume:
    """Slabs of 2 x 8 x 8 voxels of these intensities, behind one another."""
    voxels = np.repeat(np.array(heights, np.float32), 2)[:, None, None] * np.ones((1, 8, 8))
    shape = (2 * len(heights), 8, 8)
    return Volume(voxels[None].astype(np.float32), Geometry(shape, np.eye(4)), ("MR",))


def test_disagreement_is_one_less_the_mean_dice_over_pairs():
    # Three members see 3, 2 and 1 of 4 slabs: pairs share 2/2.5, 1/2 and 1/1.5 of their means.
    found = disagreement_on(bars(0, 2, 4, 6), ensemble(Above(1), Above(3), Above(5)))
    expected = 1 - (2 * 2 / 5 + 2 * 1 / 4 + 2 * 1 / 3) / 3
    assert found.score == pytest.approx(expected, abs=1e-6)
    assert found.by_class == {"bright": pytest.approx(expected, abs=1e-6)}


def test_mutual_information_is_that_of_bernoulli_votes():
    # Two sure members, of one mind on one slab and of two minds on another: 0 and 1 bit.
    found = disagreement_on(bars(0, 2, 4), ensemble(Above(1), Above(3)))
    assert found.mutual_information == pytest.approx(0.5, abs=1e-4)


def test_doubt_that_all_members_share_is_no_disagreement():
    unsure = Above(2, steepness=0.0001)
    found = disagreement_on(bars(1, 3, 3), ensemble(unsure, unsure))
    assert found.score == 0
    assert found.mutual_information == pytest.approx(0, abs=1e-6)


def test_where_nobody_sees_anything_they_agree():
    found = disagreement_on(bars(0, 0), ensemble(Above(1), Above(3)))
    assert found.score == 0
    assert np.isnan(found.mutual_information)
    assert np.isnan(found.by_class["bright"])


def test_one_network_cannot_disagree():
    with pytest.raises(ConfigError, match="REV-001"):
        disagreement_on(bars(0, 2), ensemble(Above(1)))


def test_a_scan_of_other_channels_is_refused_and_the_others_are_reviewed():
    two = Volume(np.zeros((2, 8, 8, 8), np.float32), Geometry((8, 8, 8), np.eye(4)), ("a", "b"))
    sources = [
        Source(case_id="two", read=lambda: two),
        Source(case_id="one", read=lambda: bars(0, 2)),
    ]
    ranked = rank_sources(sources, ensemble(Above(1), Above(3)))
    assert [one.case_id for one in ranked] == ["one", "two"]
    assert "SCN-008" in ranked[1].message


def unreadable() -> Volume:
    raise ReadError("c.nii.gz: truncated", code="NII-001")


def test_the_list_begins_with_the_scan_they_differ_on_most_and_ends_with_what_is_broken(tmp_path):
    sources = [
        Source(case_id="alike", read=lambda: bars(0, 6, 6, 6)),
        Source(case_id="broken", read=unreadable),
        Source(case_id="apart", read=lambda: bars(0, 2, 4, 6)),
    ]
    ranked = rank_sources(sources, ensemble(Above(1), Above(3), Above(5)))
    assert [one.case_id for one in ranked] == ["apart", "alike", "broken"]
    write_review(ranked, tmp_path / "review.csv")
    with (tmp_path / "review.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["rank"] for row in rows] == ["1", "2", ""]
    assert rows[0]["bright_disagreement"] == rows[0]["disagreement"]
    assert rows[1]["disagreement"] == "0"
    assert rows[2]["message"] == "NII-001 c.nii.gz: truncated"


def test_overlapping_regions_are_compared_one_by_one():
    regions = LABELS.from_json(
        {
            "labels": [{"name": "rim", "values": 1}, {"name": "core", "values": 2}],
            "regions": [
                {"name": "whole", "members": ["rim", "core"]},
                {"name": "inner", "members": ["core"]},
            ],
            "outputs": "regions",
        }
    )

    class Two(torch.nn.Module):
        def __init__(self, outer: float, inner: float) -> None:
            super().__init__()
            self.levels = torch.tensor([outer, inner]).view(1, 2, 1, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x - self.levels) * 50

    members = replace(ensemble(Two(1, 3), Two(1, 5)), labels=regions)
    found = disagreement_on(bars(0, 2, 4, 6), members)
    assert found.by_class["whole"] == pytest.approx(0, abs=1e-6)
    assert found.by_class["inner"] == pytest.approx(1 - 2 * 1 / 3, abs=1e-6)


def test_what_was_trained_on_suv_reviews_scans_in_suv_alone(tmp_path, monkeypatch):
    in_suv = replace(ensemble(Above(1), Above(2)), modalities={"PET": "SUV"})
    asked = []
    monkeypatch.setattr(review, "sources_in", lambda _, *, suv, **__: asked.append(suv))
    for one in (in_suv, replace(in_suv, modalities={"PET": "PT"})):
        review.unlabelled_sources(tmp_path, one)
    assert asked == [True, False]

    case = Case(case_id="a", patient_id="a", images={"PET": "a.nii"}, labels=(), split="unlabelled")
    activity = Manifest(
        name="pool",
        data_root=tmp_path,
        channels=(Channel(name="PET", modality="PT"),),
        labels=LABELS,
        reference_channel="PET",
        spatial_dims=3,
        cases=(case,),
    )
    write_manifest(activity, tmp_path / "manifest.json")
    with pytest.raises(ManifestError, match="SCN-010"):
        review.unlabelled_sources(tmp_path, in_suv)
