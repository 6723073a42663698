"""Files on their way to the store, kept as they were when they were logged."""

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from medseg.tracking.fields import valid_name
from medseg.tracking.spool import Event


def keep_files(spool_folder: Path, sources: Mapping[str, Path]) -> str:
    """Keep files until they are sent, whatever takes their names meanwhile.

    Args:
        spool_folder: of the run.
        sources: name to send each file under -> the file.

    Returns:
        The folder they are kept in, relative to the spool's.

    Raises:
        OSError: a file is missing, or the disk is full.
    """
    kept = _fresh(spool_folder)
    for name, source in sources.items():
        target = kept / valid_name(name)
        target.parent.mkdir(exist_ok=True)
        try:
            # Our files are replaced, never rewritten in place: a link keeps this version.
            os.link(source.resolve(), target)
        except OSError:
            shutil.copyfile(source, target)
    return kept.relative_to(spool_folder).as_posix()


def keep_text(spool_folder: Path, text: str, name: str) -> str:
    """Keep a text as a file of this name; returns and raises as `keep_files` does."""
    kept = _fresh(spool_folder)
    (kept / valid_name(name)).write_text(text, encoding="utf-8", errors="replace")
    return kept.relative_to(spool_folder).as_posix()


def kept_folder(spool_folder: Path, event: Event) -> Path:
    """Return where the files of a `file` or `model` event are."""
    return spool_folder / str(event.body["kept"])


def release(spool_folder: Path, event: Event) -> None:
    """Let go of the files of an event that was sent."""
    shutil.rmtree(kept_folder(spool_folder, event), ignore_errors=True)


def _fresh(spool_folder: Path) -> Path:
    kept = spool_folder / "files" / uuid.uuid4().hex
    kept.mkdir(parents=True)
    return kept
