"""The door of a manifest: what its JSON must look like, checked by pydantic before it is used."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medseg.core.errors import ManifestError


class _Strict(BaseModel):
    # Strict: a number is never taken for an id, nor text for a number.
    model_config = ConfigDict(extra="forbid", strict=True)


class CodeJson(_Strict):
    """A coded term, such as SNOMED CT 78961009 "Spleen"."""

    value: str
    scheme: str
    meaning: str


class LabelJson(_Strict):
    """One class and what files store for it."""

    name: str
    values: int | list[int] | Literal[">0"]
    colour: list[int] | None = Field(default=None, min_length=3, max_length=3)
    code: CodeJson | None = None
    partner: str | None = None
    kind: Literal["stuff", "thing"] = "stuff"


class RegionJson(_Strict):
    """A union of classes."""

    name: str
    members: list[str]
    written_as: str | None = None


class LabelSetJson(_Strict):
    """All classes, background left out."""

    labels: list[LabelJson]
    regions: list[RegionJson] = []
    ignore_value: int | None = None


class ChannelJson(_Strict):
    """One kind of image."""

    name: str = Field(min_length=1)
    modality: str = Field(min_length=1)


class CaseJson(_Strict):
    """One row."""

    case_id: str
    patient_id: str
    images: dict[str, str]
    labels: list[str | dict[str, str]] = []
    raters: list[str] = []
    annotated: list[str] | None = None
    classes: list[str] | None = None
    fold: int | None = None
    split: Literal["train", "test", "unlabelled"] = "train"
    stratum: str = ""
    spacing_mm: list[float] | None = Field(default=None, min_length=3, max_length=3)
    series_uids: dict[str, str] = {}
    digest: str = ""
    image_digest: str = ""


class ManifestJson(_Strict):
    """The whole file."""

    version: Literal[1] = 1
    name: str = Field(min_length=1)
    citation: str = ""
    data_root: str = "."
    spatial_dims: Literal[2, 3]
    channels: list[ChannelJson]
    reference_channel: str
    labels: LabelSetJson
    consensus: Literal["majority", "staple", "soft"] = "majority"
    num_folds: int = Field(default=5, ge=2)
    seed: int = Field(default=0, ge=0)
    cases: list[CaseJson]


# What pydantic adds to the place of a fault to say which type of several it had tried.
_ALTERNATIVES = ("str", "int", "list[int]", "dict[str,str]", "literal['>0']")


def checked(value: Mapping[str, Any], path: Path) -> ManifestJson:
    """Return the JSON of a manifest once every key and type in it is known to be right.

    Raises:
        ManifestError: MAN-001, naming the file, the row and the key, with the nearest valid key.
    """
    try:
        return ManifestJson.model_validate(value)
    except ValidationError as fault:
        raise _refusal(fault, value, path) from fault


def _refusal(fault: ValidationError, value: Mapping[str, Any], path: Path) -> ManifestError:
    # A mistyped key shows twice, as one too many and one missing: the first is what to mend.
    faults = fault.errors(include_url=False)
    first, *others = sorted(faults, key=lambda one: one["type"] != "extra_forbidden")
    place, key = first["loc"][:-1], first["loc"][-1]
    steps = [step for step in first["loc"] if step not in _ALTERNATIVES]
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    row = _row_name(first["loc"], value)
    if first["type"] == "extra_forbidden":
        known = _keys_at(place)
        near = get_close_matches(str(key), known, n=1, cutoff=0.5)
        found = f"no such key{f'; did you mean {near[0]!r}?' if near else f'; expected {known}'}"
    elif first["type"] == "missing":
        found = "is missing"
    else:
        # The value may be long or private; pydantic's sentence names only what was expected.
        found = f"{first['msg'][0].lower()}{first['msg'][1:]}, found {_short(first['input'])}"
    more = f" (and {len(others)} more)" if others else ""
    return ManifestError(
        f"{path}: {where.removeprefix('.')}{row}: {found}{more}",
        code="MAN-001",
        hint="data_manifests/README.md lists every key",
    )


def _row_name(place: tuple[int | str, ...], value: Mapping[str, Any]) -> str:
    """Name the case a fault lies in, by its id where it has one."""
    if len(place) < 2 or place[0] != "cases" or not isinstance(place[1], int):
        return ""
    row = value["cases"][place[1]]
    case_id = row.get("case_id") if isinstance(row, dict) else None
    return f" (case {case_id!r})" if isinstance(case_id, str) else ""


def _keys_at(place: tuple[int | str, ...]) -> list[str]:
    """Return the keys that the object at a place in the JSON may have."""
    models: dict[tuple[str, ...], type[BaseModel]] = {
        (): ManifestJson,
        ("cases",): CaseJson,
        ("channels",): ChannelJson,
        ("labels",): LabelSetJson,
        ("labels", "labels"): LabelJson,
        ("labels", "labels", "code"): CodeJson,
        ("labels", "regions"): RegionJson,
    }
    return list(models[tuple(step for step in place if isinstance(step, str))].model_fields)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
