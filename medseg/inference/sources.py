"""What there is to segment: scans in files and folders, or the cases of a manifest."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from medseg.core.errors import ConfigError, ReadError
from medseg.core.volume import Volume
from medseg.data.manifest import Case, Manifest
from medseg.data.scans import in_colours, read_scan
from medseg.data.splits import split_cases
from medseg.data.units import require_same_units
from medseg.io.dicom.deidentification.identity import case_id_of
from medseg.io.dicom.reader import find_series, is_dicom
from medseg.io.dicom.series.grouping import Series
from medseg.io.formats import case_name, find_scans, read_volume
from medseg.privacy import project_key
from medseg.runtime.home import home


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One scan to segment.

    Attributes:
        case_id: what its mask will be called.
        read: reads it.
        dicom: the DICOM file or folder it comes from, for a SEG to refer to; None for other files.
        series_uid: which series there.
    """

    case_id: str
    read: Callable[[], Volume]
    dicom: Path | None = None
    series_uid: str | None = None


def sources_in(path: Path, *, suv: bool = False, planes: tuple[str, ...] = ()) -> list[Source]:
    """Find the scans of a file or below a folder, each a case of its own.

    Files keep their names; DICOM series get ids that name nobody, as `medseg ingest` gives them.
    Folders of DICOM objects that are no images (SEG, RTSTRUCT, reports) are passed over.

    Args:
        path: a file or folder.
        suv: the network was trained on SUV: DICOM is turned into it, other files hold it.
        planes: of the only channel a network takes, for `in_colours`; (): it takes several.

    Raises:
        ReadError: FIL-001 nothing there; FIL-007 a folder without scans.
        ConfigError: two scans that would share a mask's name.
    """
    if not path.exists():
        raise ReadError(f"{path}: no such file or folder", code="FIL-001", hint="check the path")
    scans = find_scans(path) if path.is_dir() else [path]
    found = [
        source
        for scan in scans
        for source in _sources_of(scan, suv=suv, planes=planes, has_others=len(scans) > 1)
    ]
    if not found:
        raise ReadError(f"{path}: holds no scan", code="FIL-007", hint="check the path")
    seen: dict[str, None] = {}
    for source in found:
        if source.case_id in seen:
            raise ConfigError(
                f"input={path}: two scans are called {source.case_id!r}; their masks would be, too",
                hint="segment their folders one by one, or list the scans in a manifest",
            )
        seen[source.case_id] = None
    return found


def sources_of_manifest(
    manifest: Manifest,
    split: str,
    *,
    missing: Literal["fail", "zero"] = "fail",
    trained_on: Mapping[str, str] | None = None,
) -> list[Source]:
    """Return the cases of a manifest to segment.

    Args:
        manifest: the dataset.
        split: `train`, `test`, `unlabelled`, `all`, or the number of a fold, whose validation
            cases are meant.
        missing: what a missing channel means, see `read_scan`.
        trained_on: modality of each channel that the network was trained on; None: not known.

    Raises:
        ConfigError: another split, or one without cases.
        ManifestError: SCN-010, a channel in SUV where the network knows activity, or the reverse.
    """
    require_same_units(manifest, trained_on or {}, by="the network was trained on")
    by_name: dict[str, Sequence[Case]] = {
        "train": manifest.training_cases,
        "test": manifest.test_cases,
        "unlabelled": manifest.unlabelled_cases,
        "all": manifest.cases,
    }
    if split.isdigit():
        cases: Sequence[Case] = split_cases(manifest, int(split)).validation
    elif split in by_name:
        cases = by_name[split]
    else:
        raise ConfigError(f"split={split}: expected {', '.join(by_name)}, or the number of a fold")
    if not cases:
        raise ConfigError(f"split={split}: {manifest.name} has no such cases")
    return [
        Source(
            case_id=case.case_id,
            read=partial(read_scan, manifest, case, missing=missing),
            dicom=_dicom_of(manifest, case),
            series_uid=case.series_uids.get(manifest.reference_channel),
        )
        for case in cases
    ]


def _sources_of(
    path: Path, *, suv: bool, planes: tuple[str, ...], has_others: bool
) -> list[Source]:
    if not is_dicom(path):
        return [Source(case_id=case_name(path), read=partial(_read_image, path, planes))]
    series = find_series(path)
    volumes = [one for one in series if one.verdict == "volume"]
    if not volumes:
        # A SEG, RTSTRUCT or report beside the scans it belongs to is no scan that failed.
        if has_others and series and all(one.verdict == "other" for one in series):
            return []
        # The reader says best why there is no volume.
        read = partial(read_volume, path, suv=suv)
        return [Source(case_id=case_name(path), read=read, dicom=path)]
    return [_dicom_source(path, one, several=len(volumes) > 1, suv=suv) for one in volumes]


def _read_image(path: Path, planes: tuple[str, ...]) -> Volume:
    return in_colours(read_volume(path), planes, file=path.name, case_id=case_name(path))


def _dicom_source(path: Path, series: Series, *, several: bool, suv: bool) -> Source:
    uid = f"{series.uid}:{series.part}".rstrip(":") if several else None
    return Source(
        case_id=case_id_of(series, key=project_key(home())),
        read=partial(read_volume, path, series_uid=uid, suv=suv),
        dicom=path,
        series_uid=uid,
    )


def _dicom_of(manifest: Manifest, case: Case) -> Path | None:
    path = manifest.data_root / case.images[manifest.reference_channel]
    return path if path.exists() and is_dicom(path) else None
