"""Seconds and memory from a CT series to voxels: medseg beside SimpleITK and dcm2niix.

usage: python -m benchmarks.dicom_speed OUTPUT [--slices 400] [--matrix 512] [--repeats 5]

The series is made in code under OUTPUT/series, plain and as lossless JPEG-LS. The readers take
turns, each time in a fresh process, so that what else the machine does meets them alike: medseg and
SimpleITK are timed from the folder's path to the voxels, imports left out; dcm2niix, a program that
also writes a file, from its start to its end. `cpu_s` is the processor time of all processes
involved, `peak_mib` their largest resident memory, added up. Rows go to OUTPUT/dicom_speed.jsonl,
from which a stopped run goes on; medians, and ratios to SimpleITK, to OUTPUT/dicom_speed.json.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from pydicom.uid import JPEGLSLossless

from benchmarks.ledger import Ledger
from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.io.dicom.series_writer import write_series

_STORED = ("plain", "jpeg_ls")
_MEASURED = ("seconds", "cpu_s", "peak_mib")
# What a fresh process runs: set-up, then the timed reading of folder `sys.argv[1]` into `voxels`.
_MEDSEG = (
    """
from pathlib import Path
from medseg.io.dicom.reader import read_dicom
import medseg.io.dicom.pixels.decoding
""",
    "voxels = read_dicom(Path(sys.argv[1])).voxels[0]",
)
_SITK = (
    """
import SimpleITK
""",
    """
reader = SimpleITK.ImageSeriesReader()
reader.SetFileNames(reader.GetGDCMSeriesFileNames(sys.argv[1]))
image = reader.Execute()
voxels = SimpleITK.GetArrayViewFromImage(image)
""",
)
_TIMED = """
import json, sys, time
import numpy, psutil
{before}
began, used = time.monotonic(), time.process_time()
{reading}
seconds, cpu_s = time.monotonic() - began, time.process_time() - used
# Of processes that help, all of their time and memory counts, their start included.
others = psutil.Process().children(recursive=True)
cpu_s += sum(sum(other.cpu_times()[:2]) for other in others)
peak_kib = 0
for pid in ["self", *(other.pid for other in others)]:
    with open(f"/proc/{{pid}}/status") as stream:
        peak_kib += next(int(line.split()[1]) for line in stream if line.startswith("VmHWM"))
print(json.dumps({{
    "seconds": seconds, "cpu_s": cpu_s, "peak_mib": peak_kib / 1024,
    "sum": int(voxels.sum(dtype=numpy.int64)), "num_vox": voxels.size,
}}))
"""
# Runs a program from a process that holds nothing: a child's peak counts its parent's.
_RUN = """
import json, os, subprocess, sys, time
began = time.monotonic()
running = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(running.pid, 0)
running.returncode = os.waitstatus_to_exitcode(status)
print(json.dumps({
    "seconds": time.monotonic() - began, "cpu_s": used.ru_utime + used.ru_stime,
    "peak_mib": used.ru_maxrss / 1024,
}))
sys.exit(running.returncode)
"""


def main() -> None:
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("output", type=Path)
    words.add_argument("--slices", type=int, default=400)
    words.add_argument("--matrix", type=int, default=512)
    words.add_argument("--repeats", type=int, default=5)
    chosen = words.parse_args()
    shape = (chosen.matrix, chosen.matrix, chosen.slices)
    ledger = Ledger(chosen.output / "dicom_speed.jsonl")
    series = write_both(chosen.output / "series", shape)
    readers: dict[str, Callable[[Path], dict[str, Any]]] = {
        "medseg": lambda folder: timed(folder, *_MEDSEG),
        "SimpleITK": lambda folder: timed(folder, *_SITK),
        "dcm2niix": lambda folder: converted(folder, chosen.output / "converted"),
    }
    for number in range(chosen.repeats):
        for stored in _STORED:
            for name, read in readers.items():
                key = {"stored": stored, "reader": name, "run": number, "shape": list(shape)}
                if ledger.find(**key) is None:
                    row = ledger.append(read(series[stored]), **key)
                    cells = " ".join(f"{what}={row[what]:.2f}" for what in _MEASURED)
                    print(f"{stored} {name} {number}: {cells}", flush=True)
    told = summary([row for row in ledger.rows if row["key"]["shape"] == list(shape)])
    (chosen.output / "dicom_speed.json").write_text(json.dumps(told, indent=2) + "\n")
    print(json.dumps(told, indent=2))


def write_both(folder: Path, shape: tuple[int, int, int]) -> dict[str, Path]:
    """Write a noisy cylinder in air, plain and compressed; return the folders."""
    folders = {stored: folder / f"{'x'.join(map(str, shape))}_{stored}" for stored in _STORED}
    if all((path / "whole").exists() for path in folders.values()):
        return {stored: path / "ct" for stored, path in folders.items()}
    shutil.rmtree(folder, ignore_errors=True)
    rng = np.random.default_rng(512)
    across = np.linalg.norm(
        np.indices(shape[:2]) - (np.array(shape[:2])[:, None, None] / 2), axis=0
    )
    body = np.where(across < 0.4 * shape[0], 40, -1000)[..., None]
    voxels = (body + rng.normal(0, 15, shape)).astype(np.int16)
    geometry = Geometry(shape, np.diag([-0.7, -0.7, 1.0, 1.0]))
    plain, packed = (folders[stored] / "ct" for stored in _STORED)
    volume = Volume(voxels[None], geometry)
    for path in write_series(volume, plain, modality="CT", patient_id="made", seed="speed"):
        dataset = pydicom.dcmread(path)
        dataset.compress(JPEGLSLossless, generate_instance_uid=False)
        packed.mkdir(parents=True, exist_ok=True)
        dataset.save_as(packed / path.name)
    for path in folders.values():
        (path / "whole").touch()
    return {stored: path / "ct" for stored, path in folders.items()}


def timed(folder: Path, before: str, reading: str) -> dict[str, Any]:
    """Read a folder in a fresh process."""
    code = _TIMED.format(before=before, reading=reading)
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(folder)],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def converted(folder: Path, output: Path) -> dict[str, Any]:
    """Convert a folder with dcm2niix."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    program = Path(sys.executable).with_name("dcm2niix")
    line = [program, "-b", "n", "-z", "n", "-f", "scan", "-o", output, folder]
    ended = subprocess.run(
        [sys.executable, "-c", _RUN, *map(str, line)], check=True, capture_output=True, text=True
    )
    voxels = np.asarray(nibabel.load(output / "scan.nii").dataobj)
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return {**found, "sum": int(voxels.sum(dtype=np.int64)), "num_vox": voxels.size}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    told: dict[str, Any] = {"readers_agree": len({(r["sum"], r["num_vox"]) for r in rows}) == 1}
    for stored in _STORED:
        mine = [row for row in rows if row["key"]["stored"] == stored]
        names = list(dict.fromkeys(row["key"]["reader"] for row in mine))
        medians = {
            name: {
                what: statistics.median(r[what] for r in mine if r["key"]["reader"] == name)
                for what in _MEASURED
            }
            for name in names
        }
        other = medians["SimpleITK"]
        ratios = {what: medians["medseg"][what] / other[what] for what in _MEASURED}
        told[stored] = {
            "repeats": len(mine) // len(names),
            **{name: _rounded(found) for name, found in medians.items()},
            "medseg_to_SimpleITK": _rounded(ratios),
        }
    return told


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in values.items()}


if __name__ == "__main__":
    main()
