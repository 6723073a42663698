"""Siemens mosaics: the slices of a volume as tiles of one picture, taken apart and put in place.

The grid of tiles is square, as small as holds the slices, filled row by row. The position in the
header is the corner of the whole picture, as if it lay centred on the slices; the private CSA
header says along which normal they follow each other. Checked against dcm2niix.
"""

import math
import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from medseg.core.errors import ReadError
from medseg.io.dicom.headers.attributes import number, words
from medseg.io.dicom.headers.scan import BROKEN, Header
from medseg.io.dicom.pixels.storage import Tiles, tiled
from medseg.io.dicom.series.frames import Frame, Plane, single_frame

_CSA_GROUP, _CSA_CREATOR, _CSA_IMAGE_HEADER = 0x0029, "SIEMENS CSA HEADER", 0x10
_CSA_MAGIC = b"SV10"
_TAG = struct.Struct("<64si4siii")
_ITEM_HEAD = struct.Struct("<4i")
# More fields or values than any CSA header has are bytes that are none.
_MOST = 1000
_NORMAL_TOLERANCE = 1e-3


def is_mosaic(header: Header) -> bool:
    """Tell whether `ImageType` calls a file a mosaic."""
    return "MOSAIC" in words(header.dataset, "ImageType")


def mosaic_frames(header: Header) -> Iterator[Frame]:
    """Go through the slices of a mosaic, tile by tile.

    Raises:
        ReadError: DCM-041 the file does not say how many slices there are, how far apart, or along
            which normal; and as `single_frame`.
        GeometryError: as `single_frame`.
    """
    name = header.file.name
    whole = single_frame(header)
    csa = _csa_of(header)
    num_slices = _one(csa, "NumberOfImagesInMosaic", name)
    distance_mm = number(header.dataset, "SpacingBetweenSlices", name=name)
    normal = np.array(csa.get("SliceNormalVector", ()))
    if distance_mm is None or distance_mm <= 0 or normal.shape != (3,):
        raise _refused(name, "does not say along which normal its slices lie, and how far apart")
    across = float(normal @ whole.plane.normal)
    if abs(abs(across) - 1) > _NORMAL_TOLERANCE:
        raise _refused(name, "has slices that do not lie across its rows and columns")
    tiles = _tiles(whole, int(num_slices), name)
    step = whole.plane.normal * math.copysign(distance_mm, across)
    first = _first_position(whole, tiles)
    storage = tiled(whole.storage, tiles)
    for index in range(tiles.num_slices):
        x, y, z = (float(mm) for mm in first + index * step)
        yield Frame(
            storage=storage,
            index=index,
            sop_uid=whole.sop_uid,
            plane=Plane(
                position_mm=(x, y, z),
                i_direction=whole.plane.i_direction,
                j_direction=whole.plane.j_direction,
                spacing_mm=whole.plane.spacing_mm,
                thickness_mm=distance_mm,
            ),
            slope=whole.slope,
            intercept=whole.intercept,
            marks=whole.marks,
            localizer=whole.localizer,
        )


def _tiles(whole: Frame, num_slices: int, name: str) -> Tiles:
    side = math.isqrt(max(num_slices - 1, 0)) + 1
    columns, rows = whole.shape
    if not 1 <= num_slices <= _MOST or columns % side or rows % side:
        raise _refused(name, f"cannot hold {num_slices} tiles of one size in {columns} x {rows}")
    return Tiles(side=side, num_slices=num_slices)


def _first_position(whole: Frame, tiles: Tiles) -> NDArray[np.float64]:
    """Return the centre of the first pixel of the first tile, LPS mm."""
    position = np.array(whole.plane.position_mm)
    directions = (whole.plane.i_direction, whole.plane.j_direction)
    for length, spacing_mm, direction in zip(
        whole.shape, whole.plane.spacing_mm, directions, strict=True
    ):
        beside = (length - length // tiles.side) / 2
        position = position + beside * spacing_mm * np.array(direction)
    return position


def _csa_of(header: Header) -> dict[str, tuple[float, ...]]:
    """Read the numbers of the private header; its other values stay unread."""
    name = header.file.name
    try:
        with header.file.open() as stream:
            dataset = dcmread(stream, stop_before_pixels=True, force=True)
        block = dataset.private_block(_CSA_GROUP, _CSA_CREATOR)
        content = bytes(block[_CSA_IMAGE_HEADER].value)
        return _numbers_in(content)
    except (*BROKEN, struct.error) as fault:
        raise _refused(name, "has no CSA header that can be read") from fault


def _numbers_in(content: bytes) -> dict[str, tuple[float, ...]]:
    """Parse a CSA header of the second kind (`SV10`): named fields of padded text values.

    Raises:
        ValueError, struct.error: it is none.
    """
    if not content.startswith(_CSA_MAGIC):
        raise ValueError("another kind of CSA header")
    (num_fields,) = struct.unpack_from("<I", content, 8)
    if num_fields > _MOST:
        raise ValueError("too many fields")
    place, found = 16, {}
    for _ in range(num_fields):
        title, count, _, _, num_items, _ = _TAG.unpack_from(content, place)
        place += _TAG.size
        if not 0 <= num_items <= _MOST:
            raise ValueError("too many values")
        values = []
        for _ in range(num_items):
            _, length, _, _ = _ITEM_HEAD.unpack_from(content, place)
            place += _ITEM_HEAD.size
            if length < 0:
                raise ValueError("a value of negative length")
            values.append(content[place : place + length])
            place += -(-length // 4) * 4
        numbers = _as_numbers(values[: max(count, 0) or num_items])
        if numbers:
            found[title.split(b"\0")[0].decode("ascii", "replace")] = numbers
    return found


def _as_numbers(values: list[bytes]) -> tuple[float, ...]:
    texts = [value.split(b"\0")[0].strip() for value in values]
    try:
        return tuple(float(one) for one in texts if one)
    except ValueError:
        return ()


def _one(csa: dict[str, tuple[float, ...]], field: str, name: str) -> float:
    found = csa.get(field, ())
    if not found or not math.isfinite(found[0]):
        raise _refused(name, f"does not say its {field}")
    return found[0]


def _refused(name: str, why: str) -> ReadError:
    return ReadError(
        f"{name}: is a Siemens mosaic, many slices tiled into one picture, and {why}",
        code="DCM-041",
        hint="convert the series with dcm2niix, or export it as enhanced multi-frame",
    )
