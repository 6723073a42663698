"""Work on foreign bytes in a process of its own, under limits of memory and time.

Decoders are native code; a damaged or hostile file may crash them, hang them or make them take all
memory. In a sandbox that costs the answer to one call. Processes are started when first needed
and kept for the calls that follow; left alone, they end by themselves.
"""

import atexit
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Lock, Timer
from typing import IO, Any, cast

from numpy.typing import NDArray

import medseg
from medseg.core.errors import MedsegError
from medseg.runtime.hardware import num_cores
from medseg.runtime.sandboxed import IDLE_S, receive, send

# What any work may take, whatever the size of its file; decoders need room to work in.
_LEAST_MEMORY_BYTES = 512 * 2**20
# Seconds of processor time, which a busy machine does not use up, and seconds on the clock for
# work that waits for ever.
_CPU_S, _CLOCK_S = 8.0, 60.0
# A process that has been idle for longer may be about to end when it is asked.
_FRESH_S = IDLE_S / 2
_SERVE = "from medseg.runtime.sandboxed import serve; serve()"


class SandboxError(Exception):
    """Work that did not come back: what became of it, as the end of a sentence."""


def call(
    work: str,
    arguments: Mapping[str, Any],
    *,
    result_bytes: int,
    memory_bytes: int = 0,
    cpu_s: float = 0.0,
    clock_s: float = _CLOCK_S,
) -> NDArray[Any]:
    """Call a function that returns an array, in a process that it cannot take with it.

    Args:
        work: `module:function`, of medseg's own.
        arguments: of the function, by name; values that JSON has.
        result_bytes: the most that the array may have.
        memory_bytes: what the work may take beyond the least that any may.
        cpu_s: processor time that it may take beyond the least that any may.
        clock_s: after so long it is ended, whether it was at work or asleep.

    Raises:
        MedsegError: what the function refuses.
        SandboxError: it broke, crashed, took too long or too much memory.
    """
    message = {
        "work": work,
        "arguments": dict(arguments),
        "memory_bytes": _LEAST_MEMORY_BYTES + memory_bytes,
        "cpu_s": _CPU_S + cpu_s,
    }
    worker = _asked(message)
    try:
        answer, array = worker.answer(most_bytes=result_bytes, clock_s=clock_s + cpu_s)
    except BaseException:
        worker.end()
        raise
    _put_back(worker)
    if "refused" in answer:
        raise _refusal(answer["refused"])
    if array is None:
        out_of_memory = answer.get("fault") == MemoryError.__name__
        raise SandboxError("took too much memory" if out_of_memory else "failed")
    return array


class _Worker:
    """One process and the pipes to it."""

    def __init__(self) -> None:
        # Found where this medseg was found, also when it is not installed.
        here = str(Path(medseg.__file__).parents[1])
        paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            # -P: modules of the folder that a user happens to be in are nobody's business.
            [sys.executable, "-P", "-c", _SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
            bufsize=0,
        )
        self._late = False
        self._idle_since_s = time.monotonic()

    @property
    def ended(self) -> bool:
        """It has ended, by itself or not, or soon will."""
        idle_s = time.monotonic() - self._idle_since_s
        return idle_s > _FRESH_S or self._process.poll() is not None

    def ask(self, message: Mapping[str, Any]) -> None:
        """Send a message.

        Raises:
            OSError: it has ended.
        """
        send(cast(IO[bytes], self._process.stdin), message)

    def answer(
        self, *, most_bytes: int, clock_s: float
    ) -> tuple[dict[str, Any], NDArray[Any] | None]:
        """Wait for the answer.

        Raises:
            SandboxError: there will be none.
        """
        timer = Timer(clock_s, self._stop)
        timer.daemon = True
        timer.start()
        try:
            return receive(cast(IO[bytes], self._process.stdout), most_bytes=most_bytes)
        except (EOFError, OSError, ValueError, TypeError, KeyError) as gone:
            raise SandboxError(self._end_of(clock_s)) from gone
        finally:
            timer.cancel()
            self._idle_since_s = time.monotonic()

    def end(self) -> None:
        """End it, and wait until it has."""
        self._process.kill()
        self._process.wait()
        self.let_go()

    def let_go(self) -> None:
        """Close the pipes, upon which it ends by itself."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _stop(self) -> None:
        self._late = True
        self._process.kill()

    def _end_of(self, clock_s: float) -> str:
        try:
            code = self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            return "gave an answer that makes no sense"
        if self._late:
            return f"was stopped: no answer after {clock_s:.0f} s"
        if code == _OUT_OF_TIME:
            return "was stopped: it took too much processor time"
        return f"crashed its process (exit code {code})"


# How a process ends that has used up its processor time; Windows knows no such limit.
_OUT_OF_TIME = -signal.SIGXCPU if sys.platform != "win32" else None
_lock = Lock()
_idle: list[_Worker] = []


def _asked(message: Mapping[str, Any]) -> _Worker:
    """Return a process that has the message: one that waits, or a new one."""
    while True:
        with _lock:
            worker = _idle.pop() if _idle else None
        if worker is None:
            break
        try:
            if not worker.ended:
                worker.ask(message)
                return worker
        except OSError:
            # It ended, having been idle, just before it was asked.
            pass
        worker.end()
    try:
        worker = _Worker()
    except OSError as fault:
        raise SandboxError("could not start its process") from fault
    try:
        worker.ask(message)
    except OSError as fault:
        worker.end()
        raise SandboxError("could not start its process") from fault
    return worker


def _put_back(worker: _Worker) -> None:
    with _lock:
        if len(_idle) < num_cores():
            _idle.append(worker)
            return
    worker.end()


def _refusal(told: Mapping[str, Any]) -> MedsegError:
    kind = {one.__name__: one for one in MedsegError.__subclasses__()}.get(
        told["kind"], MedsegError
    )
    return kind(str(told["message"]), code=str(told["code"]), hint=str(told["hint"]))


@atexit.register
def _end_all() -> None:
    with _lock:
        while _idle:
            _idle.pop().end()


def _forget() -> None:
    """In a fork: the processes answer to the parent alone."""
    global _lock
    _lock = Lock()
    while _idle:
        _idle.pop().let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
