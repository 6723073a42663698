"""One class: its name, the values that files store for it, its colour and its code."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from medseg.core.errors import LabelError

Stored = tuple[int, ...] | Literal[">0"]

# Distinct, printable, and kind to colour-blind readers (after Okabe and Ito, 2008), then repeated.
_PALETTE = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66),
    (0, 114, 178), (213, 94, 0), (204, 121, 167), (153, 153, 153),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedTerm:
    """A term of a coding scheme, such as SNOMED CT 78961009 "Spleen" (DICOM PS3.3 section 8)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One class.

    Attributes:
        name: as the user calls it.
        values: what files store for it; `">0"` means every positive value (instance ids).
        colour: red, green, blue, 0 to 255.
        code: what a DICOM SEG calls it; None is written as a generic tissue with this name.
        partner: the class that a left-right mirror turns this one into.
        kind: `thing` for countable objects, `stuff` for the rest (Kirillov et al., CVPR 2019).

    Raises:
        LabelError: no stored value, a colour that is none, or another kind.
    """

    name: str
    values: Stored
    colour: tuple[int, int, int]
    code: CodedTerm | None = None
    partner: str | None = None
    kind: Literal["stuff", "thing"] = "stuff"

    def __post_init__(self) -> None:
        if not self.values:
            raise LabelError(f"label {self.name!r}: expected at least one stored value")
        if len(self.colour) != 3 or not all(0 <= part <= 255 for part in self.colour):
            raise LabelError(
                f"label {self.name!r}: colour {self.colour}; expected red, green, blue, 0 to 255"
            )
        if self.kind not in ("stuff", "thing"):
            raise LabelError(f"label {self.name!r}: kind {self.kind!r}; expected stuff or thing")


def label_from_json(order: int, entry: Mapping[str, Any]) -> Label:
    """Make a class from JSON; its colour may be missing, `values` may be one number.

    Args:
        order: its place among the classes, from 0; chooses a colour where there is none.
        entry: keys as the attributes of `Label`.

    Raises:
        LabelError: no name or values, or what the constructor refuses.
    """
    if "name" not in entry or "values" not in entry:
        raise LabelError(f"label {order + 1}: expected a name and values, found {dict(entry)}")
    values = entry["values"]
    code = entry.get("code")
    return Label(
        name=str(entry["name"]),
        values=values if values == ">0" else _whole(values, entry["name"]),
        colour=tuple(entry.get("colour") or _PALETTE[order % len(_PALETTE)]),
        code=CodedTerm(**code) if code else None,
        partner=entry.get("partner"),
        kind=entry.get("kind", "stuff"),
    )


def _whole(values: Any, name: str) -> tuple[int, ...]:
    listed = list(values) if isinstance(values, list | tuple) else [values]
    if not listed or not all(isinstance(v, int) and not isinstance(v, bool) for v in listed):
        raise LabelError(f'label {name!r}: values {values!r}; expected whole numbers or ">0"')
    return tuple(listed)
