"""Where the frames of Pixel Data are in a stored file (PS3.5 §8.2 and §A.4)."""

import itertools
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import Struct, unpack
from typing import Any, Self

from wado.dicom.elements import ITEM, SEQUENCE_DELIMITATION, UNDEFINED_LENGTH, tag_text
from wado.dicom.window import FIRST_WINDOW, Read, Window
from wado.errors import CannotUnderstand, NotFound

_ITEM_HEADER = Struct("<HHI")
_SMALL_FRAGMENT = FIRST_WINDOW // 2
_MAX_OFFSET_TABLE = 1 << 26
_MAX_FRAGMENTS = 1 << 20
_END_MARKERS = (b"\xff\xd9",)
"""End of a JPEG, JPEG-LS, JPEG 2000 code stream: EOI and EOC are the same marker."""
_START_MARKERS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")

Ranges = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class PixelData:
    """Pixel Data of an instance: where it is, and where each frame in it.

    Offsets are in bytes and count in the stored file; if `deflated`, in the inflated data set.

    Attributes
    ----------
    offset, length
        The value; if encapsulated, from its first item tag up to the sequence delimiter.
    encapsulated
        Compressed, in fragments.
    number_of_frames
        Number of Frames (0028,0008), 1 if absent.
    frame_bits
        Length of a native frame; None if encapsulated or not known.
    fragments
        Offset, length, offset, length ... of the fragments, without item headers and offset table.
    starts
        Index of the first fragment of each frame; empty if each fragment is a frame.
    deflated
        The data set is deflated as a whole.
    reason
        Why frames can't be located; empty if they can.
    """

    offset: int
    length: int
    encapsulated: bool
    number_of_frames: int
    frame_bits: int | None = None
    fragments: Sequence[int] = ()
    starts: tuple[int, ...] = ()
    deflated: bool = False
    reason: str = ""

    def __post_init__(self) -> None:
        """Pack the fragments: a whole slide has a hundred thousand, and readers keep them."""
        if self.fragments:
            object.__setattr__(self, "fragments", array("Q", self.fragments))

    @property
    def frame_length(self) -> int | None:
        """Length in bytes of each native frame; None if frames don't end on byte boundaries."""
        if self.frame_bits is None or (self.frame_bits % 8 and self.number_of_frames > 1):
            return None
        return (self.frame_bits + 7) // 8

    def frame(self, number: int) -> Ranges:
        """Offset and length of the pieces that make up a frame.

        A native frame that doesn't start on a byte boundary begins `first_bit` bits after the start
        of the piece.

        Parameters
        ----------
        number
            Frame number, from 1.

        Raises
        ------
        NotFound
            There is no such frame.
        CannotUnderstand
            Frames can't be located; the message is `reason`.
        """
        if not 1 <= number <= self.number_of_frames:
            raise NotFound(f"frame {number} of {self.number_of_frames}")
        if self.reason:
            raise CannotUnderstand(self.reason)
        if self.encapsulated:
            return self._encapsulated_frame(number - 1)
        assert self.frame_bits is not None
        first, last = (number - 1) * self.frame_bits, number * self.frame_bits
        start = first // 8
        return [(self.offset + start, (last + 7) // 8 - start)]

    def first_bit(self, number: int) -> int:
        """Bits before a native frame in its first byte: 0 unless frames are packed (PS3.5 §8.1)."""
        return (number - 1) * (self.frame_bits or 0) % 8

    def _encapsulated_frame(self, index: int) -> Ranges:
        first, last = index, index + 1
        if self.starts:
            first = self.starts[index]
            is_last = last == len(self.starts)
            last = len(self.fragments) // 2 if is_last else self.starts[last]
        flat = self.fragments[2 * first : 2 * last]
        return list(zip(flat[::2], flat[1::2], strict=True))

    def to_json(self) -> dict[str, Any]:
        """Compact form for JSON: what has its default is left out."""
        value: dict[str, Any] = {
            "offset": self.offset,
            "length": self.length,
            "frames": self.number_of_frames,
        }
        for name in ("encapsulated", "frame_bits", "fragments", "starts", "deflated", "reason"):
            if given := getattr(self, name):
                value[name] = list(given) if isinstance(given, tuple | array) else given
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read what `to_json` made."""
        return cls(
            offset=value["offset"],
            length=value["length"],
            encapsulated=value.get("encapsulated", False),
            number_of_frames=value["frames"],
            frame_bits=value.get("frame_bits"),
            fragments=value.get("fragments", ()),
            starts=tuple(value.get("starts", ())),
            deflated=value.get("deflated", False),
            reason=value.get("reason", ""),
        )


def scan_fragments(window: Window, position: int, end: int) -> tuple[list[int], int]:
    """Walk the items of an encapsulated value by their headers alone.

    Returns
    -------
    items
        Offset and length of each item's value, flat; the Basic Offset Table is the first.
    after
        Position after the sequence delimiter.

    Raises
    ------
    CannotUnderstand
        The items end early, or something else stands between them.
    """
    items: list[int] = []
    window = window.fork()
    while len(items) <= 2 * _MAX_FRAGMENTS:
        header = window.peek(position, 8)
        if position + 8 > end or len(header) < 8:
            raise CannotUnderstand("Pixel Data (7FE0,0010) ends without a sequence delimiter")
        group, element, length = _ITEM_HEADER.unpack(header)
        tag = group << 16 | element
        position += 8
        if tag == SEQUENCE_DELIMITATION:
            return items, position
        if tag != ITEM or length == UNDEFINED_LENGTH:
            raise CannotUnderstand(f"{tag_text(tag)} between the fragments of Pixel Data")
        if position + length > end:
            raise CannotUnderstand(
                f"a fragment of Pixel Data claims {length} bytes, {end - position} are there"
            )
        items += (position, length)
        position += length
        if length < _SMALL_FRAGMENT and position + 8 > window.base + window.filled:
            window.slide(position)
    raise CannotUnderstand(f"Pixel Data (7FE0,0010) has over {_MAX_FRAGMENTS} fragments")


def frame_starts(
    read: Read,
    items: list[int],
    number_of_frames: int,
    extended: list[int] | None = None,
) -> tuple[int, ...]:
    """Tell at which fragment each frame starts.

    Parameters
    ----------
    read
        For the offset table, and for the first and last bytes of fragments.
    items
        As `scan_fragments` gives them.
    number_of_frames
        Number of Frames (0028,0008).
    extended
        Extended Offset Table (7FE0,0001), if there is one.

    Returns
    -------
    starts
        Index of the first fragment of each frame; empty if each fragment is a frame.

    Raises
    ------
    CannotUnderstand
        The fragments can't be told apart.

    References
    ----------
    PS3.5 §A.4; PS3.3 §C.7.6.3.1.8 for the extended table.
    """
    count = len(items) // 2 - 1
    if count < 1 or number_of_frames < 1:
        raise CannotUnderstand("Pixel Data (7FE0,0010) has no fragments")
    if count == number_of_frames:
        return ()
    if number_of_frames == 1:
        return (0,)
    table = _basic_offset_table(read, items) or extended or []
    starts = _starts_by_offsets(items, table, number_of_frames) or _starts_by_markers(
        read, items, number_of_frames
    )
    if not starts:
        raise CannotUnderstand(
            f"{count} fragments can't be told apart as {number_of_frames} frames: no offset table"
        )
    return starts


def _basic_offset_table(read: Read, items: list[int]) -> list[int]:
    offset, length = items[:2]
    if not 0 < length <= _MAX_OFFSET_TABLE:
        return []
    table = read(offset, length)
    return list(unpack(f"<{len(table) // 4}I", table[: len(table) // 4 * 4]))


def _starts_by_offsets(
    items: list[int], table: list[int], number_of_frames: int
) -> tuple[int, ...]:
    """Frame starts by an offset table; empty if the table doesn't fit the items."""
    if len(table) != number_of_frames:
        return ()
    positions = items[2::2]
    first = positions[0]
    # Offsets count from the item tag of the first fragment, values start 8 bytes later: the
    # headers cancel out.
    found = tuple(bisect_left(positions, first + offset) for offset in table)
    exact = all(
        i < len(positions) and positions[i] == first + o for i, o in zip(found, table, strict=True)
    )
    rising = all(a < b for a, b in itertools.pairwise(found))
    return found if exact and rising and found[0] == 0 else ()


def _starts_by_markers(read: Read, items: list[int], number_of_frames: int) -> tuple[int, ...]:
    """Frame starts by the markers of the JPEG family; empty if they give another number."""
    starts = []
    ended = True
    for i in range(1, len(items) // 2):
        offset, length = items[2 * i : 2 * i + 2]
        head = read(offset, min(length, 8))
        if ended and head.startswith(_START_MARKERS):
            starts.append(i - 1)
        tail_length = min(length, 8)
        ended = _ends(read(offset + length - tail_length, tail_length))
    return tuple(starts) if len(starts) == number_of_frames and starts[0] == 0 else ()


def _ends(tail: bytes) -> bool:
    return tail.rstrip(b"\0").endswith(_END_MARKERS) or tail.endswith(_END_MARKERS)


Attributes = Callable[[str], Any]
"""First value of a top-level attribute by its tag of 8 hex digits, or None."""


def native_frame_bits(value: Attributes, tag: str) -> int | None:
    """Length of a native frame in bits; None if the attributes don't tell.

    References
    ----------
    PS3.3 §C.7.6.3.1: chroma of YBR_FULL_422 is stored for every other pixel.
    """
    sizes = [value(t) for t in ("00280010", "00280011")]
    samples = value("00280002")
    sizes.append(1 if samples is None else samples)
    bits = {"7FE00008": 32, "7FE00009": 64}.get(tag) or value("00280100")
    if not all(isinstance(n, int) and n > 0 for n in (*sizes, bits)):
        return None
    total: int = sizes[0] * sizes[1] * sizes[2] * bits
    subsampled = value("00280004") in {"YBR_FULL_422", "YBR_PARTIAL_422"} and sizes[2] == 3
    return total * 2 // 3 if subsampled else total
