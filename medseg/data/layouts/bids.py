"""BIDS trees: images by subject, masks below `derivatives/`, pixel sizes in side files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from medseg.core.errors import ManifestError
from medseg.data.case import Annotation, Channel
from medseg.data.layouts.found import Draft, Found, Request, Skipped
from medseg.data.layouts.patterns import SCAN_SUFFIXES, list_files
from medseg.runtime.files import read_json

# Data types of BIDS (its folders) -> modality.
_MODALITIES = {
    "anat": "MR", "dwi": "MR", "func": "MR", "perf": "MR", "fmap": "MR", "ct": "CT", "pet": "PT",
    "micr": "microscopy",
}  # fmt: skip
_MM = {"mm": 1.0, "um": 1e-3, "µm": 1e-3, "nm": 1e-6}


@dataclass(frozen=True, slots=True)
class _Name:
    """A BIDS file name taken apart: `sub-01_ses-2_T1w.nii.gz`."""

    path: str
    entities: tuple[str, ...]
    suffix: str

    @property
    def case_id(self) -> str:
        return "_".join(self.entities)


def is_bids(source: Path) -> bool:
    """Tell whether a folder describes itself as a BIDS dataset."""
    return (source / "dataset_description.json").is_file()


def read_bids(request: Request) -> Found:
    """Find images by subject and their masks among the derivatives.

    The case id is the name without its suffix, the patient is the subject. Where several masks an
    image are there, `label=` must say which: the part of the name after the image's own, such as
    `seg-manual`, or `seg-{class}-manual` for a file a class.

    Raises:
        ManifestError: ING-002: no image, or no such mask. ING-005: several kinds of masks.
    """
    files = list_files(request.source)
    scans = [name for path in files if (name := _parse(path))]
    images = [name for name in scans if name.path.startswith("sub-")]
    derived = [name for name in scans if name.path.startswith("derivatives/")]
    if not images:
        raise ManifestError(f"{request.source}: holds no scans named sub-...", code="ING-002")
    chosen = [
        name for name in images if not request.modalities or name.suffix in request.modalities
    ]
    masks = _Masks(images, derived, request)
    grouped: dict[tuple[str, ...], dict[str, _Name]] = {}
    for name in chosen:
        grouped.setdefault(name.entities, {})[name.suffix] = name
    side_files = [path for path in files if path.endswith(".json")]
    drafts = []
    for entities, own in sorted(grouped.items()):
        drawn = masks.of(own)
        drafts.append(
            Draft(
                case_id="_".join(entities),
                patient_id=entities[0],
                images={suffix: name.path for suffix, name in sorted(own.items())},
                labels=tuple(drawn.values()),
                raters=tuple(drawn) if len(masks.kinds) > 1 else (),
                spacing_mm=_spacing_mm(next(iter(own.values())), side_files, request.source),
            )
        )
    description = read_json(
        request.source / "dataset_description.json", kind=ManifestError, what="a BIDS description"
    )
    return Found(
        root=request.source,
        name=str(description.get("Name", "")),
        citation=str(description.get("DatasetDOI") or description.get("Study") or ""),
        channels=_channels(chosen, request.modalities),
        drafts=tuple(drafts),
        skipped=tuple(
            Skipped(subject=name.path, reason=f"suffix {name.suffix} was not asked for")
            for name in images
            if name not in chosen
        ),
    )


class _Masks:
    """The derivatives, each with the image it was made from, and which of them the user means."""

    def __init__(self, images: list[_Name], derived: list[_Name], request: Request) -> None:
        self.classes = request.class_names
        self.kinds = dict(request.raters)
        stems = {_stem(name.path) for name in images} | {name.case_id for name in images}
        # Stem of an image, or id of a case -> what follows it in the names of its masks -> path.
        self.of_stem: dict[str, dict[str, str]] = {stem: {} for stem in stems}
        for name in derived:
            parts = _stem(name.path).split("_")
            cuts = range(len(parts) - 1, 0, -1)
            # The longest stem that fits: "sub-1_run-2_T1w_seg" is no mask of "sub-1".
            cut = next((n for n in cuts if "_".join(parts[:n]) in stems), None)
            if cut is not None:
                self.of_stem["_".join(parts[:cut])]["_".join(parts[cut:])] = name.path

    def of(self, images: Mapping[str, _Name]) -> dict[str, Annotation]:
        """Return the annotations of a case by rater.

        Raises:
            ManifestError: ING-005: several masks, and the user has not said which.
        """
        case_id = next(iter(images.values())).case_id
        found = dict(self.of_stem[case_id])
        for name in images.values():
            found |= self.of_stem[_stem(name.path)]
        if self.kinds:
            named = {rater: self._named(found, kind) for rater, kind in self.kinds.items()}
            return {rater: one for rater, one in named.items() if one}
        if len(found) > 1:
            raise ManifestError(
                f"case {case_id!r}: has several masks, {', '.join(sorted(found))}",
                code="ING-005",
                hint=f"choose one with label=, such as label={min(found)}",
            )
        return dict(found)

    def _named(self, found: Mapping[str, str], kind: str) -> Annotation | None:
        if "{class}" not in kind:
            return found.get(kind)
        return {
            name: found[asked]
            for name in self.classes
            if (asked := kind.replace("{class}", name)) in found
        }


def _parse(path: str) -> _Name | None:
    """Take a name apart; None for what is no scan of a subject."""
    if not path.lower().endswith(SCAN_SUFFIXES):
        return None
    *entities, suffix = _stem(path).split("_")
    if not entities or not entities[0].startswith("sub-"):
        return None
    return _Name(path, tuple(entities), suffix)


def _stem(path: str) -> str:
    name = PurePosixPath(path).name
    return re.sub(f"({'|'.join(re.escape(end) for end in SCAN_SUFFIXES)}|\\.json)$", "", name)


def _channels(images: list[_Name], chosen: Mapping[str, str]) -> tuple[Channel, ...]:
    folders = {name.suffix: PurePosixPath(name.path).parent.name for name in images}
    order = [name for name in chosen if name in folders] or sorted(folders)
    return tuple(
        Channel(name=name, modality=chosen.get(name) or _MODALITIES.get(folders[name], ""))
        for name in order
    )


def _spacing_mm(
    image: _Name, side_files: list[str], root: Path
) -> tuple[float, float, float] | None:
    """Return the pixel size that the side files of an image state, nearer files first.

    A side file counts for every image below its folder whose name holds all parts of its own
    (the inheritance principle of BIDS).
    """
    parts = {*image.entities, image.suffix}
    nearest = sorted(side_files, key=lambda path: -len(PurePosixPath(path).parts))
    for path in nearest:
        own = set(_stem(path).split("_"))
        above = PurePosixPath(path).parent in PurePosixPath(image.path).parents
        if above and own <= parts and image.suffix in own:
            value = read_json(root / path, kind=ManifestError, what="a BIDS side file")
            if "PixelSize" in value:
                return _in_mm(value, path)
    return None


def _in_mm(value: Mapping[str, Any], path: str) -> tuple[float, float, float]:
    unit, sizes = value.get("PixelSizeUnits"), value["PixelSize"]
    if (
        unit not in _MM
        or not isinstance(sizes, list)
        or len(sizes) not in (2, 3)
        or not all(isinstance(size, int | float) and size > 0 for size in sizes)
    ):
        raise ManifestError(
            f"{path}: PixelSize {sizes} {unit}; expected two or three lengths in {', '.join(_MM)}",
            code="ING-004",
        )
    i, j, *k = (float(size) * _MM[unit] for size in sizes)
    # One slice has no thickness of its own; an in-plane edge keeps volumes in proportion.
    return i, j, k[0] if k else min(i, j)
