"""Headers laid out as nearly all are, parsed in one pass over the first bytes of their file.

That is: a preamble and File Meta Information, little endian, nothing deflated, and pixel data that
begin within those bytes. Wanted elements are cut out and others stepped over, so that a series of
hundreds of files opens in a fraction of the time that a parser for everything takes. Whatever else
a file may be is left to pydicom, which has met it all; of what is parsed here, pydicom makes the
same elements.
"""

from collections.abc import Mapping
from functools import lru_cache
from struct import Struct, error

from pydicom import Dataset, FileMetaDataset
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import RawDataElement, empty_value_for_VR
from pydicom.tag import BaseTag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from medseg.io.dicom.headers.attributes import parsed

# Tags by their four bytes, read as one number: the element stands above the group.
Wanted = Mapping[int, BaseTag]

_EXPLICIT_HEAD, _IMPLICIT_HEAD = Struct("<L2sH"), Struct("<LL")
_GROUP, _LENGTH = Struct("<H"), Struct("<L")
# By representation: its name, and the bytes before a value (PS3.5 7.1.2).
_FORMS = {
    vr.value.encode(): (vr.value, 12 if vr in EXPLICIT_VR_LENGTH_32 else 8)
    for vr in VR
    if len(vr.value) == 2
}
_MARK, _START, _META_GROUP = b"DICM", 132, 0x0002
_PIXEL_GROUP, _PIXEL_DATA = 0x7FE0, 0x00107FE0
_ITEM, _ITEM_END, _SEQUENCE_END = 0xE000FFFE, 0xE00DFFFE, 0xE0DDFFFE
_UNDEFINED = 0xFFFFFFFF
_CLASS, _SYNTAX, _CHARACTER_SET = BaseTag(0x00020002), BaseTag(0x00020010), BaseTag(0x00080005)
_IMPLICIT, _EXPLICIT = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1"
# Compressed by JPEG and its kin, or by run lengths: explicit, all of them (PS3.5 A.4).
_COMPRESSED = (b"1.2.840.10008.1.2.4.", b"1.2.840.10008.1.2.5")


class _UncommonError(Exception):
    """The header is laid out in a way that is not parsed here."""


def wanted(tags: list[BaseTag]) -> Wanted:
    """Return the elements to be cut out of headers, ready to be looked up."""
    return {(tag & 0xFFFF) << 16 | tag >> 16: tag for tag in (*tags, _CHARACTER_SET)}


_META_TAGS = wanted([_CLASS, _SYNTAX])


def parse_common(start: bytes, tags: Wanted) -> tuple[Dataset, int] | None:
    """Parse the header of a file.

    Args:
        start: the first bytes of the file.
        tags: the elements to cut out.

    Returns:
        What `pydicom.dcmread` makes of the file with these `specific_tags` up to the pixel data,
        its `file_meta` holding no more than syntax and class; and the byte at which the element of
        the pixel data begins. None where the header is laid out otherwise, or goes beyond `start`.
    """
    if start[_START - len(_MARK) : _START] != _MARK:
        return None
    try:
        meta, at = _elements(start, _START, _META_TAGS, groups=(_META_GROUP, _META_GROUP))
        syntax = _value(meta, _SYNTAX)
        implicit = _is_implicit(start, at, syntax)
        body, at = _elements(
            start, at, tags, groups=(_META_GROUP + 1, _PIXEL_GROUP - 1), implicit=implicit
        )
        if _LENGTH.unpack_from(start, at)[0] != _PIXEL_DATA:
            return None
    except (error, _UncommonError):
        return None
    dataset = Dataset(body)
    encoding = _encodings(_value(body, _CHARACTER_SET)) if _CHARACTER_SET in body else None
    dataset.set_original_encoding(
        is_implicit_vr=implicit,
        is_little_endian=True,
        character_encoding=encoding or default_encoding,
    )
    dataset.file_meta = _file_meta(syntax, _value(meta, _CLASS))
    return dataset, at


