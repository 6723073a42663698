"""Reading an RTSTRUCT: regions drawn as contours become a label map on the grid of their scan."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydicom import Dataset

from medseg.core.errors import GeometryError, ReadError
from medseg.core.findings import Finding
from medseg.core.geometry import Geometry
from medseg.core.labels import LabelSet
from medseg.core.volume import Volume
from medseg.io.dicom.headers.attributes import unspoken
from medseg.io.dicom.references import RTSTRUCT_CLASSES, drawn_on, find_object, grid_of_source
from medseg.io.dicom.rtstruct.drawing import Drawn, draw
from medseg.io.dicom.rtstruct.rois import Roi, label_set_of, match_rois, rois_of

_WHAT = "RTSTRUCT"


def read_rtstruct(
    path: Path,
    *,
    labels: LabelSet | None = None,
    onto: Geometry | None = None,
    source: Path | None = None,
) -> Volume:
    """Read an RTSTRUCT onto the grid of its scan; contours have none of their own.

    Args:
        path: the RTSTRUCT, or a folder that holds exactly one.
        labels: the classes to translate regions into, by name or code (`match_rois`); None makes
            every region a class (`read_rtstruct_labels`).
        onto: the grid of its scan.
        source: in place of `onto`, the series it was drawn on (a folder, .zip or file).

    Returns:
        One channel of indices, or, where classes overlap, one channel of 0 and 1 a class. Findings
        are those of `match_rois` and `draw`, and DCM-074 where nothing is drawn at all.

    Raises:
        ReadError: DCM-034 it is no RTSTRUCT, DCM-037 contours that are no points, DCM-070 neither
            grid nor source.
        GeometryError: DCM-033 another frame of reference than the source's, DCM-071 no contour on
            the scan at all, DCM-072 contours across its slices.
        LabelError: DCM-042 it describes no region; LBL-003 none belongs to a class.
    """
    with unspoken():
        name, dataset = _found(path)
        grid = onto
        if source is not None:
            grid = grid_of_source(drawn_on(dataset), source, name=name, what=_WHAT)
        if grid is None:
            raise ReadError(
                f"{name}: contours lie on no grid of their own",
                code="DCM-070",
                hint="name the scan they were drawn on",
            )
        rois = rois_of(dataset, name=name)
        classes = labels or label_set_of(rois)
        matched, findings = match_rois(rois, classes, name=name)
        drawn = {index: draw(matched[index], grid, name=name) for index in sorted(matched)}
        _require_on_scan(drawn, name)
        for one in drawn.values():
            findings += one.findings
        if not any(roi.contours for roi in rois):
            findings.append(_without_contours(name))
    return _volume(drawn, grid, classes, tuple(findings))


def read_rtstruct_labels(path: Path) -> LabelSet:
    """Return the regions of an RTSTRUCT as a label set: names, colours, codes; values from 1 on.

    Raises:
        ReadError: it is no RTSTRUCT.
        LabelError: DCM-042, it describes no region.
    """
    with unspoken():
        name, dataset = _found(path)
        return label_set_of(rois_of(dataset, name=name))


def classes_drawn(path: Path, labels: LabelSet) -> frozenset[int]:
    """Return the indices of the classes that an RTSTRUCT holds a closed contour of.

    Raises:
        MedsegError: as `read_rtstruct`, less what needs a grid.
    """
    with unspoken():
        name, dataset = _found(path)
        matched, _ = match_rois(rois_of(dataset, name=name), labels, name=name)
        return frozenset(index for index, rois in matched.items() if _has_area(rois))


def _require_on_scan(drawn: Mapping[int, Drawn], name: str) -> None:
    num_contours = sum(one.num_contours for one in drawn.values())
    if num_contours and num_contours == sum(one.num_outside for one in drawn.values()):
        raise GeometryError(
            f"{name}: all {num_contours} contours lie outside the scan",
            code="DCM-071",
            hint="give the series the contours were drawn on",
        )


def _without_contours(name: str) -> Finding:
    return Finding(
        code="DCM-074",
        severity="warning",
        subject=name,
        message="describes regions and holds no contour of any; all are read as empty",
        hint="export the structure set again, unless there was nothing to draw",
    )


def _has_area(rois: list[Roi]) -> bool:
    return any(roi.closed for roi in rois)


def _found(path: Path) -> tuple[str, Dataset]:
    file, dataset = find_object(path, RTSTRUCT_CLASSES, what=_WHAT)
    return file.name, dataset


def _volume(
    drawn: Mapping[int, Drawn],
    grid: Geometry,
    classes: LabelSet,
    findings: tuple[Finding, ...],
) -> Volume:
    """Lay the classes into one label map, or into a channel each where two of them overlap."""
    kind = np.uint8 if len(classes) < 256 else np.uint16
    merged = np.zeros(grid.shape, dtype=kind)
    overlap = False
    for index, one in drawn.items():
        for k, mask in one.slices.items():
            plane = merged[:, :, k]
            overlap |= bool(plane[mask].any())
            plane[mask] = index
    if not overlap:
        return Volume(merged[None], grid, ("label map",), findings)
    apart = np.zeros((len(classes), *grid.shape), dtype=np.uint8)
    for index, one in drawn.items():
        for k, mask in one.slices.items():
            apart[index - 1, :, :, k] = mask
    return Volume(apart, grid, classes.names, findings)
