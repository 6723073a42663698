"""How busy the machine is, beside the curves of a run."""

import resource
import time
from types import SimpleNamespace

import psutil
import pynvml
import pytest

from medseg.tracking import vitals
from medseg.tracking.fields import valid_name
from medseg.tracking.vitals import Vitals, sample_gpus, sample_host


def test_the_memory_of_this_process_is_what_the_system_says():
    sample = sample_host()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    assert 10 < sample["system/process_memory_usage_megabytes"] <= peak_mb * 1.01
    assert 0 < sample["system/system_memory_usage_percentage"] < 100
    total_mb = psutil.virtual_memory().total / 1e6
    assert sample["system/system_memory_usage_megabytes"] < total_mb
    assert all(valid_name(name) == name for name in sample)


def test_samples_come_at_their_pace_until_stopped():
    samples = []
    watch = Vitals(lambda values, number: samples.append((number, values)), every_s=0.05)
    until = time.monotonic() + 20
    while len(samples) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    watch.stop()
    watch._thread.join(5)
    taken = len(samples)
    assert [number for number, _ in samples] == list(range(taken))
    assert "system/cpu_utilization_percentage" in samples[0][1]
    time.sleep(0.2)
    assert len(samples) == taken


@pytest.fixture
def two_gpus(monkeypatch):
    """NVML as it answers on a machine with two GPUs, of which the second has fallen off."""

    def load(device):
        if device == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return SimpleNamespace(gpu=40)

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetMemoryInfo", lambda _: SimpleNamespace(used=3_000_000)
    )
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", load)


def test_a_gpu_that_answers_is_sampled_and_a_lost_one_left_out(two_gpus, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    devices = vitals._visible_gpus()
    assert devices == {0: 0, 1: 1}
    assert sample_gpus(devices) == {
        "system/gpu_0_utilization_percentage": 40.0,
        "system/gpu_0_memory_usage_megabytes": 3.0,
    }


@pytest.mark.parametrize(
    ("listed", "found"), [("1", {0: 1}), ("", {}), ("1,0", {0: 1, 1: 0}), ("nonsense", {})]
)
def test_only_gpus_this_process_may_use_are_sampled(two_gpus, monkeypatch, listed, found):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert vitals._visible_gpus() == found


def test_a_machine_without_gpus_has_no_gpu_values(monkeypatch):
    def absent():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    assert sample_gpus(vitals._visible_gpus()) == {}
