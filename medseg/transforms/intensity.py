"""Intensities brought to the scale a network is trained on, channel by channel."""

from collections.abc import Sequence

import torch

from medseg.core.plan import IntensityPlan

# A constant image has no deviation to divide by; it becomes zero instead of infinite.
_SMALLEST_STD = 1e-6


def normalise(image_CIJK: torch.Tensor, plans: Sequence[IntensityPlan]) -> torch.Tensor:
    """Normalise every channel as its plan says.

    Args:
        image_CIJK: intensities in the scan's own units; NaN and infinities count as the lowest
            finite value of their channel.
        plans: one entry a channel.

    Returns:
        float32, the same shape.
    """
    channels = [
        _normalise_channel(_finite(channel.float()), plan)
        for channel, plan in zip(image_CIJK, plans, strict=True)
    ]
    return torch.stack(channels)


def _normalise_channel(image: torch.Tensor, plan: IntensityPlan) -> torch.Tensor:
    if plan.scheme == "zscore":
        std, mean = torch.std_mean(image, correction=0)
        return (image - mean) / std.clamp_min(_SMALLEST_STD)
    if plan.scheme == "clip_zscore":
        return (image.clamp(plan.low, plan.high) - plan.mean) / plan.std
    if plan.scheme == "rescale":
        return ((image - plan.low) / (plan.high - plan.low)).clamp(0, 1)
    return image


def _finite(image: torch.Tensor) -> torch.Tensor:
    finite = torch.isfinite(image)
    if finite.all():
        return image
    lowest = image[finite].min() if finite.any() else image.new_zeros(())
    return torch.where(finite, image, lowest)
