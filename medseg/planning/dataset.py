"""From a manifest to its plan: measured once, decided by the rules, changed where the user says."""

from collections.abc import Mapping
from typing import Any, Literal

from medseg.core.errors import ConfigError
from medseg.core.fingerprint import Fingerprint
from medseg.core.plan import Plan
from medseg.data.manifest import Manifest
from medseg.planning.measure import measure
from medseg.planning.plan_file import override
from medseg.planning.rules import make_plan
from medseg.runtime.console import progress
from medseg.runtime.hardware import Hardware, num_cores


def plan_dataset(
    manifest: Manifest,
    *,
    hardware: Hardware,
    spatial_dims: Literal[2, 3] | None = None,
    num_workers: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[Plan, Fingerprint]:
    """Measure the training cases of a dataset (or its unlabelled ones) and decide its plan.

    Args:
        manifest: the dataset.
        hardware: what the plan is fitted to.
        spatial_dims: 2 or 3; None: what the manifest says.
        num_workers: threads that measure; None: one a core.
        overrides: keys of the plan to set.

    Raises:
        MedsegError: scans or masks that cannot be read, or keys no plan has.
    """
    dims = spatial_dims or manifest.spatial_dims
    if dims not in (2, 3):
        raise ConfigError(f"spatial_dims={dims}: expected 2 or 3")
    fingerprint = measure(
        manifest,
        num_workers=num_workers or num_cores(),
        progress=lambda cases: progress(cases, "measuring"),
    )
    plan = make_plan(
        fingerprint,
        manifest.labels,
        dataset=manifest.name,
        spatial_dims=dims,
        hardware=hardware,
    )
    return override(plan, overrides or {}), fingerprint
