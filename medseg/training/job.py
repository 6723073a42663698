"""What to train: data, plan and choices, which always travel together."""

from dataclasses import dataclass

from medseg.core.fingerprint import Fingerprint
from medseg.core.plan import Plan
from medseg.data.manifest import Manifest
from medseg.training.choices import Choices


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training.

    Attributes:
        manifest: the dataset.
        plan: how scans are prepared, cut and learnt.
        choices: the user's.
        fingerprint: of the dataset, for the checkpoint to carry; None where there is none.
    """

    manifest: Manifest
    plan: Plan
    choices: Choices
    fingerprint: Fingerprint | None = None
