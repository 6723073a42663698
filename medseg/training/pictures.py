"""Pictures of a training: its curves, and a few validation cases with both outlines."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from medseg.data.cache import CachedCase
from medseg.data.manifest import Manifest
from medseg.data.scans import read_reference, read_scan
from medseg.figures import learning_curve_png, overlay_png
from medseg.inference.predictor import Predictor
from medseg.runtime.files import written_whole
from medseg.transforms.chains import Prepared


def draw_curves(
    losses: Sequence[tuple[int, float]], history: Sequence[dict[str, float]], folder: Path
) -> Path | None:
    """Write `curves.png`; None when there is nothing to draw yet.

    Args:
        losses: pairs of step and training loss.
        history: of validations, each with its `step` and scores.
        folder: of the run.
    """
    if not losses:
        return None
    names = [name for name in (history[0] if history else {}) if name != "step"]
    scores = {name: [(int(row["step"]), row[name]) for row in history] for name in names}
    return _write(learning_curve_png(losses, scores), folder / "curves.png")


def draw_overlays(
    manifest: Manifest,
    predictor: Predictor,
    cases: Sequence[CachedCase],
    *,
    folder: Path,
    count: int,
) -> list[Path]:
    """Write `overlay_N.png` of some cases; numbers, since case ids stay out of the tracker.

    Args:
        manifest: where scans and references come from.
        predictor: holds the trained network.
        cases: prepared ones of the validation fold.
        folder: of the run.
        count: how many to draw.
    """
    drawn = []
    for number, case in enumerate(islice(cases, count)):
        scan = read_scan(manifest, case.case, missing="zero")
        reference = read_reference(manifest, case.case, scan.geometry).only_channel
        image = torch.from_numpy(np.array(case.open_image()))
        prepared = Prepared(image, None, case.geometry)
        found = predictor.segment_prepared(prepared, onto=scan.geometry).label_map
        picture = overlay_png(
            scan.voxels[0],
            geometry=scan.geometry,
            labels=manifest.labels,
            reference=reference,
            prediction=found,
        )
        drawn.append(_write(picture, folder / f"overlay_{number}.png"))
    return drawn


def _write(picture: bytes, path: Path) -> Path:
    with written_whole(path) as stream:
        stream.write(picture)
    return path
