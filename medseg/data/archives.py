"""Unpacking what strangers packed: looked through first, then whole or absent."""

import gzip
import shutil
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medseg.core.errors import DownloadError, WriteError
from medseg.data.packed import Member, opened

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an archive may grow to.

    Attributes:
        max_members: files and folders.
        max_bytes: of all files together.
        max_ratio: of all files together to the archive; scans compress 2:1 to 20:1.
    """

    max_members: int = 200_000
    max_bytes: int = 500 * 10**9
    max_ratio: float = 200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """An unpacked archive: its folder, and each file in it with its size in bytes."""

    folder: Path
    files: dict[str, int]


@contextmanager
def unpacked(archive: Path, folder: Path, *, limits: Limits | None = None) -> Iterator[Unpacked]:
    """Unpack a tar, tar.gz or zip; `folder` appears, complete, when the block ends well.

    Inside the block the files lie in a fresh folder beside `folder`, to which more can be added;
    after an error nothing is left. An archive that holds one folder becomes that folder; only
    plain files and folders are unpacked, and what macOS adds (`._*`, `__MACOSX`) is left out.

    Raises:
        DownloadError: FET-007 a member that is absolute, climbs out, is a link, a device,
            encrypted or there twice, or an archive that outgrows its limits; FET-008 a damaged
            archive; FET-005 too little room; FET-009 `folder` exists.
        WriteError: the disk refused to take the files.
    """
    limits = limits or Limits()
    if folder.exists():
        raise DownloadError(
            f"{folder}: is there already", code="FET-009", hint="move it, or choose another output="
        )
    with _fresh_folder(folder) as fresh:
        with _readable(archive), opened(archive, fresh) as members:
            files = _extract(_looked_through(archive, members, limits), fresh)
        top = _only_folder(fresh)
        prefix = top.relative_to(fresh)
        yield Unpacked(
            folder=top,
            files={
                str(PurePosixPath(name).relative_to(prefix)): size for name, size in files.items()
            },
        )
        try:
            top.rename(folder)
        except OSError as fault:
            raise WriteError(
                f"{folder}: could not be put there: {fault.strerror}", code="OUT-001"
            ) from fault


def _looked_through(archive: Path, members: Iterable[Member], limits: Limits) -> list[Member]:
    """Return the members to unpack, every one of the archive having been judged.

    The sums are taken as the list grows: a bomb is refused before it is decompressed.
    """
    most = min(limits.max_bytes, int(limits.max_ratio * archive.stat().st_size))
    kept: list[Member] = []
    kinds: dict[str, str] = {}
    num_bytes = 0
    for number, member in enumerate(members, start=1):
        _require_safe(archive, member)
        num_bytes += member.num_bytes
        if number > limits.max_members:
            raise _refused(archive, f"holds more than {limits.max_members} members")
        if num_bytes > most:
            raise _refused(archive, f"would grow beyond {most} bytes at {member.name!r}")
        if not member.is_litter:
            _enter(archive, member, kinds)
            kept.append(member)
    return kept


def _require_safe(archive: Path, member: Member) -> None:
    name = member.name
    if member.kind not in ("file", "folder"):
        raise _refused(archive, f"{name!r} is a member of kind {member.kind}")
    if name.startswith("/") or "\\" in name or name[1:2] == ":":
        raise _refused(archive, f"{name!r} is an absolute name, or one of another system")
    if ".." in member.path.parts:
        raise _refused(archive, f"{name!r} leads out of its folder")
    if not name.isprintable() or (member.kind == "file" and not member.path.name):
        raise _refused(archive, f"{name!r} is no name for a file")
    if member.num_bytes < 0:
        raise _refused(archive, f"{name!r} has {member.num_bytes} bytes")


def _enter(archive: Path, member: Member, kinds: dict[str, str]) -> None:
    """Refuse a name that is there twice, also where a disk takes two spellings for one."""
    key = unicodedata.normalize("NFC", str(member.path)).casefold()
    above = [str(PurePosixPath(key).parents[n]) for n in range(len(PurePosixPath(key).parents))]
    if kinds.get(key, "folder") != "folder" or (key in kinds and member.kind == "file"):
        raise _refused(archive, f"{member.name!r} is there twice")
    if any(kinds.get(parent) == "file" for parent in above):
        raise _refused(archive, f"{member.name!r} lies inside a file")
    kinds[key] = member.kind
    for parent in above:
        kinds.setdefault(parent, "folder")


def _extract(members: list[Member], folder: Path) -> dict[str, int]:
    needed, free = sum(m.num_bytes for m in members), shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{folder.parent}: {free / 1e9:.2f} GB free, unpacked it takes {needed / 1e9:.2f} GB",
            code="FET-005",
            hint="choose another folder with output=, or make room",
        )
    files: dict[str, int] = {}
    for member in members:
        target = folder / member.path
        if member.kind == "folder":
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as source, target.open("xb") as stream:
            shutil.copyfileobj(source, stream, _BLOCK_BYTES)
            if stream.tell() != member.num_bytes:
                raise EOFError(f"{member.name!r} ends after {stream.tell()} bytes")
        files[str(member.path)] = member.num_bytes
    if not files:
        raise EOFError("it holds no files")
    return files


@contextmanager
def _readable(archive: Path) -> Iterator[None]:
    """Turn what libraries raise over damaged bytes, and what the disk raises, into refusals."""
    damaged = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)
    # Absurd fields in headers surface as these.
    absurd = (ValueError, OverflowError, RecursionError, NotImplementedError)
    try:
        yield
    except tarfile.FilterError as fault:
        raise _refused(archive, str(fault)) from fault
    except (*damaged, *absurd) as fault:
        raise DownloadError(
            f"{archive}: is not a whole tar, tar.gz or zip: {fault}",
            code="FET-008",
            hint="fetch it again",
        ) from fault
    except OSError as fault:
        raise WriteError(
            f"{archive}: could not be unpacked: {fault.strerror or fault}", code="OUT-001"
        ) from fault


@contextmanager
def _fresh_folder(beside: Path) -> Iterator[Path]:
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".part-", dir=beside.parent))
    except OSError as fault:
        raise WriteError(
            f"{beside}: could not be made: {fault.strerror}", code="OUT-001"
        ) from fault
    try:
        # The outer folder is private; the one that is handed out has the usual permissions.
        (folder / "content").mkdir()
        yield folder / "content"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _only_folder(folder: Path) -> Path:
    """Return the one folder that holds everything, else the folder itself."""
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder


def _refused(archive: Path, what: str) -> DownloadError:
    return DownloadError(
        f"{archive}: {what}; nothing was unpacked",
        code="FET-007",
        hint="such an archive is not unpacked: ask whoever made it",
    )
