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
from medseg.core.label import CodedTerm, Label, label_from_json
from medseg.core.regions import Region, classes_written, mirrored_regions, require_regions
from medseg.core.stored_values import looked_up, values_in, whole_numbers

__all__ = ["CodedTerm", "Label", "LabelMap", "LabelSet", "Region", "label_set"]

LabelMap = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSet:
    """All classes of a dataset, background left out.

    Attributes:
        labels: index 1..N in this order.
        regions: unions of classes that are scored as one.
        outputs: what networks end in: `classes`, which exclude each other, or `regions`.
        ignore_value: stored value of voxels nobody labelled; loss and metrics skip them.

    Raises:
        LabelError: no classes, a repeated name or stored value, a name that stands for nothing, or
            partners that do not name each other.
    """

    labels: tuple[Label, ...]
    regions: tuple[Region, ...] = ()
    ignore_value: int | None = None
    outputs: Literal["classes", "regions"] = "classes"

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
        if self.ignore_value is not None and type(self.ignore_value) is not int:
            raise LabelError(
                f"label set: ignore value {self.ignore_value!r}: expected a whole number, as files "
                "store it"
            )
        if self.ignore_value is not None and (self.ignore_value in stored or not self.ignore_value):
            raise LabelError(f"label set: ignore value {self.ignore_value} is already a class")
        self._check_partners()
        require_regions(self.regions, self.names)
        if self.outputs == "regions":
            classes_written(self.regions, self.names)
            mirrored_regions(self.regions, self._partners)

    def _check_partners(self) -> None:
        partners = self._partners
        for name, partner in partners.items():
            if partner is not None and partner not in partners:
                raise LabelError(f"label {name!r}: partner {partner!r} is not a class")
            if partner is not None and partners[partner] != name:
                # A mirror would turn both into one class.
                told = f"names {partners[partner]!r}" if partners[partner] else "names no partner"
                raise LabelError(
                    f"label {name!r}: its partner {partner!r} {told}; expected {name!r}, since "
                    "partners name each other"
                )

    @property
    def _partners(self) -> dict[str, str | None]:
        return {label.name: label.partner for label in self.labels}

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
        """Channels a network ends in: background and the classes, or the regions."""
        return len(self.output_names)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of these channels."""
        if self.outputs == "regions":
            return tuple(region.name for region in self.regions)
        return ("background", *self.names)

    @property
    def num_indices(self) -> int:
        """How many indices a label map may hold, voxels to ignore left out: 0..N."""
        return len(self.labels) + 1

    @property
    def targets(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Name and class indices of all that is learnt: each class, or each region."""
        index_of = {name: index for index, name in enumerate(self.names, start=1)}
        if self.outputs == "regions":
            return tuple((r.name, tuple(index_of[m] for m in r.members)) for r in self.regions)
        return tuple((name, (index,)) for name, index in index_of.items())

    @property
    def ignore_index(self) -> int | None:
        """Index that ignored voxels get inside medseg: one past the last class."""
        return None if self.ignore_value is None else len(self.labels) + 1

    @property
    def mirror_order(self) -> tuple[int, ...]:
        """For each index, the index that a left-right mirror turns it into."""
        order = {label.name: i for i, label in enumerate(self.labels, start=1)}
        return (0, *(order[label.partner or label.name] for label in self.labels))

    @property
    def output_mirror_order(self) -> tuple[int, ...]:
        """For each output channel, the channel that a left-right mirror turns it into."""
        if self.outputs == "regions":
            return mirrored_regions(self.regions, self._partners)
        return self.mirror_order

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
        return np.uint8 if self.num_indices < 255 else np.uint16

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
        value = asdict(self)
        # What is left at its default is left out: digests of earlier label sets stay what they are.
        if self.outputs == "classes":
            del value["outputs"]
        for region in value["regions"]:
            if region["written_as"] is None:
                del region["written_as"]
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "LabelSet":
        """Make a label set from JSON; colours may be missing, `values` may be one number.

        Raises:
            LabelError: an entry without a name or values, or one the constructor refuses.
        """
        return cls(
            labels=tuple(
                label_from_json(n, entry) for n, entry in enumerate(value.get("labels") or ())
            ),
            regions=tuple(
                Region(name=r["name"], members=tuple(r["members"]), written_as=r.get("written_as"))
                for r in value.get("regions") or ()
            ),
            ignore_value=value.get("ignore_value"),
            outputs=value.get("outputs", "classes"),
        )


def label_set(classes: Mapping[str, int | Sequence[int] | Literal[">0"]]) -> LabelSet:
    """Make a label set from names and stored values alone, such as `{"myelin": 127}`."""
    return LabelSet.from_json(
        {"labels": [{"name": name, "values": values} for name, values in classes.items()]}
    )
