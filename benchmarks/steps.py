"""Training steps timed one by one, made of the same parts that `medseg train` puts together."""

import statistics
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_module

from medseg.config import settings
from medseg.data.manifest import read_manifest
from medseg.data.patches import batches
from medseg.data.splits import split_cases
from medseg.planning.plan_file import override, read_plan
from medseg.runtime.command_line import literal, opened
from medseg.runtime.hardware import pick_device
from medseg.runtime.interrupt import Interruption
from medseg.training.job import Job
from medseg.training.loop import StepReport, fit
from medseg.training.parts import network_for, recipe_for, sampler_for
from medseg.training.preparation import Preparation
from medseg.training.settings import choices_of
from medseg.training.state import TrainingState, WeightAverage

# Memory is laid out, kernels are chosen and networks compiled in the first steps.
_SLOW_STEPS = 10
# More batches than are ever drawn.
_ENDLESS = 2**40


class Steps:
    """The steps of one training, from its first.

    Args:
        words: settings of `medseg train`, with `plan=`.
        cache: folder of prepared cases.
        num_steps: how many are timed, once the slow ones are over.
    """

    def __init__(self, words: Sequence[str], *, cache: Path, num_steps: int) -> None:
        with initialize_config_module("medseg.conf", version_base="1.3"):
            chosen = settings(compose("train", [literal(opened(word)) for word in words]))
        self.device = pick_device(chosen["device"])
        self.num_steps = _SLOW_STEPS + num_steps
        chosen["training"]["max_steps"] = self.num_steps
        manifest = read_manifest(Path(chosen["manifest"]))
        plan = override(read_plan(Path(chosen["plan"])), chosen["overrides"])
        choices = choices_of(chosen, plan, self.device)
        self.job = Job(manifest=manifest, plan=plan, choices=choices)
        prepare = Preparation(manifest, plan, cache)
        self.sampler = sampler_for(self.job, prepare(split_cases(manifest, 0).training))

    def timed(self, *, dummy: bool, compiled: bool = False) -> dict[str, Any]:
        """Time the steps.

        Args:
            dummy: take the first batch again and again, so that drawing costs nothing.
            compiled: by `torch.compile`.
        """
        choices, on_gpu = self.job.choices, self.device.type == "cuda"
        drawn = batches(
            self.sampler,
            first=0,
            last=_ENDLESS,
            num_workers=choices.num_workers,
            pin_memory=on_gpu,
        )
        source = repeat(next(drawn)) if dummy else drawn
        reports: list[StepReport] = []
        forget_peak(self.device.type)
        try:
            fit(
                self._begin(compiled=compiled),
                lambda _: source,
                recipe=recipe_for(self.job),
                device=self.device,
                interruption=Interruption(),
                after_step=reports.append,
            )
        except RuntimeError as fault:
            # A compiler that is missing or gives up is a result, too.
            return {"failed": str(fault).strip().splitlines()[0]}
        seconds = [report.seconds for report in reports]
        return {
            "num_steps": len(seconds) - _SLOW_STEPS,
            "step_s": statistics.median(seconds[_SLOW_STEPS:]),
            "mean_step_s": statistics.fmean(seconds[_SLOW_STEPS:]),
            "first_step_s": seconds[0],
            "bf16": choices.bf16,
            "num_workers": choices.num_workers,
            "gpu_peak_mib": peak_mib(self.device.type),
        }

    def _begin(self, *, compiled: bool) -> TrainingState:
        torch.manual_seed(self.job.choices.seed)
        network = network_for(self.job).to(self.device)
        if compiled:
            network.compile()
        return TrainingState(
            network=network,
            optimizer=self.job.choices.make_optimizer(network.parameters()),
            average=WeightAverage(network),
            num_steps=self.num_steps,
        )


def forget_peak(device: str) -> None:
    """Let the GPU's peak memory be counted from now on."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_mib(device: str) -> dict[str, float] | None:
    """Return what tensors took at most, and what PyTorch held of the GPU; None without one."""
    if device != "cuda":
        return None
    return {
        "allocated": round(torch.cuda.max_memory_allocated() / 2**20, 1),
        "reserved": round(torch.cuda.max_memory_reserved() / 2**20, 1),
    }
