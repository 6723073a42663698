"""The raw layout of nnU-Net v2: `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.core.errors import ManifestError
from medseg.core.labels import LabelSet
from medseg.data.case import Channel, SplitName
from medseg.data.layouts.found import Draft, Found, Request, Skipped
from medseg.runtime.files import read_json

_FOLDS = "splits_final.json"


def is_nnunet(source: Path) -> bool:
    """Tell whether a folder holds a `dataset.json` that names channels."""
    path = source / "dataset.json"
    return path.is_file() and "channel_names" in _read(path)


def read_nnunet(request: Request) -> Found:
    """Find the cases of `imagesTr` and `imagesTs`; folds from `splits_final.json`, if it is there.

    Raises:
        ManifestError: ING-004: `dataset.json` is not what it should be.
    """
    path = request.source / "dataset.json"
    value = _read(path)
    try:
        names = [
            str(value["channel_names"][key]) for key in sorted(value["channel_names"], key=int)
        ]
        ending = str(value["file_ending"])
        labels = _labels(value["labels"])
        folds = _published_folds(request.source / _FOLDS)
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise ManifestError(
            f"{path}: is not an nnU-Net dataset: {type(fault).__name__} {fault}", code="ING-004"
        ) from fault
    drafts: list[Draft] = []
    skipped: list[Skipped] = []
    for folder, label_folder, split in _PARTS:
        for case_id in _case_ids(request.source / folder, ending):
            images = {
                name: f"{folder}/{case_id}_{number:04}{ending}" for number, name in enumerate(names)
            }
            label = f"{label_folder}/{case_id}{ending}"
            labelled = (request.source / label).exists()
            if split == "train" and not labelled:
                skipped.append(Skipped(subject=case_id, reason=f"{label} is missing"))
                continue
            drafts.append(
                Draft(
                    case_id=case_id,
                    images=images,
                    labels=(label,) if labelled else (),
                    split=split,
                    fold=folds.get(case_id) if split == "train" else None,
                )
            )
    return Found(
        root=request.source,
        name=str(value.get("name") or ""),
        citation=str(value.get("reference", "")),
        channels=tuple(
            Channel(name=name, modality=request.modalities.get(name, "")) for name in names
        ),
        labels=labels,
        drafts=tuple(drafts),
        skipped=tuple(skipped),
    )


_PARTS: tuple[tuple[str, str, SplitName], ...] = (
    ("imagesTr", "labelsTr", "train"),
    ("imagesTs", "labelsTs", "test"),
)


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, kind=ManifestError, what="a list of a dataset")


def _case_ids(folder: Path, ending: str) -> list[str]:
    first = f"_0000{ending}"
    if not folder.is_dir():
        return []
    names = (entry.name for entry in folder.iterdir())
    return sorted(name.removesuffix(first) for name in names if name.endswith(first))


def _labels(values: Mapping[str, int | Sequence[int]]) -> LabelSet:
    """Make a label set; lists of values are regions over classes of one value each."""
    ignore = values.get("ignore")
    listed = {
        name: [entry] if isinstance(entry, int) else list(entry)
        for name, entry in values.items()
        if name not in ("background", "ignore")
    }
    single = {entry[0]: name for name, entry in listed.items() if len(entry) == 1}
    stored = sorted({value for entry in listed.values() for value in entry})
    class_of = {value: single.get(value, f"value {value}") for value in stored}
    is_region_task = any(len(entry) > 1 for entry in listed.values())
    regions = [
        {"name": name, "members": [class_of[value] for value in entry]}
        for name, entry in listed.items()
        if is_region_task
    ]
    return LabelSet.from_json(
        {
            "labels": [{"name": class_of[value], "values": value} for value in stored],
            "regions": regions,
            "ignore_value": ignore,
        }
    )


def _published_folds(path: Path) -> dict[str, int]:
    if not path.is_file():
        return {}
    folds = json.loads(path.read_text(encoding="utf-8"))
    return {str(case): number for number, fold in enumerate(folds) for case in fold["val"]}
