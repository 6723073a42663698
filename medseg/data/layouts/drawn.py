"""DICOM SEG and RTSTRUCT beside the series they were drawn on: the labels of a DICOM tree."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.core.errors import ManifestError, ReadError
from medseg.core.labels import LabelSet
from medseg.data.layouts.found import Skipped
from medseg.io.dicom.headers.attributes import unspoken
from medseg.io.dicom.headers.sources import DicomFile
from medseg.io.dicom.masks import read_dicom_labels
from medseg.io.dicom.references import drawn_on, read_header, shares_space
from medseg.io.dicom.series.grouping import Series

# Modalities of objects that are masks.
_MASKS = ("SEG", "RTSTRUCT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """Masks by the SeriesInstanceUID of the volume they belong to, and those that belong nowhere.

    Paths are absolute or relative as the tree was named.
    """

    path_of: dict[str, Path]
    skipped: tuple[Skipped, ...]


def is_mask(series: Series) -> bool:
    """Tell whether a series holds SEG or RTSTRUCT objects."""
    return series.verdict == "other" and series.modality in _MASKS


def masks_beside(found: Sequence[Series], volumes: Sequence[Series]) -> Beside:
    """Give every volume the only SEG or RTSTRUCT that refers to it.

    A mask that refers to none of the volumes, to several, or lies in another frame of reference is
    left out; so are all masks of a volume that several refer to, since nothing says whether these
    are raters, versions or one class each.

    Args:
        found: all series of the tree.
        volumes: those that become cases.
    """
    candidates: dict[str, list[DicomFile]] = {}
    skipped: list[Skipped] = []
    for file in (file for series in found if is_mask(series) for file in series.files):
        home = _home_of(file, found, volumes)
        if isinstance(home, Skipped):
            skipped.append(home)
        else:
            candidates.setdefault(home.uid, []).append(file)
    for files in candidates.values():
        if len(files) > 1:
            reason = (
                f"one of {len(files)} masks of one series, which may be raters, versions or "
                "classes; name the ones that are meant by label="
            )
            skipped += [Skipped(subject=file.name, reason=reason, failed=True) for file in files]
    return Beside(
        path_of={uid: files[0].path for uid, files in candidates.items() if len(files) == 1},
        skipped=tuple(skipped),
    )


def labels_of(paths: Sequence[Path]) -> LabelSet | None:
    """Return the classes that masks declare, if all declare the same; None without masks.

    Raises:
        ManifestError: ING-011, they declare different ones.
        MedsegError: a mask that declares none.
    """
    declared = [read_dicom_labels(path) for path in paths]
    names = [{name.lower() for name in labels.names} for labels in declared]
    for path, own in zip(paths, names, strict=True):
        if own != names[0]:
            listed = sorted(set.union(*names))
            raise ManifestError(
                f"{path.name}: holds {', '.join(sorted(own))}, {paths[0].name} holds "
                f"{', '.join(sorted(names[0]))}; all masks hold {', '.join(listed)}",
                code="ING-011",
                hint="declare the classes that are meant, such as labels.liver=1",
            )
    return declared[0] if declared else None


def _home_of(
    file: DicomFile, found: Sequence[Series], volumes: Sequence[Series]
) -> Series | Skipped:
    """Return the volume that a mask belongs to, or why it belongs to none."""
    try:
        with unspoken():
            on = drawn_on(read_header(file))
    except ReadError as refusal:
        return Skipped(subject=file.name, reason=str(refusal), failed=True)
    homes = [volume for volume in volumes if volume.uid in on.series_uids]
    if not homes and any(series.uid in on.series_uids for series in found):
        return Skipped(subject=file.name, reason="drawn on a series that is no case")
    if file.member:
        reason = "lies in an archive, out of which no mask is read"
    elif len(homes) != 1:
        reason = f"drawn on {len(homes)} of the volumes found, expected one"
    elif not shares_space(on, homes[0].frame_of_reference):
        reason = "DCM-033 lies in another frame of reference than the series it refers to"
    else:
        return homes[0]
    return Skipped(subject=file.name, reason=reason, failed=True)
