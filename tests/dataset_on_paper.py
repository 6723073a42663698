"""Manifests made in code, for the tests of the data room."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.core.labels import label_set
from medseg.data.manifest import Case, Channel, Manifest


def paper_case(case_id: str, **changes: Any) -> Case:
    """A training case of a patient of its own, one MR image and one mask."""
    return Case(
        **{
            "case_id": case_id,
            "patient_id": f"patient of {case_id}",
            "images": {"T1": f"images/{case_id}.nii.gz"},
            "labels": (f"labels/{case_id}.nii.gz",),
            **changes,
        }
    )


def paper_manifest(cases: Sequence[Case], **changes: Any) -> Manifest:
    """A manifest of one MR channel and two classes."""
    return Manifest(
        **{
            "name": "paper",
            "data_root": Path("/nowhere"),
            "channels": (Channel(name="T1", modality="MR"),),
            "labels": label_set({"anterior": 1, "posterior": 2}),
            "reference_channel": "T1",
            "spatial_dims": 3,
            "cases": tuple(cases),
            **changes,
        }
    )
