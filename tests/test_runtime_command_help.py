from pathlib import Path

import pytest
import yaml

from medseg import cli
from medseg.runtime.command_help import comments, explained

CONF = Path(cli.__file__).parents[1] / "conf"
FILE = """\
# What the file is about.
# More of it.
defaults:
  - base
first: 1   # what it is
open: {}   # begins
           # goes on
# A heading is nobody's comment.
text: 'a b'
above:     # the group
  below: null # in mm
  plain: 3
"""


def helped(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        cli.main([*words])
    assert end.value.code == 0
    return capsys.readouterr().out


def test_a_comment_belongs_to_its_key_and_the_first_ones_to_the_file() -> None:
    assert comments(FILE) == {
        "": "What the file is about. More of it.",
        "first": "what it is",
        "open": "begins goes on",
        "above": "the group",
        "above.below": "in mm",
    }


def test_help_with_its_comments_is_the_same_yaml(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(FILE, encoding="utf-8")
    values = {"first": 1, "open": {}, "text": "a b", "above": {"below": [1, 2], "plain": 3}}
    text = explained(yaml.safe_dump(values, sort_keys=False), "plan", conf=tmp_path)
    assert yaml.safe_load(text) == values
    assert "  below:                   # in mm\n" in text
    assert "plain: 3\n" in text


@pytest.mark.parametrize("command", [name for name in cli.APPS if name != "demo"])
def test_help_says_what_every_setting_of_a_command_means(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = helped(capsys, command, "--help")
    for key, comment in comments((CONF / f"{command}.yaml").read_text(encoding="utf-8")).items():
        assert f"# {comment}" in told or not key


def test_help_explains_the_choice_that_the_line_makes(capsys: pytest.CaptureFixture[str]) -> None:
    told = helped(capsys, "train", "model=mednext", "-h")
    for comment in comments((CONF / "model/mednext.yaml").read_text(encoding="utf-8")).values():
        assert told.count(f"# {comment}\n") == 1


def test_choices_of_groups_are_shown_where_a_command_has_groups(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "\nloss: boundary, ce" in helped(capsys, "train", "--help")
    assert "loss" not in helped(capsys, "export", "--help")


def test_a_line_that_does_not_compose_is_refused_with_help_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["train", "--help", "model=unett"]) == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    assert "model=unett: no such choice; the nearest is unet" in seen.err
