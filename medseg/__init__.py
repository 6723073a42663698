"""medseg: from a folder of scans to a trained, measured, exportable segmentation model."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Name -> the room it lives in; resolved on first use, so that `import medseg` stays free of torch.
_LAZY = {
    "Geometry": "medseg.core.geometry",
    "LabelSet": "medseg.core.labels",
    "Manifest": "medseg.data.manifest",
    "Plan": "medseg.core.plan",
    "Predictor": "medseg.inference.predictor",
    "Volume": "medseg.core.volume",
    "read_volume": "medseg.io.formats",
    "write_label_map": "medseg.io.formats",
}
__all__ = ["__version__", *sorted(_LAZY)]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'medseg' has no attribute {name!r}; it offers {__all__}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return __all__