def _is_implicit(start: bytes, at: int, syntax: bytes) -> bool:
    """Tell which of the two encodings of PS3.5 7.1 the data set has, which its start must bear out.

    Raises:
        _UncommonError: it has another one, or its start says otherwise.
    """
    found = syntax.rstrip(b"\0 ")
    implicit = found == _IMPLICIT
    known = implicit or found == _EXPLICIT or found.startswith(_COMPRESSED)
    letters = start[at + 4 : at + 6]
    if not known or (letters.isalpha() and letters.isupper()) == implicit:
        raise _UncommonError
    return implicit


def _elements(
    start: bytes, at: int, tags: Wanted, *, groups: tuple[int, int], implicit: bool = False
) -> tuple[dict[BaseTag, RawDataElement], int]:
    """Cut out the wanted elements from a byte on; return the first byte behind these groups.

    Raises:
        _UncommonError: an element is laid out in another way than most.
        struct.error: the bytes end before.
    """
    found = {}
    low, high = groups
    while low <= _GROUP.unpack_from(start, at)[0] <= high:
        number, name, first, length = _head(start, at, implicit=implicit)
        tag = tags.get(number)
        if length == _UNDEFINED:
            if tag is not None or name not in (None, VR.SQ):
                raise _UncommonError
            at = _behind_items(start, first, implicit=implicit)
            continue
        at = first + length
        if tag is not None:
            value = start[first:at] if length else empty_value_for_VR(name, raw=True)
            found[tag] = RawDataElement(
                tag, name, length, value, first, is_implicit_VR=implicit, is_little_endian=True
            )
    return found, at


def _head(start: bytes, at: int, *, implicit: bool) -> tuple[int, str | None, int, int]:
    """Return tag, representation, the first byte of the value and its length."""
    if implicit:
        number, length = _IMPLICIT_HEAD.unpack_from(start, at)
        return number, None, at + 8, length
    number, code, length = _EXPLICIT_HEAD.unpack_from(start, at)
    if number & 0xFFFF == 0xFFFE:
        return number, None, at + 8, _LENGTH.unpack_from(start, at + 4)[0]
    try:
        name, size = _FORMS[code]
    except KeyError:
        raise _UncommonError from None
    if size == 8:
        return number, name, at + 8, length
    return number, name, at + 12, _LENGTH.unpack_from(start, at + 8)[0]


def _behind_items(start: bytes, at: int, *, implicit: bool) -> int:
    """Return the first byte behind a sequence of undefined length (PS3.5 7.5.2)."""
    while True:
        number, length = _IMPLICIT_HEAD.unpack_from(start, at)
        at += 8
        if number == _SEQUENCE_END:
            return at
        if number != _ITEM:
            raise _UncommonError
        at = _behind_item(start, at, implicit=implicit) if length == _UNDEFINED else at + length


def _behind_item(start: bytes, at: int, *, implicit: bool) -> int:
    while True:
        number, name, first, length = _head(start, at, implicit=implicit)
        if number == _ITEM_END:
            return first
        if length != _UNDEFINED:
            at = first + length
        elif name in (None, VR.SQ):
            at = _behind_items(start, first, implicit=implicit)
        else:
            raise _UncommonError


def _value(elements: Mapping[BaseTag, RawDataElement], tag: BaseTag) -> bytes:
    return (elements[tag].value or b"") if tag in elements else b""


@lru_cache(maxsize=64)
def _encodings(names: bytes) -> list[str]:
    """Return Python's names of the encodings that a file says its texts are in."""
    return list(convert_encodings(parsed(_CHARACTER_SET, VR.CS.value, names)))


@lru_cache(maxsize=64)
def _file_meta(syntax: bytes, sop_class: bytes) -> FileMetaDataset:
    """Return what is asked of File Meta Information: the same for the files of a series."""
    meta = FileMetaDataset()
    for tag, value in ((_CLASS, sop_class), (_SYNTAX, syntax)):
        if value:
            meta.add_new(tag, VR.UI.value, parsed(tag, VR.UI.value, value))
    return meta
