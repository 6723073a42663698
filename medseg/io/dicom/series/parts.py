"""Parts of a series: which of its frames may form one volume, and what tells the volumes apart.

Scouts, stacks and orientations never mix. Frames at one position are told apart by what was varied
(time, echo, b-value, ...), where that leaves volumes of equal size; else they may be copies.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from medseg.core.errors import GeometryError
from medseg.io.dicom.series.frames import Frame
from medseg.io.dicom.series.stack import ORIENTATION_TOLERANCE

# More than this many varied quantities at once would be a guess.
_MAX_MARKS = 3
# Views this much alike (about 6 degrees) belong to one volume whose slices are not parallel.
_SAME_VIEW = 0.1


def tell_apart(frames: Sequence[Frame]) -> list[tuple[str, list[Frame]]]:
    """Split the frames of a series into volumes, and name each where there are several.

    Returns:
        Names such as `b=1000` (or `group=2` for another orientation, stack or a scout), and the
        frames of each; one empty name where all frames may belong together.

    Raises:
        GeometryError: DCM-020, directions too far apart for one volume and too close for two.
    """
    apart: list[list[Frame]] = []
    for frame in frames:
        home = next((part for part in apart if _belongs(frame, part[0])), None)
        if home is None:
            apart.append([frame])
        else:
            home.append(frame)
    for one, other in combinations(apart, 2):
        _require_far_apart(one, other)
    named: list[tuple[str, list[Frame]]] = []
    for number, part in enumerate(apart, start=1):
        group = f"group={number}" if len(apart) > 1 else ""
        for mark, repetition in _repetitions(part):
            named.append((",".join(filter(None, (group, mark))), repetition))
    return named


def _belongs(frame: Frame, other: Frame) -> bool:
    return _kind_of(frame) == _kind_of(other) and _turn(frame, other) <= ORIENTATION_TOLERANCE


def _require_far_apart(part: Sequence[Frame], other: Sequence[Frame]) -> None:
    turn = _turn(part[0], other[0])
    if _kind_of(part[0]) != _kind_of(other[0]) or turn > _SAME_VIEW:
        return
    odd = min(part, other, key=len)[0]
    raise GeometryError(
        f"{odd.file.name}: its direction cosines differ by {turn:.2g} from those of other slices "
        f"of its series (tolerance {ORIENTATION_TOLERANCE})",
        code="DCM-020",
        hint="the slices are not parallel, so they form no grid; export the original series",
    )


def _kind_of(frame: Frame) -> tuple[bool, str]:
    return frame.localizer, frame.stack


def _turn(frame: Frame, other: Frame) -> float:
    """Return the largest difference of any direction cosine."""
    directions = frame.plane.i_direction + frame.plane.j_direction
    others = other.plane.i_direction + other.plane.j_direction
    return float(np.abs(np.subtract(directions, others)).max())


def _repetitions(frames: Sequence[Frame]) -> list[tuple[str, list[Frame]]]:
    """Split frames whose positions repeat by the fewest marks that tell them apart."""
    if not _repeats(frames):
        return [("", list(frames))]
    marks = [dict(frame.marks) for frame in frames]
    names = list(dict.fromkeys(name for found in marks for name in found))
    varying = [name for name in names if len({found.get(name) for found in marks}) > 1]
    for count in range(1, _MAX_MARKS + 1):
        for chosen in combinations(varying, count):
            parts: dict[tuple[str, ...], list[Frame]] = {}
            for frame, found in zip(frames, marks, strict=True):
                parts.setdefault(tuple(found.get(n, "") for n in chosen), []).append(frame)
            sizes = {len(part) for part in parts.values()}
            if len(sizes) == 1 and not any(_repeats(part) for part in parts.values()):
                return [
                    (",".join(map("=".join, zip(chosen, values, strict=True))), part)
                    for values, part in parts.items()
                ]
    # Nothing tells them apart: copies, which the stack compares pixel by pixel.
    return [("", list(frames))]


def _repeats(frames: Sequence[Frame]) -> bool:
    places = {tuple(round(mm, 2) for mm in frame.plane.position_mm) for frame in frames}
    return len(places) < len(frames)
