"""From a folder of scans to a checked manifest, with a word on everything left out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from medseg.core.errors import ManifestError, MedsegError
from medseg.core.labels import LabelSet, label_set
from medseg.data.case import Annotation, Case, Channel
from medseg.data.contents import digest_of_case, image_digests
from medseg.data.deidentified import Copies, deidentified
from medseg.data.drafts import cases_of, chosen_drafts, complete_drafts
from medseg.data.layouts.found import Draft, Found, Request, Skipped
from medseg.data.layouts.modalities import modality_of
from medseg.data.layouts.registry import find_cases
from medseg.data.manifest import Manifest
from medseg.data.pool import outcomes
from medseg.data.scans import classes_in, read_scan
from medseg.io.dicom.deidentification.copies import Treated
from medseg.io.formats import read_volume
from medseg.privacy import project_key
from medseg.runtime.files import digest_json
from medseg.runtime.home import home

_UNNAMED = "dataset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """A manifest, how its source was read, and what was left out.

    `originals` maps hashed ids to what they stand for; it is private. `treated` counts, where
    copies were made, what was not copied as it was.
    """

    manifest: Manifest
    layout: str
    skipped: tuple[Skipped, ...]
    originals: Mapping[str, str] = field(repr=False)
    treated: Treated = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents:
    """What the files of one case turned out to hold."""

    digest: str
    image_digest: str
    classes: tuple[str, ...] | None


def ingest(
    request: Request,
    *,
    layout: str = "auto",
    read_masks: bool = True,
    num_workers: int | None = None,
) -> Ingested:
    """Find the cases of a source, open their files, and make the manifest.

    Args:
        request: where the scans are, and what the user says about them.
        layout: a name of `layouts.registry.LAYOUTS`, or `auto`.
        read_masks: note which classes each case holds, so that folds can be balanced over them.
        num_workers: processes that open files; None: one a core; 0: none.

    Returns:
        The manifest, its cases with digests. A case whose files cannot be read is left out and
        listed as failed.

    Raises:
        ManifestError: ING-001 to ING-013, the refusals of tables, and leaks between splits.
        MedsegError: as `deidentified`, where copies are asked for.
    """
    found, name = find_cases(request, layout)
    channels = _channels(found.channels, request)
    reference_channel = request.reference_channel or channels[0].name
    wanted = [reference_channel] if request.keep_incomplete else [c.name for c in channels]
    drafts, incomplete = complete_drafts(chosen_drafts(found.drafts, request), wanted)
    manifest = Manifest(
        # A folder may be called after a patient, and the name goes wherever results go.
        name=request.name or found.name or _UNNAMED,
        citation=found.citation,
        data_root=(request.data_root or found.root).absolute(),
        channels=channels,
        reference_channel=reference_channel,
        labels=_labels_and_things(found, drafts, request),
        consensus=request.consensus,
        spatial_dims=request.spatial_dims or 3,
        num_folds=request.num_folds,
        seed=request.seed,
        cases=cases_of(drafts, request, found.root),
    )
    copies = _copies(manifest, request, num_workers)
    manifest = copies.manifest
    opened = outcomes(
        _open_with_masks if read_masks else _open,
        [replace(manifest, cases=(case,)) for case in manifest.cases],
        num_workers=num_workers,
        label="opening",
    )
    manifest, failed = _completed(manifest, opened)
    if request.spatial_dims is None:
        manifest = replace(manifest, spatial_dims=_spatial_dims(manifest))
    return Ingested(
        manifest=manifest,
        layout=name,
        skipped=(*found.skipped, *incomplete, *copies.failed, *failed),
        originals=found.originals,
        treated=copies.treated,
    )


def _copies(manifest: Manifest, request: Request, num_workers: int | None) -> Copies:
    """Copy the scans if that was asked for; else the scans stand for themselves."""
    if request.copies is None:
        return Copies(manifest=manifest, failed=(), treated=Counter())
    key = project_key(home())
    return deidentified(manifest, request.copies, key=key, num_workers=num_workers)


def _channels(channels: Sequence[Channel], request: Request) -> tuple[Channel, ...]:
    named = []
    for channel in channels:
        modality = request.modalities.get(channel.name) or channel.modality
        modality = modality or modality_of(channel.name)
        if not modality:
            raise ManifestError(
                f"channel {channel.name!r}: its modality is not known; intensities are "
                "normalised by it",
                code="ING-010",
                hint=f"say so, such as channels.{channel.name}=CT (or MR, PT, RGB, microscopy)",
            )
        named.append(Channel(name=channel.name, modality=modality))
    return tuple(named)


def _labels_and_things(found: Found, drafts: Sequence[Draft], request: Request) -> LabelSet:
    labels = _labels(found, drafts, request)
    return labels.with_things(request.things) if request.things else labels


def _labels(found: Found, drafts: Sequence[Draft], request: Request) -> LabelSet:
    """Return the classes the user declares, else the source's, else the names of class files."""
    if request.classes is not None:
        return request.classes
    if request.labels:
        return replace(label_set(request.labels), ignore_value=request.ignore_value)
    if found.labels is not None:
        return found.labels
    listed = [one for draft in drafts for one in draft.labels]
    names = sorted({name for one in listed if isinstance(one, Mapping) for name in one})
    if names:
        return label_set({name: value for value, name in enumerate(names, start=1)})
    raise ManifestError(
        f"{request.source}: says nothing about its classes{_stored_values(found.root, listed)}",
        code="ING-011",
        hint="declare them, such as labels.liver=1 labels.tumour=2, or labels.nucleus='>0', or by "
        "classes=FILE",
    )


