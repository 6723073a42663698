"""The door MLflow knows: loads a logged checkpoint; takes paths of scans, gives paths of masks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from medseg.core.errors import CheckpointError, ReadError
from medseg.inference.predictor import Predictor
from medseg.io.formats import case_name, read_volume, write_label_map
from medseg.runtime.hardware import pick_device

_MODEL_FILE = "model.pt"


class ScanSegmenter:
    """What `mlflow.pyfunc.load_model` hands out: one model load, many scans."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def predict(
        self, model_input: pd.DataFrame | Sequence[str], params: Mapping[str, Any] | None = None
    ) -> pd.DataFrame:
        """Segment scans, each onto its own grid.

        Args:
            model_input: paths of scans: a list, or the first column of a table.
            params: `output`: folder for the masks, made if absent (beside each scan when empty);
                `suffix`: the masks' format (default `.nii.gz`).

        Returns:
            A table with one column, `mask`: a path for every scan, in their order.

        Raises:
            ReadError: two scans would be written to the same mask, or a scan cannot be read.
        """
        given = params or {}
        suffix = given.get("suffix") or ".nii.gz"
        scans = [Path(text) for text in _texts(model_input)]
        masks = [_mask_path(scan, given.get("output") or "", suffix) for scan in scans]
        _require_distinct(scans, masks)
        for scan, mask in zip(scans, masks, strict=True):
            self._segment(scan, mask)
        return pd.DataFrame({"mask": [str(mask) for mask in masks]})

    def _segment(self, scan: Path, mask: Path) -> None:
        found = self._predictor.segment(read_volume(scan, suv=self._predictor.in_suv))
        mask.parent.mkdir(parents=True, exist_ok=True)
        write_label_map(
            found.label_map, mask, geometry=found.geometry, labels=found.labels, source=scan
        )


def _load_pyfunc(data_path: str) -> ScanSegmenter:
    """Load the model; MLflow calls this by name with the folder that was logged.

    Raises:
        CheckpointError: the folder holds no checkpoint.
    """
    path = Path(data_path)
    checkpoint = path / _MODEL_FILE if path.is_dir() else path
    if not checkpoint.is_file():
        raise CheckpointError(f"{path}: holds no {_MODEL_FILE}: it was not logged by medseg")
    return ScanSegmenter(Predictor.load(checkpoint, device=pick_device()))


def _texts(model_input: pd.DataFrame | Sequence[str]) -> list[str]:
    if isinstance(model_input, pd.DataFrame):
        return [str(text) for text in model_input.iloc[:, 0]]
    return [str(text) for text in model_input]


def _mask_path(scan: Path, output: str, suffix: str) -> Path:
    name = case_name(scan)
    # Beside the scan the mask needs a name of its own; in a folder of its own it keeps the case's.
    return Path(output) / f"{name}{suffix}" if output else scan.parent / f"{name}_mask{suffix}"


def _require_distinct(scans: Sequence[Path], masks: Sequence[Path]) -> None:
    owners: dict[Path, Path] = {}
    for scan, mask in zip(scans, masks, strict=True):
        if owners.setdefault(mask, scan) != scan:
            raise ReadError(
                f"{owners[mask]} and {scan} would both be written to {mask}",
                hint="predict them into different folders",
            )
