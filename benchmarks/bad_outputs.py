"""Checkpoints that are damaged, and places that cannot be written to: rows 76 and 77."""

import ctypes
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.bad_images import NOTED, REFUSED
from benchmarks.bad_labels import NUM_STEPS, train_line
from benchmarks.tiny_set import write_tiny_set
from benchmarks.trial import Trial
from benchmarks.warm import run
from medseg.core.errors import CheckpointError
from medseg.models.tensor_file import load_tensors

# Enough for the small files of a run or a prediction, too little for weights or maps.
_FEW_BYTES = 10_000
# unshare(2) and mount(2) of Linux.
_NEW_MOUNTS, _NEW_USERS, _READ_ONLY = 0x00020000, 0x10000000, 1


def bad_outputs(folder: Path, model: Path) -> Iterator[Trial]:
    """Damage copies of a run, and limit what a command may write."""
    manifest = write_tiny_set(folder / "data")
    scan = folder / "data" / "images" / "case_0.nii.gz"
    begun = folder / "begun"
    for resume in ("false", "true"):
        # Twice, so that there are predecessors: a training that has ended can end again.
        line = train_line(manifest, begun, f"training.resume={resume}")
        ended = run(line, log=folder / "begun_said")
        if ended.exit_code:
            raise SystemExit(ended.printed)
    yield Trial(
        row=76,
        name="no such checkpoint",
        line=("predict", f"input={scan}", f"checkpoint={folder}/none", f"output={folder}/none"),
        wants=REFUSED,
    )
    yield from _damaged(folder, begun, manifest, scan)
    yield from _full(folder, begun, manifest, scan, model)


def _damaged(folder: Path, begun: Path, manifest: Path, scan: Path) -> Iterator[Trial]:
    damages: dict[str, Callable[[bytes], bytes]] = {
        "truncated": lambda raw: raw[: len(raw) // 2],
        "a bit flipped": lambda raw: raw[:5000] + bytes([raw[5000] ^ 1]) + raw[5001:],
        "empty": lambda _: b"",
    }
    for number, (name, damage) in enumerate(damages.items()):
        for kept in (True, False):
            copy = folder / f"damaged_{number}_{kept}"
            shutil.copytree(begun, copy)
            for file in ("model", "state"):
                path = copy / f"{file}.pt"
                path.write_bytes(damage(path.read_bytes()))
                if not kept:
                    (copy / f"{file}.previous.pt").unlink()
            told = f"{name}, {'its predecessor whole' if kept else 'no predecessor'}"
            wants = NOTED if kept else REFUSED
            masks = folder / "masks"
            yield Trial(
                row=76,
                name=f"model.pt {told}",
                line=("predict", f"input={scan}", f"checkpoint={copy}", f"output={masks}"),
                wants=wants,
                output=masks,
            )
            line = train_line(manifest, copy, "training.resume=true")
            yield Trial(row=76, name=f"state.pt {told}", line=line, wants=wants)


def _full(folder: Path, begun: Path, manifest: Path, scan: Path, model: Path) -> Iterator[Trial]:
    run_folder, masks, dead_end = folder / "full", folder / "full_masks", folder / "a_file"
    shutil.copytree(begun, run_folder)
    dead_end.write_text("not a folder")
    train = train_line(manifest, run_folder, "training.resume=true")
    predict = ("predict", f"input={scan}", f"checkpoint={model}")
    yield Trial(
        row=77,
        name="files may not grow any more, while a training saves",
        line=train,
        wants=REFUSED,
        survivors=lambda: _still_loads(run_folder),
        prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (_FEW_BYTES, _FEW_BYTES)),
    )
    yield Trial(
        row=77,
        name="files may not grow any more, while maps are written",
        line=(*predict, f"output={masks}", "probabilities=true"),
        wants=REFUSED,
        survivors=lambda: _no_maps(masks),
        prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (_FEW_BYTES, _FEW_BYTES)),
    )
    yield Trial(
        row=77,
        name="the output lies below a file",
        line=(*predict, f"output={dead_end}/masks"),
        wants=REFUSED,
    )
    if not _may_mount():
        return
    full, sealed = folder / "tmpfs", folder / "sealed"
    for place in (full, sealed):
        place.mkdir()
    yield Trial(
        row=77,
        name="the disk is full, while a training saves",
        line=train_line(manifest, full),
        wants=REFUSED,
        prepare=lambda: _mount(full, options="size=300k"),
    )
    for line in (train_line(manifest, sealed / "run"), (*predict, f"output={sealed}/masks")):
        yield Trial(
            row=77,
            name="the disk can only be read",
            line=line,
            wants=REFUSED,
            prepare=lambda: _mount(sealed, flags=_READ_ONLY),
        )


def _still_loads(folder: Path) -> str:
    """Tell whether both files of a run load as they were before it was resumed."""
    try:
        step = load_tensors(folder / "state.pt")["step"]
        load_tensors(folder / "model.pt")
    except CheckpointError as fault:
        return f"what was saved before no longer loads: {fault}"
    return "" if step == NUM_STEPS else f"step {step}, expected {NUM_STEPS}"


def _no_maps(folder: Path) -> str:
    found = [path.name for path in folder.glob("*_probabilities*")]
    return f"left {found}" if found else ""


def _may_mount() -> bool:
    """Tell whether a process of ours can have file systems of its own (try it in a fork)."""
    pid = os.fork()
    if pid == 0:
        try:
            _mount(Path("/mnt"))
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def _mount(place: Path, *, options: str = "", flags: int = 0) -> None:
    """Give this process a file system in memory that nobody else sees.

    Raises:
        OSError: the system does not allow it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_NEW_MOUNTS | _NEW_USERS):
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    if libc.mount(b"none", os.fsencode(place), b"tmpfs", flags, options.encode()):
        raise OSError(ctypes.get_errno(), "mount")
