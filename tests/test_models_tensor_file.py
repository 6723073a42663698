"""Damage to a file of tensors is always noticed, no code in one runs, and a kill loses none."""

import hashlib
import io
import os
import pickle
import signal
import struct
import time
import zipfile
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg.core.errors import CheckpointError, WriteError
from medseg.models.tensor_file import load_newest, load_tensors, previous_of, save_tensors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.pt"


def state_of(step: int) -> dict[str, object]:
    return {"step": step, "weights": {"first": torch.full((50, 40), float(step))}}


def test_values_come_back_as_they_were(path):
    value = {
        "tensors": {"half": torch.ones(2, dtype=torch.float16), "scalar": torch.tensor(3)},
        "numbers": (1, 2.5, True, None, 10**30),
        "by_step": {0: [torch.zeros(0)], 7: "text"},
        "counts": np.float64(0.25),
        "raw": b"\x00\x01",
    }
    save_tensors(value, path)
    loaded = load_tensors(path)
    assert loaded["numbers"] == value["numbers"]
    assert loaded["by_step"][7] == "text"
    assert type(loaded["counts"]) is float
    assert loaded["raw"] == value["raw"]
    assert torch.equal(loaded["tensors"]["half"], value["tensors"]["half"])


def test_plain_torch_loads_the_file_without_trust(path):
    save_tensors(state_of(3), path)
    assert torch.load(path, weights_only=True)["step"] == 3
    assert zipfile.ZipFile(path).testzip() is None


def test_a_view_is_saved_without_the_rest_of_its_storage(path):
    save_tensors({"view": torch.zeros(1_000_000)[:10]}, path)
    assert path.stat().st_size < 10_000


@pytest.mark.parametrize("value", [np.zeros(3), Path("x"), {1, 2}, object(), torch.nn.ReLU()])
def test_what_is_not_plain_is_refused_by_its_place_and_nothing_is_written(path, value):
    save_tensors(state_of(1), path)
    with pytest.raises(CheckpointError, match=r"state\.pt: optimizer\[1\]: a \w+ cannot be saved"):
        save_tensors({"optimizer": [1, value]}, path)
    assert load_tensors(path)["step"] == 1
    assert not previous_of(path).exists()


def test_every_flipped_bit_is_noticed(path, rng):
    save_tensors(state_of(1), path)
    whole = path.read_bytes()
    for bit in rng.choice(8 * len(whole), size=200, replace=False):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError) as refusal:
            load_tensors(path)
        assert refusal.value.code == "CKP-002"


def test_every_truncation_is_noticed(path, rng):
    save_tensors(state_of(1), path)
    whole = path.read_bytes()
    for size in [0, 1, len(whole) - 1, *rng.choice(len(whole), size=100, replace=False)]:
        path.write_bytes(whole[: int(size)])
        with pytest.raises(CheckpointError, match=r"empty|truncated|altered|no PyTorch file"):
            load_tensors(path)


def test_bytes_added_at_the_end_are_noticed(path):
    save_tensors(state_of(1), path)
    path.write_bytes(path.read_bytes() + b"\x00" * 1000)
    with pytest.raises(CheckpointError, match="altered"):
        load_tensors(path)


def test_the_file_before_is_kept_and_used_when_the_newest_is_damaged(path, caplog):
    for step in (1, 2, 3):
        save_tensors(state_of(step), path)
    assert load_newest(path)[0]["step"] == 3
    assert load_newest(previous_of(path))[0]["step"] == 2
    path.write_bytes(path.read_bytes()[:-50])
    value, findings = load_newest(path)
    assert value["step"] == 2
    assert [f.code for f in findings] == ["CKP-002"]
    assert "state.previous.pt" in caplog.text


def test_a_damaged_file_does_not_push_out_the_whole_one_before_it(path):
    for step in (1, 2):
        save_tensors(state_of(step), path)
    path.write_bytes(b"\x00" * 500)
    save_tensors(state_of(3), path)
    assert load_tensors(path)["step"] == 3
    assert load_tensors(previous_of(path))["step"] == 1


def test_a_file_system_without_second_names_keeps_a_copy(path, monkeypatch):
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    for step in (1, 2):
        save_tensors(state_of(step), path)
    assert load_tensors(path)["step"] == 2
    assert load_tensors(previous_of(path))["step"] == 1


