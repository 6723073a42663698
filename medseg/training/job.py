"""What to train: data, plan and choices, which always travel together."""

from dataclasses import dataclass, replace

from medseg.core.errors import LabelError
from medseg.core.fingerprint import Fingerprint
from medseg.core.labels import LabelSet
from medseg.core.objects import labels_for
from medseg.core.plan import Plan
from medseg.data.manifest import Manifest
from medseg.data.units import require_same_units
from medseg.training.choices import Choices


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training.

    Attributes:
        manifest: the dataset.
        plan: how scans are prepared, cut and learnt.
        choices: the user's.
        fingerprint: of the dataset, for the checkpoint to carry; None where there is none.

    Raises:
        ManifestError: SCN-010, a plan that was measured in another unit of PET than the dataset's.
    """

    manifest: Manifest
    plan: Plan
    choices: Choices
    fingerprint: Fingerprint | None = None

    def __post_init__(self) -> None:
        if self.fingerprint is not None:
            known = dict(self.fingerprint.channels)
            require_same_units(self.manifest, known, by="its plan was measured on")

    @property
    def labels(self) -> LabelSet:
        """The manifest's classes, with the regions or the things that the user chose.

        Raises:
            LabelError: LBL-014 no regions, or some that cannot be written into a label map;
                LBL-013, LBL-015 things that are none, or missing.
        """
        objects = self.choices.objects
        labels = self._outputs
        return labels if objects is None else labels_for(labels, objects.task, self.choices.things)

    @property
    def learns_objects(self) -> bool:
        """Whether the network has channels that are trained on the ids of objects."""
        objects = self.choices.objects
        return objects is not None and objects.way.num_channels(self.plan.spatial_dims) > 0

    @property
    def _outputs(self) -> LabelSet:
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
