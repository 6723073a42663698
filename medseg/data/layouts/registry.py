"""The layouts that can be imported, and how each is recognised."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medseg.core.errors import ManifestError
from medseg.data.case import unknown_name
from medseg.data.layouts.bids import is_bids, read_bids
from medseg.data.layouts.decathlon import is_decathlon, read_decathlon
from medseg.data.layouts.dicom import is_dicom_tree, read_dicom_tree
from medseg.data.layouts.found import Found, Request
from medseg.data.layouts.nnunet import is_nnunet, read_nnunet
from medseg.data.layouts.pairs import is_pairs, read_pairs
from medseg.data.layouts.table import is_table, read_cases_table


@dataclass(frozen=True, slots=True)
class Layout:
    """How to recognise a source and how to read it."""

    recognise: Callable[[Path], bool]
    read: Callable[[Request], Found]


# Asked in this order: what describes itself comes before what only looks like something.
LAYOUTS = {
    "csv": Layout(is_table, read_cases_table),
    "nnunet": Layout(is_nnunet, read_nnunet),
    "decathlon": Layout(is_decathlon, read_decathlon),
    "bids": Layout(is_bids, read_bids),
    "dicom": Layout(is_dicom_tree, read_dicom_tree),
    "pairs": Layout(is_pairs, read_pairs),
}


def find_cases(request: Request, layout: str = "auto") -> tuple[Found, str]:
    """Find the cases of a source.

    Args:
        request: where to look, and what the user said about it.
        layout: a name of `LAYOUTS`, or `auto`. Patterns of paths mean `pairs` in a folder.

    Returns:
        What was found, and the name of the layout.

    Raises:
        ManifestError: ING-006 nothing there, or no layout fits; ING-007 no case in it.
    """
    if not request.source.exists():
        raise ManifestError(f"source {request.source}: is missing", code="ING-006")
    if layout != "auto" and layout not in LAYOUTS:
        raise unknown_name(layout, ["auto", *LAYOUTS], what="layout")
    name = _recognised(request) if layout == "auto" else layout
    found = LAYOUTS[name].read(request)
    if not found.drafts:
        raise ManifestError(f"source {request.source}: layout {name} holds no case", code="ING-007")
    return found, name


def _recognised(request: Request) -> str:
    if request.images and request.source.is_dir():
        return "pairs"
    for name, layout in LAYOUTS.items():
        if layout.recognise(request.source):
            return name
    raise ManifestError(
        f"source {request.source}: looks like none of {', '.join(LAYOUTS)}",
        code="ING-006",
        hint="name a folder with scans, or a .csv or .tsv",
    )
