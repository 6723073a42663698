"""Parts of a series: which of its frames may form one volume, and what tells the volumes apart.

Scouts, stacks and orientations never mix. Frames at one position are told apart by what was varied
(time, echo, b-value, ...), where that leaves volumes of equal size; else they may be copies.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from medseg.io.dicom.frames import Frame
from medseg.io.dicom.stack import ORIENTATION_TOLERANCE

# More than this many varied quantities at once would be a guess.
_MAX_MARKS = 3


def tell_apart(frames: Sequence[Frame]) -> list[tuple[str, list[Frame]]]:
    """Split the frames of a series into volumes, and name each where there are several.

    Returns:
        Names such as `b=1000` (or `group=2` for another orientation, stack or a scout), and the
        frames of each; one empty name where all frames may belong together.
    """
    apart: list[list[Frame]] = []
    for frame in frames:
        home = next((part for part in apart if _belongs(frame, part[0])), None)
        if home is None:
            apart.append([frame])
        else:
            home.append(frame)
    named: list[tuple[str, list[Frame]]] = []
    for number, part in enumerate(apart, start=1):
        group = f"group={number}" if len(apart) > 1 else ""
        for mark, repetition in _repetitions(part):
            named.append((",".join(filter(None, (group, mark))), repetition))
    return named


def _belongs(frame: Frame, other: Frame) -> bool:
    if (frame.localizer, frame.stack) != (other.localizer, other.stack):
        return False
    directions = frame.plane.i_direction + frame.plane.j_direction
    others = other.plane.i_direction + other.plane.j_direction
    return bool(np.abs(np.subtract(directions, others)).max() <= ORIENTATION_TOLERANCE)


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
