"""DICOM SEG and RTSTRUCT beside the series they were drawn on: the labels of a DICOM tree."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.core.errors import ManifestError, MedsegError
from medseg.core.labels import LabelSet
from medseg.data.layouts.found import Skipped
from medseg.io.dicom.attributes import unspoken
from medseg.io.dicom.masks import read_dicom_labels
from medseg.io.dicom.references import DrawnOn, drawn_on, read_header
from medseg.io.dicom.series import Series
from medseg.io.dicom.sources import DicomFile

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
        try:
            volume = _volume_of(file, volumes)
        except MedsegError as refusal:
            skipped.append(Skipped(subject=file.name, reason=str(refusal), failed=True))
        else:
            candidates.setdefault(volume.uid, []).append(file)
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


def _volume_of(file: DicomFile, volumes: Sequence[Series]) -> Series:
    with unspoken():
        on: DrawnOn = drawn_on(read_header(file))
    meant = [volume for volume in volumes if volume.uid in on.series_uids]
    if file.member or len(meant) != 1:
        raise ManifestError(
            f"{file.name}: was drawn on {len(meant)} of the volumes found, expected one"
            if not file.member
            else f"{file.name}: lies in an archive, where no command could read it",
            code="ING-014",
            hint="name the masks by label=, or put them beside the series they were drawn on",
        )
    own = meant[0].frame_of_reference
    if own and on.frames_of_reference and own not in on.frames_of_reference:
        raise ManifestError(
            f"{file.name}: lies in another frame of reference than the series it refers to",
            code="DCM-033",
            hint="look which series it was drawn on",
        )
    return meant[0]
