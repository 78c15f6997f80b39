"""DICOM files: write and read File Meta Information (PS3.10 §7.1), follow the data set."""

from dataclasses import dataclass
from struct import Struct

from wado.dicom.elements import VALUE_OFFSET, is_text_vr
from wado.dicom.head_scanner import HeadScanner
from wado.errors import CannotUnderstand

__all__ = [
    "IMPLEMENTATION_CLASS_UID",
    "IMPLEMENTATION_VERSION_NAME",
    "MAX_FILE_META_BYTES",
    "FileMeta",
    "HeadScanner",
    "Incomplete",
    "file_meta",
    "read_file_meta",
]

IMPLEMENTATION_CLASS_UID = "2.25.146054780601383273156423478152309468318"
"""Ours, derived from a UUID (PS3.5 §B.2)."""
IMPLEMENTATION_VERSION_NAME = "WADO_0_1"

PREAMBLE_LENGTH = 128
MAX_FILE_META_BYTES = 1 << 20
"""No File Meta is longer: it holds a few UIDs, and perhaps some private information."""

_START = PREAMBLE_LENGTH + 4
_PREFIX = bytes(PREAMBLE_LENGTH) + b"DICM"
_HEADER = Struct("<HH2sH")
_GROUP_LENGTH = Struct("<HH2sHI")
_LONG = Struct("<I")
_META_VERSION = _HEADER.pack(2, 1, b"OB", 0) + b"\2\0\0\0\0\1"
_NAMES = {
    0x0002: "Media Storage SOP Class UID",
    0x0003: "Media Storage SOP Instance UID",
    0x0010: "Transfer Syntax UID",
}


class Incomplete(CannotUnderstand):
    """The bytes end within the File Meta Information; more of them may help."""


@dataclass(frozen=True, slots=True)
class FileMeta:
    """What the File Meta Information tells of the data set that follows it.

    `data_set_offset` is the position of the data set in the file, in bytes. The SOP UIDs are empty
    if the file doesn't name them.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set_offset: int


def _element(number: int, vr: bytes, text: str, padding: bytes = b"\0") -> bytes:
    value = text.encode("ascii")
    if len(value) & 1:
        value += padding
    return _HEADER.pack(2, number, vr, len(value)) + value


_IMPLEMENTATION = _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID) + _element(
    0x0013, b"SH", IMPLEMENTATION_VERSION_NAME, b" "
)


def file_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Make preamble, prefix and File Meta Information of a file.

    Nothing of the reception is in it (no time, no AE title): the same data set gives the same file.

    References
    ----------
    PS3.10 §7.1.
    """
    body = (
        _META_VERSION
        + _element(0x0002, b"UI", sop_class_uid)
        + _element(0x0003, b"UI", sop_instance_uid)
        + _element(0x0010, b"UI", transfer_syntax_uid)
        + _IMPLEMENTATION
    )
    return _PREFIX + _GROUP_LENGTH.pack(2, 0, b"UL", 4, len(body)) + body


def read_file_meta(head: bytes | memoryview) -> FileMeta:
    """Read the File Meta Information at the start of a file.

    A missing or wrong group length (0002,0000) is tolerated: the end is where group 2 ends.

    Parameters
    ----------
    head
        First bytes of the file, as many as there are by now.

    Raises
    ------
    Incomplete
        The bytes end within the File Meta Information.
    CannotUnderstand
        Not a DICOM file, or the transfer syntax isn't named.

    References
    ----------
    PS3.10 §7.1.
    """
    head = bytes(head[: MAX_FILE_META_BYTES + 1])
    _check_prefix(head)
    found: dict[int, bytes] = {}
    position, declared_end = _START, -1
    while position != declared_end:
        if len(head) < position + 2:
            raise _incomplete(head)
        if head[position : position + 2] != b"\2\0":
            break
        number, start, end = _meta_element(head, position)
        if number == 0 and end - start == 4:
            declared_end = end + _LONG.unpack_from(head, start)[0]
        found[number] = head[start:end] if number in _NAMES else b""
        position = end
    return _file_meta(found, position)


def _check_prefix(head: bytes) -> None:
    if head[PREAMBLE_LENGTH:_START] == b"DICM":
        return
    if len(head) >= _START or not b"DICM".startswith(head[PREAMBLE_LENGTH:_START]):
        raise CannotUnderstand(
            "not a DICOM file: there is no DICM after a preamble of 128 bytes (PS3.10 §7.1)"
        )
    raise Incomplete("not a DICOM file: it ends within the preamble of 128 bytes (PS3.10 §7.1)")


def _incomplete(head: bytes) -> CannotUnderstand:
    if len(head) > MAX_FILE_META_BYTES:
        return CannotUnderstand(
            f"the File Meta Information is longer than {MAX_FILE_META_BYTES} bytes"
        )
    return Incomplete("the file ends within its File Meta Information (PS3.10 §7.1)")


def _meta_element(head: bytes, position: int) -> tuple[int, int, int]:
    """Element number, start and end of the value of the element at `position`."""
    if len(head) < position + 12:
        raise _incomplete(head)
    _, number, vr, length = _HEADER.unpack_from(head, position)
    start = position + 8
    if VALUE_OFFSET.get(vr) == 12:
        length, start = _LONG.unpack_from(head, start)[0], start + 4
    elif not is_text_vr(vr):
        raise CannotUnderstand(
            f"the File Meta Information isn't in Explicit VR Little Endian at (0002,{number:04X})"
        )
    if start + length > MAX_FILE_META_BYTES:
        raise CannotUnderstand(f"(0002,{number:04X}) of the File Meta claims {length} bytes")
    if start + length > len(head):
        raise _incomplete(head)
    return number, start, start + length


def _file_meta(found: dict[int, bytes], data_set_offset: int) -> FileMeta:
    texts = {n: found.get(n, b"").decode("latin-1").rstrip("\0 ") for n in _NAMES}
    if not texts[0x0010]:
        raise CannotUnderstand("the File Meta names no Transfer Syntax UID (0002,0010)")
    return FileMeta(texts[0x0002], texts[0x0003], texts[0x0010], data_set_offset)
