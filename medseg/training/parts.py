"""The parts of a training, made to fit each other from manifest, plan and choices."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from medseg.core.objects import Centres
from medseg.core.plan import Triple
from medseg.data.cache import CachedCase
from medseg.data.image_patches import PairedSampler
from medseg.data.patches import PatchSampler, Sampler
from medseg.losses.deep_supervision import DeepSupervision
from medseg.losses.regions import REGION_IGNORE_INDEX, RegionLoss
from medseg.losses.registry import LabelLoss, build_loss
from medseg.models.checkpoint import Checkpoint, num_channels
from medseg.models.registry import build_model
from medseg.runtime.provenance import versions
from medseg.training.job import Job
from medseg.training.loop import Recipe
from medseg.training.mean_teacher import Consistency
from medseg.training.object_loss import ObjectLoss
from medseg.training.pretraining import (
    images_of,
    objective_of,
    reconstruction_of,
    reconstructor_for,
)
from medseg.training.state import TrainingState
from medseg.transforms.augment import Augment
from medseg.transforms.motion import SpatialAugment


def network_for(job: Job) -> nn.Module:
    """Build the network: the plan's channels in, those of classes and objects out."""
    if job.choices.pretrain is not None:
        return reconstructor_for(job)
    return _network(job, num_channels(job.plan, job.labels, job.choices.objects))


def ends_of(job: Job, network: nn.Module) -> frozenset[str]:
    """Return which of a job's weights make its outputs: those that one output more would change."""
    # A second network draws its weights, too; a training must not notice.
    with torch.random.fork_rng(devices=[]):
        wider = _network(job, 1 + num_channels(job.plan, job.labels, job.choices.objects))
    shapes = {name: weight.shape for name, weight in wider.state_dict().items()}
    return frozenset(n for n, weight in network.state_dict().items() if weight.shape != shapes[n])


def _network(job: Job, num_outputs: int) -> nn.Module:
    name, settings = job.choices.model
    return build_model(
        name,
        plan=job.plan,
        num_inputs=len(job.plan.channels),
        num_outputs=num_outputs,
        settings=settings,
    )


def loss_for(job: Job) -> LabelLoss:
    """Build the loss over the network's outputs, classes or regions."""
    labels, (name, settings) = job.labels, job.choices.loss
    share = _class_share(job)
    spacing_mm = job.plan.voxel_edges
    if labels.outputs == "classes":
        return build_loss(
            name,
            num_outputs=labels.num_outputs,
            ignore_index=labels.ignore_index,
            class_share=share,
            spacing_mm=spacing_mm,
            settings=settings,
        )
    members = tuple(indices for _, indices in labels.targets)
    inside = [sum(share[index] for index in indices) if share else None for indices in members]
    losses = [
        build_loss(
            name,
            num_outputs=2,
            ignore_index=REGION_IGNORE_INDEX,
            class_share=None if within is None else (1 - within, within),
            spacing_mm=spacing_mm,
            settings=settings,
        )
        for within in inside
    ]
    return RegionLoss(losses=tuple(losses), members=members, ignore_index=labels.ignore_index)


def _class_share(job: Job) -> tuple[float, ...] | None:
    """Return the share of each class in all voxels; None where these classes were not measured."""
    share = job.fingerprint.class_share if job.fingerprint else ()
    return share if len(share) == job.labels.num_indices else None


def recipe_for(job: Job) -> Recipe:
    """Build what a training step is made of."""
    choices, plan, labels = job.choices, job.plan, job.labels
    sided = any(label.partner for label in labels.labels)
    chosen = choices.spatial
    spatial = SpatialAugment(
        spacing=plan.voxel_edges,
        probability=chosen.probability,
        rotate_deg=chosen.rotate_deg,
        scale=chosen.scale,
        mirror_axes=plan.training.mirror_axes,
        sided_axis=plan.sided_axis,
        mirror_order=labels.mirror_order if sided else None,
    )
    augment = Augment(
        patch_vox=plan.patch_vox,
        spatial=spatial,
        intensity=choices.intensity,
        channel_dropout=choices.channel_dropout,
    )
    recipe = Recipe(
        augment=augment,
        loss=_told_apart(job, DeepSupervision(loss_for(job))),
        schedule=choices.schedule,
        budget=choices.budget,
        clip_norm=choices.clip_norm,
        bf16=choices.bf16,
        flat=plan.spatial_dims == 2,
        seed=choices.seed,
        frozen_steps=choices.frozen_steps,
        consistency=None
        if choices.mean_teacher is None
        else Consistency(
            settings=choices.mean_teacher,
            augment=augment,
            num_outputs=labels.num_outputs,
            overlapping=labels.outputs == "regions",
            flat=plan.spatial_dims == 2,
        ),
    )
    if choices.pretrain is None:
        return recipe
    return reconstruction_of(recipe, augment, choices.pretrain)


def sampler_for(
    job: Job, cases: Sequence[CachedCase], unlabelled: Sequence[CachedCase] = ()
) -> Sampler:
    """Build what draws the patches; with nothing to warp, no more than a patch is cut out."""
    choices, plan = job.choices, job.plan
    context = choices.context if choices.spatial.probability else 1.0
    learns_classes = choices.pretrain is None
    points = choices.objects is not None and isinstance(choices.objects.way, Centres)
    sampler = PatchSampler(
        cases=tuple(cases),
        classes=job.labels.names,
        patch_vox=plan.patch_vox,
        context_vox=_context(plan.patch_vox, context),
        batch_size=plan.training.batch_size,
        foreground_share=plan.training.foreground_share,
        seed=choices.seed,
        sampling=choices.sampling,
        object_dims=plan.spatial_dims if points and learns_classes else None,
    )
    if not learns_classes:
        return images_of(sampler, cases)
    if choices.mean_teacher is not None:
        return PairedSampler(labelled=sampler, unlabelled=images_of(sampler, unlabelled))
    return sampler


def checkpoint_of(job: Job, state: TrainingState, *, scores: Mapping[str, float]) -> Checkpoint:
    """Pack the averaged weights with all that prediction needs to know."""
    choices = job.choices
    name, settings = choices.model
    return Checkpoint(
        weights=state.average.weights,
        plan=job.plan,
        labels=job.labels,
        fingerprint=job.fingerprint,
        model=name,
        settings=settings,
        scores=scores,
        versions=versions(),
        objects=choices.objects,
        trained_with={
            "objective": objective_of(job),
            "channel_dropout": choices.channel_dropout,
            "fold": choices.fold,
            "num_steps": state.step,
            "seed": choices.seed,
        },
    )


def _context(patch_vox: Triple, factor: float) -> Triple:
    """Enlarge a patch along the axes that have any extent, evenly on both sides."""
    i, j, k = (n if n == 1 else n + 2 * math.ceil(n * (factor - 1) / 2) for n in patch_vox)
    return i, j, k


def _told_apart(job: Job, classes: DeepSupervision) -> DeepSupervision | ObjectLoss:
    """Add the loss of the channels that tell objects apart, where there are some."""
    objects, labels = job.choices.objects, job.labels
    if objects is None or not job.learns_objects:
        return classes
    return ObjectLoss(
        classes=classes,
        num_classes=labels.num_outputs,
        way=objects.way,
        things=labels.things,
        edges=job.plan.voxel_edges[: job.plan.spatial_dims],
        ignore_index=labels.ignore_index,
    )
