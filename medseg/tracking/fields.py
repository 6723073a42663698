"""Names and values in the shape MLflow takes them, free of paths and of anybody's files."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from medseg.runtime.command_line import LITERAL_KEYS

# MLflow 3 (mlflow/utils/validation.py): lengths in characters.
MAX_KEY = 250
MAX_PARAM = 6000
MAX_TAG = 8000
# Longer names of runs make no column of a table.
_MAX_NAME = 250
# Tag of a run that looked at a test split: the digest of its manifest.
TEST_SPLIT_TAG = "test_split_of"
# A colon is left out although MLflow takes it on Linux: a server on Windows does not.
_NOT_IN_NAMES = re.compile(r"[^/\w.\- ]")
# An absolute path, or an address that holds a password.
_PRIVATE = re.compile(r"^(/|~|file:|[A-Za-z]:[\\/]|\\\\)|://[^/]*@")
_MODEL_NAMES = ("runs:/", "models:/")
# A run may be told by the name its user gave it; the other literal keys hold paths and ids.
_PRIVATE_KEYS = LITERAL_KEYS - {"name"}


def valid_name(name: str) -> str:
    """Return a name that MLflow takes for a metric, a parameter, a tag or an artifact."""
    parts = _NOT_IN_NAMES.sub("_", name)[:MAX_KEY].split("/")
    return "/".join(part for part in parts if part not in ("", ".", "..")) or "_"


class Names:
    """Gives every metric of a run a valid name, and no two metrics the same one."""

    def __init__(self) -> None:
        self._given: dict[str, str] = {}
        self._owners: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        """Return the name to send; the same one for the same metric every time."""
        if name not in self._given:
            self._given[name] = self._name_of(name)
        return self._given[name]

    def _name_of(self, name: str) -> str:
        short = valid_name(name)
        if self._owners.setdefault(short, name) == name:
            return short
        # "liver+" and "liver-" would share one curve: the later one carries a digest.
        return f"{short[: MAX_KEY - 9]}-{_digest(name)[:8]}"


def flat_params(values: Mapping[str, Any]) -> dict[str, str]:
    """Flatten nested settings to `group.key: text`, as MLflow shows parameters.

    Paths and ids are replaced by a digest of their text, so that equal ones can still be told;
    texts beyond MLflow's limit are cut and say so.
    """
    return {
        valid_name(key): cut(_text(_without_paths(key, value)), MAX_PARAM)
        for key, value in _leaves(values, "")
    }


def tag_texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return tags as MLflow takes them, paths replaced as in `flat_params`."""
    return {
        valid_name(key): cut(_text(_without_paths(key, value)), MAX_TAG)
        for key, value in values.items()
    }


def job_tags(job: int, overrides: Sequence[str]) -> dict[str, str]:
    """Return the tags by which a job of a sweep is told from the others.

    Args:
        job: its number within the sweep.
        overrides: the words `key=value` that make it this job.
    """
    words = [f"{key}={_shown(key, value)}" for key, value in _parted(overrides)]
    return {"medseg.sweep.job": str(job), "medseg.sweep.overrides": " ".join(words)}


def job_name(folder: str, overrides: Sequence[str]) -> str:
    """Return the name of a job's run: its folder, and what was overridden but for paths and ids.

    Args:
        folder: name of the job's own folder, in most sweeps its number.
        overrides: as in `job_tags`.
    """
    words = [f"{key}={value}" for key, value in _parted(overrides) if _shown(key, value) == value]
    return cut(" ".join([folder, *words]), _MAX_NAME)


def _parted(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    for word in overrides:
        key, _, value = word.partition("=")
        yield key, value.strip("'\"")


def _shown(key: str, value: str) -> str:
    return without_paths(key.lstrip("+~"), value)


def without_paths(key: str, text: str) -> str:
    """Return the text, or a digest of it if it is a path, or the value of a path or id key."""
    if not text or text.startswith(_MODEL_NAMES):
        return text
    return _digested(text) if key in _PRIVATE_KEYS or _PRIVATE.search(text) else text


def cut(text: str, limit: int) -> str:
    """Shorten a text to a limit, saying how long it was."""
    if len(text) <= limit:
        return text
    note = f" ... [cut, {len(text)} characters]"
    return text[: limit - len(note)] + note


def _leaves(node: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _without_paths(key: str, value: Any) -> Any:
    if isinstance(value, PurePath):
        return _digested(str(value))
    if isinstance(value, str):
        return without_paths(key, value)
    if isinstance(value, Mapping):
        return {str(name): _without_paths(key, entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_paths(key, entry) for entry in value]
    return value


def _digested(text: str) -> str:
    return f"sha256:{_digest(text)[:12]}"


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    # No database takes half a surrogate pair, and some take no zero.
    return text.encode(errors="replace").decode().replace("\0", " ")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
