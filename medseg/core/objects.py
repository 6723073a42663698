"""How objects of one class are told apart: what a training aims at, and a prediction groups by.

A way adds channels to the logits of any network, after those of the classes. Lengths are in edges
of the finest voxel axis, so that a way means the same on any spacing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal

from medseg.core.errors import LabelError, PlanError
from medseg.core.geometry import Geometry
from medseg.core.labels import LabelSet

Task = Literal["instance", "panoptic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """An object is a piece of a class that hangs together; no further channels.

    Attributes:
        corners: voxels that touch at an edge or a corner hang together, too.
    """

    name: ClassVar[str] = "components"
    corners: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.corners, bool):
            raise PlanError(f"instance=components: corners={self.corners}; expected true or false")

    def num_channels(self, _spatial_dims: int) -> int:
        """Return how many channels the way adds."""
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Centres:
    """A heat map of centres, and for each voxel the way to its own (Cheng et al., CVPR 2020).

    The channels are the heat, 1 at a centre, then the offsets to it along each axis.

    Attributes:
        sigma_share: deviation of the Gaussian about a centre, as a share of the radius of a ball
            (disc) of the object's size.
        unit_vox: length that offsets are given in.
        smooth_vox: deviation of the Gaussian that the heat is blurred with before centres are
            sought; 0: not at all.
        least_heat: heat that a centre exceeds after that.
        apart_vox: no two centres are closer than this along every axis.
        heat_weight, offset_weight: of their losses beside the classes' (squared and absolute
            error).
    """

    name: ClassVar[str] = "centre"
    sigma_share: float = 0.5
    unit_vox: float = 16.0
    smooth_vox: float = 1.5
    least_heat: float = 0.2
    apart_vox: float = 4.0
    heat_weight: float = 10.0
    offset_weight: float = 1.0

    def __post_init__(self) -> None:
        _require(self, "sigma_share", "unit_vox", "apart_vox", above=0)
        _require(self, "heat_weight", "offset_weight", above=0)
        _require_blur(self, self.smooth_vox)
        _require(self, "least_heat", above=0, below=1)

    def num_channels(self, spatial_dims: int) -> int:
        """Return how many channels the way adds."""
        return 1 + spatial_dims


@dataclass(frozen=True, slots=True, kw_only=True)
class Distances:
    """A map of the distance to the object's surface, 1 at its deepest; watershed parts objects.

    Attributes:
        smooth_vox: deviation of the Gaussian that the depth is blurred with; 0: not at all.
        seed_level: voxels deeper than this are the seeds that grow.
        distance_weight: of the loss beside the classes' (squared error).
    """

    name: ClassVar[str] = "distance"
    smooth_vox: float = 1.5
    seed_level: float = 0.5
    distance_weight: float = 1.0

    def __post_init__(self) -> None:
        _require(self, "seed_level", above=0, below=1)
        _require(self, "distance_weight", above=0)
        _require_blur(self, self.smooth_vox)

    def num_channels(self, _spatial_dims: int) -> int:
        """Return how many channels the way adds."""
        return 1


Way = Components | Centres | Distances
WAYS: Mapping[str, type[Way]] = {way.name: way for way in (Components, Centres, Distances)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectPlan:
    """What a network is trained for, and how its output becomes objects.

    Attributes:
        task: `instance`: every class is of things; `panoptic`: some are stuff.
        way: how objects are told apart.
        least_ml: smaller objects are dropped, on grids with physical size; None: training measures
            what to take, and until then every object counts.
        least_px: and on grids without, objects of fewer voxels.

    Raises:
        PlanError: a task or size that there is not.
    """

    task: Task
    way: Way = field(default_factory=Components)
    least_ml: float | None = None
    least_px: float | None = None

    def __post_init__(self) -> None:
        if self.task not in ("instance", "panoptic"):
            raise PlanError(f"task={self.task}: expected semantic, instance or panoptic")
        for name in ("least_ml", "least_px"):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise PlanError(f"instance.{name}={value}: expected a size of 0 or more, or null")

    def least_vox(self, geometry: Geometry) -> float:
        """Return how many voxels of a grid the smallest object has."""
        least = self.least_ml if geometry.unit == "mm" else self.least_px
        return (least or 0.0) / _voxel_size(geometry)

    def or_least(self, num_vox: float, geometry: Geometry) -> "ObjectPlan":
        """Return the plan with the least size that is given in voxels, where it has none yet."""
        size = num_vox * _voxel_size(geometry)
        if geometry.unit == "mm":
            return self if self.least_ml is not None else replace(self, least_ml=size)
        return self if self.least_px is not None else replace(self, least_px=size)

    @property
    def unsized(self) -> "ObjectPlan":
        """The plan without its least sizes, which each training measures on its own cases."""
        return replace(self, least_ml=None, least_px=None)

    def to_json(self) -> dict[str, Any]:
        """Return plain values from which `from_json` makes the same plan."""
        return {
            "task": self.task,
            "least_ml": self.least_ml,
            "least_px": self.least_px,
            "way": {"name": self.way.name, **asdict(self.way)},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ObjectPlan":
        """Make the plan that `to_json` wrote.

        Raises:
            PlanError: a way or setting that this medseg does not have.
        """
        way = dict(value["way"])
        return cls(
            task=value["task"],
            way=way_of(str(way.pop("name")), way),
            least_ml=value["least_ml"],
            least_px=value["least_px"],
        )


def _voxel_size(geometry: Geometry) -> float:
    """Return the size of a voxel in ml, or in px where images carry no physical size."""
    return geometry.voxel_ml if geometry.unit == "mm" else 1000 * geometry.voxel_ml


def way_of(name: str, settings: Mapping[str, Any]) -> Way:
    """Make a way of its name and settings.

    Raises:
        PlanError: a name, a setting or a value that there is not.
    """
    if name not in WAYS:
        raise PlanError(f"instance={name}: expected one of {', '.join(WAYS)}")
    try:
        return WAYS[name](**settings)
    except TypeError as fault:
        raise PlanError(f"instance={name}: {fault}") from fault


def shared_plan(plans: Sequence[ObjectPlan]) -> ObjectPlan:
    """Return the plan of an ensemble, with the mean of its members' least sizes.

    Args:
        plans: alike but for these sizes; members without one have no say in it.
    """
    means: dict[str, float | None] = {}
    for name in ("least_ml", "least_px"):
        sizes = [size for plan in plans if (size := getattr(plan, name)) is not None]
        means[name] = sum(sizes) / len(sizes) if sizes else None
    return replace(plans[0], least_ml=means["least_ml"], least_px=means["least_px"])


def labels_for(labels: LabelSet, task: Task, things: Sequence[str] | None) -> LabelSet:
    """Return the label set with the things of a task.

    Args:
        labels: of the dataset.
        task: `instance` takes every class for things where none are named.
        things: names of them; None: those that the label set declares.

    Raises:
        LabelError: LBL-013 a name that is no class; LBL-015 a task without the classes it needs,
            or outputs that overlap.
    """
    if labels.outputs != "classes":
        raise LabelError(
            f"task={task}: tells objects of classes apart; these outputs are regions that overlap",
            code="LBL-015",
            hint="train without regions, or task=semantic",
        )
    if things is not None:
        labels = labels.with_things(things)
    elif task == "instance" and not labels.things:
        labels = labels.with_things(labels.names)
    stuff = [label.name for label in labels.labels if label.kind == "stuff"]
    if task == "instance" and stuff:
        raise LabelError(
            f"task=instance: {stuff[0]!r} is stuff, whose objects are not told apart",
            code="LBL-015",
            hint=f"task=panoptic has both kinds; or name things={list(labels.names)}",
        )
    if not labels.things:
        raise LabelError(
            f"task={task}: no class of {list(labels.names)} is declared as things",
            code="LBL-015",
            hint="name them here or at ingest, such as things=[nucleus]",
        )
    return labels


def _require(way: Way, *names: str, above: float, below: float = float("inf")) -> None:
    for name in names:
        value = getattr(way, name)
        if not above < value < below:
            raise PlanError(
                f"instance={way.name}: {name}={value}; expected a number above {above:g}"
                + (f" and below {below:g}" if below < float("inf") else "")
            )


def _require_blur(way: Way, smooth_vox: float) -> None:
    if not 0 <= smooth_vox < float("inf"):
        raise PlanError(f"instance={way.name}: smooth_vox={smooth_vox}; expected 0 or more")
