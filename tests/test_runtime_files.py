import errno
import json
import math
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.core.errors import PlanError, WriteError
from medseg.runtime.files import (
    digest_json,
    digest_of,
    read_json,
    write_json,
    write_text,
    write_with,
    written_whole,
)

OLD, NEW = b"o" * 300_000, b"n" * 400_000
# Writes the new file over the old one again and again; says when it has begun.
WRITER = """
import sys
from pathlib import Path
from medseg.runtime.files import written_whole
path = Path(sys.argv[1])
print("begun", flush=True)
while True:
    for block, num_bytes in ((b"n", 400_000), (b"o", 300_000)):
        with written_whole(path) as stream:
            for _ in range(10):
                stream.write(block * (num_bytes // 10))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "model.pt"
    file.write_bytes(OLD)
    return file


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_the_old_file_stands_until_the_new_one_is_whole(path: Path) -> None:
    with written_whole(path) as stream:
        stream.write(NEW)
        stream.flush()
        assert path.read_bytes() == OLD
    assert path.read_bytes() == NEW
    assert names(path.parent) == ["model.pt"]


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    write_text("é\n", tmp_path / "a b" / "ü" / "x;$().txt")
    assert (tmp_path / "a b" / "ü" / "x;$().txt").read_bytes() == "é\n".encode()


def test_a_library_that_writes_to_a_path_sees_the_right_name(path: Path) -> None:
    seen: list[Path] = []

    def write(part: Path) -> None:
        seen.append(part)
        part.write_bytes(NEW)
        assert path.read_bytes() == OLD

    write_with(write, path)
    assert seen[0].name == path.name
    assert path.read_bytes() == NEW
    assert names(path.parent) == ["model.pt"]


def test_an_error_of_the_writer_passes_and_leaves_the_old_file(path: Path) -> None:
    def fail() -> None:
        with written_whole(path) as stream:
            stream.write(NEW)
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    assert path.read_bytes() == OLD
    assert names(path.parent) == ["model.pt"]


def test_a_fault_of_another_file_is_not_reported_as_this_ones(tmp_path: Path, path: Path) -> None:
    def copy() -> None:
        with written_whole(tmp_path / "deep" / "out.bin") as stream:
            stream.write((tmp_path / "elsewhere" / "missing").read_bytes())

    with pytest.raises(FileNotFoundError):
        copy()


def test_a_writer_that_wrote_nothing_is_a_refusal_with_the_name(path: Path) -> None:
    with pytest.raises(WriteError, match=r"model\.pt: could not be written: No such file"):
        write_with(lambda _: None, path)
    assert path.read_bytes() == OLD


def test_a_folder_in_place_of_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(WriteError, match="Is a directory"):
        write_text("", tmp_path / "x")
    with pytest.raises(WriteError, match="could not be written"):
        write_text("", tmp_path / "x" / ("n" * 300))
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="could not be written"):
        write_text("", tmp_path / "file" / "below")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_line_and_keeps_the_old_file(path: Path) -> None:
    path.parent.chmod(0o555)
    with pytest.raises(WriteError, match="Permission denied"):
        write_text("", path)
    path.parent.chmod(0o755)
    assert path.read_bytes() == OLD


def test_a_full_disk_is_one_line_with_the_free_bytes_and_keeps_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=r"No space left on device \(\d+ bytes free\)"):
        write_text("x", path)
    assert path.read_bytes() == OLD
    assert names(path.parent) == ["model.pt"]


def test_a_device_that_is_full_is_one_line(path: Path) -> None:
    def write(part: Path) -> None:
        part.symlink_to("/dev/full")
        part.write_bytes(NEW)

    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(WriteError, match="No space left"):
        write_with(write, path)
    assert path.read_bytes() == OLD
    assert not path.is_symlink()


@pytest.mark.parametrize("limit_bytes", [1, 100_000, 399_999])
def test_a_limit_of_the_file_size_keeps_the_old_file(path: Path, limit_bytes: int) -> None:
    """RLIMIT_FSIZE makes the kernel refuse a write half way, as a full disk or a quota does."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import resource, signal, sys\n"
            "from pathlib import Path\n"
            "from medseg.core.errors import WriteError\n"
            "from medseg.runtime.files import written_whole\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))\n"
            "try:\n"
            "    with written_whole(Path(sys.argv[1])) as stream:\n"
            f"        stream.write(b'n' * {len(NEW)})\n"
            "except WriteError as refusal:\n"
            "    print(refusal)\n",
            path,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "could not be written: File too large" in done.stdout
    assert path.read_bytes() == OLD
    assert names(path.parent) == ["model.pt"]


