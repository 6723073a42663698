"""The far end of a sandbox: a process that does one piece of work after the other under limits.

A message is four bytes of length, so much JSON, and the bytes of an array when the JSON has a
`shape`. Nothing is pickled, so that a process taken over by a foreign file could say nothing but
numbers.
"""

import importlib
import json
import os
import select
import signal
import struct
import sys
from collections.abc import Mapping
from functools import cache
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import MedsegError

if TYPE_CHECKING:
    import psutil

_LENGTH = struct.Struct("<I")
# JSON of a message: arguments of a call, or a refusal.
_MOST_JSON_BYTES = 2**20
# A process that nobody has asked for anything for so long ends.
IDLE_S = 30.0
# What a piece of work may raise on foreign bytes; anything else ends the process, which is told.
_FAULTS = (
    ValueError, TypeError, AttributeError, KeyError, IndexError, OSError, EOFError, ImportError,
    ArithmeticError, RuntimeError, MemoryError, SyntaxError, struct.error,
)  # fmt: skip


def send(stream: IO[bytes], message: Mapping[str, Any], array: NDArray[Any] | None = None) -> None:
    """Write one message, and an array after it."""
    told = dict(message)
    if array is not None:
        told |= {"shape": array.shape, "dtype": array.dtype.str}
    head = json.dumps(told).encode()
    stream.write(_LENGTH.pack(len(head)) + head)
    if array is not None:
        stream.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    stream.flush()


def receive(
    stream: IO[bytes], *, most_bytes: int = 0
) -> tuple[dict[str, Any], NDArray[Any] | None]:
    """Read one message, and the array after it.

    Args:
        stream: of the process at the other end.
        most_bytes: that an array may have.

    Raises:
        EOFError: the other end is gone.
        ValueError: it says what no message is.
    """
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    if length > _MOST_JSON_BYTES:
        raise ValueError("a message that is none")
    message = json.loads(_exactly(stream, length))
    if not isinstance(message, dict):
        raise ValueError("a message that is none")
    if "shape" not in message:
        return message, None
    dtype = np.dtype(str(message["dtype"]))
    shape = tuple(int(n) for n in message["shape"])
    count = int(np.prod(shape, dtype=object))
    if dtype.kind not in "biuf" or min(shape, default=1) < 0 or count * dtype.itemsize > most_bytes:
        raise ValueError("an array that nobody asked for")
    array = np.empty(shape, dtype)
    if count:
        _fill(stream, array.reshape(-1).data.cast("B"))
    return message, array


def serve() -> None:
    """Work until the other end is gone or silent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    source = os.fdopen(os.dup(0), "rb", buffering=0)
    target = os.fdopen(os.dup(1), "wb")
    # What a decoder prints would be taken for an answer.
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    while _asked(source):
        try:
            message, _ = receive(source)
        except EOFError:
            return
        answer, array = _worked(message)
        send(target, answer, array)


def _worked(message: Mapping[str, Any]) -> tuple[dict[str, Any], NDArray[Any] | None]:
    module, _, name = str(message["work"]).partition(":")
    try:
        # Loaded before the limits: what a decoder weighs is not the file's fault.
        work = getattr(importlib.import_module(module), name)
        _limit(int(message["memory_bytes"]), float(message["cpu_s"]))
        return {}, np.asarray(work(**message["arguments"]))
    except MedsegError as refusal:
        kind = type(refusal).__name__
        told = {"kind": kind, "message": refusal.message, "code": refusal.code}
        return {"refused": {**told, "hint": refusal.hint}}, None
    except _FAULTS as fault:
        # Its text may quote the file; its name cannot.
        return {"fault": type(fault).__name__}, None


def _limit(memory_bytes: int, cpu_s: float) -> None:
    """Bound what this process may take from now on, on systems that can."""
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + cpu_s) + 1
    taken_bytes = _this_process().memory_info().vms
    for limit, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, taken_bytes + memory_bytes),
    ):
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (most if hard < 0 else min(most, hard), hard))


@cache
def _this_process() -> "psutil.Process":
    import psutil

    return psutil.Process()


def _asked(source: IO[bytes]) -> bool:
    """Wait for the next message; tell whether one came before the patience ended."""
    if sys.platform == "win32":
        return True
    return bool(select.select([source], [], [], IDLE_S)[0])


def _exactly(stream: IO[bytes], count: int) -> bytes:
    content = bytearray(count)
    _fill(stream, memoryview(content))
    return bytes(content)


def _fill(stream: IO[bytes], view: memoryview) -> None:
    filled = 0
    while filled < len(view):
        got = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if not got:
            raise EOFError
        filled += got
