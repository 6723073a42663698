"""A trained network with all that is needed to use it: data only, no code and no patients."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import nn

from medseg.core.errors import CheckpointError, MedsegError
from medseg.core.findings import Finding
from medseg.core.fingerprint import Fingerprint
from medseg.core.labels import LabelSet
from medseg.core.objects import ObjectPlan
from medseg.core.plan import Plan
from medseg.models.registry import build_model
from medseg.models.tensor_file import load_newest, save_tensors

_FORMAT = "medseg checkpoint"
_VERSION = 1
# What `trained_with["objective"]` says of a network that ends in images.
RECONSTRUCTION = "reconstruction"
# torch lists every weight that does not fit.
_MOST_FAULT_LETTERS = 300
_KEYS = (
    "format", "version", "weights", "plan", "labels", "fingerprint", "model", "settings", "scores",
    "versions", "trained_with",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What `medseg train` hands to everything after it.

    Attributes:
        weights: the network's `state_dict`.
        plan, labels, fingerprint: of the data it was trained on; the plan's channels are its
            inputs, the labels and background its outputs.
        model, settings: name and settings of its family, see `models/registry`.
        scores: what it reached in validation, such as `{"dice": 0.91}`.
        versions: of medseg, Python and libraries.
        trained_with: what prediction must know of the training, such as the share of
            `channel_dropout`, without which a missing channel is refused.
        objects: how objects are told apart, whose channels follow those of the classes; None:
            they are not.
        findings: what was noticed while loading; not written.

    Raises:
        CheckpointError: CKP-005 weights that are not named tensors, or a model that is no name.
    """

    weights: Mapping[str, torch.Tensor]
    plan: Plan
    labels: LabelSet
    fingerprint: Fingerprint | None
    model: str
    settings: Mapping[str, Any]
    scores: Mapping[str, float]
    versions: Mapping[str, str]
    trained_with: Mapping[str, Any]
    objects: ObjectPlan | None = None
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        named = isinstance(self.weights, Mapping) and all(
            isinstance(weight, torch.Tensor) for weight in self.weights.values()
        )
        if not named or not isinstance(self.model, str):
            raise CheckpointError(
                f"checkpoint: weights {type(self.weights).__name__}, model {self.model!r}; "
                "expected named tensors and the name of a family",
                code="CKP-005",
            )


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint whole; what stood there is kept as `NAME.previous.pt`.

    Raises:
        CheckpointError: a setting or score that is no plain value.
        WriteError: the disk is full or the folder cannot be written; the old file still stands.
    """
    fingerprint = checkpoint.fingerprint
    save_tensors(
        {
            "format": _FORMAT,
            "version": _VERSION,
            "weights": dict(checkpoint.weights),
            "plan": checkpoint.plan.to_json(),
            "labels": checkpoint.labels.to_json(),
            "fingerprint": None if fingerprint is None else fingerprint.to_json(),
            "model": checkpoint.model,
            "settings": dict(checkpoint.settings),
            "scores": dict(checkpoint.scores),
            "versions": dict(checkpoint.versions),
            "trained_with": dict(checkpoint.trained_with),
            "objects": None if checkpoint.objects is None else checkpoint.objects.to_json(),
        },
        path,
    )


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, or its predecessor where the file is damaged (a finding says so).

    Raises:
        CheckpointError: CKP-001 missing, CKP-002 damaged and no whole predecessor, CKP-003 of
            another program, CKP-004 of a newer medseg, CKP-005 incomplete or contradicting itself.
    """
    value, findings = load_newest(path)
    if value.get("format") != _FORMAT:
        raise CheckpointError(
            f"{path}: is not a checkpoint; it holds {', '.join(map(str, list(value)[:6]))}",
            code="CKP-003",
            hint="prediction needs model.pt; state.pt serves only to resume a training",
        )
    if value.get("version") != _VERSION:
        raise CheckpointError(
            f"{path}: is of format {value.get('version')}; this medseg reads {_VERSION}",
            code="CKP-004",
            hint="update medseg",
        )
    if missing := [key for key in _KEYS if key not in value]:
        raise CheckpointError(f"{path}: misses {', '.join(missing)}", code="CKP-005")
    try:
        fingerprint = value["fingerprint"]
        # Checkpoints of an earlier medseg know nothing of objects.
        objects = value.get("objects")
        return Checkpoint(
            weights=value["weights"],
            plan=Plan.from_json(value["plan"]),
            labels=LabelSet.from_json(value["labels"]),
            fingerprint=None if fingerprint is None else Fingerprint.from_json(fingerprint),
            model=value["model"],
            settings=value["settings"],
            scores=value["scores"],
            versions=value["versions"],
            trained_with=value["trained_with"],
            objects=None if objects is None else ObjectPlan.from_json(objects),
            findings=findings,
        )
    except (MedsegError, KeyError, TypeError, ValueError, AttributeError) as fault:
        raise CheckpointError(f"{path}: contradicts itself: {fault}", code="CKP-005") from fault


def num_channels(plan: Plan, labels: LabelSet, objects: ObjectPlan | None) -> int:
    """Return how many channels a network ends in: the classes', then those of objects."""
    own = objects.way.num_channels(plan.spatial_dims) if objects else 0
    return labels.num_outputs + own


def network_of(checkpoint: Checkpoint) -> nn.Module:
    """Build the network, load its weights, and set it to evaluation.

    Raises:
        CheckpointError: CKP-005 weights that do not fit the network; CKP-006 a network that learnt
            no classes.
        ConfigError: a family or setting that this medseg does not have.
    """
    if checkpoint.trained_with.get("objective") == RECONSTRUCTION:
        raise CheckpointError(
            f"checkpoint: model={checkpoint.model} was pretrained to reconstruct images; it knows "
            "no classes",
            code="CKP-006",
            hint="fine-tune it: medseg train training.init=PATH",
        )
    network = build_model(
        checkpoint.model,
        plan=checkpoint.plan,
        num_inputs=len(checkpoint.plan.channels),
        num_outputs=num_channels(checkpoint.plan, checkpoint.labels, checkpoint.objects),
        settings=checkpoint.settings,
    )
    try:
        network.load_state_dict(dict(checkpoint.weights))
    except RuntimeError as fault:
        raise CheckpointError(
            f"checkpoint: its weights do not fit model={checkpoint.model}: "
            f"{shorten(str(fault), _MOST_FAULT_LETTERS)}",
            code="CKP-005",
        ) from fault
    return network.eval()
