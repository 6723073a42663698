"""`medseg doctor`: what medseg finds on this machine, and what tracking left unsent."""

import argparse
import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from medseg.core.errors import EXIT_SOME_FAILED
from medseg.runtime.console import say, table
from medseg.runtime.hardware import measure_hardware, pick_device
from medseg.runtime.home import home
from medseg.runtime.provenance import commit, versions
from medseg.tracking.outbox import Outbox
from medseg.tracking.record import unsent_folders
from medseg.tracking.sender import replay
from medseg.tracking.spool import Spool
from medseg.tracking.store import probe_store, store_uri, without_password

_GIBIBYTE = 2**30
# Distribution, module, what is missing without it.
_OPTIONAL = (
    ("pyjpegls", "jpeg_ls", "DICOM in JPEG-LS"),
    ("pylibjpeg-openjpeg", "openjpeg", "DICOM in JPEG 2000"),
    ("pylibjpeg-rle", "rle", "fast reading of DICOM in RLE"),
    ("python-gdcm", "gdcm", "DICOM in lossless JPEG (Process 14)"),
    ("nvidia-ml-py", "pynvml", "GPU load in tracking"),
)


def main(argv: list[str]) -> int:
    """Print what there is, or send what a run left in its spool."""
    parser = argparse.ArgumentParser(prog="medseg doctor", description=__doc__)
    parser.add_argument(
        "--replay",
        metavar="FOLDER",
        type=Path,
        action="append",
        help="send what this run's folder still holds to its MLflow store (may be repeated)",
    )
    asked = parser.parse_args(argv)
    if asked.replay:
        return _replay(asked.replay)
    table(machine_facts(), columns=("what", "found"))
    say()
    table(tracking_facts(), columns=("tracking", "found"))
    return 0


def machine_facts() -> list[tuple[str, str]]:
    """Versions, device, memory, disk, and the readers that some scans need."""
    device = measure_hardware(pick_device())
    folder = home()
    disk = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists()))
    return [
        *versions().items(),
        ("commit", commit() or "installed, not a source tree"),
        ("device", f"{device.device}: {device.name}"),
        ("cores", str(device.num_cores)),
        ("memory", f"{device.memory_bytes / _GIBIBYTE:.1f} GiB"),
        ("MEDSEG_HOME", str(folder)),
        ("free disk there", f"{disk.free / _GIBIBYTE:.1f} GiB"),
        *((name, _optional(name, module, use)) for name, module, use in _OPTIONAL),
    ]


def tracking_facts() -> list[tuple[str, str]]:
    """The store, whether it answers, and the runs it lacks something of."""
    uri = store_uri(None)
    facts = [("store", without_password(uri)), ("answers", probe_store(uri))]
    facts += [(f"unsent in {folder}", text) for folder, text in _unsent()]
    return facts


def _unsent() -> Iterator[tuple[Path, str]]:
    for folder in unsent_folders():
        outbox = Outbox(folder)
        if outbox.num_left:
            reason = f" ({outbox.trouble})" if outbox.trouble else ""
            yield folder, f"{outbox.num_left} events{reason}"
        elif Spool(folder).is_abandoned():
            yield folder, "its end: the process was killed"


def _replay(folders: Sequence[Path]) -> int:
    code = 0
    for folder in folders:
        done = replay(folder)
        left = f", {done.num_left} left: {done.reason}" if done.num_left else ""
        say(f"{folder}: {done.num_sent} events sent{left}")
        if done.num_left:
            code = EXIT_SOME_FAILED
    return code


def _optional(name: str, module: str, use: str) -> str:
    if importlib.util.find_spec(module) is None:
        return f"not installed: no {use}"
    try:
        return version(name)
    except PackageNotFoundError:
        return "installed"
