"""The files of a case: its mask in every format asked for, and the report on its volumes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from medseg.core.errors import ConfigError, WriteError
from medseg.core.geometry import Geometry
from medseg.core.labels import LabelMap, LabelSet
from medseg.inference.sources import Source
from medseg.io.writing import SUFFIX_OF, SegType, write_label_map
from medseg.metrics.volumes import ClassVolume, measure_volumes

# The table of volumes, and how probability maps end, beside the masks.
VOLUMES = "volumes.csv"
PROBABILITIES = "_probabilities"


def require_formats(formats: Sequence[str], seg_type: SegType) -> None:
    """Refuse formats that medseg does not write.

    Raises:
        ConfigError: no name, an unknown one, another type of SEG, or `sr` without the `dicom_seg`
            it reports on.
    """
    if not formats or any(name not in SUFFIX_OF for name in formats):
        raise ConfigError(f"formats={list(formats)}: expected some of {list(SUFFIX_OF)}")
    if "sr" in formats and "dicom_seg" not in formats:
        raise ConfigError(
            f"formats={list(formats)}: sr refers to the segments of a SEG",
            hint="ask for dicom_seg, too",
        )
    if seg_type not in get_args(SegType):
        raise ConfigError(f"dicom_seg.type={seg_type}: expected {' or '.join(get_args(SegType))}")


def write_case_files(
    label_map_IJK: LabelMap,
    files: Mapping[str, Path],
    *,
    geometry: Geometry,
    labels: LabelSet,
    scan: Source | None,
    seg_type: SegType = "BINARY",
) -> tuple[ClassVolume, ...]:
    """Write a mask in every format and measure it.

    Args:
        label_map_IJK: indices 0..N.
        files: by format, a name of `SUFFIX_OF`.
        geometry: the grid of the scan.
        labels: the classes.
        scan: the scan; None where it is not known.
        seg_type: how a DICOM SEG stores its segments.

    Returns:
        The volume of every class.

    Raises:
        MedsegError: as `write_label_map` and `io.dicom.seg.report.write_sr`.
    """
    volumes = measure_volumes(label_map_IJK, geometry=geometry, labels=labels)
    for path in (path for name, path in files.items() if name != "sr"):
        write_label_map(
            label_map_IJK,
            path,
            geometry=geometry,
            labels=labels,
            source=scan.dicom if scan else None,
            series_uid=scan.series_uid if scan else None,
            seg_type=seg_type,
        )
    if "sr" in files:
        _report(volumes, files, labels=labels, scan=scan)
    return volumes


def _report(
    volumes: Sequence[ClassVolume],
    files: Mapping[str, Path],
    *,
    labels: LabelSet,
    scan: Source | None,
) -> None:
    if scan is None or scan.dicom is None:
        raise WriteError(
            f"{files['sr']}: a DICOM report refers to the series it was measured on, and none was "
            "given",
            code="FIL-021",
            hint="name the DICOM series as the scan; volumes.csv holds the same numbers",
        )
    from medseg.io.dicom.seg.report import write_sr

    write_sr(
        {one.class_name: one.ml for one in volumes},
        files["sr"],
        labels=labels,
        seg=files["dicom_seg"],
        source=scan.dicom,
        series_uid=scan.series_uid,
    )