def _stored_values(root: Path, labels: Sequence[Annotation]) -> str:
    """Say what the first mask holds, so that the user sees what there is to declare."""
    first = next((one for one in labels if isinstance(one, str)), None)
    if first is None or not (root / first).is_file():
        return ""
    values = np.unique(read_volume(root / first).voxels)
    shown = ", ".join(f"{value:g}" for value in values[:8])
    return f"; {first} holds {shown}{', ...' if len(values) > 8 else ''}"


def _open_with_masks(manifest: Manifest) -> _Contents:
    """Look into the files of the only case of a manifest."""
    contents = _open(manifest)
    return replace(contents, classes=classes_in(manifest, manifest.cases[0]))


def _open(manifest: Manifest) -> _Contents:
    return _Contents(
        digest=digest_of_case(manifest),
        image_digest=digest_json(image_digests(manifest)),
        classes=None,
    )


def _completed(
    manifest: Manifest, opened: Sequence[_Contents | MedsegError]
) -> tuple[Manifest, list[Skipped]]:
    """Keep the cases that could be opened, with what was found in them."""
    good: list[Case] = []
    failed: list[Skipped] = []
    for case, one in zip(manifest.cases, opened, strict=True):
        if isinstance(one, MedsegError):
            failed.append(Skipped(subject=case.case_id, reason=str(one), failed=True))
        else:
            good.append(
                replace(
                    case,
                    digest=one.digest,
                    image_digest=one.image_digest,
                    classes=one.classes if case.labels else None,
                )
            )
    if not good:
        raise ManifestError(
            f"{manifest.name}: no case can be read; the first says: {failed[0].reason}",
            code="ING-007",
        )
    return replace(manifest, cases=tuple(good)), failed


def _spatial_dims(manifest: Manifest) -> Literal[2, 3]:
    """Tell slices from volumes by the first scan that can be read; `check` finds the others."""
    refusals = []
    for case in manifest.cases:
        try:
            shape = read_scan(manifest, case, missing="zero").geometry.shape
        except MedsegError as refusal:
            refusals.append(refusal)
        else:
            return 2 if shape[2] == 1 else 3
    raise refusals[0]
