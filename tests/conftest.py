"""Fixtures every test file may ask for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Return the folder of real scans of that name, or skip, saying that it is absent."""

    def folder(name: str) -> Path:
        path = SHARED_DATA / name
        if not path.exists():
            pytest.skip(f"real scans {name!r} are absent: expected ../shared/data/{name}")
        return path

    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed."""
    return np.random.default_rng(20261122)


@pytest.fixture(autouse=True)
def medseg_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep stores, caches and keys of every test in a folder of its own."""
    home = tmp_path_factory.mktemp("medseg-home")
    monkeypatch.setenv("MEDSEG_HOME", str(home))
    return home
