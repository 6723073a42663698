"""Names and codes of classes: what a DICOM object can hold of them, and classes found by them."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TypeVar

from medseg.core.errors import WriteError
from medseg.core.labels import CodedTerm, LabelSet

# A long string (LO) holds 64 characters, a short one (SH) 16; a backslash parts values (PS3.5 6.2).
MAX_NAME = 64
_MAX_CODE = 16
_Key = TypeVar("_Key", bound=Hashable)


class ClassFinder:
    """Finds the class that a segment or region of a file belongs to, by its name or its code."""

    def __init__(self, labels: LabelSet) -> None:
        """Take the classes; names and codes that several share find none of them."""
        self._exact = {name: index for index, name in enumerate(labels.names, start=1)}
        self._held = _unshared([_as_held(name) for name in labels.names])
        self._coded = _unshared([_key(label.code) for label in labels.labels])

    def index(self, name: str, code: CodedTerm | None) -> int:
        """Return the index of the class, 0 for none; a name counts before a code.

        Names are compared as a file holds them: cut to 64 letters, without outer or repeated
        blanks, in any case.
        """
        by_name = self._exact.get(name) or self._held.get(_as_held(name), 0)
        return by_name or (self._coded.get((code.scheme, code.value), 0) if code else 0)


def require_expressible(labels: LabelSet, path: Path) -> None:
    """Refuse classes whose names or codes would not come back from a DICOM object.

    Raises:
        WriteError: DCM-077.
    """
    held = [_as_held(name) for name in labels.names]
    for name, short in zip(labels.names, held, strict=True):
        if not short or not name.isprintable() or "\\" in name or held.count(short) > 1:
            raise WriteError(
                f"{path.name}: class {name!r} has a name that is empty, holds a backslash or a "
                f"control character, or is that of another class in its first {MAX_NAME} letters "
                "(in any case); a DICOM object could not tell them apart",
                code="DCM-077",
                hint="rename the class",
            )
    for label in labels.labels:
        if label.code is not None and not _is_codable(label.code):
            raise WriteError(
                f"{path.name}: the code of class {label.name!r} is {label.code}; expected a value "
                f"and a scheme of 1 to {_MAX_CODE} printable letters and a meaning of 1 to "
                f"{MAX_NAME}, without backslash",
                code="DCM-077",
                hint="correct the code in the manifest, or leave it out",
            )


def _as_held(name: str) -> str:
    return " ".join(name[:MAX_NAME].split()).lower()


def _key(code: CodedTerm | None) -> tuple[str, str] | None:
    return None if code is None else (code.scheme, code.value)


def _unshared(keys: Sequence[_Key | None]) -> dict[_Key, int]:
    """Number what is there once from 1 on; None is no key."""
    return {
        key: index
        for index, key in enumerate(keys, start=1)
        if key is not None and keys.count(key) == 1
    }


def _is_codable(code: CodedTerm) -> bool:
    limits = ((code.value, _MAX_CODE), (code.scheme, _MAX_CODE), (code.meaning, MAX_NAME))
    return all(
        len(part.strip()) > 0 and len(part) <= most and part.isprintable() and "\\" not in part
        for part, most in limits
    )
