"""A dataset on paper: its channels, classes and cases, read from and written to `manifest.json`."""

import os
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from medseg.core.errors import ManifestError, MedsegError
from medseg.core.labels import LabelSet
from medseg.data.case import Annotation, Case, Channel, unknown_name
from medseg.data.leaks import require_no_leak
from medseg.data.manifest_schema import CaseJson, checked
from medseg.data.raters import Consensus
from medseg.runtime.files import digest_json, read_json, write_json

__all__ = [
    "Annotation",
    "Case",
    "Channel",
    "Manifest",
    "manifest_file",
    "read_manifest",
    "write_manifest",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All cases of a dataset, and what every case of it has in common.

    Attributes:
        name: of the dataset.
        data_root: folder below which every file lies.
        channels: kinds of images, in the order a network takes them.
        labels: the classes and what files store for them.
        reference_channel: the others are resampled onto its grid; masks lie on it.
        spatial_dims: 2 for images and slices, 3 for volumes.
        cases: in any order; nothing below depends on it.
        citation: what a publication should cite.
        consensus: how several raters' annotations of a case become one (`data.raters`).
        num_folds, seed: how `splits` draws folds where cases name none.

    Raises:
        ManifestError: names that stand for nothing, repeated case ids, and leaks (`data.leaks`).
    """

    name: str
    data_root: Path
    channels: tuple[Channel, ...]
    labels: LabelSet
    reference_channel: str
    spatial_dims: Literal[2, 3]
    cases: tuple[Case, ...]
    citation: str = ""
    consensus: Consensus = "majority"
    num_folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.spatial_dims not in (2, 3):
            raise ManifestError(f"spatial_dims {self.spatial_dims}: expected 2 or 3")
        if self.num_folds < 2:
            raise ManifestError(f"num_folds {self.num_folds}: expected at least 2")
        if self.consensus not in get_args(Consensus):
            raise unknown_name(self.consensus, get_args(Consensus), what="consensus")
        names = [channel.name for channel in self.channels]
        if not names or len(set(names)) != len(names):
            raise ManifestError(f"channels {names}: expected at least one, each name once")
        if self.reference_channel not in names:
            raise unknown_name(self.reference_channel, names, what="reference_channel")
        if not self.cases:
            raise ManifestError(f"manifest {self.name!r} has no cases", code="MAN-004")
        seen: set[str] = set()
        for case in self.cases:
            if case.case_id in seen:
                raise ManifestError(f"case {case.case_id!r} is listed twice", code="MAN-006")
            seen.add(case.case_id)
            self._require_known(case, names)
        self._require_all_folds()
        require_no_leak(self.cases)

    def _require_known(self, case: Case, channels: list[str]) -> None:
        """Refuse a case that speaks of channels, classes or folds the manifest does not have."""
        about = f"case {case.case_id!r}:"
        for name in (*case.images, *case.series_uids):
            if name not in channels:
                raise unknown_name(name, channels, what=f"{about} channel")
        if self.reference_channel not in case.images:
            raise ManifestError(
                f"{about} has no image of the reference channel {self.reference_channel!r}",
                code="MAN-004",
            )
        named = [name for one in case.labels if isinstance(one, Mapping) for name in one]
        for name in (*(case.annotated or ()), *(case.classes or ()), *named):
            if name not in self.labels.names:
                raise unknown_name(name, self.labels.names, what=f"{about} class")
        if case.fold is not None and case.fold >= self.num_folds:
            raise ManifestError(
                f"{about} fold {case.fold}; num_folds is {self.num_folds}, counted from 0",
                code="MAN-004",
            )

    def _require_all_folds(self) -> None:
        """Folds are named by every training case or by none: half a table would be guessed on."""
        folds = [case.fold for case in self.training_cases]
        if None in folds and any(fold is not None for fold in folds):
            bare = next(case.case_id for case in self.training_cases if case.fold is None)
            raise ManifestError(
                f"case {bare!r} names no fold while others do; expected all or none",
                code="MAN-004",
            )

    @property
    def training_cases(self) -> tuple[Case, ...]:
        """Labelled cases that planning and training may see, by case id."""
        return self._of("train")

    @property
    def test_cases(self) -> tuple[Case, ...]:
        """Cases held back for the last measurement, by case id."""
        return self._of("test")

    @property
    def unlabelled_cases(self) -> tuple[Case, ...]:
        """Cases without a reference, by case id."""
        return self._of("unlabelled")

    def _of(self, split: str) -> tuple[Case, ...]:
        chosen = (case for case in self.cases if case.split == split)
        return tuple(sorted(chosen, key=lambda case: case.case_id))

    @property
    def planes(self) -> tuple[str, ...]:
        """Names of the channels a scan of this dataset has once read (colours counted apart)."""
        return tuple(plane for channel in self.channels for plane in channel.planes)

    @property
    def digest(self) -> str:
        """SHA-256 of all it says, wherever the data lies and in whatever order it is written."""
        value = _to_json(self)
        del value["data_root"]
        return digest_json(value)

    def case(self, case_id: str) -> Case:
        """Return the case of that id.

        Raises:
            ManifestError: MAN-005, with the nearest id.
        """
        for case in self.cases:
            if case.case_id == case_id:
                return case
        raise unknown_name(case_id, [case.case_id for case in self.cases], what="case")

    def path_of(self, relative: str) -> Path:
        """Return where a file of a case lies.

        Raises:
            ManifestError: MAN-003 a link leads out of the data root; MAN-007 nothing is there.
        """
        path = self.data_root / relative
        try:
            found = path.resolve(strict=True)
        except (OSError, RuntimeError) as fault:
            raise ManifestError(
                f"{path}: is missing",
                code="MAN-007",
                hint="is data_root right? medseg check lists all missing files",
            ) from fault
        if not found.is_relative_to(self.data_root.resolve()):
            raise ManifestError(
                f"{path}: is a link that leads out of the data root",
                code="MAN-003",
                hint="set data_root to a folder that holds all files",
            )
        return path


def manifest_file(path: Path) -> Path:
    """Return the file that a user means by a manifest: it, or the one in the folder named."""
    return path / "manifest.json" if path.is_dir() else path


def read_manifest(path: Path, *, data_root: Path | None = None) -> Manifest:
    """Read `manifest.json`.

    Args:
        path: the file, or the folder that holds it.
        data_root: where the data lies, if not where the manifest says.

    Raises:
        ManifestError: MAN-001 keys or types (row and file named), or any refusal of `Manifest`.
    """
    path = manifest_file(path)
    value = checked(read_json(path, kind=ManifestError, what="a manifest"), path)
    try:
        return Manifest(
            name=value.name,
            citation=value.citation,
            data_root=data_root or path.absolute().parent / Path(value.data_root).expanduser(),
            channels=tuple(Channel(name=c.name, modality=c.modality) for c in value.channels),
            labels=LabelSet.from_json(value.labels.model_dump()),
            consensus=value.consensus,
            reference_channel=value.reference_channel,
            spatial_dims=value.spatial_dims,
            cases=tuple(_case(row) for row in value.cases),
            num_folds=value.num_folds,
            seed=value.seed,
        )
    except MedsegError as fault:
        raise ManifestError(f"{path}: {fault.message}", code=fault.code, hint=fault.hint) from fault


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write `manifest.json`, whole or not at all.

    The data root is written relative to the file when one lies inside the other, so that both can
    move together, else in full.

    Raises:
        WriteError: the folder cannot be written.
    """
    value = _to_json(manifest)
    value["data_root"] = _portable(manifest.data_root, path.absolute().parent)
    write_json(value, path)


def _to_json(manifest: Manifest) -> dict[str, Any]:
    return {
        "version": 1,
        "name": manifest.name,
        "citation": manifest.citation,
        "data_root": str(manifest.data_root),
        "spatial_dims": manifest.spatial_dims,
        "channels": [asdict(channel) for channel in manifest.channels],
        "reference_channel": manifest.reference_channel,
        "labels": manifest.labels.to_json(),
        # Left out at its default, so that digests of manifests made before it stay what they were.
        **({} if manifest.consensus == "majority" else {"consensus": manifest.consensus}),
        "num_folds": manifest.num_folds,
        "seed": manifest.seed,
        "cases": [_row(case) for case in sorted(manifest.cases, key=lambda case: case.case_id)],
    }


def _row(case: Case) -> dict[str, Any]:
    """Return a case as JSON, without what it leaves at its default."""
    value = asdict(case)
    for f in fields(Case):
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        if value[f.name] == default:
            del value[f.name]
    return value


def _case(row: CaseJson) -> Case:
    return Case(
        case_id=row.case_id,
        patient_id=row.patient_id,
        images=row.images,
        labels=tuple(row.labels),
        raters=tuple(row.raters),
        annotated=None if row.annotated is None else tuple(row.annotated),
        classes=None if row.classes is None else tuple(row.classes),
        fold=row.fold,
        split=row.split,
        stratum=row.stratum,
        spacing_mm=None if row.spacing_mm is None else _triple(row.spacing_mm),
        series_uids=row.series_uids,
        digest=row.digest,
        image_digest=row.image_digest,
    )


def _triple(numbers: list[float]) -> tuple[float, float, float]:
    i, j, k = numbers
    return i, j, k


def _portable(data_root: Path, folder: Path) -> str:
    root = data_root.absolute()
    if root.is_relative_to(folder) or folder.is_relative_to(root):
        return Path(os.path.relpath(root, folder)).as_posix()
    return str(root)
