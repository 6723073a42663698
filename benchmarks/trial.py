"""One bad input put to one real command, and the rule by which its answer is judged.

An answer is right when it is one of three, within `LIMIT_S` and without a traceback:

- `refused`: one line on the standard error, beginning with the command, that carries a code; of
  commands that list what is wrong with cases, one such entry with a code;
- `right`: the command ends with 0 and what it wrote is what an independent party expects;
- `noted`: as `right`, and a coded finding says what was noticed or repaired.
"""

import csv
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.warm import Ended, Prepare, run
from medseg.core.errors import EXIT_REFUSED, EXIT_SOME_FAILED

LIMIT_S = 30.0
_MOST_MIB = 2048.0
_CODE = re.compile(r"\b(?!SHA-)[A-Z]{3}-\d{3}\b")
_REFUSAL = re.compile(r"medseg \w+: ")
# Told every few seconds where there is no terminal, and no answer to anything.
_PROGRESS = re.compile(r"[\w ]+: \d+/\d+$")
_FOLDERS = re.compile(r"(?<![\w.])/(?:[^\s/:']+/)+")
_LISTING = ("ingest", "evaluate", "export")
Want = Literal["refused", "right", "noted"]
# Looks at what a command wrote; returns what is wrong with it, "" when nothing is.
Oracle = Callable[[], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A bad input and a command.

    Attributes:
        row: of the table of bad inputs.
        name: what is bad.
        line: the words after `medseg`.
        wants: the answers that are right.
        oracle: asked after a command that ended with 0.
        survivors: asked after a refusal: whether the rest of a batch was done all the same.
        exits: exit codes that may be; 2 and 3 are refusals.
        limit_s: seconds in which the answer must have come.
        output: folder in which findings are looked for: `check.json`, `predictions.csv`.
        prepare: called in the command's process before it.
        sets_up: later trials stand on what it does, so it is run again when a stopped benchmark
            goes on.
        act: runs the command in another way, such as one that is sent signals; `output` is then
            left as it is.
    """

    row: int
    name: str
    line: tuple[str, ...]
    wants: tuple[Want, ...]
    oracle: Oracle | None = None
    survivors: Oracle | None = None
    exits: tuple[int, ...] = (0, EXIT_REFUSED, EXIT_SOME_FAILED)
    limit_s: float = LIMIT_S
    output: Path | None = None
    prepare: Prepare | None = None
    sets_up: bool = False
    act: Callable[[], Ended] | None = None


def put(trial: Trial, *, log: Path) -> dict[str, Any]:
    """Run a trial and judge it; return the row that goes into the ledger."""
    if trial.output is not None and trial.act is None:
        shutil.rmtree(trial.output, ignore_errors=True)
        trial.output.mkdir(parents=True)
    if trial.act is not None:
        ended = trial.act()
    else:
        # A little longer than the limit, so that an answer that comes late is seen.
        ended = run(trial.line, log=log, limit_s=2 * LIMIT_S, prepare=trial.prepare)
    answer, why = _judged(trial, ended)
    return {
        "command": trial.line[0],
        "exit_code": ended.exit_code,
        "seconds": ended.seconds,
        "peak_mib": ended.peak_mib,
        "said": _first_words(trial, ended),
        "answer": answer,
        "right": not why,
        "why": why,
    }


def _judged(trial: Trial, ended: Ended) -> tuple[str, str]:
    """Return the answer that was given, and what is wrong with it."""
    findings = findings_in(trial.output)
    errors = [one for one in findings if one["severity"] == "error"]
    refused = ended.exit_code in (EXIT_REFUSED, EXIT_SOME_FAILED)
    noted = bool(findings) or bool(_CODE.search(ended.printed))
    answer = "refused" if refused else "noted" if noted else "right"
    faults = [
        (ended.exit_code < 0, f"ended by signal {-ended.exit_code}"),
        ("Traceback" in ended.printed, "a traceback"),
        (ended.seconds >= trial.limit_s, f"took {ended.seconds:.0f} s"),
        (ended.peak_mib >= _MOST_MIB, f"took {ended.peak_mib:.0f} MiB"),
        (ended.exit_code not in trial.exits, f"exit code {ended.exit_code}"),
    ]
    for found, why in faults:
        if found:
            return answer, why
    if answer == "refused":
        why = _faults_of_refusal(trial, ended, errors)
    else:
        why = trial.oracle() if trial.oracle else ""
    if not why and answer not in trial.wants and not (answer == "noted" and "right" in trial.wants):
        why = f"{answer}, expected {' or '.join(trial.wants)}"
    return answer, why


def _faults_of_line(ended: Ended) -> str:
    refusals = [line for line in ended.said if _REFUSAL.match(line)]
    others = [line for line in ended.said if line not in refusals and not _PROGRESS.match(line)]
    if len(refusals) != 1:
        return f"{len(refusals)} lines of refusal"
    if others:
        return f"another line: {others[0]}"
    return "" if _CODE.search(refusals[0]) else "no code"


def _faults_of_refusal(trial: Trial, ended: Ended, errors: Sequence[dict[str, str]]) -> str:
    listed = [line for line in ended.printed.splitlines() if _CODE.search(line)]
    if ended.exit_code == EXIT_SOME_FAILED and trial.line[0] == "check":
        why = "" if len(errors) == 1 else f"{len(errors)} errors in the list"
    elif ended.exit_code == EXIT_SOME_FAILED and trial.line[0] in _LISTING:
        why = "" if len(listed) == 1 else f"{len(listed)} coded lines"
    else:
        why = _faults_of_line(ended)
    return why or (trial.survivors() if trial.survivors else "")


def findings_in(output: Path | None) -> list[dict[str, str]]:
    """Return what a command noticed, from the files it wrote."""
    if output is None:
        return []
    found: list[dict[str, str]] = []
    if (output / "check.json").exists():
        found += json.loads((output / "check.json").read_text())["findings"]
    if (output / "predictions.csv").exists():
        with (output / "predictions.csv").open(newline="") as stream:
            for row in csv.DictReader(stream):
                graded = "error" if row["status"] == "failed" else "warning"
                found += [
                    {"code": code, "severity": graded, "message": row["message"]}
                    for code in _CODE.findall(row["message"])
                ]
    return found


def _first_words(trial: Trial, ended: Ended) -> str:
    """Return the line that answers, or the gravest finding; paths are cut down to names."""
    findings = sorted(findings_in(trial.output), key=lambda one: one["severity"] != "error")
    lines = [line for line in ended.said if _REFUSAL.match(line)]
    if ended.exit_code and not lines and not findings:
        lines = [line for line in ended.printed.splitlines() if _CODE.search(line)]
    told = [f"{one['code']} {one['message']}" for one in findings]
    return _FOLDERS.sub("", next(iter([*lines, *told, *ended.said[-1:]]), ""))
