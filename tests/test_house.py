"""The house rules that no linter knows: size of rooms, opening sentences, what import costs."""

import ast
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from medseg.config import trusted_class

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "medseg").rglob("*.py"))
ROOMS = [path for path in MODULES if path.name != "__init__.py"]
CONFIGS = sorted((ROOT / "conf").rglob("*.yaml"))


def name_of(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", ROOMS, ids=name_of)
def test_a_room_is_small_and_opens_with_one_sentence(path):
    text = path.read_text()
    assert text.count("\n") <= 300
    opening = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0]
    assert opening.endswith((".", ":"))
    assert len(opening) <= 200


def test_folders_say_nothing_on_import():
    inits = [path for path in MODULES if path.name == "__init__.py"]
    assert [name_of(path) for path in inits if path.read_text()] == ["medseg/__init__.py"]


def test_every_package_is_installed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in MODULES}
    assert sorted({*folders, "medseg.conf", "medseg.data_manifests"}) == sorted(listed)


def test_importing_medseg_imports_nothing_heavy():
    code = (
        "import sys, medseg, medseg.cli; "
        "print([m for m in ('torch', 'monai', 'numpy', 'hydra', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    assert done.stdout.strip() == "[]"


def test_the_python_api_is_where_it_is_said_to_be():
    medseg = import_module("medseg")
    for name in medseg.__all__:
        assert getattr(medseg, name) is not None
    with pytest.raises(AttributeError, match="it offers"):
        _ = medseg.nothing_of_that_name


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_config_opens_with_what_it_is_for_and_names_trusted_parts_only(path):
    text = path.read_text()
    lines = [line for line in text.splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ")
    for target in targets_in(yaml.safe_load(text)):
        trusted_class(target)


def targets_in(node):
    if isinstance(node, dict):
        for key, entry in node.items():
            if key == "_target_":
                yield entry
            else:
                yield from targets_in(entry)
    elif isinstance(node, list):
        for entry in node:
            yield from targets_in(entry)


@pytest.mark.parametrize("group", ["model", "loss"])
def test_every_choice_of_a_group_is_a_part_with_these_settings(group):
    registry = import_module(
        {"model": "medseg.models", "loss": "medseg.losses"}[group] + ".registry"
    )
    names = {"model": "model_names", "loss": "loss_names"}[group]
    settings_of = getattr(registry, f"{group}_settings")
    files = {
        path.stem: yaml.safe_load(path.read_text()) for path in CONFIGS if path.parent.name == group
    }
    assert sorted(files) == sorted(getattr(registry, names)())
    for name, node in files.items():
        assert node.pop("name") == name
        assert set(node) == set(settings_of(name))
