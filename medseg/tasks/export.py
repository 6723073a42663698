"""`medseg export`: existing masks written in other formats, by the writer that predict uses."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.config import require, settings
from medseg.core.errors import (
    EXIT_SOME_FAILED,
    ConfigError,
    MedsegError,
    ReadError,
)
from medseg.core.geometry import require_match
from medseg.core.labels import LabelSet
from medseg.data.declared import declared_labels
from medseg.data.mask_files import MaskFolder, exclusive_label_map
from medseg.inference.case_files import (
    PROBABILITIES,
    VOLUMES,
    require_formats,
    write_case_files,
)
from medseg.inference.sources import Source, sources_in
from medseg.io.formats import (
    case_name,
    read_label_map,
    write_class_masks,
)
from medseg.io.sidecars import read_labels, write_sidecars
from medseg.io.sniff import sniff
from medseg.io.writing import FROM_DICOM, SUFFIX_OF, SegType
from medseg.metrics.volumes import ClassVolume, write_volumes
from medseg.runtime.console import progress, say
from medseg.runtime.files import digest_json
from medseg.runtime.provenance import write_provenance
from medseg.runtime.runfolder import locked


@dataclass(frozen=True, slots=True, kw_only=True)
class Exports:
    """What is written for a mask.

    Attributes:
        folder: where.
        formats: names of `SUFFIX_OF`, at least one.
        per_class: also one NIfTI mask a class.
        seg_type: how a DICOM SEG stores its segments.

    Raises:
        ConfigError: nothing to write, or what `require_formats` refuses.
    """

    folder: Path
    formats: tuple[str, ...]
    per_class: bool = False
    seg_type: SegType = "BINARY"

    def __post_init__(self) -> None:
        if self.formats or not self.per_class:
            require_formats(self.formats, self.seg_type)


def main(config: Any) -> int:
    """Export as the settings of `conf/export.yaml` say."""
    chosen = settings(config)
    prediction = Path(require(chosen, "prediction", "a mask, or a folder of masks"))
    folder = Path(require(chosen, "output", "folder for the files"))
    exports = Exports(
        folder=folder,
        formats=tuple(chosen["formats"]),
        per_class=bool(chosen["per_class"]),
        seg_type=chosen["dicom_seg"]["type"],
    )
    labels = labels_for(prediction, chosen["manifest"] and Path(chosen["manifest"]))
    scans = sources_in(Path(chosen["scan"])) if chosen["scan"] else None
    _require_apart(folder, prediction)
    with locked(folder):
        refusals = export_masks(prediction, exports, labels=labels, scans=scans)
    failed = {name: refusal for name, refusal in refusals.items() if refusal is not None}
    for name, refusal in failed.items():
        say(f"medseg export: {name}: {refusal}", error=True)
    say(f"{len(refusals) - len(failed)} exported, {len(failed)} failed: {folder}")
    return EXIT_SOME_FAILED if failed else 0


def export_masks(
    prediction: Path,
    exports: Exports,
    *,
    labels: LabelSet,
    scans: Sequence[Source] | None = None,
) -> dict[str, MedsegError | None]:
    """Write every mask in every format asked for; one that fails does not stop the rest.

    Args:
        prediction: a mask, or a folder of masks.
        exports: what to write, and where.
        labels: the classes.
        scans: the scans, paired by case id (a single mask belongs to a single scan whatever they
            are called). Their grids are written, bit for bit; without them the masks' own.

    Returns:
        By case, the refusal, or None when all its files were written.

    Raises:
        ConfigError: no masks, two of one case, an output folder that is the masks', or formats that
            refer to a DICOM series, and no scans.
    """
    masks = masks_in(prediction)
    from_dicom = [name for name in exports.formats if name in FROM_DICOM]
    if from_dicom and scans is None:
        raise ConfigError(
            f"formats={from_dicom}: refer to the DICOM series that was drawn on",
            code="CFG-003",
            hint="name it with scan=",
        )
    _require_apart(exports.folder, prediction)
    write_provenance(
        exports.folder,
        command="export",
        digests={"labels": digest_json(labels.to_json())},
        settings={"formats": exports.formats, "per_class": exports.per_class},
    )
    write_sidecars(exports.folder, labels)
    by_case = {source.case_id: source for source in scans or ()}
    if scans and len(scans) == len(masks) == 1:
        by_case = dict.fromkeys(masks, scans[0])
    refusals: dict[str, MedsegError | None] = {}
    volumes: dict[str, tuple[ClassVolume, ...]] = {}
    for name, path in progress(list(masks.items()), "exporting"):
        refusals[name] = None
        try:
            if scans is not None and name not in by_case:
                raise ConfigError(
                    f"{path}: no scan is called {name!r}", hint="name the scan of this mask alone"
                )
            scan = by_case.get(name)
            volumes[name] = export_mask(path, exports, labels=labels, scan=scan, name=name)
        except MedsegError as refusal:
            refusals[name] = refusal
    failed = [name for name, refusal in refusals.items() if refusal is not None]
    write_volumes(volumes, exports.folder / VOLUMES, without=failed)
    return refusals


def export_mask(
    path: Path, exports: Exports, *, labels: LabelSet, scan: Source | None, name: str
) -> tuple[ClassVolume, ...]:
    """Write one mask in every format, and return the volume of every class.

    Raises:
        GeometryError: GEO-001, GEO-002 the mask does not lie on its scan.
        LabelError: LBL-012 classes that overlap, which no label map holds.
        WriteError: as `write_label_map`.
    """
    geometry = None if scan is None else scan.read().geometry
    mask = read_label_map(path, labels, onto=geometry)
    if geometry is not None:
        require_match(mask.geometry, geometry, name=str(path), reference_name="its scan")
    label_map_IJK = exclusive_label_map(mask, path)
    placed = geometry or mask.geometry
    if exports.per_class:
        write_class_masks(label_map_IJK, exports.folder, geometry=placed, labels=labels, name=name)
    return write_case_files(
        label_map_IJK,
        {each: exports.folder / f"{name}{SUFFIX_OF[each]}" for each in exports.formats},
        geometry=placed,
        labels=labels,
        scan=scan,
        seg_type=exports.seg_type,
    )


def masks_in(prediction: Path) -> dict[str, Path]:
    """Return the masks by case: a file, or a folder's but ids of objects, probabilities, reports.

    Raises:
        ConfigError: none.
        ReadError: EVA-005: several of one case, none of them NIfTI.
    """
    if not prediction.is_dir():
        return {case_name(prediction): prediction}
    files = MaskFolder(prediction, deep=True)
    names = [name for name in files.names if not name.endswith(PROBABILITIES)]
    if not names:
        raise ConfigError(f"prediction={prediction}: holds no mask")
    return {name: files.of(name).choose() for name in names}


def _require_apart(folder: Path, prediction: Path) -> None:
    """Refuse to write among the masks, before anything is."""
    if folder.resolve() == prediction.resolve():
        raise ConfigError(
            f"output={folder}: holds the masks themselves; choose another folder", code="CFG-008"
        )


def labels_for(prediction: Path, declared: Path | None) -> LabelSet:
    """Find the classes: where they are declared, else beside the masks, else in a DICOM mask.

    Raises:
        ReadError: FIL-001: no such masks.
        ConfigError: nowhere.
        LabelError: a file that declares none.
    """
    if not prediction.exists():
        raise ReadError(
            f"prediction={prediction}: no such file or folder",
            code="FIL-001",
            hint="check the path",
        )
    if declared is not None:
        return declared_labels(declared)
    folder = prediction if prediction.is_dir() else prediction.parent
    beside = folder / "labels.json"
    if beside.exists():
        return read_labels(beside)
    if prediction.is_file() and sniff(prediction) == "dicom":
        from medseg.io.dicom.masks import read_dicom_labels

        return read_dicom_labels(prediction)
    raise ConfigError(
        f"manifest= is missing, and there is no {beside}: what the values of the masks mean is "
        "unknown",
        code="CFG-003",
        hint="name a manifest.json, a labels.json or an ITK-SNAP label file",
    )
