"""The layout of the Medical Segmentation Decathlon: `dataset.json` lists every image and label."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medseg.core.errors import ManifestError
from medseg.core.labels import LabelSet, label_set
from medseg.data.case import Channel, SplitName
from medseg.data.layouts.found import Draft, Found, Request, Skipped
from medseg.data.layouts.patterns import SCAN_SUFFIXES
from medseg.runtime.files import read_json

_FOLDS = "folds.json"


def is_decathlon(source: Path) -> bool:
    """Tell whether a folder holds a `dataset.json` that lists training pairs."""
    path = source / "dataset.json"
    return path.is_file() and "training" in _read(path)


def read_decathlon(request: Request) -> Found:
    """Find the cases that `dataset.json` lists; several modalities are planes of one file.

    Published folds, which `medseg fetch` leaves in `folds.json`, become those of the cases.

    Raises:
        ManifestError: ING-004: `dataset.json` is not what it should be.
    """
    path = request.source / "dataset.json"
    value = _read(path)
    try:
        channels = _channels(value["modality"], request.modalities)
        names = [channel.name for channel in channels]
        drafts = [
            _draft(entry["image"], entry["label"], names, "train") for entry in value["training"]
        ]
        drafts = _with_folds(drafts, request.source / _FOLDS)
        drafts += [_draft(_image_of(entry), "", names, "test") for entry in value.get("test", [])]
        labels = _labels(value["labels"])
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise ManifestError(
            f"{path}: is not a Decathlon list: {type(fault).__name__} {fault}", code="ING-004"
        ) from fault
    there, absent = [], []
    for draft in drafts:
        # The test images of the published archives are often removed to save space.
        lost = next((p for p in draft.images.values() if not (request.source / p).exists()), None)
        if lost and draft.split == "test":
            absent.append(Skipped(subject=draft.case_id, reason=f"{lost} is missing"))
        else:
            there.append(draft)
    return Found(
        root=request.source,
        name=str(value.get("name", "")),
        citation=str(value.get("reference", "")),
        channels=channels,
        labels=labels,
        drafts=tuple(there),
        skipped=tuple(absent),
    )


def _with_folds(drafts: list[Draft], path: Path) -> list[Draft]:
    """Give each case its published fold, where `medseg fetch` wrote them down."""
    if not path.is_file():
        return drafts
    folds = read_json(path, kind=ManifestError, what="a list of folds")["folds"]
    return [replace(draft, fold=folds[draft.case_id]) for draft in drafts]


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, kind=ManifestError, what="a list of a dataset")


def _channels(modality: Mapping[str, str], chosen: Mapping[str, str]) -> tuple[Channel, ...]:
    names = [str(modality[key]) for key in sorted(modality, key=int)]
    return tuple(Channel(name=name, modality=chosen.get(name, "")) for name in names)


def _labels(values: Mapping[str, str]) -> LabelSet:
    return label_set({str(name): int(key) for key, name in values.items() if int(key) != 0})


def _draft(image: str, label: str, channels: list[str], split: SplitName) -> Draft:
    image, label = image.removeprefix("./"), label.removeprefix("./")
    return Draft(
        case_id=_stem(image),
        images=dict.fromkeys(channels, image),
        labels=(label,) if label else (),
        split=split,
    )


def _image_of(entry: str | Mapping[str, str]) -> str:
    return entry if isinstance(entry, str) else entry["image"]


def _stem(path: str) -> str:
    name = Path(path).name
    suffix = next((end for end in SCAN_SUFFIXES if name.lower().endswith(end)), "")
    return name.removesuffix(suffix) if suffix else name
