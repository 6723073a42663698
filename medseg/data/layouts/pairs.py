"""Folders in which the path of a file says which case, channel or class it belongs to."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from medseg.core.errors import ManifestError
from medseg.data.case import Annotation, Channel
from medseg.data.layouts.found import Draft, Found, Request, Skipped
from medseg.data.layouts.patterns import SCAN_SUFFIXES, Match, list_files, match_paths

# Pairs of patterns tried when the user gives none, image first.
_CONVENTIONS = (
    *(
        (f"{images}/{{case}}{{suffix}}", f"{labels}/{{case}}{{suffix}}")
        for images in ("images", "imagesTr", "image", "scans")
        for labels in ("labels", "labelsTr", "label", "masks", "segmentations", "instances")
    ),
    *(
        (f"{folder}{{case}}{image}{{suffix}}", f"{folder}{{case}}{label}{{suffix}}")
        for folder in ("{case}/", "")
        for image in ("_image", "")
        for label in ("_mask", "_seg", "_label", "_segmentation")
    ),
    ("{case}/image{suffix}", "{case}/mask{suffix}"),
    ("{case}/image{suffix}", "{case}/label{suffix}"),
    ("{case}/image{suffix}", "{case}/segmentation{suffix}"),
)


def is_pairs(source: Path) -> bool:
    """Tell whether a folder holds scans at all; how they pair is seen when it is read."""
    return source.is_dir() and any(_is_scan(path) for path in list_files(source))


def read_pairs(request: Request) -> Found:
    """Find cases by the patterns the user gave, or by the usual names of folders and files.

    Raises:
        ManifestError: ING-001 a pattern that makes no sense; ING-002 one that fits no file; ING-003
            two files that claim the same place.
    """
    files = [path for path in list_files(request.source) if _is_scan(path)]
    images, raters = dict(request.images), dict(request.raters)
    if not images:
        images, raters = _usual(files, raters, request.source)
    labelled = {
        match.path: match.places["case"]
        for pattern in raters.values()
        for match in match_paths(pattern, files)
    }
    drafts: dict[str, Draft] = {}
    for channel, pattern in images.items():
        for match in _matches(pattern, files, what=f"images.{channel}"):
            # `{case}.nii.gz` also fits "a_mask.nii.gz", which is known as the label of case "a".
            if labelled.get(match.path, match.places["case"]) == match.places["case"]:
                _add_image(drafts, match, channel)
    labels = {
        rater: annotations(pattern, files, rater, classes=request.class_names)
        for rater, pattern in raters.items()
    }
    taken = tuple(_labelled(draft, labels) for draft in drafts.values())
    used = {path for draft in taken for path in draft.images.values()} | labelled.keys()
    skipped = [
        Skipped(subject=path, reason="fits no pattern") for path in files if path not in used
    ]
    for rater, own in labels.items():
        skipped += [
            Skipped(subject=case, reason=f"a label of {rater} without an image")
            for case in own
            if case not in drafts
        ]
    channels = tuple(
        Channel(name=name, modality=request.modalities.get(name, "")) for name in images
    )
    return Found(root=request.source, channels=channels, drafts=taken, skipped=tuple(skipped))


def _usual(
    files: list[str], raters: dict[str, str], source: Path
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the usual pair of patterns that fits most cases on both sides.

    Where the user said where the labels are, their cases are those that an image is sought for.
    """
    best, most = ("", ""), 0
    said = {
        match.places["case"]
        for rater, pattern in raters.items()
        for match in _matches(pattern, files, what=f"label of {rater}")
    }
    for image, label in _CONVENTIONS:
        labels = said or {match.places["case"] for match in match_paths(label, files)}
        both = labels & {match.places["case"] for match in match_paths(image, files)}
        if len(both) > most:
            best, most = (image, label), len(both)
    if most:
        return {"image": best[0]}, raters or {"rater": best[1]}
    shown = ", ".join(files[:3])
    lost, also = ("images", "") if raters else ("images and labels", " label='{case}/mask.nii.gz'")
    raise ManifestError(
        f"{source}: {lost} are not where they usually are (it holds {shown}, ...)",
        code="ING-002",
        hint=f"say where, such as images.CT='{{case}}/ct.nii.gz'{also}",
    )


def _matches(pattern: str, files: list[str], *, what: str) -> list[Match]:
    found = match_paths(pattern, files)
    if not found:
        raise ManifestError(
            f"{what}: the pattern {pattern!r} fits none of {len(files)} scans, such as "
            f"{files[0] if files else 'none'}",
            code="ING-002",
            hint="patterns are relative to source",
        )
    return found


def _add_image(drafts: dict[str, Draft], match: Match, channel: str) -> None:
    case_id = match.places["case"]
    known = drafts.get(case_id)
    images = dict(known.images) if known else {}
    if channel in images:
        raise ManifestError(
            f"case {case_id!r}, channel {channel!r}: {images[channel]} and {match.path} both "
            "fit its pattern",
            code="ING-003",
            hint="make the pattern more exact",
        )
    drafts[case_id] = Draft(
        case_id=case_id,
        images={**images, channel: match.path},
        patient_id=match.places.get("patient", ""),
        stratum=match.places.get("stratum", ""),
    )


def annotations(
    pattern: str, files: list[str], rater: str, *, classes: tuple[str, ...]
) -> dict[str, Annotation]:
    """Return one rater's annotation of every case: a file, or a file a class.

    Args:
        pattern: of the rater's label files.
        files: relative paths to choose from.
        rater: the name of the rater, for errors.
        classes: with `{class}` in the pattern, the classes to take; none means all.

    Raises:
        ManifestError: ING-001 to ING-003.
    """
    found: dict[str, Annotation] = {}
    for match in _matches(pattern, files, what=f"label of {rater}"):
        case_id, name = match.places["case"], match.places.get("class")
        if name is None:
            if case_id in found:
                raise ManifestError(
                    f"case {case_id!r}: {found[case_id]} and {match.path} both fit {pattern!r}",
                    code="ING-003",
                    hint="make the pattern more exact",
                )
            found[case_id] = match.path
        elif not classes or name in classes:
            known = found.get(case_id, {})
            found[case_id] = {**(known if isinstance(known, Mapping) else {}), name: match.path}
    return found


def _labelled(draft: Draft, raters: Mapping[str, Mapping[str, Annotation]]) -> Draft:
    own = {rater: found[draft.case_id] for rater, found in raters.items() if draft.case_id in found}
    return replace(draft, labels=tuple(own.values()), raters=tuple(own) if len(raters) > 1 else ())


def _is_scan(path: str) -> bool:
    return path.lower().endswith(SCAN_SUFFIXES)
