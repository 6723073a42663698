"""Work on many cases in processes of their own: a refusal, or a crash, stays with its case."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool as Crash
from multiprocessing import get_context
from typing import TypeVar

from medseg.core.errors import MedsegError, ReadError
from medseg.runtime.console import progress
from medseg.runtime.hardware import num_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def outcomes(
    work: Callable[[Item], Result], items: Sequence[Item], *, num_workers: int | None, label: str
) -> list[Result | MedsegError]:
    """Apply a function to every item; what it refuses is its outcome.

    Args:
        work: a function that can be sent to another process.
        items: what to work on, each small enough to send.
        num_workers: processes; None: one a core; 0: none, in this process.
        label: shown beside the progress.

    Returns:
        An outcome an item, in their order. An item whose process died (a decoder that crashed,
        the memory that ran out) gets a ReadError of code RUN-001; one that the disk or the memory
        refuses, of code RUN-002.
    """
    wanted = num_cores() if num_workers is None else num_workers
    if wanted == 0:
        return [_tried(work, item) for item in progress(items, label)]
    with _pool(min(wanted, max(1, len(items)))) as pool:
        futures = [_submitted(pool, work, item) for item in items]
        found = list(map(_outcome, progress(futures, label)))
    # A crash takes the whole pool down: whoever was not done tries again, one after the other.
    left = [item for item, one in zip(items, found, strict=True) if isinstance(one, Crash)]
    again = iter(_one_by_one(work, left))
    return [next(again) if isinstance(one, Crash) else one for one in found]


def _tried(work: Callable[[Item], Result], item: Item) -> Result | MedsegError:
    try:
        return work(item)
    except MedsegError as refusal:
        return refusal
    except (OSError, MemoryError) as fault:
        return ReadError(f"cannot be read: {type(fault).__name__} {fault}", code="RUN-002")


def _submitted(
    pool: ProcessPoolExecutor, work: Callable[[Item], Result], item: Item
) -> Future[Result | MedsegError]:
    try:
        return pool.submit(_tried, work, item)
    except Crash as crash:
        future: Future[Result | MedsegError] = Future()
        future.set_exception(crash)
        return future


def _outcome(future: Future[Result]) -> Result | Crash:
    try:
        return future.result()
    except Crash as crash:
        return crash


def _one_by_one(
    work: Callable[[Item], Result], items: Sequence[Item]
) -> list[Result | MedsegError]:
    """With one item at work at a time, a crash is that item's."""
    found: list[Result | MedsegError] = []
    while len(found) < len(items):
        with _pool(1) as pool:
            for item in items[len(found) :]:
                one = _outcome(_submitted(pool, work, item))
                if isinstance(one, Crash):
                    found.append(_died())
                    break
                found.append(one)
    return found


def _died() -> ReadError:
    return ReadError(
        "the process that read it died",
        code="RUN-001",
        hint="out of memory, or a damaged file that crashes its decoder",
    )


def _pool(num_workers: int) -> ProcessPoolExecutor:
    # Spawned, not forked: threads of a parent (torch, BLAS) do not survive a fork.
    return ProcessPoolExecutor(num_workers, mp_context=get_context("spawn"))
