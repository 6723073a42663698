import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from medseg import __version__, cli
from medseg.core.errors import ConfigError

MEDSEG = [sys.executable, "-m", "medseg.cli"]
CONF = Path(cli.__file__).parents[1] / "conf"
# Commands whose settings exist; a command enters this list with its file in conf/.
APPS = [name for name in cli.APPS if (CONF / f"{name}.yaml").exists()]
HEAVY = ("torch", "monai", "mlflow", "numpy", "pydicom")


def run(*words: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MEDSEG, *words], capture_output=True, text=True, cwd=cwd, env={**os.environ, **env}
    )


def run_in_one_process(*lines: list[str]) -> tuple[list[str], list[str]]:
    """Run lines in one fresh interpreter; return what each printed, and the heavy imports."""
    code = (
        "import contextlib, io, json, sys\n"
        "from medseg.cli import main\n"
        "told = []\n"
        "for line in json.loads(sys.argv[1]):\n"
        "    out = io.StringIO()\n"
        "    # Hydra leaves by sys.exit once its help is printed.\n"
        "    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):\n"
        "        assert main(line) == 0\n"
        "    told.append(out.getvalue())\n"
        f"print(json.dumps([told, [name for name in {HEAVY!r} if name in sys.modules]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(lines)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told, heavy = json.loads(done.stdout)
    return told, heavy


def seconds_of(*words: str) -> float:
    """CPU seconds of a command."""
    return seconds_of_line([*MEDSEG, *words])


def seconds_of_line(line: list[str]) -> float:
    """CPU seconds of a line, the lesser of two: the clock on the wall measures the machine."""
    spent = []
    for _ in range(2):
        before = os.times()
        subprocess.run(line, capture_output=True, check=True)
        after = os.times()
        spent.append(
            after.children_user + after.children_system
            - before.children_user - before.children_system
        )  # fmt: skip
    return min(spent)


@pytest.mark.parametrize("words", [(), ("-h",), ("--help",), ("help",)])
def test_help_lists_every_command_and_tool(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(list(words)) == 0
    told = capsys.readouterr().out
    for name, text in {**cli.APPS, **cli.TOOLS}.items():
        assert f"  {name} " in told
        assert text in told
    assert "not for clinical use" in told


@pytest.mark.parametrize("word", ["-V", "--version", "version"])
def test_the_version_is_told(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([word]) == 0
    assert capsys.readouterr().out == f"medseg {__version__}\n"


def test_help_takes_less_than_a_third_of_a_second_and_imports_nothing_heavy() -> None:
    assert seconds_of("--help") < 0.3
    assert run_in_one_process(["--help"])[1] == []


def test_the_help_of_every_command_shows_its_settings_and_imports_nothing_heavy() -> None:
    told, heavy = run_in_one_process(*([command, "--help"] for command in APPS))
    assert heavy == []
    for command, text in zip(APPS, told, strict=True):
        assert text.startswith(f"medseg {command}")
        assert "Settings (override with key=value)" in text


def test_the_help_and_the_composed_settings_of_a_command_cost_little_more_than_hydra() -> None:
    # A second on a machine that imports Hydra in 0.2 s; others differ by three times.
    least = seconds_of_line([sys.executable, "-c", "import hydra"])
    assert seconds_of("plan", "--help") < 6 * least
    assert seconds_of("train", "--cfg", "job") < 6 * least


@pytest.mark.parametrize("command", APPS)
def test_composed_settings_are_printed_and_leave_no_folder_behind(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([command, "--cfg", "job"]) == 0
    assert ":" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("word", "meant"),
    [("trian", "train"), ("pln", "plan"), ("verfy", "verify"), ("Predict", "predict")],
)
def test_a_misspelt_command_is_refused_with_the_nearest(
    word: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([word]) == 2
    error = capsys.readouterr().err
    assert f"did you mean {meant!r}?" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("word", ["zzzz", "", "--zzzz", "../plan", "os", "plan\n"])
def test_what_is_no_command_is_never_imported(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([word]) == 2
    assert "is not a command" in capsys.readouterr().err


def raising(fault: BaseException) -> SimpleNamespace:
    def main(_: object) -> int:
        raise fault

    return SimpleNamespace(main=main)


@pytest.mark.parametrize("line", [["doctor"], ["plan", "manifest=x"]])
def test_a_refusal_is_one_line_and_exits_with_2(
    line: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = ConfigError("x: found 1,\nexpected 2", code="ABC-001", hint="say 2")
    monkeypatch.setitem(sys.modules, f"medseg.tasks.{line[0]}", raising(refusal))
    assert cli.main(line) == 2
    told = f"medseg {line[0]}: ABC-001 x: found 1, expected 2; say 2\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("line", [["doctor"], ["plan", "manifest=x"]])
def test_ctrl_c_is_one_line_and_exits_with_130(
    line: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, f"medseg.tasks.{line[0]}", raising(KeyboardInterrupt()))
    assert cli.main(line) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(("code", "ended"), [(0, 0), (None, 0), (3, 3)])
def test_the_exit_code_is_the_tasks(
    code: int | None, ended: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in (["doctor"], ["plan", "manifest=x"]):
        task = SimpleNamespace(main=lambda _: code)
        monkeypatch.setitem(sys.modules, f"medseg.tasks.{line[0]}", task)
        assert cli.main(line) == ended


def test_a_reader_that_leaves_early_is_no_fault() -> None:
    writer = subprocess.Popen(
        [*MEDSEG, "train", "--cfg", "all"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.close()
    assert b"Traceback" not in writer.stderr.read()
    writer.stderr.close()
    writer.wait()


def test_a_signal_while_hydra_composes_ends_without_a_page() -> None:
    job = subprocess.Popen([*MEDSEG, "plan", "--cfg", "job"], stderr=subprocess.PIPE)
    assert job.stderr is not None
    time.sleep(0.2)
    job.send_signal(signal.SIGTERM)
    assert b"Traceback" not in job.stderr.read()
    job.stderr.close()
    job.wait()


def completed(typed: str) -> set[str]:
    done = run("-sc", "query=bash", COMP_LINE=typed)
    assert done.returncode == 0
    assert done.stderr == ""
    return set(done.stdout.split())


def test_completion_installs_for_the_command_itself() -> None:
    code = "import sys; from medseg.cli import main; sys.argv[0] = 'medseg'; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, "-sc", "install=bash"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.rstrip().endswith("-F hydra_bash_completion medseg")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("medseg ", {*cli.APPS, *cli.TOOLS}),
        ("medseg p", {name for name in {**cli.APPS, **cli.TOOLS} if name.startswith("p")}),
        ("/some where's/medseg tra", set()),
        ("/opt/bin/medseg tra", {"train"}),
        ("~/.venv/bin/medseg plan man", {"manifest="}),
        ("medseg plan man", {"manifest="}),
        ("medseg plan manifest=x dev", {"device="}),
        ("medseg verify mask", set()),
        ("medseg nothing x", set()),
    ],
)
def test_completion_offers_commands_and_then_the_settings_of_the_one_named(
    typed: str, offered: set[str]
) -> None:
    assert completed(typed) == offered


def test_completion_offers_the_choices_of_a_group() -> None:
    choices = {f"model={file.stem}" for file in (CONF / "model").glob("*.yaml")}
    assert completed("medseg train model=") == choices


def test_a_half_typed_value_completes_to_nothing_without_a_word() -> None:
    for typed in (
        "medseg plan overrides.patch_vox=[1,",
        "medseg plan 'manifest=",
        "medseg plan =x",
    ):
        assert completed(typed) == set()
