"""File, folder and case names that shells, grammars and file systems trip over: row 59."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bad_images import REFUSED, RIGHT
from benchmarks.bad_labels import NUM_STEPS
from benchmarks.tiny_set import write_tiny_set
from benchmarks.trial import Oracle, Trial, Want
from medseg.data.manifest import read_manifest

_LONGEST_ID_BYTES = 200
_SHOWN = 30
_NAMES = (
    "two  blanks",
    "ümlaut 影像 é",
    "a;b$(touch x)`touch x`",
    "^=,",
    "(round)[square]{curly}",
    "'single' \"double\"",
    "-rf",
    "#1 %20 ~ & | !",
    "null",
    "1e5",
    "${oc.env:HOME}",
    "a.b.nii",
)


def odd_names(folder: Path) -> Iterator[Trial]:
    """Walk the whole way with each name: as the name of cases, of scans, and of every folder."""
    for number, name in enumerate(_NAMES):
        yield from _way(folder / str(number) / name, name)
    # As long as a case id may be, counted in bytes, and a letter more.
    yield from _way(folder / "long", "ü" * (_LONGEST_ID_BYTES // 2 - 1))
    yield _ingest(folder / "too long", "ü" * (_LONGEST_ID_BYTES // 2), wants=REFUSED)
    # No name on another system; and a file that is hidden is left out.
    yield _ingest(folder / "backslash", "a\\b", wants=REFUSED)
    yield _ingest(folder / "hidden", ".a", wants=REFUSED)


def _ingest(home: Path, name: str, *, wants: tuple[Want, ...] = RIGHT) -> Trial:
    """Write the dataset and return what makes its manifest."""
    write_tiny_set(home / "data")
    ids = []
    for path in sorted((home / "data").glob("*/*.nii.gz")):
        number = path.name.removesuffix(".nii.gz").removeprefix("case_")
        path.rename(path.with_name(f"{name}{number}.nii.gz"))
        ids.append(f"{name}{number}")
    line = (
        "ingest", f"source={home / 'data'}", f"output={home / 'set'}", "channels.image=MR",
        "labels.ball=1", "patient_is_case=true", "num_workers=0",
    )  # fmt: skip
    return _trial(name, line, home, oracle=_manifest_lists(home / "set", set(ids)), wants=wants)


def _way(home: Path, name: str) -> Iterator[Trial]:
    images, manifest = home / "data" / "images", f"manifest={home / 'set'}"
    run, masks, scores, exports = (home / part for part in ("run", "masks", "scores", "exports"))
    yield _ingest(home, name)
    lines = (
        ("check", manifest, f"output={home / 'check.json'}", "num_workers=0"),
        ("plan", manifest, f"output={home / 'plan'}"),
        (
            "train", manifest, f"plan={home / 'plan' / 'plan.json'}", f"output={run}",
            f"cache={home / 'cache'}", "model=unet", f"training.max_steps={NUM_STEPS}",
            "mlflow.enabled=false",
        ),
        ("predict", f"input={images}", f"checkpoint={run}", f"output={masks}"),
        (
            "evaluate", manifest, f"prediction={masks}", f"output={scores}", "num_workers=0",
            "mlflow.enabled=false",
        ),
        ("export", f"prediction={masks}", f"scan={images}", f"output={exports}"),
    )  # fmt: skip
    oracles = {
        "predict": _files_of(masks, images, ".nii.gz"),
        "evaluate": _scores_of(scores / "scores.csv"),
        "export": _files_of(exports, images, ".seg.nrrd"),
    }
    for line in lines:
        yield _trial(name, line, home, oracle=oracles.get(line[0]))
    scan = images / f"{name}0.nii.gz"
    yield _trial(name, ("verify", str(masks / scan.name), str(scan)), home)


def _trial(
    name: str,
    line: tuple[str, ...],
    home: Path,
    *,
    oracle: Oracle | None = None,
    wants: tuple[Want, ...] = RIGHT,
) -> Trial:
    work = home / "work"

    def all_well() -> str:
        # What a shell or a grammar made of a name would lie where the command ran.
        if stray := [path.name for path in work.iterdir()]:
            return f"left {stray} in the working folder"
        return oracle() if oracle else ""

    def prepare() -> None:
        work.mkdir(exist_ok=True)
        os.chdir(work)

    return Trial(
        row=59,
        name=f"names such as {name[:_SHOWN]} ({len(name)})",
        line=line,
        wants=wants,
        oracle=all_well,
        prepare=prepare,
        sets_up=line[0] in ("ingest", "plan", "train", "predict"),
    )


def _manifest_lists(folder: Path, ids: set[str]) -> Oracle:
    def oracle() -> str:
        found = {case.case_id for case in read_manifest(folder).cases}
        return "" if found == ids else f"other ids: {sorted(found ^ ids)}"

    return oracle


def _files_of(folder: Path, images: Path, suffix: str) -> Oracle:
    def oracle() -> str:
        wanted = {path.name.removesuffix(".nii.gz") + suffix for path in images.iterdir()}
        missing = wanted - {path.name for path in folder.iterdir()}
        return f"missing: {sorted(missing)}" if missing else ""

    return oracle


def _scores_of(path: Path) -> Oracle:
    def oracle() -> str:
        with path.open(newline="") as stream:
            without = [row["case_id"] for row in csv.DictReader(stream) if not row["dice"]]
        return f"no score of {without}" if without else ""

    return oracle
