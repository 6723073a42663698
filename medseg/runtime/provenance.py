"""Where a result came from: `run.json`, written beside everything a command produces."""

import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medseg import __version__
from medseg.runtime.files import write_json

_PACKAGES = ("torch", "monai", "numpy", "nibabel", "SimpleITK", "pydicom", "highdicom", "mlflow")


def write_provenance(
    folder: Path,
    *,
    command: str,
    digests: Mapping[str, str],
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write `run.json`: versions, commit, digests of what went in, seed, settings.

    Args:
        folder: where the results lie.
        command: name of the command, such as `predict`.
        digests: SHA-256 by role (`manifest`, `plan`, `checkpoint`): which inputs, without naming
            anybody's paths or patients.
        seed: of the random generators, if there were any.
        settings: further settings that hold neither paths nor ids.
    """
    write_json(
        {
            "command": f"medseg {command}",
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "commit": commit(),
            "digests": dict(digests),
            "seed": seed,
            "settings": dict(settings or {}),
        },
        folder / "run.json",
    )


def versions() -> dict[str, str]:
    """Versions of medseg, Python and the libraries that can move a result."""
    found = {"medseg": __version__, "python": platform.python_version(), "system": sys.platform}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Commit of the source tree medseg runs from, marked `-dirty` if changed; None if installed."""
    source = Path(__file__).resolve().parents[2]
    if not (source / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
