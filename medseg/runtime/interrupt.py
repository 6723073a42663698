"""Signals as a question the loop may ask, so that it stops between steps and not inside one."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from medseg.core.errors import EXIT_INTERRUPTED

_HANDLED = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)


class Interruption:
    """Remembers the first signal that asked for a stop; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Note the signal (called by Python between two instructions)."""
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    @property
    def exit_code(self) -> int:
        """128 + signal, as shells count it: 130 after Ctrl-C, 143 after SIGTERM; 0 if none came."""
        if self.signal is None:
            return 0
        return EXIT_INTERRUPTED if self.signal == signal.SIGINT else 128 + self.signal


@contextmanager
def interruption() -> Iterator[Interruption]:
    """Catch Ctrl-C, SIGTERM and SIGUSR1 inside the block; outside the main thread, catch none."""
    caught = Interruption()
    previous = {}
    try:
        for number in _HANDLED:
            previous[number] = signal.signal(number, caught)
    except ValueError:
        # Only the main thread may set handlers; elsewhere signals keep their meaning.
        previous = {}
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
