"""The help of a command, with what the comments of its YAML files say of each setting.

Hydra prints composed values only: what a key means, and in which unit, stands in comments, which
YAML drops.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.resources import files
from io import StringIO
from pathlib import Path

_KEY = re.compile(r"( *)(\w+):(?=\s|$)(.*)")
_COMMENT = re.compile(r"\s#\s+(.*)$")
_COLUMN = 26  # where comments begin, unless a value is longer


@contextmanager
def help_explained(command: str, words: Sequence[str]) -> Iterator[None]:
    """Let comments join the help that the block prints, where the line asks for help."""
    if not {"-h", "--help"}.intersection(words):
        yield
        return
    told = StringIO()
    try:
        with redirect_stdout(told):
            yield
    finally:
        conf = Path(str(files("medseg.conf")))
        sys.stdout.write(explained(told.getvalue(), command, conf=conf, words=words))


def explained(text: str, command: str, *, conf: Path, words: Sequence[str] = ()) -> str:
    """Return a help text with a comment behind every setting that has one.

    Args:
        text: what Hydra printed: settings as YAML, two spaces a level.
        command: whose file in `conf` the settings stand in.
        conf: folder of settings, a folder a group.
        words: the line; `model=unet` there is a choice of a group.
    """
    meanings = _meanings(command, conf, words)
    lines: list[str] = []
    path: list[str] = []
    is_past = False  # the settings are one block; what is below them only looks like YAML
    for line in text.rstrip().splitlines():
        is_past = is_past or (bool(path) and not line)
        found = None if is_past else _KEY.fullmatch(line)
        if not found:
            lines.append(line)
            continue
        path = [*path[: len(found[1]) // 2], found[2]]
        meaning = meanings.get(".".join(path))
        lines.append(f"{line:<{_COLUMN}} # {meaning}" if meaning else line)
    return "".join(f"{line}\n" for line in lines)


def comments(text: str) -> dict[str, str]:
    """Return what a YAML text says of its keys: dotted key to comment.

    A comment on a line of its own belongs to the key above where it goes on behind that key's
    comment, and to the whole file, key "", where it comes before any key.
    """
    found: dict[str, str] = {}
    path: list[str] = []
    for line in text.splitlines():
        key = _KEY.fullmatch(line)
        comment = _COMMENT.search(f" {line}" if line.startswith("#") else line)
        if key:
            path = [*path[: len(key[1]) // 2], key[2]]
        of = ".".join(path)
        goes_on = line.startswith(" ") and of in found
        if comment and (key or goes_on or not path) and not comment[1].startswith("@"):
            found[of] = f"{found[of]} {comment[1]}" if of in found else comment[1]
    return found


def _meanings(command: str, conf: Path, words: Sequence[str]) -> dict[str, str]:
    text = (conf / f"{command}.yaml").read_text(encoding="utf-8")
    meanings: dict[str, str] = {}
    for group, choice in (*_choices(text), *_asked(words)):
        for key, comment in _comments_of_choice(conf / group / f"{choice}.yaml").items():
            meanings[f"{group}.{key}".rstrip(".")] = comment
    own = {key: comment for key, comment in comments(text).items() if key}
    return {**meanings, **own}


def _choices(text: str) -> Iterator[tuple[str, str]]:
    """Yield the group and choice of every `- group: choice` in a defaults list."""
    for found in re.finditer(r"^  - (\w+): (\w+)$", text, flags=re.MULTILINE):
        yield found[1], found[2]


def _asked(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    for word in words:
        if found := re.fullmatch(r"(\w+)=(\w+)", word):
            yield found[1], found[2]


def _comments_of_choice(path: Path) -> Mapping[str, str]:
    # fold=0 on the line is a value, no choice; and a choice of --config-dir is the user's own.
    return comments(path.read_text(encoding="utf-8")) if path.is_file() else {}
