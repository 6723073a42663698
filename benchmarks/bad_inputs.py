"""Bad inputs and faults, rows 1 to 83, put to the real commands and judged by rule.

usage: python -m benchmarks.bad_inputs OUTPUT [--rows 37-58,60] [--again]

Every input is made in OUTPUT/inputs, every command runs in a process of its own, and every answer
is judged as `benchmarks.trial` says. Rows go to OUTPUT/bad_inputs.jsonl, from which a stopped run
goes on (`--again` forgets them), and to OUTPUT/bad_inputs.json; a table of all is printed and
written to OUTPUT/bad_inputs.md.
"""

import argparse
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.bad_batches import bad_batches
from benchmarks.bad_detached import bad_detached
from benchmarks.bad_dicom import bad_dicom
from benchmarks.bad_grids import bad_grids
from benchmarks.bad_images import BadImage, bad_images
from benchmarks.bad_labels import bad_labels
from benchmarks.bad_manifests import bad_manifests
from benchmarks.bad_outputs import bad_outputs
from benchmarks.bad_runs import bad_runs
from benchmarks.bad_studies import bad_enhanced, bad_studies
from benchmarks.bad_tables import bad_tables
from benchmarks.expected import expects
from benchmarks.ledger import Ledger
from benchmarks.odd_names import odd_names
from benchmarks.tiny_set import write_tiny_set
from benchmarks.trial import Trial, put
from benchmarks.warm import run
from medseg.core.labels import label_set
from medseg.data.case import Case, Channel
from medseg.data.manifest import Manifest, write_manifest

_FIRST, _FIRST_FILE, _LAST = 1, 37, 83
_LONGEST_CELL = 160


def main() -> None:
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("output", type=Path)
    words.add_argument("--rows", default=f"{_FIRST}-{_LAST}")
    words.add_argument("--again", action="store_true")
    chosen = words.parse_args()
    output = chosen.output.absolute()
    os.environ["MEDSEG_HOME"] = str(output / "home")
    if chosen.again:
        (output / "bad_inputs.jsonl").unlink(missing_ok=True)
    ledger = Ledger(output / "bad_inputs.jsonl")
    wanted = rows_of(chosen.rows)
    inputs = output / "inputs"
    shutil.rmtree(inputs, ignore_errors=True)
    model = small_model(output)
    seen: set[tuple[int, str, str]] = set()
    for number, trial in enumerate(trials(inputs, model)):
        key = {"row": trial.row, "input": trial.name, "line": trial.line[0]}
        if (trial.row, trial.name, trial.line[0]) in seen:
            raise SystemExit(f"two trials are called {key}")
        seen.add((trial.row, trial.name, trial.line[0]))
        known = ledger.find(**key)
        if trial.row not in wanted or (known and not trial.sets_up):
            continue
        answer = put(trial, log=output / "said" / f"{number:03d}")
        row = known or ledger.append(answer, **key)
        print(line_of(row), flush=True)
    rows = sorted(ledger.rows, key=lambda row: row["key"]["row"])
    (output / "bad_inputs.json").write_text(json.dumps(summary(rows), indent=2) + "\n")
    (output / "bad_inputs.md").write_text(table(rows))
    print(table(rows))


def trials(inputs: Path, model: Path) -> Iterator[Trial]:
    """Make the inputs, one after the other, and yield what is done with each."""
    for image in (*bad_dicom(inputs / "dicom"), *bad_enhanced(inputs / "enhanced")):
        yield from trials_of_image(image, inputs, model)
    yield from bad_studies(inputs / "studies", model)
    for image in (*bad_images(inputs / "images"), *bad_detached(inputs / "detached")):
        yield from trials_of_image(image, inputs, model)
    yield from odd_names(inputs / "names")
    yield from bad_labels(inputs / "labels")
    yield from bad_grids(inputs / "grids")
    yield from bad_batches(inputs / "batches", model)
    yield from bad_manifests(inputs / "manifests", model)
    yield from bad_tables(inputs / "tables")
    yield from bad_outputs(inputs / "outputs", model)
    yield from bad_runs(inputs / "runs")


def trials_of_image(image: BadImage, inputs: Path, model: Path) -> Iterator[Trial]:
    masks, audit = inputs / "masks", inputs / "audit"
    name = image.path.name.partition(".")[0]
    twin = image.twin or image.path
    # Masks of DICOM are called by ids that name nobody.
    mask = masks if image.row < _FIRST_FILE else masks / f"{name}.nii.gz"
    yield Trial(
        row=image.row,
        name=image.name,
        line=("predict", f"input={image.path}", f"checkpoint={model}", f"output={masks}"),
        wants=image.wants,
        oracle=expects(image.path, mask=mask, twin=twin, affine=image.affine),
        output=masks,
    )
    manifest = manifest_of_one(image.path, inputs / "ones" / f"{name}.json")
    yield Trial(
        row=image.row,
        name=image.name,
        line=("check", f"manifest={manifest}", f"output={audit}/check.json", "num_workers=0"),
        wants=image.audit or image.wants,
        output=audit,
    )


def manifest_of_one(image: Path, path: Path) -> Path:
    """Write a manifest of one unlabelled case."""
    manifest = Manifest(
        name="one",
        data_root=image.parent,
        channels=(Channel(name="T1", modality="MR"),),
        labels=label_set({"ball": 1}),
        reference_channel="T1",
        spatial_dims=3,
        cases=(
            Case(case_id="one", patient_id="one", images={"T1": image.name}, split="unlabelled"),
        ),
    )
    write_manifest(manifest, path)
    return path


def small_model(output: Path) -> Path:
    """Train for two steps, so that there is something to predict with."""
    model = output / "model"
    if not (model / "model.pt").exists():
        manifest = write_tiny_set(output / "tiny")
        ended = run(
            [
                "train", f"manifest={manifest}", f"output={model}", "model=unet", "device=cpu",
                "training.max_steps=2", "mlflow.enabled=false",
            ],
            log=output / "said" / "model",
        )  # fmt: skip
        if ended.exit_code:
            raise SystemExit(ended.printed)
    return model


def rows_of(text: str) -> set[int]:
    """Read `37-58,60` as row numbers."""
    ends = [part.partition("-") for part in text.split(",")]
    return {n for first, _, last in ends for n in range(int(first), int(last or first) + 1)}


def line_of(row: dict[str, Any]) -> str:
    key = row["key"]
    cells = [
        str(key["row"]),
        key["input"],
        key["line"],
        row["answer"],
        f"{row['seconds']:.1f}",
        "ok" if row["right"] else f"SHORT: {row['why']}",
        row["said"][:_LONGEST_CELL],
    ]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def table(rows: list[dict[str, Any]]) -> str:
    head = "| row | input | command | answer | s | verdict | said |\n|---|---|---|---|---|---|---|"
    counts = summary(rows)
    told = f"{counts['right']} of {counts['trials']} answers are right"
    return "\n".join([head, *map(line_of, rows), "", told, ""])


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    short = [row for row in rows if not row["right"]]
    return {
        "trials": len(rows),
        "right": len(rows) - len(short),
        "rows": len({row["key"]["row"] for row in rows}),
        "rows_short": sorted({row["key"]["row"] for row in short}),
        "answers": dict(Counter(row["answer"] for row in rows)),
        "longest_s": max((row["seconds"] for row in rows), default=0.0),
        "most_mib": max((row["peak_mib"] for row in rows), default=0.0),
        "short": [{**row["key"], "why": row["why"], "said": row["said"]} for row in short],
    }


if __name__ == "__main__":
    main()
