"""Scans in, label maps out: one loaded model, or several folds of it, for any number of scans."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from medseg.core.errors import CheckpointError, PlanError
from medseg.core.geometry import Geometry
from medseg.core.labels import LabelMap, LabelSet
from medseg.core.objects import Centres, ObjectPlan, shared_plan
from medseg.core.plan import Plan
from medseg.core.volume import Volume
from medseg.data.case import SUV
from medseg.inference.decision import label_map_of, probabilities_of
from medseg.inference.objects import objects_on
from medseg.inference.restore import restore, restore_label_map
from medseg.inference.window import Network, WindowSettings, predict_logits
from medseg.models.checkpoint import Checkpoint, load_checkpoint, network_of, num_channels
from medseg.postprocess.objects import Objects
from medseg.transforms.chains import PrepareChain, Prepared


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Segmentation:
    """What a network says about one scan, on the scan's own grid.

    Attributes:
        label_map: indices (I, J, K); `labels.to_stored` turns them into what files store.
        geometry: the scan's.
        labels: the classes.
        probabilities: (L, I, J, K) float32, one for each of `labels.output_names`; None unless
            asked for.
        seconds: spent preparing, predicting, and restoring.
    """

    label_map: LabelMap
    geometry: Geometry
    labels: LabelSet
    probabilities: np.ndarray | None
    seconds: Mapping[str, float]
    objects: Objects | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """A loaded model.

    Attributes:
        networks: one, or the folds of an ensemble, whose probabilities are averaged; in evaluation
            mode, on `device`. They take (B, C, I, J, K), with `spatial_dims` 2 (B, C, I, J).
        plan: how scans are prepared.
        labels: the classes behind the outputs.
        device: where the networks are.
        windows: how scans are cut.
        channel_dropout: the networks were trained with channels missing.
        objects: how objects are told apart; None: they are not.
        modalities: of the channels it was trained on, such as `SUV`; empty when not known.
    """

    networks: tuple[Network, ...]
    plan: Plan
    labels: LabelSet
    device: torch.device
    windows: WindowSettings
    channel_dropout: bool = False
    objects: ObjectPlan | None = None
    modalities: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        paths: Path | Sequence[Path],
        *,
        device: torch.device,
        overlap: float = 0.5,
        mirror: bool = False,
        batch_size: int | None = None,
    ) -> "Predictor":
        """Load one checkpoint, or several folds as an ensemble.

        Args:
            paths: `model.pt` files.
            device: to predict on.
            overlap: share of a window that the next one repeats.
            mirror: average over mirror images, along the axes that training mirrored.
            batch_size: windows at a time; None: as many as training took patches.

        Raises:
            CheckpointError: a file that cannot be trusted, or folds that do not belong together.
        """
        chosen = [paths] if isinstance(paths, Path) else list(paths)
        checkpoints = [load_checkpoint(path) for path in chosen]
        _require_alike(checkpoints, chosen)
        first = checkpoints[0]
        known = first.fingerprint
        objects = [one.objects for one in checkpoints if one.objects is not None]
        predictor = cls.of(
            [network_of(one).to(device) for one in checkpoints],
            plan=first.plan,
            labels=first.labels,
            device=device,
            channel_dropout=bool(first.trained_with.get("channel_dropout")),
            windows=windows_of(
                first.plan,
                first.labels,
                objects=first.objects,
                overlap=overlap,
                mirror=mirror,
                batch_size=batch_size,
            ),
            objects=shared_plan(objects) if objects else None,
        )
        return replace(predictor, modalities=dict(known.channels) if known else {})

    @classmethod
    def of(
        cls,
        networks: Sequence[torch.nn.Module],
        *,
        plan: Plan,
        labels: LabelSet,
        device: torch.device,
        windows: WindowSettings,
        channel_dropout: bool = False,
        objects: ObjectPlan | None = None,
    ) -> "Predictor":
        """Make a predictor of networks already in memory, such as one that is being trained."""
        return cls(
            networks=tuple(_as_volume_network(net, plan.spatial_dims) for net in networks),
            plan=plan,
            labels=labels,
            device=device,
            windows=windows,
            channel_dropout=channel_dropout,
            objects=objects,
        )

    @property
    def in_suv(self) -> bool:
        """Whether the networks were trained on SUV, which DICOM in activity is turned into."""
        return SUV in self.modalities.values()

    @property
    def planes_of_one(self) -> tuple[str, ...]:
        """The planes of the network's only channel, gray or in colours; () where it has several."""
        found = tuple(self.modalities.values())
        return tuple(self.modalities) if len(found) == 1 or found == ("RGB",) * 3 else ()

    def segment(self, scan: Volume, *, probabilities: bool = False) -> Segmentation:
        """Segment one scan.

        Args:
            scan: with the plan's channels, on its own grid.
            probabilities: return them as well (memory: L x the scan, float32).

        Raises:
            PlanError: the scan has other channels than the plan.
        """
        start = time.monotonic()
        prepared = PrepareChain(self.plan)(scan)
        done = self.segment_prepared(prepared, onto=scan.geometry, probabilities=probabilities)
        prepared_s = time.monotonic() - start - sum(done.seconds.values())
        return replace(done, seconds={"prepare_s": prepared_s, **done.seconds})

    def segment_prepared(
        self, prepared: Prepared, *, onto: Geometry, probabilities: bool = False
    ) -> Segmentation:
        """Segment a scan that a chain of this plan has prepared; `onto` is the scan's own grid."""
        start = time.monotonic()
        outputs = self.scores(prepared.image_CIJK)
        scores_LIJK = outputs[: self.labels.num_outputs]
        predicted = time.monotonic()
        held = None
        if probabilities:
            on_scan = restore(scores_LIJK, prepared.geometry, onto=onto)
            held = on_scan.float().cpu().numpy()
            label_map = label_map_of(on_scan, self.labels)
        else:
            label_map = restore_label_map(
                scores_LIJK,
                prepared.geometry,
                onto=onto,
                decide=lambda slab: label_map_of(slab, self.labels),
            )
        objects = None
        if self.objects is not None:
            label_map, objects = objects_on(
                onto,
                label_map,
                (scores_LIJK, outputs[len(scores_LIJK) :]),
                prepared=prepared.geometry,
                labels=self.labels,
                plan=self.objects,
                edges=self.plan.voxel_edges,
            )
        return Segmentation(
            label_map=label_map,
            geometry=onto,
            labels=self.labels,
            probabilities=held,
            seconds={
                "predict_s": predicted - start,
                "restore_s": time.monotonic() - predicted,
            },
            objects=objects,
        )

    def scores(self, image_CIJK: torch.Tensor) -> torch.Tensor:
        """Return the mean outputs (L, I, J, K) of all networks on the prepared grid.

        They are the probabilities of the classes (or regions), and after them the channels that
        tell objects apart, as they are.
        """
        if image_CIJK.shape[0] != len(self.plan.channels):
            raise PlanError(
                f"the prepared scan has {image_CIJK.shape[0]} channels, the plan wants "
                f"{self.plan.channels}"
            )
        total: torch.Tensor | None = None
        for network in self.networks:
            logits_LIJK = predict_logits(
                image_CIJK, network, settings=self.windows, device=self.device
            )
            num = self.labels.num_outputs
            probabilities = probabilities_of(logits_LIJK[:num], self.labels)
            own = logits_LIJK[num:]
            outputs = torch.cat([probabilities, own]) if len(own) else probabilities
            total = outputs if total is None else total.add_(outputs)
        if total is None:
            raise CheckpointError("a predictor needs at least one network")
        return total / len(self.networks)


