"""Patterns of paths with named places, such as `nifti/{case}/PET_image.nii.gz`."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medseg.core.errors import ManifestError

# What a place may be called: the key of a case that the text there becomes.
PLACES = ("case", "patient", "stratum", "class", "suffix")
# Ends of names that the readers know; `{suffix}` stands for any of them.
SCAN_SUFFIXES = (
    ".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".png", ".jpg", ".jpeg", ".tif", ".tiff",
    ".dcm", ".zip",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Match:
    """A path that fits a pattern, and what stands in its named places."""

    path: str
    places: Mapping[str, str]


def list_files(root: Path) -> list[str]:
    """Return every file below a folder as a sorted relative path; hidden ones are left out.

    Linked folders are entered, each real folder once, so that a circle of links ends.
    """
    found: list[str] = []
    seen: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        inside = Path(folder).relative_to(root)
        found += [(inside / name).as_posix() for name in files if not name.startswith(".")]
    return sorted(found)


def match_paths(pattern: str, paths: Iterable[str]) -> list[Match]:
    """Return the paths that fit a pattern.

    Args:
        pattern: a relative path; `{case}`, `{patient}`, `{stratum}`, `{class}` stand for text
            without slashes (the same text wherever a name is repeated), `{suffix}` for the end of
            a scan's name, `*` for anything without slashes.
        paths: relative paths.

    Raises:
        ManifestError: ING-001: a place of another name, or no `{case}`.
    """
    expression = compiled(pattern)
    return [
        Match(path, found.groupdict()) for path in paths if (found := expression.fullmatch(path))
    ]


def compiled(pattern: str) -> re.Pattern[str]:
    """Turn a pattern into a regular expression with a group for each place.

    Raises:
        ManifestError: ING-001.
    """
    seen: set[str] = set()
    parts = []
    for part in re.split(r"(\{[^{}]*\}|\*)", pattern.removeprefix("./")):
        if part == "*":
            parts.append("[^/]*")
        elif part.startswith("{") and part.endswith("}"):
            parts.append(_place(part[1:-1], pattern, seen))
        else:
            parts.append(re.escape(part))
    if "case" not in seen:
        raise ManifestError(
            f"pattern {pattern!r}: expected {{case}} where the case id stands", code="ING-001"
        )
    return re.compile("".join(parts))


def _place(name: str, pattern: str, seen: set[str]) -> str:
    if name not in PLACES:
        raise ManifestError(
            f"pattern {pattern!r}: {{{name}}} is unknown; expected one of "
            f"{', '.join(f'{{{place}}}' for place in PLACES)}",
            code="ING-001",
        )
    if name in seen:
        return f"(?P={name})"
    seen.add(name)
    if name == "suffix":
        return f"(?P<suffix>{'|'.join(re.escape(suffix) for suffix in SCAN_SUFFIXES)})"
    return f"(?P<{name}>[^/]+?)"
