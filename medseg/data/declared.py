"""Classes as a file declares them: a manifest, a labels.json, or an ITK-SNAP label file."""

from pathlib import Path

from medseg.core.errors import LabelError
from medseg.core.labels import LabelSet
from medseg.data.manifest import read_manifest
from medseg.io.sidecars import read_labels
from medseg.runtime.files import read_json


def declared_labels(path: Path) -> LabelSet:
    """Read the classes, with the colours, codes and partners that the file gives them.

    Args:
        path: `manifest.json` or its folder, `labels.json`, or a label file of ITK-SNAP.

    Raises:
        LabelError: LBL-010 a file that declares no classes.
        ManifestError: a manifest that cannot be trusted.
    """
    if path.is_dir() or _is_manifest(path):
        return read_manifest(path).labels
    return read_labels(path)


def _is_manifest(path: Path) -> bool:
    if path.suffix.lower() != ".json":
        return False
    return "cases" in read_json(path, kind=LabelError, what="a manifest or a label set")
