"""Notebooks are shipped executed, say nothing of the machine they ran on, and run again."""

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
FIRST_DAY = next(path for path in NOTEBOOKS if path.name == "01_first_day.ipynb")
# Home folders, temporary folders, checkouts and Windows drives.
OF_A_MACHINE = re.compile(r"/(home|root|Users|tmp|private|var|work|mnt)/|[A-Z]:\\\\")


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def printed(cell: nbformat.NotebookNode) -> str:
    return "".join(
        output.get("text", "") + output.get("data", {}).get("text/plain", "")
        for output in cell.outputs
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_shipped_notebook_is_valid_executed_in_order_and_without_errors(path):
    nbformat.validate(nbformat.read(path, as_version=4))
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
    assert not any("Traceback" in printed(cell) for cell in cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_shipped_notebook_names_no_path_of_a_machine(path):
    for cell in code_cells(path):
        found = OF_A_MACHINE.search(cell.source + printed(cell))
        assert found is None, f"{found} in: {cell.source}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_shipped_notebook_is_small_enough_for_a_repository(path):
    assert path.stat().st_size < 500_000


def test_the_first_day_walks_every_command_of_the_main_job_and_shows_pictures():
    cells = code_cells(FIRST_DAY)
    commands = re.findall(r"^medseg (\w+)", "\n".join(cell.source for cell in cells), re.MULTILINE)
    assert commands == ["ingest", "check", "plan", "train", "predict", "verify", "evaluate"]
    assert all(printed(cell) for cell in cells if cell.source.startswith("%%bash"))
    pictures = [o for cell in cells for o in cell.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 2


@pytest.mark.slow
def test_the_first_day_runs_again(tmp_path, monkeypatch):
    # The notebook's shell finds medseg where this Python is.
    here = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", os.pathsep.join([here, os.environ["PATH"]]))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(FIRST_DAY, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    text = "\n".join(printed(cell) for cell in notebook.cells if cell.cell_type == "code")
    assert "refused" not in text
    assert "4 written, 0 kept, 0 failed" in text
    assert re.search(r"^foreground +0\.\d+", text, re.MULTILINE)
    assert text.rstrip().endswith("True")
