import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medseg.core.errors import DownloadError, MedsegError, WriteError
from medseg.data import archives
from medseg.data.archives import Limits, Unpacked, unpacked

FILES = {"Task/dataset.json": b"{}", "Task/imagesTr/a.nii.gz": os.urandom(5000)}


def tar(path: Path, *entries: tuple[str, bytes] | tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as packed:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                packed.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                packed.addfile(info, io.BytesIO(entry[1]))
    return path


def zipped(path: Path, *entries: tuple[str, bytes] | tuple[zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in entries:
            packed.writestr(name, data)
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def unpack(archive: Path, limits: Limits | None = None) -> Path:
    folder = archive.parent / "out"
    with unpacked(archive, folder, limits=limits):
        pass
    return folder


def refused(archive: Path, code: str = "FET-007", limits: Limits | None = None) -> str:
    """Check that the archive is refused and that nothing of it, or beside it, is left."""
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(MedsegError) as refusal:
        unpack(archive, limits)
    assert refusal.value.code == code, str(refusal.value)
    assert sorted(archive.parent.rglob("*")) == before
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize(
    "pack",
    [
        lambda path, *entries: tar(path, *entries),
        lambda path, *entries: tar(path, *entries, mode="w:gz"),
        zipped,
    ],
    ids=["tar", "tar.gz", "zip"],
)
def test_each_format_is_told_by_its_bytes_and_unpacks_to_what_was_packed(
    tmp_path: Path, pack: Callable[..., Path]
) -> None:
    folder = unpack(pack(tmp_path / "any.name", *FILES.items()))
    found = {f"Task/{p.relative_to(folder)}": p.read_bytes() for p in folder.rglob("*.*")}
    assert found == FILES


def test_an_archive_of_one_folder_becomes_that_folder_and_others_are_kept_whole(
    tmp_path: Path,
) -> None:
    with unpacked(tar(tmp_path / "a.tar", *FILES.items()), tmp_path / "one") as content:
        assert content.files == {"dataset.json": 2, "imagesTr/a.nii.gz": 5000}
    with unpacked(tar(tmp_path / "b.tar", ("x", b"1"), ("y/z", b"22")), tmp_path / "two") as other:
        assert other.files == {"x": 1, "y/z": 2}
    assert (tmp_path / "one/dataset.json").is_file()
    assert (tmp_path / "two/y/z").read_bytes() == b"22"


def test_what_the_block_adds_is_there_with_the_rest_or_not_at_all(tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tar", *FILES.items())

    def fail(content: Unpacked) -> None:
        (content.folder / "receipt").write_text("")
        raise KeyError

    with pytest.raises(KeyError), unpacked(archive, tmp_path / "out") as content:
        fail(content)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]
    with unpacked(archive, tmp_path / "out") as content:
        (content.folder / "receipt").write_text("")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out/receipt").is_file()


def test_a_folder_that_exists_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    refused(tar(tmp_path / "a.tar", *FILES.items()), "FET-009")


@pytest.mark.parametrize(
    "name",
    [
        "/etc/x",
        "../x",
        "a/../../x",
        "a/..",
        "..",
        "C:/x",
        "C:x",
        "..\\x",
        "a\\b",
        "a\nb",
        "\x1b[2J",
    ],
)
def test_names_that_lead_out_or_deceive_are_refused(tmp_path: Path, name: str) -> None:
    refused(tar(tmp_path / "a.tar", ("fine", b"1"), (name, b"2")))
    refused(zipped(tmp_path / "a.zip", ("fine", b"1"), (name, b"2")))


def test_a_name_that_a_zip_cuts_at_a_nul_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", ("fineXx", b"1"))
    archive.write_bytes(archive.read_bytes().replace(b"fineXx", b"fine\0x"))
    refused(archive)


@pytest.mark.parametrize(
    "entry",
    [
        special("link", tarfile.SYMTYPE, "/etc/passwd"),
        special("link", tarfile.SYMTYPE, "../../x"),
        special("link", tarfile.SYMTYPE, "fine"),
        special("link", tarfile.LNKTYPE, "/etc/passwd"),
        special("link", tarfile.LNKTYPE, "fine"),
        special("null", tarfile.CHRTYPE),
        special("disk", tarfile.BLKTYPE),
        special("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda info: f"{info.type!r}-{info.linkname}",
)
def test_links_and_devices_are_refused_wherever_they_lead(
    tmp_path: Path, entry: tarfile.TarInfo
) -> None:
    refused(tar(tmp_path / "a.tar", ("fine", b"1"), entry))


def test_writing_through_a_link_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    refused(tar(tmp_path / "a.tar", special("d", tarfile.SYMTYPE, str(outside)), ("d/x", b"evil")))


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path, mode: int) -> None:
    info = zipfile.ZipInfo("x")
    info.external_attr = (mode | 0o777) << 16
    refused(zipped(tmp_path / "a.zip", (info, b"/etc/passwd")))


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", ("x", b"1"))
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    assert "encrypted" in refused(archive)


@pytest.mark.parametrize(
    ("first", "second"),
    [("a", "a"), ("a", "./a"), ("a", "A"), ("é", "e\u0301"), ("a/b", "a//b"), ("a", "a/b"),
     ("a/b", "a")],
)  # fmt: skip
def test_a_name_that_is_there_twice_in_any_spelling_is_refused(
    tmp_path: Path, first: str, second: str
) -> None:
    refused(tar(tmp_path / "a.tar", (first, b"1"), (second, b"2")))


def test_folders_may_be_listed_twice(tmp_path: Path) -> None:
    folder = special("d/", tarfile.DIRTYPE)
    assert (unpack(tar(tmp_path / "a.tar", folder, ("d/x", b"1"), folder)) / "x").is_file()


@pytest.mark.parametrize("pack", [zipped, lambda *args: tar(*args, mode="w:gz")])
def test_a_bomb_is_refused_before_it_is_decompressed(
    tmp_path: Path, pack: Callable[..., Path]
) -> None:
    bomb = pack(tmp_path / "bomb", ("zeros", bytes(20 << 20)))
    assert "grow beyond" in refused(bomb)


def test_a_sparse_bomb_in_a_plain_tar_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.pax_headers = {
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x",
        "GNU.sparse.realsize": str(10**15),
    }  # fmt: skip
    info.size = 512
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as packed:
        packed.addfile(info, io.BytesIO(b"1\n0\n0\n".ljust(512, b"\0")))
    refused(tmp_path / "a.tar")


def test_a_header_that_claims_gigabytes_is_not_read_into_memory(tmp_path: Path) -> None:
    info = special("x", tarfile.XHDTYPE)
    info.size = 1 << 40
    (tmp_path / "a.tar").write_bytes(info.tobuf() + bytes(10240))
    refused(tmp_path / "a.tar", "FET-008")


def test_headers_nested_a_thousand_deep_are_refused(tmp_path: Path) -> None:
    info = special("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    info.size = 2
    (tmp_path / "a.tar").write_bytes((info.tobuf() + b"x\0".ljust(512, b"\0")) * 3000)
    refused(tmp_path / "a.tar", "FET-008")


def test_limits_on_members_and_bytes_hold(tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tar", *((f"f{n}", b"12345") for n in range(10)))
    refused(archive, limits=Limits(max_members=9))
    refused(archive, limits=Limits(max_bytes=49))
    unpack(archive, Limits(max_members=10, max_bytes=50))


def test_too_little_room_is_told_before_anything_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: SimpleNamespace(free=5001))
    refused(tar(tmp_path / "a.tar", *FILES.items()), "FET-005")


def test_what_macos_adds_is_left_out_but_judged(tmp_path: Path) -> None:
    litter = (("T/._x", b"1"), ("__MACOSX/T/x", b"1"), ("T/.DS_Store", b"1"))
    folder = unpack(tar(tmp_path / "a.tar", ("T/x", b"1"), *litter))
    assert [p.name for p in folder.iterdir()] == ["x"]
    (tmp_path / "b").mkdir()
    refused(tar(tmp_path / "b/a.tar", ("._/../../x", b"1")))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.78])
@pytest.mark.parametrize("mode", ["w", "w:gz", "zip"])
def test_a_truncated_archive_leaves_nothing(tmp_path: Path, mode: str, share: float) -> None:
    path, entries = tmp_path / "a", [(f"d/{n}", os.urandom(3000)) for n in range(9)]
    whole = (
        zipped(path, *entries) if mode == "zip" else tar(path, *entries, mode=mode)
    ).read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    refused(path, "FET-008")


def test_a_tar_cut_between_two_members_is_refused(tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tar", ("a", b"1"), ("b", b"2"))
    archive.write_bytes(archive.read_bytes()[:1024])
    refused(archive, "FET-008")


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tar", ("a", b"1"), ("b", b"2"))
    data = bytearray(archive.read_bytes())
    data[1024 + 150] ^= 1
    archive.write_bytes(data)
    refused(archive, "FET-008")


def test_a_flipped_bit_is_noticed_by_the_checksum_of_gzip_and_zip(tmp_path: Path) -> None:
    packed = tar(tmp_path / "a", ("x", os.urandom(1 << 16)), mode="w:gz")
    data = bytearray(packed.read_bytes())
    data[-5] ^= 1
    packed.write_bytes(data)
    refused(packed, "FET-008")
    other = zipped(tmp_path / "b", ("x", os.urandom(1 << 16)))
    data = bytearray(other.read_bytes())
    data[30000] ^= 1
    other.write_bytes(data)
    refused(other, "FET-008")


def test_a_zip_that_lies_about_a_size_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", ("x", b"12345678"))
    data = bytearray(archive.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    for claimed in (4, 9):
        data[at : at + 4] = struct.pack("<I", claimed)
        archive.write_bytes(data)
        refused(archive, "FET-008")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"<html>not found</html>",
        gzip.compress(b"no tar", mtime=0),
        b"PK\3\4",
        bytes(9999),
    ],
)
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)
    refused(tmp_path / "a", "FET-008")


def test_a_missing_archive_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="No such file"):
        unpack(tmp_path / "a.tar")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), mode=st.sampled_from(["w", "w:gz", "zip"]))
def test_mutated_archives_unpack_inside_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, mode: str
) -> None:
    room = tmp_path_factory.mktemp("room")
    path, entries = room / "a", [("d/x", b"1" * 700), ("d/y", b"2" * 20)]
    packed = zipped(path, *entries) if mode == "zip" else tar(path, *entries, mode=mode)
    raw = bytearray(packed.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    try:
        unpack(path)
    except (DownloadError, WriteError):
        assert [p.name for p in room.iterdir()] == ["a"]
    else:
        assert {p.name for p in room.iterdir()} == {"a", "out"}
