"""Regions: unions of classes, which may overlap, and how they become one label map again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medseg.core.errors import LabelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A union of classes scored and trained as one, such as "whole tumour" (may overlap others).

    Attributes:
        name: as the user calls it.
        members: names of its classes.
        written_as: the class its voxels get in a label map where no later region covers them; None:
            the one member that no later region has.

    Raises:
        LabelError: it is written as a class that is no member.
    """

    name: str
    members: tuple[str, ...]
    written_as: str | None = None

    def __post_init__(self) -> None:
        if self.written_as is not None and self.written_as not in self.members:
            raise LabelError(
                f"region {self.name!r}: written as {self.written_as!r}; expected one of its "
                f"members {list(self.members)}"
            )


def require_regions(regions: Sequence[Region], classes: Sequence[str]) -> None:
    """Refuse regions that share a name, are empty, or hold what is no class.

    Raises:
        LabelError: see above.
    """
    names = [region.name for region in regions]
    if len(set(names)) != len(names):
        raise LabelError(f"regions {names}: a name is there twice")
    for region in regions:
        unknown = set(region.members) - set(classes)
        if unknown or not region.members:
            raise LabelError(
                f"region {region.name!r}: {sorted(unknown) or 'it has no members'}; "
                f"expected some of {list(classes)}"
            )


def classes_written(regions: Sequence[Region], classes: Sequence[str]) -> tuple[int, ...]:
    """Return the index 1..N of the class that each region writes into a label map.

    Regions are written in their order, each over the ones before, so outer ones come first: whole
    tumour, core, enhancing. The idea is the `regions_class_order` of nnU-Net.

    Args:
        regions: outputs of a network.
        classes: all class names, in the order of their indices.

    Raises:
        LabelError: LBL-014 a class in no region, which would never be predicted; or a region of
            which it is not clear what it is written as.
    """
    covered = {member for region in regions for member in region.members}
    if missing := [name for name in classes if name not in covered]:
        raise LabelError(
            f"regions {[region.name for region in regions]}: the class {missing[0]!r} is in none "
            "of them and would never be predicted",
            code="LBL-014",
            hint="add a region that holds it",
        )
    written = []
    for place, region in enumerate(regions):
        later = {member for other in regions[place + 1 :] for member in other.members}
        own = [member for member in region.members if member not in later]
        if region.written_as is None and len(own) != 1:
            raise LabelError(
                f"region {region.name!r}: {own or 'none of its members'} would be written where no "
                "later region covers it; expected one class",
                code="LBL-014",
                hint="list outer regions before inner ones, or say written_as, such as "
                f"{region.name}: {{members: [{', '.join(region.members)}], "
                f"written_as: {region.members[0]}}}",
            )
        written.append(classes.index(region.written_as or own[0]) + 1)
    return tuple(written)


def mirrored_regions(
    regions: Sequence[Region], partners: Mapping[str, str | None]
) -> tuple[int, ...]:
    """Return, for each region, the region that a left-right mirror turns it into.

    Args:
        regions: in any order.
        partners: the partner of every class, if any.

    Raises:
        LabelError: LBL-014 a region whose mirror image is none.
    """
    places = {frozenset(region.members): place for place, region in enumerate(regions)}
    order = []
    for region in regions:
        image = frozenset(partners[member] or member for member in region.members)
        if image not in places:
            raise LabelError(
                f"region {region.name!r}: its mirror image {sorted(image)} is no region",
                code="LBL-014",
                hint="declare it, or leave out the partners of these classes",
            )
        order.append(places[image])
    return tuple(order)
