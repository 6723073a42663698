"""The `medseg` command: finds the task named on the line and hands the rest of the line over.

Nothing heavy is imported here: `medseg --help` must answer at once.
"""

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from medseg import __version__
from medseg.core.errors import EXIT_INTERRUPTED, EXIT_REFUSED, MedsegError

# Configured by Hydra: overrides `key=value`, `-m`, `--cfg job`, `--help`.
APPS = {
    "fetch": "download a public dataset listed in data_manifests/",
    "ingest": "turn a folder of scans into a checked manifest",
    "check": "audit every scan, mask and manifest row, or list what a folder of scans holds",
    "plan": "measure a dataset and decide spacing, patch, network and budget",
    "train": "train a network (-m sweeps over settings)",
    "predict": "segment scans with a trained checkpoint",
    "evaluate": "score masks against references",
    "review": "list which scans to annotate next, by the disagreement of an ensemble",
    "export": "write existing masks in other formats",
    "demo": "the whole main job on scans made in code, in minutes on a CPU",
}
# Plain tools with positional arguments.
TOOLS = {
    "verify": "re-read a written mask with an independent reader and measure its placement",
    "cache": "list or prune prepared scans on disk",
    "doctor": "show what medseg finds on this machine, and replay spooled tracking",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    line = list(sys.argv[1:] if argv is None else argv)
    if line and line[0] in ("-sc", "--shell-completion", "--shell_completion"):
        return _complete(line)
    if not line or line[0] in ("-h", "--help", "help"):
        _say(_usage())
        return 0
    if line[0] in ("-V", "--version", "version"):
        _say(f"medseg {__version__}")
        return 0
    command, rest = line[0], line[1:]
    if command not in {**APPS, **TOOLS}:
        near = get_close_matches(command, [*APPS, *TOOLS], n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        _say(f"medseg: {command!r} is not a command{meant} (medseg --help lists them)", error=True)
        return EXIT_REFUSED
    return _run(command, rest)


def _run(command: str, rest: list[str]) -> int:
    try:
        if command in APPS:
            from medseg.config import run_app

            return run_app(command, rest)
        return int(import_module(f"medseg.tasks.{command}").main(rest) or 0)
    except MedsegError as refusal:
        _say(f"medseg {command}: {refusal}", error=True)
        return EXIT_REFUSED
    except KeyboardInterrupt:
        _say(f"medseg {command}: interrupted", error=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (`| head`) has left; that is no fault of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _complete(line: list[str]) -> int:
    """Answer the shell's completion script: the commands, then the settings of the one named.

    Hydra knows the settings of one app only, and takes the first word for its name.
    """
    typed = os.environ.get("COMP_LINE", "medseg train ")
    words = typed.split(maxsplit=2)
    if len(words) < 2 or (len(words) == 2 and not typed[-1].isspace()):
        begun = words[1] if len(words) > 1 else ""
        _say(" ".join(name for name in [*APPS, *TOOLS] if name.startswith(begun)))
        return 0
    if words[1] not in APPS:
        return 0
    os.environ["COMP_LINE"] = f"medseg {words[2] if len(words) > 2 else ''}"
    return _run(words[1], line)


def _usage() -> str:
    width = max(map(len, [*APPS, *TOOLS])) + 2
    rows = [f"  {name:<{width}}{text}" for name, text in APPS.items()]
    tools = [f"  {name:<{width}}{text}" for name, text in TOOLS.items()]
    return "\n".join(
        [
            f"medseg {__version__}: medical image segmentation, from scans to masks",
            "",
            "usage: medseg COMMAND [key=value ...]",
            "",
            *rows,
            "",
            "usage: medseg TOOL ARGUMENTS",
            "",
            *tools,
            "",
            "medseg COMMAND --help shows every setting; --cfg job prints them composed.",
            "Research software: not for clinical use.",
        ]
    )


def _say(text: str, *, error: bool = False) -> None:
    stream = sys.stderr if error else sys.stdout
    stream.write(text + "\n")
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())