def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new_one(path: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(12):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"begun\n"
        time.sleep(float(rng.uniform(0, 0.02)))
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        assert path.read_bytes() in (OLD, NEW)


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    write_text("", tmp_path / "x")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~umask


def test_two_writers_do_not_meet(path: Path) -> None:
    with written_whole(path) as one, written_whole(path) as two:
        one.write(OLD)
        two.write(NEW)
    assert path.read_bytes() in (OLD, NEW)
    assert names(path.parent) == ["model.pt"]


numbers = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=40, deadline=None)
@given(value=st.dictionaries(st.text(), values, max_size=5))
def test_json_comes_back_as_it_was_and_its_digest_ignores_the_order_of_keys(
    tmp_path_factory: pytest.TempPathFactory, value: dict
) -> None:
    file = tmp_path_factory.mktemp("json") / "x.json"
    write_json(value, file)
    assert read_json(file, kind=PlanError, what="a plan") == value
    assert digest_json(value) == digest_json(dict(reversed(value.items())))


@pytest.mark.parametrize(
    "number",
    [math.nan, math.inf, -math.inf, np.float32("nan"), np.float64("inf"), np.float16("nan")],
)
def test_numbers_that_json_lacks_become_null_wherever_they_are(
    tmp_path: Path, number: float
) -> None:
    nested = {"a": number, "b": [1.5, (number,)], "c": np.array([[number, 2.0]])}
    write_json(nested, tmp_path / "x.json")

    def refuse(name: str) -> None:
        raise AssertionError(name)

    found = json.loads((tmp_path / "x.json").read_text(), parse_constant=refuse)
    assert found == {"a": None, "b": [1.5, [None]], "c": [[None, 2.0]]}
    assert digest_json(nested) == digest_json(found)


def test_numpy_values_and_paths_are_written_as_plain_ones(tmp_path: Path) -> None:
    value = {"n": np.int64(3), "x": np.float32(0.5), "b": np.bool_(True), "p": Path("a/b"), 7: [1]}
    write_json(value, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == {
        "n": 3, "x": 0.5, "b": True, "p": "a/b", "7": [1],
    }  # fmt: skip


def test_what_json_cannot_hold_fails_and_leaves_the_old_file(path: Path) -> None:
    with pytest.raises(TypeError):
        write_json({"x": object()}, path)
    assert path.read_bytes() == OLD


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is not a plan"),
        (b"{", "is not a plan"),
        (b"\xff\xfe\x00", "is not a plan"),
        (b"[1]", "expected a JSON object, found list"),
        (b"null", "expected a JSON object, found NoneType"),
        (b"[" * 100_000, "is not a plan"),
        (b'{"n": ' + b"1" * 5000 + b"}", "is not a plan"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is not a plan"),
    ],
)
def test_what_is_no_json_object_is_refused_with_the_file(
    tmp_path: Path, data: bytes, told: str
) -> None:
    (tmp_path / "plan.json").write_bytes(data)
    with pytest.raises(PlanError, match=told) as refusal:
        read_json(tmp_path / "plan.json", kind=PlanError, what="a plan")
    assert str(tmp_path / "plan.json") in str(refusal.value)
    assert len(str(refusal.value)) < 400


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf{}\r\n")
    assert read_json(tmp_path / "x.json", kind=PlanError, what="a plan") == {}


@pytest.mark.parametrize("name", ["missing.json", ".", "nul\0.json"])
def test_a_file_that_cannot_be_read_is_refused_with_its_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(PlanError, match="a plan"):
        read_json(tmp_path / name, kind=PlanError, what="a plan")


def test_the_digest_of_a_file_is_that_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_of(tmp_path / "x") == known
