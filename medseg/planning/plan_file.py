"""Plan and fingerprint on disk, and the keys of a plan a user may set."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from medseg.core.errors import ConfigError, PlanError
from medseg.core.fingerprint import Fingerprint
from medseg.core.plan import Plan
from medseg.runtime.files import read_json, write_json

# Where a key that a user may set lies in the plan.
_IN_TRAINING = ("batch_size", "num_steps", "foreground_share", "mirror_axes")
_IN_NETWORK = ("widths", "strides", "kernels", "deep_supervision", "full_resolution")
_IN_PLAN = ("spacing_mm", "patch_vox", "orientation")


def write_plan(plan: Plan, path: Path) -> None:
    """Write a plan as readable JSON."""
    write_json(plan.to_json(), path)


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        PlanError: a file that is missing, no JSON, or no plan; the file is named.
    """
    value = read_json(path, kind=PlanError, what="a plan")
    try:
        return Plan.from_json(value)
    except PlanError as fault:
        raise PlanError(f"{path}: {fault.message}", hint=fault.hint) from fault


def write_fingerprint(fingerprint: Fingerprint, path: Path) -> None:
    """Write a fingerprint as readable JSON."""
    write_json(fingerprint.to_json(), path)


def read_fingerprint(path: Path) -> Fingerprint:
    """Read a fingerprint.

    Raises:
        PlanError: a file that is missing, no JSON, or no fingerprint.
    """
    value = read_json(path, kind=PlanError, what="a fingerprint")
    try:
        return Fingerprint.from_json(value)
    except (KeyError, TypeError, ValueError) as fault:
        raise PlanError(f"{path}: is not a fingerprint: {fault}") from fault


def override(plan: Plan, changes: Mapping[str, Any]) -> Plan:
    """Return the plan with some keys set; None leaves a key as planned.

    Raises:
        ConfigError: a key that a plan does not have, with the nearest.
        PlanError: values that contradict the rest of the plan.
    """
    wanted = {key: _tuples(value) for key, value in changes.items() if value is not None}
    known = (*_IN_PLAN, *_IN_NETWORK, *_IN_TRAINING)
    for key in wanted:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"overrides.{key}: no such key of a plan{meant}", code="CFG-001")

    def of(keys: Sequence[str]) -> dict[str, Any]:
        return {key: value for key, value in wanted.items() if key in keys}

    return replace(
        plan,
        network=replace(plan.network, **of(_IN_NETWORK)),
        training=replace(plan.training, **of(_IN_TRAINING)),
        **of(_IN_PLAN),
    )


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value
