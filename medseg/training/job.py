"""What to train: data, plan and choices, which always travel together."""

from dataclasses import dataclass, replace

from medseg.core.errors import LabelError
from medseg.core.fingerprint import Fingerprint
from medseg.core.labels import LabelSet
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

    @property
    def labels(self) -> LabelSet:
        """The manifest's classes, with regions as outputs where the user chose that.

        Raises:
            LabelError: LBL-014 no regions, or some that cannot be written into a label map.
        """
        labels, chosen = self.manifest.labels, self.choices.regions
        if chosen is None:
            return labels
        if not (chosen or labels.regions):
            raise LabelError(
                "training.regions=declared: the manifest's labels declare no regions",
                code="LBL-014",
                hint="name them, such as training.regions={WT: [edema, core], TC: [core]}",
            )
        return replace(labels, regions=chosen or labels.regions, outputs="regions")
