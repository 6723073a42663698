"""The parts of a training without labels: what is learnt from, the network's end, and the step."""

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from medseg.data.cache import CachedCase
from medseg.data.case import Case
from medseg.data.image_patches import ImageSampler
from medseg.data.patches import PatchSampler
from medseg.data.splits import split_cases
from medseg.models.checkpoint import RECONSTRUCTION
from medseg.models.registry import build_model
from medseg.training.job import Job
from medseg.training.loop import Recipe
from medseg.training.masking import MaskedAugment, Masking, reconstruction_loss
from medseg.transforms.augment import Augment, IntensityAugment

# Noise in the target could only be guessed.
_AS_IT_IS = IntensityAugment(noise=0, blur=0, brightness=0, contrast=0, gamma=0)


def scans_without_labels(job: Job) -> list[Case]:
    """Return the unlabelled cases, and the training cases of the fold, whose labels are not read.

    Validation and test cases are never among them.
    """
    manifest = job.manifest
    # Scans that nobody labelled have no folds.
    labelled = split_cases(manifest, job.choices.fold).training if manifest.training_cases else ()
    return [*manifest.unlabelled_cases, *labelled]


def objective_of(job: Job) -> str:
    """Return what a checkpoint says its network has learnt."""
    return "classes" if job.choices.pretrain is None else RECONSTRUCTION


def reconstructor_for(job: Job) -> nn.Module:
    """Build the network of the job's family that ends in the channels it takes."""
    name, settings = job.choices.model
    num_channels = len(job.plan.channels)
    return build_model(
        name,
        plan=job.plan,
        num_inputs=num_channels,
        num_outputs=num_channels,
        settings=settings,
    )


def images_of(sampler: PatchSampler, cases: Sequence[CachedCase]) -> ImageSampler:
    """Return what draws patches of the same size as a sampler's, without regard to labels."""
    return ImageSampler(
        cases=tuple(cases),
        patch_vox=sampler.patch_vox,
        context_vox=sampler.context_vox,
        batch_size=sampler.batch_size,
        seed=sampler.seed,
    )


def reconstruction_of(recipe: Recipe, augment: Augment, masking: Masking) -> Recipe:
    """Return the step that hides and reconstructs, otherwise as a step of the recipe.

    Args:
        recipe: of a training on classes.
        augment: of the same; its intensities are left as they are.
        masking: what is hidden.
    """
    as_it_is = replace(augment, intensity=_AS_IT_IS)
    return replace(
        recipe,
        augment=MaskedAugment(augment=as_it_is, masking=masking),
        loss=reconstruction_loss,
    )
