"""What the machine has, as far as a plan or a loop must know it."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medseg.core.errors import ConfigError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """The device a job runs on: `cpu` or `cuda`, its cores and its memory in bytes."""

    device: str
    num_cores: int
    memory_bytes: int
    name: str


def num_cores() -> int:
    """Cores this process may use (a container or a Slurm step may grant fewer than there are)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pick_device(asked: str = "auto") -> "torch.device":
    """Return the device a config asks for: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ConfigError: the device is not there.
    """
    import torch

    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError as fault:
        raise ConfigError(
            f"device={asked}: expected auto, cpu, cuda or cuda:N", code="CFG-007"
        ) from fault
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device={asked}: PyTorch {torch.__version__} sees {torch.cuda.device_count()} GPUs",
            code="CFG-007",
            hint="use device=auto or device=cpu, or install a CUDA build of PyTorch",
        )
    return device


def gpu_of(memory_gib: float) -> Hardware:
    """Return a GPU of so much memory, which need not be in this machine.

    Raises:
        ConfigError: no number above 0.
    """
    if isinstance(memory_gib, bool) or not isinstance(memory_gib, int | float) or memory_gib <= 0:
        raise ConfigError(f"gpu_memory_gib={memory_gib}: expected a number above 0, such as 24")
    return Hardware(
        device="cuda",
        num_cores=num_cores(),
        memory_bytes=int(memory_gib * 2**30),
        name=f"a GPU of {memory_gib:g} GiB",
    )


def measure_hardware(device: "torch.device") -> Hardware:
    """Measure the device: total GPU memory, or the memory that is free on the machine."""
    import psutil
    import torch

    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        return Hardware(
            device="cuda", num_cores=num_cores(), memory_bytes=found.total_memory, name=found.name
        )
    return Hardware(
        device="cpu",
        num_cores=num_cores(),
        memory_bytes=int(psutil.virtual_memory().available),
        name=f"{num_cores()} CPU cores",
    )
