"""PHI canaries: 60 markers in every text field and name, looked for after every command.

usage: python -m benchmarks.canaries OUTPUT

Makes scans in OUTPUT/inputs (`benchmarks.canary_set`), walks the way from ingest to export in
OUTPUT/work with a training and its MLflow store, and searches everything that was written or
printed. OUTPUT/canaries.json holds the hits; the exit code is 1 when one lies outside the list of
docs/privacy.md.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.canary_search import SHOWN, Hit, fields_in, search
from benchmarks.canary_set import MARKERS, write_canaries
from medseg.io.writing import SUFFIX_OF

# A command: words in, exit code and all that was printed out.
Run = Callable[[Sequence[str]], tuple[int, str]]
# Pictures hold no placement; a scan in space is not written as one.
_FORMATS = sorted(set(SUFFIX_OF) - {"png", "tiff"})
_QUICK = (
    "model=unet", "device=cpu", "overrides.batch_size=1", "training.num_validations=1",
    "training.log_every_steps=1",
)  # fmt: skip


def main() -> int:
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("output", type=Path)
    words.add_argument("--steps", type=int, default=4, help="of the training")
    chosen = words.parse_args()
    output = chosen.output.absolute()
    for part in ("inputs", "work"):
        shutil.rmtree(output / part, ignore_errors=True)
    os.environ["MEDSEG_HOME"] = str(output / "work" / "home")
    printed = walk(output / "inputs", output / "work", _command, num_steps=chosen.steps)
    hits = [*search(output / "work"), *console_hits(printed)]
    told = {
        "markers": len(MARKERS),
        "commands": len(printed),
        "files": sum(path.is_file() for path in (output / "work").rglob("*")),
        "hits_allowed": sum(hit.allowed for hit in hits),
        "hits_outside": [f"{hit.place}: {hit.field}" for hit in hits if not hit.allowed],
        "allowed_by_file": dict(Counter(Path(h.place).name for h in hits if h.allowed)),
    }
    (output / "canaries.json").write_text(json.dumps(told, indent=2) + "\n")
    print(json.dumps(told, indent=2))
    return 1 if told["hits_outside"] else 0


def walk(
    inputs: Path, work: Path, run: Run, *, num_steps: int, tracked: bool = True
) -> dict[str, str]:
    """Walk the way from scans to exported masks; return what each command printed.

    Args:
        inputs: where the scans with markers are made.
        work: where all results go.
        run: runs a command.
        num_steps: of the training.
        tracked: with an MLflow store.

    Raises:
        RuntimeError: a command failed.
    """
    printed = {}
    store = f"mlflow.uri=sqlite:///{work / 'mlflow.db'}" if tracked else "mlflow.enabled=false"
    training = (store, f"training.max_steps={num_steps}", *_QUICK)
    for number, line in enumerate(_lines(*write_canaries(inputs), work, training)):
        code, text = run(line)
        printed[f"{number} {line[0]} {line[1].partition('=')[0]}"] = text
        if code:
            raise RuntimeError(f"medseg {' '.join(line)} ended with {code}: {text[-2000:]}")
    return printed


def console_hits(printed: dict[str, str]) -> Iterator[Hit]:
    """Look for markers in what commands printed; but for `check source`, none may be there."""
    for command, text in printed.items():
        may = SHOWN if command.endswith(" check source") else frozenset()
        for field in fields_in(text):
            yield Hit(f"console of {command}", field, allowed=field in may)


def _lines(tree: Path, table: Path, work: Path, training: Sequence[str]) -> Iterator[list[str]]:
    """Go through the commands: a DICOM tree, its de-identified copies, and a table."""
    masks, formats = work / "masks", f"formats=[{','.join(_FORMATS)}]"
    store = training[0]
    labels = ("labels.ball=1", "num_folds=2", "num_workers=0")
    dataset = work / "tree"
    pattern = "label=masks/{case}.nii.gz"
    found = work / "found" / "check.json"
    yield ["check", f"source={tree}", f"output={found}", "num_workers=0"]
    yield ["ingest", f"source={tree}", f"output={dataset}", pattern, *labels]
    yield ["check", f"manifest={dataset}", "num_workers=0"]
    yield ["plan", f"manifest={dataset}", "device=cpu"]
    yield [
        "train", f"manifest={dataset}", f"output={work / 'run'}", *training,
        f"cache={work / 'cache'}",
    ]  # fmt: skip
    model = f"checkpoint={work / 'run'}"
    yield [
        "predict", f"input={tree / 'scans'}", model, f"output={masks}", "device=cpu",
        "probabilities=true",
    ]  # fmt: skip
    yield [
        "evaluate", f"prediction={masks}", f"manifest={dataset}", f"output={work / 'scores'}",
        store, "num_workers=0",
    ]  # fmt: skip
    yield [
        "export", f"prediction={masks}", f"scan={tree / 'scans'}", f"output={work / 'exported'}",
        formats, "per_class=true",
    ]  # fmt: skip
    yield [
        "ingest", f"source={tree}", f"output={work / 'copies'}", pattern, "deidentify=true", *labels
    ]  # fmt: skip
    listed = work / "listed"
    yield ["ingest", f"source={table}", f"output={listed}", "channels.CT=CT", *labels]
    yield ["check", f"manifest={listed}", "num_workers=0"]
    yield ["plan", f"manifest={listed}", "device=cpu"]
    yield [
        "predict", f"manifest={listed}", "split=all", model, f"output={work / 'listed masks'}",
        formats, "device=cpu",
    ]  # fmt: skip
    yield [
        "evaluate", f"prediction={work / 'listed masks'}", f"manifest={listed}",
        f"output={work / 'listed scores'}", store, "num_workers=0",
    ]  # fmt: skip
    yield ["cache", "list", "--folder", str(work / "cache")]


def _command(line: Sequence[str]) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "medseg.cli", *line],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main())