def test_a_missing_file_is_refused_and_the_one_before_is_named(path):
    for step in (1, 2):
        save_tensors(state_of(step), path)
    path.unlink()
    with pytest.raises(
        CheckpointError, match=r"CKP-001 .*No such file.*state\.previous\.pt stands"
    ):
        load_tensors(path)


def test_a_folder_that_cannot_be_written_is_named_and_the_old_file_stands(path):
    save_tensors(state_of(1), path)
    blocked = path / "below.pt"
    with pytest.raises(WriteError, match=r"below\.pt: could not be written"):
        save_tensors(state_of(2), blocked)
    assert load_tensors(path)["step"] == 1


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (str(self.target), "w"))


def signed(body: bytes) -> bytes:
    """Give an archive the digest that `save_tensors` would give it, as an attacker could."""
    comment = b"medseg-sha256:" + hashlib.sha256(body[:-2]).hexdigest().encode()
    return body[:-2] + struct.pack("<H", len(comment)) + comment


def test_no_code_runs_from_a_malicious_file_even_with_a_right_digest(path, tmp_path):
    target = tmp_path / "it_ran"
    archive = io.BytesIO()
    torch.save({"weights": Malicious(target)}, archive)
    for body in (
        pickle.dumps(Malicious(target)),
        archive.getvalue(),
        signed(archive.getvalue()),
    ):
        path.write_bytes(body)
        with pytest.raises(CheckpointError, match="CKP-003"):
            load_tensors(path)
        assert not target.exists()


def foreign_files() -> dict[str, bytes]:
    def saved(value: object) -> bytes:
        stream = io.BytesIO()
        torch.save(value, stream)
        return stream.getvalue()

    array, old = io.BytesIO(), io.BytesIO()
    np.save(array, np.zeros(3))
    torch.save({"a": torch.zeros(2)}, old, _use_new_zipfile_serialization=False)
    nnunet = {"network_weights": {"w": torch.zeros(2)}, "trainer_name": "T", "ema": np.float64(0.8)}
    return {
        "nnU-Net": saved(nnunet),
        "state_dict": saved({"weight": torch.zeros(2)}),
        "module": saved(torch.nn.Linear(2, 2)),
        "numpy": array.getvalue(),
        "legacy": old.getvalue(),
        "pickle": pickle.dumps({"a": np.float64(1)}),
    }


@pytest.mark.parametrize("kind", foreign_files())
def test_a_file_of_another_program_is_refused_in_one_line(path, kind):
    path.write_bytes(foreign_files()[kind])
    with pytest.raises(CheckpointError, match="CKP-003") as refusal:
        load_tensors(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
    ],
)
def test_what_stands_in_for_a_file_is_named(path, content, named):
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=named):
        load_tensors(path)


def save_for_ever(path: Path, told: Connection) -> None:
    """Save one state after another, telling when a save begins (1) and has ended (0)."""
    weights = {f"layer{n}": torch.full((64, 512), float(n)) for n in range(20)}
    step = 0
    while True:
        step += 1
        told.send_bytes(b"1")
        save_tensors({"step": step, "weights": weights}, path)
        told.send_bytes(b"0")


def kill_inside_a_save(path: Path, delay_s: float) -> bool:
    """Kill a saving process `delay_s` after a save began; return whether it was still saving."""
    context = get_context("forkserver")
    # torch is imported once, by the server, and not by every process that is killed.
    context.set_forkserver_preload(["medseg.models.tensor_file", "pytest"])
    hear, tell = context.Pipe(duplex=False)
    child = context.Process(target=save_for_ever, args=(path, tell))
    child.start()
    tell.close()
    begun_and_ended = [hear.recv_bytes() for _ in range(5)]
    assert begun_and_ended == [b"1", b"0", b"1", b"0", b"1"]
    time.sleep(delay_s)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    last = b"1"
    while hear.poll():
        try:
            last = hear.recv_bytes()
        except EOFError:
            break
    return last == b"1"


@pytest.mark.parametrize(
    "num_kills", [20, pytest.param(100, marks=pytest.mark.slow)], ids=["20_kills", "100_kills"]
)
def test_a_kill_inside_a_save_leaves_a_file_that_loads(path, rng, num_kills):
    inside = 0
    for _ in range(num_kills):
        inside += kill_inside_a_save(path, float(rng.uniform(0, 0.015)))
        assert load_tensors(path)["step"] >= 1
        assert load_tensors(previous_of(path))["step"] >= 1
    assert inside >= num_kills // 2
