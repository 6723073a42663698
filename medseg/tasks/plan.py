"""`medseg plan`: a dataset measured, and everything about its training decided."""

from pathlib import Path
from typing import Any

from medseg.config import require, settings
from medseg.core.fingerprint import Fingerprint
from medseg.core.plan import Plan
from medseg.data.manifest import manifest_file, read_manifest
from medseg.planning.dataset import plan_dataset
from medseg.planning.plan_file import write_fingerprint, write_plan
from medseg.runtime.console import say, table
from medseg.runtime.hardware import Hardware, gpu_of, measure_hardware, pick_device


def main(config: Any) -> int:
    """Plan as the settings of `conf/plan.yaml` say."""
    chosen = settings(config)
    path = manifest_file(
        Path(require(chosen, "manifest", "the manifest.json that medseg ingest wrote"))
    )
    manifest = read_manifest(path, data_root=chosen["data_root"] and Path(chosen["data_root"]))
    folder = Path(chosen["output"] or path.parent)
    plan, fingerprint = plan_dataset(
        manifest,
        hardware=_hardware(chosen),
        spatial_dims=chosen["spatial_dims"],
        num_workers=chosen["num_workers"],
        overrides=chosen["overrides"],
    )
    write_fingerprint(fingerprint, folder / "fingerprint.json")
    write_plan(plan, folder / "plan.json")
    show_plan(plan, fingerprint)
    say(f"wrote {folder / 'plan.json'} and fingerprint.json; edit the plan as you like")
    return 0


def _hardware(chosen: dict[str, Any]) -> Hardware:
    """Return the device at hand, or the GPU elsewhere that `gpu_memory_gib` tells of."""
    if chosen["gpu_memory_gib"] is None:
        return measure_hardware(pick_device(chosen["device"]))
    return gpu_of(chosen["gpu_memory_gib"])


def show_plan(plan: Plan, fingerprint: Fingerprint) -> None:
    """Print what was found and what was decided."""
    shares = ", ".join(f"{share:.3%}" for share in fingerprint.class_share[1:])
    schemes = ", ".join(f"{e.channel}: {e.scheme}" for e in plan.intensity)
    if not any(fingerprint.class_share[1:]):
        schemes += " (measured on whole scans: no voxel is of a class)"
    rows = [
        ("cases", len(fingerprint.cases)),
        ("classes, share of voxels", shares or "not known: no case is labelled"),
        ("spacing", _listed(plan.spacing_mm, fingerprint.unit)),
        ("intensity", schemes),
        ("patch", " x ".join(map(str, plan.patch_vox))),
        ("batch", plan.training.batch_size),
        ("network", f"widths {plan.network.widths}, strides {plan.network.strides}"),
        ("mirrored axes", ", ".join("ijk"[axis] for axis in plan.training.mirror_axes) or "none"),
        ("budget", f"{plan.training.num_steps} steps on {plan.device}"),
    ]
    table([(name, str(value)) for name, value in rows], columns=("plan", plan.dataset))


def _listed(spacing_mm: tuple[float | None, ...], unit: str) -> str:
    return " x ".join("own" if s is None else f"{s:g}" for s in spacing_mm) + f" {unit}"
