"""What a GPU takes, and whether it gives what a CPU gives, for docs/models.md."""

import json
from collections.abc import Sequence
from typing import Any

from benchmarks.page_text import command, counted, figure, markdown_table, settings_words

Row = dict[str, Any]

_INTRO = """\
Fold 0 of a dataset, with the plan that `medseg plan` makes for this GPU. *Steps*: medians of steps
with batches as they are drawn, with one batch again and again, and with a compiled network.
*Agreement*: voxels whose class is another where the same checkpoint segments on the CPU."""
_COLUMNS = (
    "GPU", "trained", "steps", "Dice", "patch", "batch", "s a step: drawn", "same batch",
    "compiled", "MiB of tensors", "s a scan: GPU", "CPU", "voxels that differ",
)  # fmt: skip


def gpu_section(rows: Sequence[Row]) -> str:
    """Return a row a training; nothing where there is no row."""
    trainings: dict[str, dict[str, Row]] = {}
    for row in rows:
        key = {name: value for name, value in row["key"].items() if name != "part"}
        key |= {"dataset": row["dataset"]}
        trainings.setdefault(json.dumps(key), {})[row["key"]["part"]] = row
    if not trainings:
        return ""
    lines = [_line(json.loads(key)["time"], parts) for key, parts in trainings.items()]
    commands = []
    for told in trainings:
        key = json.loads(told)
        words = ["benchmarks.gpu", "MANIFEST", "OUTPUT", "--time", key["time"]]
        commands.append(f"{key['dataset']}:\n\n{command(*words, *settings_words(key['set']))}")
    return "\n\n".join(
        ["## On a GPU", _INTRO, markdown_table(_COLUMNS, lines), *dict.fromkeys(commands)]
    )


def _line(time: str, parts: dict[str, Row]) -> tuple[str, ...]:
    train, agreement = parts["train"], parts["agreement"]
    compiled = parts["steps_compiled"]
    return (
        parts["device"]["name"],
        time,
        str(train["num_steps"]),
        figure(train["dice"]["mean"]),
        " x ".join(map(str, train["patch_vox"])),
        str(train["batch_size"]),
        figure(parts["steps_real"]["step_s"]),
        figure(parts["steps_dummy"]["step_s"]),
        compiled.get("failed") or figure(compiled["step_s"]),
        figure(train["gpu_peak_mib"]["allocated"], digits=0),
        figure(parts["predict"]["case_s"]),
        figure(parts["predict_cpu"]["case_s"]),
        f"{agreement['num_differing_vox']} of {agreement['num_vox']} in "
        f"{counted(agreement['num_cases'], 'scan')}",
    )
