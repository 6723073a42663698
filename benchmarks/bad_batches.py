"""One bad file among good ones: the rest goes on (rows 53 and 71)."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bad_images import REFUSED
from benchmarks.tiny_set import write_tiny_set
from benchmarks.trial import Trial
from medseg.data.manifest import read_manifest


def bad_batches(folder: Path, model: Path) -> Iterator[Trial]:
    """Put one bad file among good ones, and one copy of an image among others."""
    write_tiny_set(folder / "broken")
    scan, mask = (folder / "broken" / kind / "case_2.nii.gz" for kind in ("images", "labels"))
    for path in (scan, mask):
        path.write_bytes(path.read_bytes()[:-100])
    masks, output = folder / "masks", folder / "broken.json"
    yield Trial(
        row=53,
        name="a truncated scan among five others",
        line=("predict", f"input={scan.parent}", f"checkpoint={model}", f"output={masks}"),
        wants=REFUSED,
        survivors=lambda: count_of(masks, 5),
        output=masks,
    )
    yield Trial(
        row=53,
        name="a truncated mask among five others",
        line=_ingest_line(folder / "broken", output),
        wants=REFUSED,
        survivors=lambda: _differs(len(read_manifest(output).cases), 5, "cases"),
    )
    write_tiny_set(folder / "copied")
    for kind in ("images", "labels"):
        names = (folder / "copied" / kind / f"case_{n}.nii.gz" for n in (0, 9))
        shutil.copyfile(*names)
    yield Trial(
        row=71,
        name="one file under two names, of two patients",
        line=_ingest_line(folder / "copied", folder / "copied.json"),
        wants=REFUSED,
    )


def _ingest_line(source: Path, output: Path) -> tuple[str, ...]:
    return (
        "ingest", f"source={source}", f"output={output}", "channels.image=MR", "labels.ball=1",
        "patient_is_case=true", "num_workers=0",
    )  # fmt: skip


def count_of(masks: Path, expected: int) -> str:
    """Tell whether a folder holds so many masks."""
    return _differs(len(list(masks.glob("*.nii.gz"))), expected, "masks")


def _differs(found: int, expected: int, what: str) -> str:
    return "" if found == expected else f"{found} {what}, expected {expected}"
