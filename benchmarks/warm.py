"""medseg commands in forks of a process that has loaded everything: real, but without the start.

Loading torch and MONAI takes seconds; a benchmark of hundreds of commands would spend its hours
there. A fork shares what was loaded and nothing it changes, so each command still has a process of
its own, to be timed, limited and killed.
"""

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# Loaded here, once, for all forks.
import hydra  # noqa: F401
import torch

import medseg.losses.dice_ce
import medseg.models.unet
import medseg.tasks.check
import medseg.tasks.evaluate
import medseg.tasks.export
import medseg.tasks.ingest
import medseg.tasks.plan
import medseg.tasks.predict
import medseg.tasks.train
import medseg.tasks.verify  # noqa: F401
from medseg.cli import main

_POLL_S = 0.002
# What a command in a fork may do before it runs, such as limiting itself.
Prepare = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended.

    Attributes:
        exit_code: its own; minus the number of the signal that ended it.
        said: lines it wrote to its standard error; warnings of Python and libraries are not among
            the command's answers, and stay in `printed`.
        printed: everything it wrote.
        seconds: from fork to end.
        peak_mib: largest resident memory, what it shares with its parent included.
    """

    exit_code: int
    said: tuple[str, ...]
    printed: str
    seconds: float
    peak_mib: float


@dataclass(slots=True)
class Running:
    """A command at work in a fork."""

    pid: int
    log: Path
    began: float
    ended: Ended | None = None

    def poll(self) -> Ended | None:
        """Return how it ended; None while it runs."""
        if self.ended is None:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.ended = self._ending(status, used)
        return self.ended

    def wait(self, limit_s: float) -> Ended:
        """Wait for its end; one that outlasts the limit is killed, and ends with -9."""
        until = self.began + limit_s
        while (ended := self.poll()) is None:
            if time.monotonic() > until:
                return self.kill()
            time.sleep(_POLL_S)
        return ended

    def kill(self) -> Ended:
        """End it as a power cut would; one that ended before keeps its own end."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        while (ended := self.poll()) is None:
            time.sleep(_POLL_S)
        return ended

    def _ending(self, status: int, used: resource.struct_rusage) -> Ended:
        errors = self.log.with_suffix(".err").read_text(errors="replace")
        output = self.log.with_suffix(".out").read_text(errors="replace")
        return Ended(
            exit_code=os.waitstatus_to_exitcode(status),
            said=tuple(line for line in errors.splitlines() if line.strip()),
            printed=output + errors,
            seconds=round(time.monotonic() - self.began, 3),
            peak_mib=round(used.ru_maxrss / 1024, 1),
        )


def start(line: Sequence[str], *, log: Path, prepare: Prepare | None = None) -> Running:
    """Start a command in a fork.

    Args:
        line: the words after `medseg`.
        log: where to write what it prints: this name with `.out` and `.err`.
        prepare: called in the fork before the command.
    """
    # Threads of a pool do not survive a fork, so there must not be one; and bit-for-bit results
    # need the same number of threads everywhere.
    torch.set_num_threads(1)
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _be_command(line, log, prepare)
    return Running(pid, log, began)


def run(
    line: Sequence[str], *, log: Path, limit_s: float = 120.0, prepare: Prepare | None = None
) -> Ended:
    """Run a command in a fork to its end."""
    return start(line, log=log, prepare=prepare).wait(limit_s)


def _be_command(line: Sequence[str], log: Path, prepare: Prepare | None) -> None:
    """Be the command, from here to the end of this process."""
    code = 1
    try:
        for number, suffix in ((1, ".out"), (2, ".err")):
            handle = os.open(log.with_suffix(suffix), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(handle, number)
        if prepare is not None:
            prepare()
        code = main(list(line))
    except BaseException:  # noqa: BLE001 - what escapes a command is what we are looking for
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # No clean-up of the parent's: the fork is only borrowed.
        os._exit(code)
