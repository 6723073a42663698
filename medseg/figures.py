"""Pictures for reports and run logs, as PNG bytes: overlays, learning curves, scores of all cases.

Every figure is an object of its own, drawn off screen; nothing is shared between calls, threads or
processes. Anatomy is shown as radiologists hold it: the patient's right on the left of the page,
anterior (or superior) on top.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.labels import LabelMap, LabelSet

Curve = Sequence[tuple[float, float]]

_DOTS_PER_INCH = 100
_WIDTH_IN = 6.0
# What the eye gets to see: gray values between these percentiles of the slice.
_WINDOW_PERCENT = (0.5, 99.5)
# Multiples of the golden ratio spread points evenly, however many there are, and always alike.
_GOLDEN = 0.618034
# A page runs along the first two of these that lie in it, beginning at the first letter.
_PAGE_RUNS = ("RL", "AP", "SI")


def overlay_png(
    image: NDArray[Any],
    *,
    geometry: Geometry,
    labels: LabelSet,
    reference: LabelMap | None = None,
    prediction: LabelMap | None = None,
    title: str = "",
) -> bytes:
    """Draw the slice that holds most foreground, with the outlines of both masks.

    Args:
        image: (I, J, K), one channel.
        geometry: the grid of the image and of the masks.
        labels: names and colours of the classes.
        reference: (I, J, K), indices; drawn with solid lines.
        prediction: (I, J, K), indices; drawn with dashed lines.
        title: above the picture; it should name no patient.
    """
    page = _page_of(geometry)
    masks = {"reference": (reference, "solid"), "prediction": (prediction, "dashed")}
    drawn = {name: (mask, line) for name, (mask, line) in masks.items() if mask is not None}
    num_slices = geometry.shape[page.through]
    areas = [page.areas(mask, num_classes=len(labels)) for mask, _ in drawn.values()]
    total = np.sum([np.zeros(num_slices), *areas], axis=0)
    at = int(total.argmax()) if total.any() else num_slices // 2
    picture = page.cut(image, at)
    figure = Figure(figsize=(_WIDTH_IN, _WIDTH_IN), dpi=_DOTS_PER_INCH)
    axes = figure.add_subplot()
    low, high = np.nanpercentile(picture, _WINDOW_PERCENT)
    axes.imshow(picture, cmap="gray", vmin=low, vmax=high, aspect=page.aspect)
    shown: dict[str, tuple[float, ...]] = {}
    for mask, line in drawn.values():
        for name, colour, inside in _classes_in(page.cut(mask, at), labels):
            # A rim of background closes the outline of what reaches the border.
            rows, columns = (np.arange(-1, n + 1) for n in inside.shape)
            outline = np.pad(inside, 1).astype(np.float64)
            axes.contour(columns, rows, outline, levels=[0.5], colors=[colour], linestyles=line)
            shown[name] = colour
    entries = [Line2D([], [], color=colour, label=name) for name, colour in shown.items()]
    entries += [
        Line2D([], [], color="black", linestyle=line, label=name)
        for name, (_, line) in drawn.items()
    ]
    axes.set_axis_off()
    axes.set_title(title)
    if entries:
        axes.legend(handles=entries, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _png(figure)


def learning_curve_png(loss: Curve, scores: Mapping[str, Curve]) -> bytes:
    """Draw a training: loss above, validation scores below, over the same steps.

    Args:
        loss: pairs of step and training loss.
        scores: pairs of step and Dice, by name of the class.
    """
    figure = Figure(figsize=(_WIDTH_IN, _WIDTH_IN), dpi=_DOTS_PER_INCH)
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(*_columns(loss), color="black", linewidth=1)
    above.set_ylabel("training loss")
    for name, curve in scores.items():
        below.plot(*_columns(curve), marker=".", label=name)
    below.set_ylabel("validation Dice")
    below.set_ylim(0, 1)
    below.set_xlabel("step")
    if scores:
        below.legend(loc="lower right")
    return _png(figure)


@dataclass(frozen=True, slots=True)
class _Page:
    """How slices of a grid lie on paper.

    Attributes:
        through: voxel axis that goes into the page.
        down, right: voxel axes along which the page runs.
        flipped: of these two, which run against their index.
        aspect: height of a voxel over its width.
    """

    through: int
    down: int
    right: int
    flipped: tuple[bool, bool]
    aspect: float

    def cut(self, voxels: NDArray[Any], at: int) -> NDArray[Any]:
        """Return a slice as rows and columns of the page."""
        turned = np.transpose(voxels, (self.through, self.down, self.right))[at]
        rows, columns = (slice(None, None, -1 if flip else 1) for flip in self.flipped)
        return np.asarray(turned[rows, columns])

    def areas(self, label_map: LabelMap, *, num_classes: int) -> NDArray[np.int64]:
        """Return how many voxels of any class each slice holds."""
        inside = (label_map > 0) & (label_map <= num_classes)
        return np.asarray(inside.sum(axis=(self.down, self.right)))


def _page_of(geometry: Geometry) -> _Page:
    """Axial slices; the plane itself where there is only one slice."""
    codes = geometry.orientation
    axis_of = {run: next(n for n, code in enumerate(codes) if code in run) for run in _PAGE_RUNS}
    single = [run for run in _PAGE_RUNS if geometry.shape[axis_of[run]] == 1]
    through = single[0] if single else "SI"
    across, along = (run for run in _PAGE_RUNS if run != through)
    right, down = axis_of[across], axis_of[along]
    return _Page(
        through=axis_of[through],
        down=down,
        right=right,
        # A code names where the index grows to, and the page begins at the run's first letter.
        flipped=(codes[down] == along[0], codes[right] == across[0]),
        aspect=geometry.spacing_mm[down] / geometry.spacing_mm[right],
    )


def _classes_in(
    cut: LabelMap, labels: LabelSet
) -> Iterator[tuple[str, tuple[float, ...], NDArray[np.bool_]]]:
    """Name, colour and mask of every class that occurs in a slice."""
    for index, label in enumerate(labels.labels, start=1):
        inside = np.asarray(cut == index)
        if inside.any():
            yield label.name, tuple(channel / 255 for channel in label.colour), inside


def _columns(curve: Curve) -> tuple[list[float], list[float]]:
    return [step for step, _ in curve], [value for _, value in curve]


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", bbox_inches="tight")
    return stream.getvalue()
