"""One case of a dataset: which files make it, whose it is, and what it may be used for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import PurePosixPath, PureWindowsPath
from typing import Literal, get_args

from medseg.core.errors import ManifestError

SplitName = Literal["train", "test", "unlabelled"]
# One rater's annotation: a label map, or one binary mask a class (`{"myelin": "a/myelin.png"}`).
Annotation = str | Mapping[str, str]

# Colour images hold three planes in one file; every other modality holds one.
_COLOURS = ("red", "green", "blue")
# PET whose values are SUV by body weight, not activity: a network never sees both.
SUV = "SUV"
# Masks are written as `<case_id>.nii.gz`, and most file systems end at 255 bytes.
_LONGEST_ID_BYTES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One kind of image that every case brings, such as `PET` of modality `PT`.

    Attributes:
        name: as the cases call it.
        modality: `CT`, `MR`, `PT`, ... as DICOM spells it, `microscopy`, `RGB` for colour, or `SUV`
            for PET in SUV by body weight: DICOM is converted, other files hold it already.
    """

    name: str
    modality: str

    @property
    def planes(self) -> tuple[str, ...]:
        """Names of the channels it gives a network: its own, or one a colour."""
        if self.modality == "RGB":
            return tuple(f"{self.name}_{colour}" for colour in _COLOURS)
        return (self.name,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of a manifest.

    Attributes:
        case_id: text, "007" included; also the name of the files written for the case.
        patient_id: cases of one patient always share a fold.
        images: channel name -> path relative to the data root (a file or a DICOM folder).
        labels: one annotation a rater; () when nobody has labelled the case.
        raters: their names, in the order of `labels`; () where nobody named them.
        annotated: classes the raters were asked for; None: all of them.
        classes: classes the reference holds, as counted at ingest; None: not counted.
        fold: published or chosen fold; None: drawn by `splits`.
        split: `test` cases are kept from planning and training.
        stratum: folds are balanced over it, such as a scanner or a stain.
        spacing_mm: voxel size along i, j, k of images that carry none.
        series_uids: channel name -> DICOM series, where a folder holds several.
        digest: SHA-256 over the bytes of all its files.
        image_digest: the same over its images alone, by which copies are found.

    Raises:
        ManifestError: MAN-002 an id that cannot be a file name, or is missing; MAN-003 a path that
            leads out of the data root; MAN-004 a row that contradicts itself.
    """

    case_id: str
    patient_id: str
    images: Mapping[str, str]
    labels: tuple[Annotation, ...] = ()
    raters: tuple[str, ...] = ()
    annotated: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    fold: int | None = None
    split: SplitName = "train"
    stratum: str = ""
    spacing_mm: tuple[float, float, float] | None = None
    series_uids: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""
    image_digest: str = ""

    def __post_init__(self) -> None:
        require_id(self.case_id)
        if not self.patient_id.strip():
            raise ManifestError(
                f"case {self.case_id!r}: patient_id is missing; folds are drawn by patient",
                code="MAN-002",
                hint="name the patient, or declare patient_is_case=true at ingest",
            )
        if not self.images:
            raise ManifestError(f"case {self.case_id!r}: names no image", code="MAN-004")
        for path in self.files:
            require_inside(path, owner=f"case {self.case_id!r}")
        self._require_sense()

    def _require_sense(self) -> None:
        about = f"case {self.case_id!r}"
        if self.split not in get_args(SplitName):
            raise unknown_name(self.split, get_args(SplitName), what=f"{about}: split")
        if self.split == "train" and not self.labels:
            raise ManifestError(
                f"{about}: is for training but has no label file",
                code="MAN-004",
                hint="name one, or set its split to unlabelled",
            )
        if self.raters and (len(set(self.raters)) != len(self.labels) or not all(self.raters)):
            raise ManifestError(
                f"{about}: raters {list(self.raters)} for {len(self.labels)} annotations; expected "
                "a name each, or none at all",
                code="MAN-004",
            )
        if self.fold is not None and (self.split != "train" or self.fold < 0):
            raise ManifestError(
                f"{about}: fold {self.fold} with split {self.split}; "
                "only training cases have a fold, counted from 0",
                code="MAN-004",
            )
        if self.spacing_mm is not None and not all(0 < s < float("inf") for s in self.spacing_mm):
            raise ManifestError(
                f"{about}: spacing_mm {self.spacing_mm}; expected three lengths above 0",
                code="MAN-004",
            )

    @property
    def image_files(self) -> tuple[str, ...]:
        """Paths of its images, relative to the data root, by channel name."""
        return tuple(self.images[name] for name in sorted(self.images))

    @property
    def label_files(self) -> tuple[str, ...]:
        """Paths of its label files, relative to the data root, rater after rater."""
        return tuple(
            path
            for annotation in self.labels
            for path in ([annotation] if isinstance(annotation, str) else annotation.values())
        )

    @property
    def files(self) -> tuple[str, ...]:
        """Every path it names, relative to the data root."""
        return self.image_files + self.label_files


def require_id(case_id: str) -> None:
    """Refuse an id that could not be the name of a file.

    Raises:
        ManifestError: MAN-002.
    """
    try:
        size = len(case_id.encode())
    except UnicodeEncodeError:
        size = 0
    if (
        not 0 < size <= _LONGEST_ID_BYTES
        or case_id.strip(". ") == ""
        or any(character in "/\\" or ord(character) < 32 for character in case_id)
    ):
        raise ManifestError(
            f"case id {case_id!r}: expected 1 to {_LONGEST_ID_BYTES} bytes of text without "
            "slashes or control characters, since files are named after it",
            code="MAN-002",
        )


def require_inside(path: str, *, owner: str) -> None:
    """Refuse a path that does not stay below the data root by its spelling alone.

    Raises:
        ManifestError: MAN-003: absolute, empty, with `..`, or not a path at all.
    """
    windows = PureWindowsPath(path)
    spelled = path.isascii() or path.encode(errors="ignore").decode() == path
    absolute = PurePosixPath(path).is_absolute() or bool(windows.drive or windows.root)
    if not path or not spelled or "\0" in path or absolute or ".." in windows.parts:
        raise ManifestError(
            f"{owner}: the path {path!r} leads out of the data root or nowhere; expected one "
            "relative to it, without '..'",
            code="MAN-003",
            hint="set data_root to a folder that holds all files",
        )


def unknown_name(name: str, known: Iterable[str], *, what: str) -> ManifestError:
    """Make the refusal of a name that stands for nothing, with the nearest one that does."""
    listed = list(known)
    near = get_close_matches(name, listed, n=1, cutoff=0.5)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return ManifestError(
        f"{what} {name!r} is unknown; expected one of {listed}{meant}", code="MAN-005"
    )