def windows_of(
    plan: Plan,
    labels: LabelSet,
    *,
    objects: ObjectPlan | None = None,
    overlap: float = 0.5,
    mirror: bool = False,
    batch_size: int | None = None,
) -> WindowSettings:
    """Return the windows that suit a plan."""
    sided = any(label.partner for label in labels.labels)
    first, last = labels.num_outputs, num_channels(plan, labels, objects)
    pointing = objects is not None and isinstance(objects.way, Centres)
    return WindowSettings(
        patch_vox=plan.patch_vox,
        overlap=overlap,
        batch_size=batch_size or plan.training.batch_size,
        mirror_axes=plan.training.mirror_axes if mirror else (),
        sided_axis=plan.sided_axis,
        mirror_order=(*labels.output_mirror_order, *range(first, last)) if sided else None,
        # The heat comes first, the offsets along each axis after it.
        vector_outputs=tuple(range(first + 1, last)) if pointing else (),
    )


def _as_volume_network(network: torch.nn.Module, spatial_dims: int) -> Network:
    """Let a 2D network take patches of one slice, (B, C, I, J, 1)."""
    if spatial_dims == 3:
        return network

    def flat(image_BCIJK: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = network(image_BCIJK[..., 0])
        return logits[..., None]

    return flat


def _unsized(checkpoint: Checkpoint) -> ObjectPlan | None:
    return checkpoint.objects and checkpoint.objects.unsized


def _require_alike(checkpoints: Sequence[Checkpoint], paths: Sequence[Path]) -> None:
    """Refuse an ensemble whose members see scans differently or name other classes."""
    if not checkpoints:
        raise CheckpointError("checkpoint: expected at least one, found none")
    first = checkpoints[0]
    for other, path in zip(checkpoints[1:], paths[1:], strict=True):
        same = (
            other.labels == first.labels
            and _unsized(other) == _unsized(first)
            and other.plan.channels == first.plan.channels
            and other.plan.spacing_mm == first.plan.spacing_mm
            and other.plan.orientation == first.plan.orientation
            and other.plan.intensity == first.plan.intensity
            and other.plan.patch_vox == first.plan.patch_vox
        )
        if not same:
            raise CheckpointError(
                f"{path}: was trained with another plan or other classes than {paths[0]}",
                hint="ensemble only folds of one plan",
            )
