"""Headers of data elements: tag, VR and length, as they stand in a data set (PS3.5 §7.1)."""

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

UNDEFINED_LENGTH = 0xFFFFFFFF
ITEM = 0xFFFEE000
ITEM_DELIMITATION = 0xFFFEE00D
SEQUENCE_DELIMITATION = 0xFFFEE0DD
PIXEL_DATA = 0x7FE00010
MAX_DEPTH = 64
"""Sequences nested deeper are refused: no IOD needs it, and hostile data would cost memory."""

_SHORT_VRS = b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US"
_LONG_VRS = b"OB OD OF OL OV OW SQ SV UC UN UR UT UV"
VALUE_OFFSET: dict[bytes, int] = {
    **dict.fromkeys(_SHORT_VRS.split(), 8),
    **dict.fromkeys(_LONG_VRS.split(), 12),
}
"""VR to the distance from the start of an explicit VR element to its value (PS3.5 §7.1.2)."""

_NAMES = {
    0x00080016: "SOP Class UID",
    0x00080018: "SOP Instance UID",
    0x00080020: "Study Date",
    0x00100020: "Patient ID",
    0x0020000D: "Study Instance UID",
    0x0020000E: "Series Instance UID",
    0x00280008: "Number of Frames",
    PIXEL_DATA: "Pixel Data",
}


class Mode(IntEnum):
    """How VRs are written.

    `EITHER` is for values of VR UN and undefined length: they are Implicit VR by the Standard
    (PS3.5 §6.2.2), and Explicit VR by some devices.
    """

    EXPLICIT = 0
    IMPLICIT = 1
    EITHER = 2


@dataclass(frozen=True, slots=True)
class Layout:
    """Byte order of a data set, as precompiled structures.

    A *raw* tag is the tag read as one number of four bytes: in little endian its halves are
    exchanged, and exchanging them for each element would be a waste.
    """

    big_endian: bool
    explicit: Struct
    implicit: Struct
    long: Struct

    def tag(self, raw: int) -> int:
        """Make a tag of a raw tag, or the other way round."""
        return raw if self.big_endian else (raw >> 16) | ((raw & 0xFFFF) << 16)


LITTLE_ENDIAN = Layout(
    big_endian=False, explicit=Struct("<I2sH"), implicit=Struct("<II"), long=Struct("<I")
)
BIG_ENDIAN = Layout(
    big_endian=True, explicit=Struct(">I2sH"), implicit=Struct(">II"), long=Struct(">I")
)


def tag_text(tag: int) -> str:
    """Tag as people write it, with its name where we have one."""
    text = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
    return f"{_NAMES[tag]} {text}" if tag in _NAMES else text


def is_text_vr(vr: bytes) -> bool:
    """Whether two bytes look like a VR: capital letters."""
    return vr.isalpha() and vr.isupper()


def first_mode(data: bytes | memoryview, position: int, declared: Mode) -> Mode:
    """Tell Explicit from Implicit VR by the first element; some writers announce the wrong one.

    At least 6 bytes must be there.
    """
    vr = bytes(data[position + 4 : position + 6])
    if vr in VALUE_OFFSET:
        return Mode.EXPLICIT
    return declared if is_text_vr(vr) else Mode.IMPLICIT


def read_header(
    layout: Layout, mode: Mode, data: bytes | memoryview, position: int
) -> tuple[int, bytes, int, int] | None:
    """Read the header at `position`; None if the bytes end within it.

    Returns
    -------
    header
        Tag, VR (empty in Implicit VR and for items), length, and position of the value.
    """
    available = len(data) - position
    if available < 8:
        return None
    raw, vr, length = layout.explicit.unpack_from(data, position)
    tag = layout.tag(raw)
    offset = 0 if tag >> 16 == 0xFFFE or mode is Mode.IMPLICIT else VALUE_OFFSET.get(vr, 0)
    if not offset and mode is Mode.EXPLICIT and tag >> 16 != 0xFFFE and is_text_vr(vr):
        # A VR of the future has a length of four bytes after two that are zero (PS3.5 §7.1.2).
        offset = 8 if length else 12
    if offset == 8:
        return tag, vr, length, position + 8
    if offset == 0:  # writers that leave out the VR of some elements are read as pydicom does
        return tag, b"", layout.implicit.unpack_from(data, position)[1], position + 8
    if available < 12:
        return None
    return tag, vr, layout.long.unpack_from(data, position + 8)[0], position + 12
