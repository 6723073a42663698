"""The classes of a dataset: names, the values that files store for them, colours and codes.

Inside medseg a label map holds an index, 0 for background and 1..N in the order of the label set.
What a file stores for a class (`myelin: 127`, or "any id above 0 is a nucleus") is translated once
when it is read, and back when it is written.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import LabelError
from medseg.core.stored_values import looked_up, values_in, whole_numbers

LabelMap = NDArray[np.integer[Any]]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A union of classes scored and trained as one, such as "whole tumour" (may overlap others)."""

    name: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSet:
    """All classes of a dataset, background left out.

    Attributes:
        labels: index 1..N in this order.
        regions: unions of classes; empty where classes exclude each other.
        ignore_value: stored value of voxels nobody labelled; loss and metrics skip them.

    Raises:
        LabelError: no classes, a repeated name or stored value, a name that stands for nothing, or
            partners that do not name each other.
    """

    labels: tuple[Label, ...]
    regions: tuple[Region, ...] = ()
    ignore_value: int | None = None

    def __post_init__(self) -> None:
        names = [label.name for label in self.labels]
        stored = [v for label in self.labels if label.values != ">0" for v in label.values]
        if not self.labels:
            raise LabelError("label set: expected at least one class besides background")
        if len({*names, "background"}) != len(names) + 1:
            raise LabelError(f"label set: names {names} repeat, or one is 'background'")
        if any(label.values == ">0" for label in self.labels) and len(self.labels) > 1:
            raise LabelError('label set: a class of values ">0" must be the only class')
        if len(set(stored)) != len(stored) or 0 in stored:
            raise LabelError(f"label set: stored values {stored} repeat, or one is 0 (background)")
        if self.ignore_value is not None and (self.ignore_value in stored or not self.ignore_value):
            raise LabelError(f"label set: ignore value {self.ignore_value} is already a class")
        self._check_partners()
        self._check_regions()

    def _check_partners(self) -> None:
        partners = {label.name: label.partner for label in self.labels}
        for name, partner in partners.items():
            if partner is not None and partner not in partners:
                raise LabelError(f"label {name!r}: partner {partner!r} is not a class")
            if partner is not None and partners[partner] != name:
                # A mirror would turn both into one class.
                raise LabelError(
                    f"label {name!r}: its partner {partner!r} names {partners[partner]!r}; "
                    f"expected {name!r}"
                )

    def _check_regions(self) -> None:
        names = [region.name for region in self.regions]
        if len(set(names)) != len(names):
            raise LabelError(f"regions {names}: a name is there twice")
        for region in self.regions:
            unknown = set(region.members) - set(self.names)
            if unknown or not region.members:
                raise LabelError(
                    f"region {region.name!r}: {sorted(unknown) or 'it has no members'}; "
                    f"expected some of {list(self.names)}"
                )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their indices 1..N."""
        return tuple(label.name for label in self.labels)

    @property
    def things(self) -> tuple[int, ...]:
        """Indices of the classes whose objects are told apart."""
        return tuple(n for n, label in enumerate(self.labels, start=1) if label.kind == "thing")

    def with_things(self, names: Collection[str]) -> "LabelSet":
        """Return the label set with these classes as things, and all others as stuff.

        Raises:
            LabelError: LBL-013 a name that is no class.
        """
        if unknown := sorted(set(names) - set(self.names)):
            raise LabelError(
                f"things={list(names)}: {unknown[0]!r} is no class; expected some of "
                f"{list(self.names)}",
                code="LBL-013",
            )
        kinds: dict[bool, Literal["thing", "stuff"]] = {True: "thing", False: "stuff"}
        labels = [replace(label, kind=kinds[label.name in names]) for label in self.labels]
        return replace(self, labels=tuple(labels))

    @property
    def num_outputs(self) -> int:
        """Channels a softmax network ends in: the classes and background."""
        return len(self.labels) + 1

    @property
    def ignore_index(self) -> int | None:
        """Index that ignored voxels get inside medseg: one past the last class."""
        return None if self.ignore_value is None else len(self.labels) + 1

    @property
    def mirror_order(self) -> tuple[int, ...]:
        """For each output channel, the channel that a left-right mirror turns it into."""
        order = {label.name: i for i, label in enumerate(self.labels, start=1)}
        return (0, *(order[label.partner or label.name] for label in self.labels))

    def from_stored(self, stored: NDArray[Any], *, name: str) -> LabelMap:
        """Translate what a file stores into indices 0..N (and `ignore_index`).

        Args:
            stored: label values of any numeric type and shape.
            name: the file, for the error.

        Raises:
            LabelError: LBL-001 NaN, LBL-002 not integers, LBL-003 values no class declares.
        """
        stored = np.asarray(stored)
        values = values_in(stored)
        if np.issubdtype(values.dtype, np.inexact):
            values = whole_numbers(values, name)
            stored = np.rint(stored).astype(np.int64)
            values = np.unique(values)
        index = np.array([self._index_of(int(v)) for v in values], dtype=np.int64)
        if (index < 0).any():
            odd = values[index < 0][:6]
            listed = ", ".join(f"{int(v)} ({int((stored == v).sum())} voxels)" for v in odd)
            raise LabelError(
                f"{name}: values {listed} belong to no class of {self._declared()}",
                code="LBL-003",
                hint="declare them in the manifest's labels, or as ignore_value",
            )
        return looked_up(stored, values, index.astype(self._index_type))

    def to_stored(self, label_map: LabelMap) -> LabelMap:
        """Translate indices 0..N (and `ignore_index`) back into the values that files store.

        The type is the smallest that holds them all: uint8 mostly, signed where one is negative.
        """
        table = [0, *(1 if label.values == ">0" else label.values[0] for label in self.labels)]
        if self.ignore_value is not None:
            table.append(self.ignore_value)
        kind = np.result_type(np.min_scalar_type(min(table)), np.min_scalar_type(max(table)))
        return np.asarray(np.array(table, dtype=kind)[label_map])

    @property
    def _index_type(self) -> type[np.uint8] | type[np.uint16]:
        return np.uint8 if self.num_outputs < 255 else np.uint16

    def _index_of(self, value: int) -> int:
        """Index of a stored value, -1 when it belongs to no class."""
        if value == 0:
            return 0
        if value == self.ignore_value:
            return len(self.labels) + 1
        for index, label in enumerate(self.labels, start=1):
            if value > 0 if label.values == ">0" else value in label.values:
                return index
        return -1

    def _declared(self) -> str:
        return ", ".join(f"{label.name}={label.values}" for label in self.labels)

    def to_json(self) -> dict[str, Any]:
        """Return plain values from which `from_json` makes the same label set."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "LabelSet":
        """Make a label set from JSON; colours may be missing, `values` may be one number.

        Raises:
            LabelError: an entry without a name or values, or one the constructor refuses.
        """
        return cls(
            labels=tuple(_label(n, entry) for n, entry in enumerate(value.get("labels") or ())),
            regions=tuple(
                Region(name=r["name"], members=tuple(r["members"]))
                for r in value.get("regions") or ()
            ),
            ignore_value=value.get("ignore_value"),
        )


def label_set(classes: Mapping[str, int | Sequence[int] | Literal[">0"]]) -> LabelSet:
    """Make a label set from names and stored values alone, such as `{"myelin": 127}`."""
    return LabelSet.from_json(
        {"labels": [{"name": name, "values": values} for name, values in classes.items()]}
    )


def _label(order: int, entry: Mapping[str, Any]) -> Label:
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
