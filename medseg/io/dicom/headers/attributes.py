"""DICOM attributes as plain values, read so that no foreign text escapes into a log or a warning.

pydicom quotes offending values in its warnings, and a value may be a patient's name. Whatever
opens a foreign file therefore does so inside `unspoken()`, and an attribute that makes no sense
becomes a refusal that names the attribute, never what it held.
"""

import logging
import math
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache, lru_cache
from threading import Lock
from typing import Any

from pydicom import Dataset, config
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.errors import BytesLengthException
from pydicom.tag import BaseTag, Tag

from medseg.core.errors import ReadError

# What pydicom raises, late, on an element whose bytes are not what their header claims.
UNPARSABLE = (
    ValueError, TypeError, OverflowError, AttributeError, KeyError, IndexError, OSError,
    EOFError, NotImplementedError, RecursionError, struct.error, BytesLengthException,
)  # fmt: skip
# Representations whose values mean the same whatever else is in the file: no texts, whose
# characters the file chooses, and no sequences.
_CONTEXT_FREE = frozenset({"CS", "DS", "FD", "IS", "UI", "US"})
_MOST_REMEMBERED_BYTES = 256


class _Silence:
    """What keeps foreign text from being spoken; may be entered again, also by other threads.

    Filters, loggers and pydicom's settings belong to the process. The first to enter silences
    them and the last to leave restores them, so that threads cannot undo each other's work.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._depth = 0
        self._undo = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._undo.enter_context(_silenced())
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._undo.close()


_silence = _Silence()


def unspoken() -> AbstractContextManager[None]:
    """Keep pydicom's and highdicom's warnings, which quote values, from being shown or logged."""
    return _silence


@contextmanager
def _silenced() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    before = [log.disabled for log in loggers]
    validation = config.settings.reading_validation_mode
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config.settings.reading_validation_mode = config.IGNORE
        for log in loggers:
            log.disabled = True
        try:
            yield
        finally:
            config.settings.reading_validation_mode = validation
            for log, disabled in zip(loggers, before, strict=True):
                log.disabled = disabled


def numbers(dataset: Dataset, keyword: str, count: int, *, name: str) -> tuple[float, ...] | None:
    """Return an attribute that holds `count` finite numbers; None when it is absent or empty.

    Args:
        dataset: where to look.
        keyword: of the attribute, such as `ImagePositionPatient`.
        count: how many numbers it must hold.
        name: the file, for the error.

    Raises:
        ReadError: DCM-037, the attribute holds something else.
    """
    try:
        value = _value(dataset, keyword)
        if value is None or value == "":
            return None
        found = tuple(float(entry) for entry in _several(value))
    except UNPARSABLE:
        found = ()
    if not found or len(found) != count or not all(map(math.isfinite, found)):
        raise ReadError(
            f"{name}: {keyword} is not {count} finite number{'s' if count > 1 else ''}",
            code="DCM-037",
            hint="export the series again from the scanner or the PACS",
        )
    return found


def number(dataset: Dataset, keyword: str, *, name: str) -> float | None:
    """Return an attribute that holds one finite number; None when it is absent or empty.

    Raises:
        ReadError: DCM-037, the attribute holds something else.
    """
    found = numbers(dataset, keyword, 1, name=name)
    return None if found is None else found[0]


def whole(dataset: Dataset, keyword: str, *, name: str) -> int | None:
    """Return an attribute that holds one integer; None when it is absent or empty.

    Raises:
        ReadError: DCM-037, the attribute holds something else.
    """
    found = number(dataset, keyword, name=name)
    return None if found is None else int(found)


def text(dataset: Dataset, keyword: str) -> str:
    """Return an attribute as text without outer blanks; empty when absent or undecodable."""
    try:
        value = _value(dataset, keyword)
    except UNPARSABLE:
        return ""
    return "" if value is None else str(value).strip()


def words(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """Return the values of a multi-valued attribute, such as `ImageType`, as text."""
    try:
        value = _value(dataset, keyword)
    except UNPARSABLE:
        return ()
    if value is None:
        return ()
    return tuple(str(entry) for entry in _several(value))


def items(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    """Return the items of a sequence attribute; none when it is absent or makes no sense."""
    try:
        found = _value(dataset, keyword)
        return [entry for entry in found or () if isinstance(entry, Dataset)]
    except UNPARSABLE:
        return []


def item(dataset: Dataset, keyword: str) -> Dataset | None:
    """Return the first item of a sequence attribute; None when there is none."""
    return next(iter(items(dataset, keyword)), None)


@cache
def _tag(keyword: str) -> BaseTag:
    return Tag(keyword)


def _value(dataset: Dataset, keyword: str) -> Any:
    """Return the value of an attribute, None when absent; faster than asking by keyword."""
    tag = _tag(keyword)
    element = dataset.get_item(tag, keep_deferred=True)
    if isinstance(element, RawDataElement) and element.is_little_endian:
        representation = element.VR or dictionary_VR(tag)
        value = element.value or b""
        if representation in _CONTEXT_FREE and 0 < len(value) <= _MOST_REMEMBERED_BYTES:
            return parsed(tag, representation, value)
    if element is None:
        return None
    # Parsed in its place, as what surrounds it says.
    return dataset[tag].value


@lru_cache(maxsize=2048)
def parsed(tag: BaseTag, representation: str, value: bytes) -> Any:
    """Return what a little endian value says, parsed once for all slices that have the same.

    Raises:
        What pydicom may, of `UNPARSABLE`.
    """
    return convert_raw_data_element(
        RawDataElement(
            tag,
            representation,
            len(value),
            value,
            value_tell=0,
            is_implicit_VR=False,
            is_little_endian=True,
        )
    ).value


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
