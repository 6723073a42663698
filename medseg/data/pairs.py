"""What is measured against what: predictions and references of a case, read on one grid.

References come from a manifest, from a folder of label maps (one file a case), or from a folder of
cases that hold one binary mask a class (two raters, organs that overlap).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from medseg.core.errors import LabelError, ManifestError, ReadError
from medseg.core.geometry import Geometry, require_match
from medseg.core.labels import LabelMap, LabelSet, label_set
from medseg.data.case import Case
from medseg.data.manifest import Manifest
from medseg.data.mask_files import MaskFiles, MaskFolder, exclusive_label_map, require_folder
from medseg.data.object_ids import Ids, read_ids, read_ids_beside
from medseg.data.scans import fused, read_raters
from medseg.data.splits import split_cases
from medseg.io.formats import read_label_map, read_volume
from medseg.io.sidecars import read_labels
from medseg.io.sniff import sniff

SplitChoice = Literal["all", "train", "test"] | int

# The label set beside label maps, as `predict` writes it.
LABELS_FILE = "labels.json"


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """A prediction and its reference as indices (I, J, K), and the grid both lie on.

    Attributes:
        prediction, reference, geometry: see above.
        ids: of their objects, prediction first; None where no class is of things.
        raters: the label maps that the reference was made of, by name, where there are several.
    """

    prediction: LabelMap
    reference: LabelMap
    geometry: Geometry
    ids: tuple[Ids, Ids] | None = None
    raters: Mapping[str, LabelMap] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A prediction and a reference that are still on disk.

    Attributes:
        case_id, patient_id, stratum: whose they are.
        labels: the classes to compare.
        annotated: classes the reference was drawn for; None: all.
        read: reads both; raises a MedsegError where they cannot be compared. It can be sent to
            another process.
    """

    case_id: str
    patient_id: str
    labels: LabelSet
    read: Callable[[], Masks]
    stratum: str = ""
    annotated: tuple[str, ...] | None = None


def choose_cases(manifest: Manifest, split: SplitChoice) -> tuple[Case, ...]:
    """Return the labelled cases of a split: `all`, `train`, `test`, or what a fold validates on.

    Raises:
        ManifestError: EVA-001 none of them has a reference; SPL-004 no such fold.
    """
    if split == "train":
        chosen = manifest.training_cases
    elif split == "test":
        chosen = manifest.test_cases
    elif split == "all":
        chosen = (*manifest.training_cases, *manifest.test_cases)
    else:
        chosen = split_cases(manifest, split).validation
    labelled = tuple(case for case in chosen if case.labels)
    if not labelled:
        raise ManifestError(
            f"{manifest.name}: none of the {len(chosen)} cases of split={split} has a reference",
            code="EVA-001",
        )
    return labelled


def pair_with_manifest(
    manifest: Manifest,
    prediction: Path,
    *,
    split: SplitChoice = "all",
    things: Collection[str] | None = None,
) -> list[Pair]:
    """Pair the references of a manifest with the predictions in a folder, by case id.

    A case without a prediction is a pair all the same, and is refused when it is read.

    Args:
        manifest: of the references.
        prediction: folder of masks.
        split: see `choose_cases`.
        things: classes whose objects are told apart; None: those that the manifest declares, else
            those that the network told apart.

    Raises:
        LabelError: LBL-013 things that are no classes.
        ManifestError: as in `choose_cases`.
        ReadError: EVA-002: the folder is not there.
    """
    predicted = MaskFolder(require_folder(prediction))
    labels = _as_trained(prediction, manifest.labels, things)
    return [
        Pair(
            case_id=case.case_id,
            patient_id=case.patient_id,
            stratum=case.stratum,
            labels=labels,
            annotated=case.annotated,
            # A manifest of this case alone: what is sent to a process must not grow with the rest.
            read=partial(
                _read_case,
                replace(manifest, labels=labels, cases=(case,)),
                predicted.of(case.case_id),
            ),
        )
        for case in choose_cases(manifest, split)
    ]


