"""Sandboxes: an answer, a refusal, or a sentence on what became of the work; never more harm."""

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from medseg.core.errors import GeometryError
from medseg.runtime import sandbox
from medseg.runtime.sandbox import SandboxError, call

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Sandboxes of these tests find the functions beside this file."""
    sandbox._end_all()
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    yield
    sandbox._end_all()


def ask(name, *, result_bytes=1024, cpu_s=0.0, clock_s=60.0, **arguments):
    return call(
        f"sandboxed_work:{name}",
        arguments,
        result_bytes=result_bytes,
        cpu_s=cpu_s,
        clock_s=clock_s,
    )


def test_an_array_comes_back_whole():
    found = ask("count", length=300)
    assert found.dtype == np.int16
    assert np.array_equal(found, np.arange(300)[None])


def test_a_refusal_comes_back_as_what_it_was():
    with pytest.raises(GeometryError) as caught:
        ask("refuse")
    assert (caught.value.code, caught.value.message, caught.value.hint) == (
        "GEO-009",
        "no place",
        "look for one",
    )


@posix
def test_faults_and_crashes_cost_one_call():
    with pytest.raises(SandboxError, match=r"^failed$"):
        ask("divide")
    with pytest.raises(SandboxError, match="crashed its process"):
        ask("crash")
    assert ask("count", length=2).tolist() == [[0, 1]]


@posix
def test_work_that_spins_is_stopped_by_its_processor_time():
    with pytest.raises(SandboxError, match="too much processor time"):
        ask("spin", cpu_s=-7.5)


def test_work_that_sleeps_is_stopped_by_the_clock():
    began = time.monotonic()
    with pytest.raises(SandboxError, match="no answer after 1 s"):
        ask("sleep", seconds=600, clock_s=1.0)
    assert time.monotonic() - began < 30


@posix
def test_work_cannot_take_all_memory():
    with pytest.raises(SandboxError, match="too much memory"):
        ask("swallow", num_bytes=2 * 2**30)
    assert ask("swallow", num_bytes=2**20).tolist() == [2**20]


def test_an_array_larger_than_was_asked_for_is_no_answer():
    with pytest.raises(SandboxError, match="makes no sense"):
        ask("count", length=4000)


def test_what_the_work_prints_is_no_answer():
    assert ask("chatter").tolist() == [7]


def test_calls_of_several_threads_have_processes_of_their_own():
    ask("count", length=1)
    with ThreadPoolExecutor(2) as pool:
        pids = list(pool.map(lambda _: int(ask("sleep", seconds=1.0)[0]), range(2)))
    assert len({*pids, os.getpid()}) == 3


@posix
def test_a_process_that_ended_while_idle_is_replaced():
    (first,) = ask("sleep", seconds=0)
    os.kill(int(first), signal.SIGKILL)
    time.sleep(0.2)
    (second,) = ask("sleep", seconds=0)
    assert first != second


def test_a_process_that_may_be_about_to_end_is_not_asked(monkeypatch):
    (first,) = ask("sleep", seconds=0)
    monkeypatch.setattr(sandbox, "_FRESH_S", 0.0)
    (second,) = ask("sleep", seconds=0)
    assert first != second


@posix
def test_a_fork_starts_processes_of_its_own():
    (mine,) = ask("sleep", seconds=0)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        (its,) = ask("sleep", seconds=0)
        os.write(writer, str(int(its)).encode())
        sandbox._end_all()
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reader, 100)) != mine
    assert ask("sleep", seconds=0)[0] == mine
