"""What a user types, turned into what Hydra's grammar takes for the same thing."""

import re
from collections.abc import Sequence
from pathlib import Path

# Keys whose values are paths or ids: taken literally, whatever characters they hold.
LITERAL_KEYS = frozenset(
    {
        "archive", "cache", "case", "catalogue", "checkpoint", "classes", "data_root", "input",
        "label", "label_folder", "manifest", "mlflow.uri", "name", "output", "patient", "plan",
        "prediction", "reference", "scan", "source", "training.init", "unlabelled",
    }
)  # fmt: skip
# Those of them that take several, as `checkpoint=[A,B]`: each entry is taken literally.
LIST_KEYS = frozenset({"checkpoint"})
# Groups whose keys the user names (`images.PET=...`); the first few hold paths or label values.
LITERAL_GROUPS = ("images", "labels", "raters")
OPEN_GROUPS = (*LITERAL_GROUPS, "channels", "class_tolerance_mm", "columns", "overrides")
# Options of Hydra that take the next word with them.
_VALUED = ("-c", "--cfg", "-cd", "--config-dir", "-cn", "--config-name", "-cp", "--config-path",
           "-i", "--info", "-p", "--package")  # fmt: skip
# What a first bare word means: `medseg fetch Task04_Hippocampus` is `medseg fetch name=...`.
FIRST_WORD = {"fetch": "name"}


def for_hydra(command: str, words: Sequence[str]) -> list[str]:
    """Return the words of a command line as Hydra wants them.

    Args:
        command: name of the command.
        words: what followed it.
    """
    is_sweep = not {"-m", "--multirun"}.isdisjoint(words)
    return [
        opened(word)
        for typed in options_first(named(command, words))
        for word in [swept(typed) if is_sweep else literal(typed)]
    ]


def named(command: str, argv: Sequence[str]) -> list[str]:
    """Give a first bare word the key it stands for, where the command has such a key."""
    first = argv[0] if argv else "-"
    if command not in FIRST_WORD or "=" in first or first[:1] in "-+~":
        return list(argv)
    return [f"{FIRST_WORD[command]}={first}", *argv[1:]]


def options_first(words: Sequence[str]) -> list[str]:
    """Move options such as `-m` or `--cfg job` to the front: behind a setting, argparse stops."""
    options: list[str] = []
    rest: list[str] = []
    for number, word in enumerate(words):
        is_value = number > 0 and words[number - 1] in _VALUED and "=" not in word
        (options if word.startswith("-") or is_value else rest).append(word)
    return options + rest


def literal(word: str) -> str:
    """Quote the value of a path or id key, so that Hydra's grammar takes it as it stands."""
    key, equals, value = word.partition("=")
    name = key.lstrip("+~")
    is_literal = name in LITERAL_KEYS or ("." in name and name.split(".")[0] in LITERAL_GROUPS)
    if not equals or not is_literal or value in ("null", ""):
        return word
    if name in LIST_KEYS and value[0] == "[" and value[-1] == "]":
        entries = [entry.strip() for entry in value[1:-1].split(",")]
        return f"{key}=[{','.join(_quoted(entry) for entry in entries if entry)}]"
    return f"{key}={_quoted(value)}"


def swept(word: str) -> str:
    """Quote the paths and ids of a sweep one by one: there, commas part what is swept over.

    What exists under its whole name is one, comma or not; any other name that holds a comma is
    quoted by the user. The folder of a sweep is always one.
    """
    key, equals, value = word.partition("=")
    name = key.lstrip("+~")
    if not equals or name not in LITERAL_KEYS - {"output"} or value[:1] in ("", "[", "'", '"'):
        return literal(word)
    if _exists(value):
        return literal(word)
    entries = (literal(f"{key}={entry.strip()}") for entry in value.split(","))
    return f"{key}={','.join(entry.partition('=')[2] for entry in entries)}"


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        # Too long for a name, or with characters that none has.
        return False


def _quoted(value: str) -> str:
    if len(value) > 1 and value[0] in "'\"" and value.find(value[0], 1) == len(value) - 1:
        return value
    # In Hydra's quoted strings a backslash only counts before a quote (or at the very end).
    text = re.sub(r"(\\*)(')", lambda m: m[1] * 2 + r"\'", value)
    text = re.sub(r"(\\+)\Z", lambda m: m[1] * 2, text)
    # OmegaConf would take ${...} for an interpolation.
    text = re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + r"\${", text)
    return f"'{text}'"


def opened(word: str) -> str:
    """Let a key that the user names enter its group; Hydra adds those only when told with `++`."""
    group, dot, _ = word.partition("=")[0].partition(".")
    return f"++{word}" if dot and group in OPEN_GROUPS else word
