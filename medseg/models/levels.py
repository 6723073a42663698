"""A plan's strides and kernels, cut to the axes a network has."""

from medseg.core.plan import Plan


def strides_of(plan: Plan) -> tuple[tuple[int, ...], ...]:
    """Return down-sampling between levels, `spatial_dims` numbers each."""
    return tuple(stride[: plan.spatial_dims] for stride in plan.network.strides)


def kernels_of(plan: Plan) -> tuple[tuple[int, ...], ...]:
    """Return the kernel size of each level, `spatial_dims` numbers each."""
    return tuple(kernel[: plan.spatial_dims] for kernel in plan.network.kernels)


def light_levels(plan: Plan) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Return widths and strides for families whose first convolution carries the first stride.

    Where the plan asks for full resolution, a level without stride comes first, and the deepest
    width stands twice: these families do not stride into their last level.
    """
    widths, strides = plan.network.widths, strides_of(plan)
    if not plan.network.full_resolution:
        return widths, strides
    return (*widths, widths[-1]), ((1,) * plan.spatial_dims, *strides)


def stride_of(plan: Plan) -> tuple[int, ...]:
    """Return the product of all strides, `spatial_dims` numbers."""
    return plan.network.stride_vox[: plan.spatial_dims]


def largest_kernel(plan: Plan) -> tuple[int, ...]:
    """Return the largest kernel along each axis, for families with one size for all levels."""
    return tuple(max(sizes) for sizes in zip(*kernels_of(plan), strict=True))
