"""Mask files: which of a folder belongs to a case or class, and that one holds a class a voxel."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.core.errors import LabelError, ReadError
from medseg.core.labels import LabelMap
from medseg.core.volume import Volume
from medseg.io.formats import case_name
from medseg.io.sniff import suffix_of

# A report on a mask, which is none itself.
_REPORT = ".sr.dcm"
# How a map of the ids of objects is called, beside the mask of a case.
IDS = "_instances"
# Of one mask in several formats, this one is read.
_PREFERRED = ".nii.gz"


@dataclass(frozen=True, slots=True)
class MaskFiles:
    """The files of a folder that bear one name, in whatever formats.

    Attributes:
        name, folder: see above.
        paths: of the masks.
        ids: of maps of the ids of their objects, called `<name>_instances`.
    """

    name: str
    folder: Path
    paths: tuple[Path, ...]
    ids: tuple[Path, ...] = ()

    def choose(self) -> Path:
        """Return the one to read.

        Raises:
            ReadError: EVA-004: there is none; EVA-005: there are several, and none is preferred.
        """
        preferred = [path for path in self.paths if suffix_of(path) == _PREFERRED]
        for chosen in (self.paths, preferred):
            if len(chosen) == 1:
                return chosen[0]
        if not self.paths:
            raise ReadError(
                f"{self.folder}: holds no mask {self.name}{_PREFERRED} (nor in another format)",
                code="EVA-004",
                hint="predict the case, or choose other cases with split=",
            )
        raise ReadError(
            f"{self.folder}: {', '.join(path.name for path in self.paths)} are masks of one name",
            code="EVA-005",
            hint="keep the one that is meant",
        )


class MaskFolder:
    """All mask files of a folder, or of the tree below it.

    Args:
        folder: nothing is found in a folder that is not there.
        deep: look into its folders, too.
    """

    def __init__(self, folder: Path, *, deep: bool = False) -> None:
        self.folder = folder
        self._paths: dict[str, list[Path]] = {}
        for path in sorted(folder.rglob("*") if deep else folder.glob("*")):
            if _is_mask_file(path):
                self._paths.setdefault(case_name(path), []).append(path)

    @property
    def names(self) -> Sequence[str]:
        """Names that masks bear, sorted; ids of objects go with their mask."""
        beside = {name + IDS for name in self._paths}
        return sorted(name for name in self._paths if name not in beside)

    def of(self, name: str) -> MaskFiles:
        """Return the files of that name; there may be none."""
        paths, ids = (tuple(self._paths.get(one, ())) for one in (name, name + IDS))
        return MaskFiles(name, self.folder, paths, ids)


def require_folder(folder: Path) -> Path:
    """Return the folder.

    Raises:
        ReadError: EVA-002: it is not there.
    """
    if not folder.is_dir():
        raise ReadError(f"{folder}: no such folder", code="EVA-002", hint="check the path")
    return folder


def _is_mask_file(path: Path) -> bool:
    suffix = suffix_of(path)
    # The voxels of a header-and-voxels pair are read by way of the header.
    readable = bool(suffix) and suffix != _REPORT and not suffix.startswith(".img")
    return readable and path.name[0] != "." and path.is_file()


def exclusive_label_map(mask: Volume, path: Path) -> LabelMap:
    """Return the indices (I, J, K) of a mask in which no voxel is of two classes.

    Raises:
        LabelError: LBL-012 classes overlap.
    """
    if len(mask.channels) > 1:
        raise LabelError(
            f"{path}: classes {', '.join(mask.channels)} overlap; expected one class a voxel",
            code="LBL-012",
            hint="export one file a segment from the tool that made it",
        )
    return mask.only_channel
