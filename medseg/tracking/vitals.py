"""How busy the machine is while a run goes on: cores, memory, GPUs."""

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

import psutil

_BYTES_A_MEGABYTE = 1e6


class Vitals:
    """Samples every few seconds in a thread that never holds the training up.

    Args:
        log: takes the values of a sample and its number.
        every_s: time between two samples.
    """

    def __init__(self, log: Callable[[Mapping[str, float], int], None], every_s: float) -> None:
        self._log = log
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="medseg-vitals", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no further sample."""
        self._stop.set()

    def _run(self) -> None:
        sampled = 0
        devices = _visible_gpus()
        # The load is measured since the call before.
        psutil.cpu_percent()
        while not self._stop.wait(self._every_s):
            self._log({**sample_host(), **sample_gpus(devices)}, sampled)
            sampled += 1


def sample_host() -> dict[str, float]:
    """Load of the cores in percent, memory of the machine and of this process in megabytes."""
    memory = psutil.virtual_memory()
    return {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / _BYTES_A_MEGABYTE,
        "system/system_memory_usage_percentage": memory.percent,
        "system/process_memory_usage_megabytes": psutil.Process().memory_info().rss
        / _BYTES_A_MEGABYTE,
    }


def sample_gpus(devices: Mapping[int, Any]) -> dict[str, float]:
    """Load and memory of GPUs, by their number; a GPU that does not answer is left out."""
    if not devices:
        return {}
    import pynvml

    values: dict[str, float] = {}
    for number, device in devices.items():
        with contextlib.suppress(pynvml.NVMLError):
            memory = pynvml.nvmlDeviceGetMemoryInfo(device)
            load = pynvml.nvmlDeviceGetUtilizationRates(device)
            values[f"system/gpu_{number}_utilization_percentage"] = float(load.gpu)
            values[f"system/gpu_{number}_memory_usage_megabytes"] = memory.used / _BYTES_A_MEGABYTE
    return values


def _visible_gpus() -> dict[int, Any]:
    """GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` lists them; none without NVML."""
    import pynvml

    try:
        pynvml.nvmlInit()
        listed = os.environ.get("CUDA_VISIBLE_DEVICES")
        if listed is None:
            names = [str(number) for number in range(pynvml.nvmlDeviceGetCount())]
        else:
            names = [name.strip() for name in listed.split(",") if name.strip()]
        return {number: _gpu(name) for number, name in enumerate(names)}
    except (pynvml.NVMLError, ValueError):
        return {}


def _gpu(name: str) -> Any:
    import pynvml

    if name.startswith(("GPU-", "MIG-")):
        return pynvml.nvmlDeviceGetHandleByUUID(name)
    return pynvml.nvmlDeviceGetHandleByIndex(int(name))
