"""What the user asks of an import, and what a layout finds before any scan is opened."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from medseg.core.label import Stored
from medseg.core.labels import LabelSet
from medseg.data.case import Annotation, Channel, SplitName
from medseg.data.raters import Consensus


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyRequest:
    """How scans are copied without what says whose they are.

    Attributes:
        folder: where the copies go; a folder a case.
        burned_in: copy images that may show a name in their pixels, too.
        keep_intervals: keep the time between the studies of a patient.
    """

    folder: Path
    burned_in: bool = False
    keep_intervals: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user said about a dataset; the rest is found or refused.

    Attributes:
        source: a folder, or a table.
        data_root: folder that paths are relative to; None: the source's own.
        name: of the dataset; "" for what the source calls itself.
        images: channel -> pattern of paths, such as `{case}/PET.nii.gz`.
        raters: rater -> pattern of label files; with `{class}` in it, one binary file a class.
        consensus: how several raters' annotations become one.
        columns: key of a case -> column of the table that holds it.
        modalities: channel -> modality.
        reference_channel: grid of all channels and masks; "" for the first.
        labels: class -> stored values; empty where the source declares them.
        classes: in place of `labels`, with colours, codes and partners; None: not given.
        things: classes whose objects are told apart; () for those that the source declares.
        ignore_value: stored value of voxels nobody labelled.
        patient: expression with one group that finds the patient in a case id; "" for none.
        patient_is_case: declares that every case is a patient of its own.
        test: case ids (with `*` and `?`) held back for testing.
        exclude: case ids (with `*` and `?`) left out.
        keep_incomplete: keep cases that lack a channel other than the reference.
        spacing_mm: voxel size of images that carry none.
        spatial_dims: 2 or 3; None: 2 where the first image is a single slice.
        named_folds: keep the folds that the source names; else all are drawn.
        num_folds, seed: how folds are drawn.
        copies: take de-identified copies of the scans, not the scans; None: as they are.
    """

    source: Path
    data_root: Path | None = None
    name: str = ""
    images: Mapping[str, str] = field(default_factory=dict)
    raters: Mapping[str, str] = field(default_factory=dict)
    consensus: Consensus = "majority"
    columns: Mapping[str, str] = field(default_factory=dict)
    modalities: Mapping[str, str] = field(default_factory=dict)
    reference_channel: str = ""
    labels: Mapping[str, Stored] = field(default_factory=dict)
    classes: LabelSet | None = None
    things: tuple[str, ...] = ()
    ignore_value: int | None = None
    patient: str = ""
    patient_is_case: bool = False
    test: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    keep_incomplete: bool = False
    spacing_mm: tuple[float, float, float] | None = None
    spatial_dims: Literal[2, 3] | None = None
    named_folds: bool = True
    num_folds: int = 5
    seed: int = 0
    copies: CopyRequest | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that the user declares; () where the source does."""
        return tuple(self.labels) if self.classes is None else self.classes.names


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A case as far as a layout knows it; `patient_id` is "" where it does not tell.

    Paths are relative to the root of what was found. `raters` names who drew the labels, where
    several people are named. `split` is None where the layout does not tell: then a case with
    labels is for training.
    """

    case_id: str
    images: Mapping[str, str]
    labels: tuple[Annotation, ...] = ()
    raters: tuple[str, ...] = ()
    patient_id: str = ""
    annotated: tuple[str, ...] | None = None
    fold: int | None = None
    split: SplitName | None = None
    stratum: str = ""
    spacing_mm: tuple[float, float, float] | None = None
    series_uids: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A file, folder or case that is not taken, and why; `failed` if it should have been."""

    subject: str
    reason: str
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a layout found.

    Attributes:
        root: folder that the drafts' paths are relative to.
        name, citation: as the source calls itself; "" when it does not.
        channels: in the order a network takes them; a modality is "" where nobody told it.
        drafts: the cases.
        labels: classes the source declares; None when it declares none.
        skipped: what was left out.
        originals: hashed id -> what it stands for; private, never part of a manifest.
    """

    root: Path
    channels: tuple[Channel, ...]
    drafts: tuple[Draft, ...]
    name: str = ""
    citation: str = ""
    labels: LabelSet | None = None
    skipped: tuple[Skipped, ...] = ()
    originals: Mapping[str, str] = field(default_factory=dict, repr=False)