def pair_folders(
    prediction: Path,
    reference: Path,
    *,
    labels: LabelSet | None = None,
    patients: Mapping[str, str] | None = None,
    things: Collection[str] | None = None,
) -> list[Pair]:
    """Pair two folders: label maps by file name, or one mask a class by case and file name.

    Args:
        prediction: laid out like the reference; what the reference lacks is not looked at.
        reference: `<case_id>.<suffix>`, or `<case_id>/.../<class>.<suffix>` with binary masks.
        labels: the classes of label maps; None: `labels.json` in either folder.
        patients: patient of each case; a case that is not named is a patient of its own.
        things: classes whose objects are told apart; None: as above.

    Raises:
        ReadError: EVA-002: a folder is not there, or the reference holds no masks.
        LabelError: EVA-003: label maps without a label set.
    """
    predicted = MaskFolder(require_folder(prediction))
    drawn = MaskFolder(require_folder(reference))
    patient_of = patients or {}
    if drawn.names:
        labels = _as_trained(prediction, labels or _labels_beside(prediction, reference), things)
        return [
            _pair_files(name, labels, predicted.of(name), drawn.of(name), patient_of)
            for name in drawn.names
        ]
    pairs = []
    for folder in sorted(path for path in reference.iterdir() if path.is_dir()):
        predicted = MaskFolder(prediction / folder.name, deep=True)
        drawn = MaskFolder(folder, deep=True)
        for name in drawn.names:
            inside = label_set({name: ">0"}).with_things({name} & set(things or ()))
            files = predicted.of(name), drawn.of(name)
            pairs.append(_pair_files(folder.name, inside, *files, patient_of))
    if not pairs:
        raise ReadError(f"{reference}: holds no masks", code="EVA-002", hint="check the path")
    return pairs


def _pair_files(
    case_id: str,
    labels: LabelSet,
    prediction: MaskFiles,
    reference: MaskFiles,
    patient_of: Mapping[str, str],
) -> Pair:
    return Pair(
        case_id=case_id,
        patient_id=patient_of.get(case_id, case_id),
        labels=labels,
        read=partial(_read_files, labels, prediction, reference),
    )


def _as_trained(prediction: Path, labels: LabelSet, things: Collection[str] | None) -> LabelSet:
    """Add regions and things that a network was trained on, unless the labels declare their own.

    Things that are named are taken instead of either.
    """
    beside = prediction / LABELS_FILE
    trained = read_labels(beside) if beside.is_file() else labels
    if trained.names == labels.names:
        labels = replace(labels, regions=labels.regions or trained.regions)
        if things is None and not labels.things:
            things = [trained.names[index - 1] for index in trained.things]
    return labels if things is None else labels.with_things(things)


def _labels_beside(prediction: Path, reference: Path) -> LabelSet:
    for folder in (reference, prediction):
        if (folder / LABELS_FILE).is_file():
            return read_labels(folder / LABELS_FILE)
    raise LabelError(
        f"{reference}: label maps without {LABELS_FILE}, so their values have no meaning",
        code="EVA-003",
        hint="name the manifest= they belong to",
    )


def _read_case(manifest: Manifest, prediction: MaskFiles) -> Masks:
    """Read a prediction and the reference of a manifest's only case, on the grid of its scan."""
    (case,) = manifest.cases
    channel = manifest.reference_channel
    path, scan = prediction.choose(), manifest.path_of(case.images[channel])
    geometry = read_volume(
        scan, series_uid=case.series_uids.get(channel), spacing_mm=case.spacing_mm
    ).geometry
    predicted = read_label_map(path, manifest.labels, onto=geometry, scan=scan)
    _require_same_grid(predicted.geometry, geometry, path=path, reference_path=scan)
    drawn = read_raters(manifest, case, geometry)
    reference = fused(drawn, manifest.consensus)
    label_map_IJK = exclusive_label_map(predicted, path)
    ids = None
    if manifest.labels.things:
        own = read_ids_beside(prediction, path, label_map_IJK, manifest.labels)
        ids = own, read_ids(manifest, case, reference)
    several = len(drawn.channels) > 1
    return Masks(
        label_map_IJK,
        reference.only_channel,
        geometry,
        ids,
        raters=dict(zip(drawn.channels, drawn.voxels, strict=True)) if several else {},
    )


def _read_files(labels: LabelSet, prediction: MaskFiles, reference: MaskFiles) -> Masks:
    """Read a prediction and a reference from two folders, on one grid.

    A DICOM mask may hold less than its scan's grid, or none; the other mask says which is meant.
    """
    path, reference_path = prediction.choose(), reference.choose()
    if sniff(reference_path) == "dicom":
        predicted = read_label_map(path, labels)
        drawn = read_label_map(reference_path, labels, onto=predicted.geometry)
    else:
        drawn = read_label_map(reference_path, labels)
        predicted = read_label_map(path, labels, onto=drawn.geometry)
    _require_same_grid(predicted.geometry, drawn.geometry, path=path, reference_path=reference_path)
    ours_IJK = exclusive_label_map(predicted, path)
    theirs_IJK = exclusive_label_map(drawn, reference_path)
    ids = None
    if labels.things:
        own = read_ids_beside(prediction, path, ours_IJK, labels)
        ids = own, read_ids_beside(reference, reference_path, theirs_IJK, labels)
    return Masks(ours_IJK, theirs_IJK, drawn.geometry, ids)


def _require_same_grid(
    placed: Geometry, geometry: Geometry, *, path: Path, reference_path: Path
) -> None:
    # A picture says nothing about where it lies: its shape is all there is to compare.
    if not (placed.unit == "px" and placed.shape == geometry.shape):
        require_match(placed, geometry, name=str(path), reference_name=str(reference_path))
