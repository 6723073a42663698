"""Members of a .zip: listed once, then unpacked by their place, in memory and never onto the disk.

Python's `zipfile` reads the whole list of an archive for every member it opens, which takes minutes
for a study of thousands of slices. Source of the layout: PKWARE, APPNOTE.TXT 6.3.10, section 4.3.7.
"""

import bz2
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LOCAL_MAGIC = b"PK\x03\x04"
_ENCRYPTED = 1
# What reading a damaged or foreign archive raises.
BAD_ARCHIVE = (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file inside an archive, as the archive's list describes it.

    Attributes:
        name: with its folders, as the list spells it.
        place: byte of the archive at which its own header begins.
        num_packed: bytes that it takes in the archive.
        num_bytes: bytes that it unpacks to, as the list promises.
        method: how it is packed (APPNOTE 4.4.5).
        checksum: CRC-32 of what it unpacks to.
        encrypted: it takes a password.
    """

    name: str
    place: int
    num_packed: int
    num_bytes: int
    method: int
    checksum: int
    encrypted: bool = False


def list_members(archive: Path) -> list[Member]:
    """Return the files of an archive, sorted by name.

    Raises:
        OSError: the archive cannot be read.
        zipfile.BadZipFile: it is none.
    """
    with zipfile.ZipFile(archive) as opened:
        entries = [entry for entry in opened.infolist() if not entry.is_dir()]
    return [
        Member(
            name=entry.filename,
            place=entry.header_offset,
            num_packed=entry.compress_size,
            num_bytes=entry.file_size,
            method=entry.compress_type,
            checksum=entry.CRC,
            encrypted=bool(entry.flag_bits & _ENCRYPTED),
        )
        for entry in sorted(entries, key=lambda entry: entry.filename)
    ]


def unpack(archive: Path, member: Member, *, num_bytes: int | None = None) -> bytes:
    """Return the content of a member; never more than the list promises.

    Args:
        archive: the .zip.
        member: of its list.
        num_bytes: only so many of the first bytes, whose checksum then is not looked at.

    Raises:
        OSError: the archive cannot be read.
        zipfile.BadZipFile: the member is damaged or encrypted.
        NotImplementedError: it is packed by another method than deflate or bzip2.
        zlib.error: its stream is damaged.
        EOFError: the archive ends before it does.
    """
    if member.encrypted:
        raise zipfile.BadZipFile("encrypted")
    wanted = member.num_bytes if num_bytes is None else min(num_bytes, member.num_bytes)
    with archive.open("rb") as stream:
        stream.seek(member.place)
        head = stream.read(_LOCAL_HEADER.size)
        if len(head) < _LOCAL_HEADER.size or not head.startswith(_LOCAL_MAGIC):
            raise zipfile.BadZipFile("no header where the list says")
        _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(head)
        stream.seek(name_bytes + extra_bytes, 1)
        plain = _plain(stream.read(_needed(member, wanted)), member.method, wanted)
    if len(plain) < wanted:
        raise EOFError(f"{len(plain)} bytes of {wanted}")
    if wanted == member.num_bytes and zlib.crc32(plain) != member.checksum:
        raise zipfile.BadZipFile("wrong checksum")
    return plain


def _needed(member: Member, wanted: int) -> int:
    """Return how many packed bytes hold the first of a member."""
    if member.method == zipfile.ZIP_BZIP2 or wanted == member.num_bytes:
        # Bzip2 gives nothing before a block of up to 900 kB is there.
        return member.num_packed
    # Deflate begins with its tables, and never takes much more room than what it packs.
    return min(member.num_packed, 2 * wanted + 4096)


def _plain(packed: bytes, method: int, num_bytes: int) -> bytes:
    """Unpack at most so many bytes, so that no stream can fill the memory."""
    if method == zipfile.ZIP_STORED:
        return packed[:num_bytes]
    if not num_bytes:
        # To the decoder, 0 means without a bound.
        return b""
    if method == zipfile.ZIP_DEFLATED:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, num_bytes)
    if method == zipfile.ZIP_BZIP2:
        try:
            return bz2.BZ2Decompressor().decompress(packed, num_bytes)
        except OSError as fault:
            raise zipfile.BadZipFile("damaged") from fault
    raise NotImplementedError(f"method {method}")
