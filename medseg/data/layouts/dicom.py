"""A folder tree of DICOM: one case a volume, under ids that name nobody."""

from pathlib import Path, PurePosixPath

from medseg.data.case import SUV, Annotation, Channel
from medseg.data.layouts.drawn import Beside, is_mask, labels_of, masks_beside
from medseg.data.layouts.found import Draft, Found, Request, Skipped
from medseg.data.layouts.pairs import annotations
from medseg.data.layouts.patterns import list_files
from medseg.io.dicom.deidentification.identity import case_id_of, patient_id_of
from medseg.io.dicom.reader import find_series, is_dicom
from medseg.io.dicom.series.grouping import Series
from medseg.privacy import project_key
from medseg.runtime.home import home


def is_dicom_tree(source: Path) -> bool:
    """Tell whether there is DICOM anywhere below a folder."""
    return source.is_dir() and is_dicom(source)


def read_dicom_tree(request: Request) -> Found:
    """Find the volumes below a folder; headers are read, pixels are not.

    Case and patient ids are keyed hashes of what the headers say (`medseg.privacy`); which is
    which is kept apart from the manifest. A label pattern's `{case}` is the name of the folder (or
    file) that the series lies in; without patterns, a SEG or RTSTRUCT is the label of the series it
    refers to, and where the user declares no classes, its segments or regions are the classes.

    Raises:
        ReadError: no DICOM there, or an archive that cannot be read.
        ManifestError: a label pattern that fits nothing.
    """
    key = project_key(home())
    # Where one slice is a scan, as in radiography, a lone slice is a case too.
    verdicts = ("volume", "slice") if request.spatial_dims == 2 else ("volume",)
    volumes: list[Series] = []
    skipped: list[Skipped] = []
    found = find_series(request.source)
    for series in found:
        if is_mask(series) and not request.raters:
            continue
        if series.verdict not in verdicts:
            reason = series.reason or f"a single {series.verdict}"
            skipped.append(_left_out(series, reason))
        elif request.modalities and series.modality not in map(
            _in_dicom, request.modalities.values()
        ):
            skipped.append(_left_out(series, f"modality {series.modality} was not asked for"))
        else:
            volumes.append(series)
            skipped += _copies(series)
    shared = _shared_folders(volumes, request.source)
    beside = Beside(path_of={}, skipped=())
    if not request.raters:
        beside = masks_beside(found, volumes)
    files = list_files(request.source) if request.raters else []
    labels = {
        rater: annotations(pattern, files, rater, classes=request.class_names)
        for rater, pattern in request.raters.items()
    }
    drafts, originals = [], {}
    for series in volumes:
        place = _place(series, request.source)
        case_id, patient_id = case_id_of(series, key=key), patient_id_of(series, key=key)
        folder = PurePosixPath(place).name
        own = {rater: drawn[folder] for rater, drawn in labels.items() if folder in drawn}
        originals[case_id] = f"{series.uid} {series.part}".strip()
        if patient_id:
            originals[patient_id] = series.patient_id
        drafts.append(
            Draft(
                case_id=case_id,
                patient_id=patient_id,
                images={_channel_name(series, request): place},
                series_uids=_selected(series, request, is_shared=place in shared),
                labels=tuple(own.values()) or _drawn(series, beside, request.source),
                raters=tuple(own) if len(labels) > 1 else (),
            )
        )
    return Found(
        root=request.source,
        channels=_channels(volumes, request),
        drafts=tuple(drafts),
        labels=None if request.class_names else labels_of(tuple(beside.path_of.values())),
        skipped=(*skipped, *beside.skipped),
        originals=originals,
    )


def _channel_name(series: Series, request: Request) -> str:
    return next(
        (
            name
            for name, modality in request.modalities.items()
            if _in_dicom(modality) == series.modality
        ),
        series.modality,
    )


def _in_dicom(modality: str) -> str:
    """Return what DICOM calls a modality of ours."""
    return "PT" if modality == SUV else modality


def _channels(volumes: list[Series], request: Request) -> tuple[Channel, ...]:
    named = {_channel_name(series, request): series.modality for series in volumes}
    return tuple(Channel(name=name, modality=named[name]) for name in sorted(named))


def _place(series: Series, root: Path) -> str:
    """Return the folder, file or archive that a series lies in, relative to the root."""
    return series.place.relative_to(root).as_posix()


def _shared_folders(volumes: list[Series], root: Path) -> set[str]:
    """Return the places in which a reader would find more than one volume."""
    places = [PurePosixPath(_place(series, root)) for series in volumes]
    return {
        place.as_posix()
        for number, place in enumerate(places)
        if any(
            other == place or place in other.parents
            for position, other in enumerate(places)
            if position != number
        )
    }


def _selected(series: Series, request: Request, *, is_shared: bool) -> dict[str, str]:
    if not is_shared and not series.part:
        return {}
    return {_channel_name(series, request): f"{series.uid}:{series.part}".rstrip(":")}


def _drawn(series: Series, beside: Beside, root: Path) -> tuple[Annotation, ...]:
    path = beside.path_of.get(series.uid)
    return () if path is None else (path.relative_to(root).as_posix(),)


def _copies(series: Series) -> list[Skipped]:
    """Say how many files say again what others of their series do; folders may name patients."""
    again = series.copies
    if not again:
        return []
    others = {file.folder for file in again} - {frame.file.folder for frame in series.frames}
    where = f" in {len(others)} other folder{'s' * (len(others) > 1)}" if others else ""
    return [_left_out(series, f"{len(again)} files{where} are copies of its slices")]


def _left_out(series: Series, reason: str) -> Skipped:
    return Skipped(subject=f"series {series.selector}", reason=reason)
