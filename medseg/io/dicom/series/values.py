"""Voxels from stored values: rescaled into one unit, gray scale and padding settled."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Condition
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from medseg.core.errors import ReadError
from medseg.core.findings import Finding
from medseg.io.dicom.headers.attributes import unspoken
from medseg.io.dicom.pixels.storage import Storage
from medseg.io.dicom.pixels.stored import PixelFile, Pixels, pixels_in
from medseg.io.dicom.series.frames import Frame
from medseg.runtime.hardware import num_cores

# Voxel arrays of this file are indexed K, J, I (slice, row, column), as they come off the disk.
_Voxels = NDArray[Any]

# Values of these modalities have a unit (HU; Bq/ml or SUV), so they are never turned upside down.
_MEASURED = frozenset({"CT", "PT"})
_AIR_HU = -1024.0
_INTEGERS = (np.int16, np.int32, np.int64)
_INT16 = np.iinfo(np.int16)
# A CT whose lowest value is above this shows no air, or is not in HU.
_NO_AIR_HU = -500.0


def read_voxels(
    frames: Sequence[Frame], *, modality: str, name: str
) -> tuple[_Voxels, tuple[Finding, ...]]:
    """Decode and rescale the frames of one volume, several at a time.

    Whole numbers stay integers (int16 where they fit, else the next that does); others become
    float32. MONOCHROME1 is turned so that high is bright, once and here, except where values have
    a unit. Voxels at the padding value are set to air (CT) or to the lowest measured value, where
    the padding lies outside the measured values.

    Args:
        frames: in the order of k, all of one matrix.
        modality: of the series, such as `CT`.
        name: the series, for messages.

    Returns:
        Voxels (K, J, I), and findings DCM-008, DCM-011, DCM-032.

    Raises:
        ReadError: DCM-036 not enough memory, and as `stored.pixels_in` and `stored.PixelFile`.
    """
    exact = all(frame.slope == 1 and frame.intercept.is_integer() for frame in frames)
    _require_memory(frames, 6 if exact else 8, name)
    canvas = _Canvas(frames, np.dtype(np.int16 if exact else np.float32))
    padding: dict[int, tuple[int, int]] = {}
    inverted = False
    for indices, source in _drawn(frames, canvas, turned=modality not in _MEASURED, exact=exact):
        inverted |= source.storage.inverted
        if source.padding is not None:
            padding |= dict.fromkeys(indices, source.padding)
    voxels = canvas.voxels
    findings = _fill_padding(voxels, frames, padding, modality=modality, name=name)
    findings += _gray_findings(voxels, modality=modality, inverted=inverted, name=name)
    return voxels, tuple(findings)


class _Canvas:
    """The volume while slices are put into it by several threads; widened when one does not fit."""

    def __init__(self, frames: Sequence[Frame], kind: np.dtype[Any]) -> None:
        columns, rows = frames[0].shape
        self.voxels: _Voxels = np.empty((len(frames), rows, columns), dtype=kind)
        self._turn = Condition()
        self._num_writing = 0

    def put(self, k: int, values: _Voxels) -> None:
        """Put one slice in its place."""
        with self._turn:
            kind = self._kind_for(values)
            if kind != self.voxels.dtype:
                # Not while another thread writes into what is about to be left behind.
                self._turn.wait_for(lambda: not self._num_writing)
                self.voxels = self.voxels.astype(self._kind_for(values))
            voxels = self.voxels
            self._num_writing += 1
        try:
            voxels[k] = values
        finally:
            with self._turn:
                self._num_writing -= 1
                self._turn.notify_all()

    def _kind_for(self, values: _Voxels) -> np.dtype[Any]:
        """Return the smallest kind of number, from that of the volume on, that the slice fits."""
        own = self.voxels.dtype
        if values.dtype == own or own.kind != "i":
            return own
        kinds = [np.dtype(kind) for kind in _INTEGERS if np.dtype(kind).itemsize >= own.itemsize]
        return next(kind for kind in kinds if _holds(kind, values))


def _holds(kind: np.dtype[Any], values: _Voxels) -> bool:
    ends = np.iinfo(kind)
    return bool(values.min() >= ends.min and values.max() <= ends.max)


def _drawn(
    frames: Sequence[Frame], canvas: _Canvas, *, turned: bool, exact: bool
) -> Iterator[tuple[Sequence[int], PixelFile]]:
    """Put every frame on the canvas; yield which slices came from which file."""

    def draw(task: tuple[Storage, Sequence[int]]) -> tuple[Sequence[int], PixelFile]:
        storage, places = task
        source = pixels_in(storage)
        if storage.inverted and turned:
            source = _turned(source)
        for k in places:
            pixels = source.frame(frames[k].index)
            canvas.put(k, _rescale(pixels, frames[k], source.limits, exact=exact))
        return places, source

    pool = ThreadPoolExecutor(num_cores())
    try:
        with unspoken():
            yield from pool.map(draw, _tasks(frames))
    finally:
        # After a refusal, what has not begun is not worth doing.
        pool.shutdown(cancel_futures=True)


def _tasks(frames: Sequence[Frame]) -> list[tuple[Storage, Sequence[int]]]:
    """Share the frames out: by file, and a file of many frames among all cores."""
    places: dict[Storage, list[int]] = {}
    for k, frame in enumerate(frames):
        places.setdefault(frame.storage, []).append(k)
    most = -(-len(frames) // num_cores())
    return [
        (storage, found[start : start + most])
        for storage, found in places.items()
        for start in range(0, len(found), most)
    ]


def _turned(source: PixelFile) -> PixelFile:
    """Swap the ends of the gray scale, in the pixels and in the value that marks padding."""
    ends = sum(source.limits)
    padding = source.padding and (ends - source.padding[1], ends - source.padding[0])
    read = source.read
    return replace(source, padding=padding, read=lambda index: ends - read(index).astype(np.int64))


def same_pixels(one: Frame, other: Frame) -> bool:
    """Tell whether two frames hold the same values.

    Raises:
        ReadError: as `stored.PixelFile`.
    """
    if (one.shape, one.slope, one.intercept) != (other.shape, other.slope, other.intercept):
        return False
    first, second = (pixels_in(frame.storage).frame(frame.index) for frame in (one, other))
    return bool(np.array_equal(first, second))


def _rescale(pixels: Pixels, frame: Frame, limits: tuple[int, int], *, exact: bool) -> _Voxels:
    if not exact:
        return (pixels.astype(np.float64) * frame.slope + frame.intercept).astype(np.float32)
    shift = int(frame.intercept)
    if limits[0] + shift >= _INT16.min and limits[1] + shift <= _INT16.max:
        # Wrapping around on the way is harmless, since every sum fits.
        stored = pixels.astype(np.int16, copy=False)
        return stored + np.int16(shift) if shift else stored
    return pixels.astype(np.int64) + shift


def _fill_padding(
    voxels: _Voxels,
    frames: Sequence[Frame],
    padding: dict[int, tuple[int, int]],
    *,
    modality: str,
    name: str,
) -> list[Finding]:
    """Replace voxels without a measurement by a value that exists; return what was done."""
    found = {k: _padded(voxels[k], frames[k], ends) for k, ends in padding.items()}
    masks = {k: mask for k, mask in found.items() if mask.any()}
    if not masks:
        return []
    measured = [voxels[k][~masks[k]] if k in masks else voxels[k] for k in range(len(voxels))]
    lows = [float(values.min()) for values in measured if values.size]
    highs = [float(values.max()) for values in measured if values.size]
    if not lows:
        return []
    low, high = (_AIR_HU, max(highs)) if modality == "CT" else (min(lows), max(highs))
    replaced = 0
    for k, mask in masks.items():
        outside = mask & ((voxels[k] < low) | (voxels[k] > high))
        voxels[k][outside] = low
        replaced += int(outside.sum())
    if not replaced:
        return []
    message = f"{replaced} voxels at the padding value were set to {low:g}"
    return [Finding(code="DCM-032", severity="note", subject=name, message=message)]


def _padded(values: _Voxels, frame: Frame, ends: tuple[int, int]) -> NDArray[np.bool_]:
    low, high = sorted(np.float32(end * frame.slope + frame.intercept) for end in ends)
    return np.asarray((values >= low) & (values <= high))


def _gray_findings(voxels: _Voxels, *, modality: str, inverted: bool, name: str) -> list[Finding]:
    findings = []
    if inverted:
        message = "MONOCHROME1: " + (
            "values have a unit and are kept as stored"
            if modality in _MEASURED
            else "values were turned so that high is bright"
        )
        findings.append(Finding(code="DCM-011", severity="note", subject=name, message=message))
    # Nearly always the first slice shows air, and no other has to be looked at.
    if modality == "CT" and all(float(values.min()) > _NO_AIR_HU for values in voxels):
        findings.append(
            Finding(
                code="DCM-008",
                severity="warning",
                subject=name,
                message=f"the lowest CT value is {float(voxels.min()):g}, expected air near "
                "-1000 HU",
                hint="look whether the values are in HU and the field of view holds air",
            )
        )
    return findings


def _require_memory(frames: Sequence[Frame], bytes_a_voxel: int, name: str) -> None:
    """Refuse before hours of swapping: the volume and its widest copy must fit."""
    columns, rows = frames[0].shape
    needed = columns * rows * len(frames) * bytes_a_voxel
    free = int(psutil.virtual_memory().available)
    if needed > free:
        raise ReadError(
            f"{name}: {columns} x {rows} x {len(frames)} voxels need {needed / 2**30:.1f} GiB, "
            f"{free / 2**30:.1f} GiB of memory are free",
            code="DCM-036",
            hint="use a machine with more memory, or split or downsample the series",
        )
