"""A data set in Explicit VR Little Endian, made of one in any other transfer syntax (PS3.5 §A).

Only headers are read and written anew: long values stay where they are, and are named by their
ranges, so that a data set of any size is rewritten in little memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from struct import Struct

from wado.dicom.dictionary import private_vr, public_vr
from wado.dicom.elements import (
    BIG_ENDIAN,
    ITEM,
    ITEM_DELIMITATION,
    LITTLE_ENDIAN,
    MAX_DEPTH,
    SEQUENCE_DELIMITATION,
    UNDEFINED_LENGTH,
    VALUE_OFFSET,
    Mode,
    first_mode,
    read_header,
    tag_text,
)
from wado.dicom.frames import scan_fragments
from wado.dicom.sop_classes import TransferSyntax
from wado.dicom.window import Window
from wado.errors import CannotUnderstand

PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_OFFSET_TABLES = frozenset({0x7FE00001, 0x7FE00002})
_TRAILING_PADDING = 0xFFFCFFFC
_PIXEL_REPRESENTATION, _LUT_DESCRIPTOR, _LUT_DATA = 0x00280103, 0x00283002, 0x00283006
_INLINE_BYTES = 4096
"""Longer values of a plain file are left to be sent from it."""
_MAX_SHORT = 0xFFFF

_SHORT_HEADER = Struct("<HH2sH")
_LONG_HEADER = Struct("<HH2sHI")
_ITEM_HEADER = Struct("<HHI")
_ITEM_BEGIN = _ITEM_HEADER.pack(0xFFFE, 0xE000, UNDEFINED_LENGTH)
_ITEM_END = _ITEM_HEADER.pack(0xFFFE, 0xE00D, 0)
_SEQUENCE_END = _ITEM_HEADER.pack(0xFFFE, 0xE0DD, 0)

_WORD_BYTES = {
    **dict.fromkeys((b"AT", b"OW", b"SS", b"US"), 2),
    **dict.fromkeys((b"FL", b"OF", b"OL", b"SL", b"UL"), 4),
    **dict.fromkeys((b"FD", b"OD", b"OV", b"SV", b"UV"), 8),
}
"""Bytes of the words that big endian turns round (PS3.5 §7.3)."""


@dataclass(frozen=True, slots=True)
class Range:
    """A value that stays where it is; `word_bytes` over 1 tells that its words are turned round."""

    offset: int
    length: int
    word_bytes: int = 1


@dataclass(frozen=True, slots=True)
class PixelsHere:
    """Where Pixel Data stands: header and value are left to the caller."""

    tag: int


Piece = bytes | Range | PixelsHere


@dataclass(frozen=True, slots=True)
class Changes:
    """What becomes different at the top level.

    Attributes
    ----------
    elements
        Tag to VR and value, which is written instead of, or beside, what is there.
    pixels_end
        Where the element with the pixels ends, if they are replaced; None if they stay.
    pixel_representation
        That of the top level, on which VRs depend before it is met.
    """

    elements: Mapping[int, tuple[bytes, bytes]] = field(default_factory=dict)
    pixels_end: int | None = None
    pixel_representation: int = 0


@dataclass(slots=True)
class _Context:
    """What the VRs of the elements of one level depend on."""

    pixel_representation: int
    lut_entries: int = 0
    creators: dict[int, str] = field(default_factory=dict)


def element_header(tag: int, vr: bytes, length: int) -> bytes:
    """Header of an element in Explicit VR Little Endian."""
    group, number = tag >> 16, tag & 0xFFFF
    if VALUE_OFFSET.get(vr) == 8:
        return _SHORT_HEADER.pack(group, number, vr, length)
    return _LONG_HEADER.pack(group, number, vr, 0, length)


def rewrite(window: Window, start: int, syntax: TransferSyntax, changes: Changes) -> list[Piece]:
    """Rewrite a data set.

    Group lengths and padding are dropped; elements of UN stay UN.

    Parameters
    ----------
    window
        The file, or the inflated data set.
    start
        Where the data set starts.
    syntax
        Its transfer syntax.
    changes
        What becomes different.

    Raises
    ------
    CannotUnderstand
        The data set breaks rules beyond what can be followed.
    """
    declared = Mode.IMPLICIT if syntax.implicit else Mode.EXPLICIT
    mode = first_mode(window.bytes_at(start, 8), 0, declared)
    rewriter = _Rewriter(window, big_endian=syntax.big_endian, changes=changes)
    return rewriter.data_set(start, mode)


class _Rewriter:
    def __init__(self, window: Window, *, big_endian: bool, changes: Changes) -> None:
        self._window = window
        self._layout = BIG_ENDIAN if big_endian else LITTLE_ENDIAN
        self._big_endian = big_endian
        self._changes = changes
        self._pending = sorted(changes.elements)
        self._pieces: list[Piece] = []
        self._buffer = bytearray()

    def data_set(self, start: int, mode: Mode) -> list[Piece]:
        context = _Context(self._changes.pixel_representation)
        position, end = start, self._window.size
        while end - position >= 8:
            tag, vr, length, value = self._header(position, end, mode)
            if tag == _TRAILING_PADDING:
                break
            if tag == SEQUENCE_DELIMITATION and not length:  # some write two behind Pixel Data
                position = value
                continue
            self._insert_before(tag)
            if tag in PIXELS and self._changes.pixels_end is not None:
                self._add(PixelsHere(tag))
                position = self._changes.pixels_end
            elif tag in self._changes.elements or (
                tag in _OFFSET_TABLES and self._changes.pixels_end is not None
            ):
                position = self._after(tag, value, length, end)
            else:
                position = self._element((tag, vr, length, value), end, mode, context, 0)
        self._insert_before(1 << 32)
        self._flush()
        return self._pieces

    def _header(self, position: int, end: int, mode: Mode) -> tuple[int, bytes, int, int]:
        data = self._window.bytes_at(position, min(12, end - position))
        header = read_header(self._layout, mode, data, 0)
        if header is None:
            raise CannotUnderstand("the data set ends within the header of an element")
        tag, vr, length, offset = header
        return tag, vr, length, position + offset

    def _after(self, tag: int, value: int, length: int, end: int) -> int:
        if length == UNDEFINED_LENGTH or value + length > end:
            raise CannotUnderstand(f"{tag_text(tag)} is longer than what is there")
        return value + length

    def _insert_before(self, tag: int) -> None:
        """Write the changed elements that belong before `tag`."""
        while self._pending and self._pending[0] <= tag:
            changed = self._pending.pop(0)
            vr, value = self._changes.elements[changed]
            self._buffer += element_header(changed, vr, len(value)) + value

    def _element(
        self,
        header: tuple[int, bytes, int, int],
        end: int,
        mode: Mode,
        context: _Context,
        depth: int,
    ) -> int:
        """Write an element of any kind anew; the position after it."""
        tag, vr, length, value = header
        if tag >> 16 == 0xFFFE:
            raise CannotUnderstand(f"{tag_text(tag)} where it can't stand")
        if self._is_verbatim(mode, vr, length):
            return self._verbatim(tag, vr, value, self._after(tag, value, length, end))
        name = vr or self._vr(tag, length, context)
        if name == b"SQ" or (length == UNDEFINED_LENGTH and name == b"UN"):
            nested = Mode.EITHER if vr == b"UN" else mode
            self._buffer += element_header(tag, b"SQ", UNDEFINED_LENGTH)
            after = self._sequence((value, length, end), nested, context, depth + 1)
            self._buffer += _SEQUENCE_END
            return after
        if length == UNDEFINED_LENGTH:
            return self._fragments(tag, name, value, end)
        after = self._after(tag, value, length, end)
        if tag & 0xFFFF:
            self._value(tag, name, value, length, context)
        return after

    def _is_verbatim(self, mode: Mode, vr: bytes, length: int) -> bool:
        """Whether an element stands already as it is to be written; its items then do, too."""
        return (
            mode is Mode.EXPLICIT
            and not self._big_endian
            and vr in VALUE_OFFSET
            and length % 2 == 0
            and length != UNDEFINED_LENGTH
        )

    def _verbatim(self, tag: int, vr: bytes, value: int, after: int) -> int:
        start = value - VALUE_OFFSET[vr]
        if not tag & 0xFFFF:
            return after
        if after - start > _INLINE_BYTES:
            self._add(Range(start, after - start))
        else:
            self._buffer += self._window.bytes_at(start, after - start)
        return after

    def _vr(self, tag: int, length: int, context: _Context) -> bytes:
        """VR that isn't written, by the dictionaries (PS3.5 §A.1)."""
        group, number = tag >> 16, tag & 0xFFFF
        if length == UNDEFINED_LENGTH and tag not in PIXELS:
            return b"SQ"
        if not group & 1:
            name = public_vr(tag)
        elif 0x10 <= number <= 0xFF:
            name = "LO"
        else:
            creator = context.creators.get(group << 16 | number >> 8)
            name = private_vr(creator, tag) if creator else "UN"
        if len(name) == 2:
            return name.encode("ascii")
        if name == "US or SS":
            return b"SS" if context.pixel_representation == 1 else b"US"
        if tag == _LUT_DATA and context.lut_entries == 1:
            return b"US"
        return b"OW"

    def _value(self, tag: int, vr: bytes, start: int, length: int, context: _Context) -> None:
        word_bytes = _WORD_BYTES.get(vr, 1) if self._big_endian else 1
        if VALUE_OFFSET.get(vr) == 8 and length > _MAX_SHORT:
            vr = b"UN"  # its length doesn't fit (PS3.5 §6.2.2)
        self._buffer += element_header(tag, vr, length + length % 2)
        if length > _INLINE_BYTES or (word_bytes > 1 and tag in PIXELS):
            self._add(Range(start, length, word_bytes))
        else:
            raw = self._window.bytes_at(start, length)
            if word_bytes > 1:
                raw = _swapped(raw, word_bytes)
            self._learn(tag, raw, context)
            self._buffer += raw
        if length % 2:
            self._buffer += b"\0"

    def _learn(self, tag: int, raw: bytes, context: _Context) -> None:
        """Note what the VRs of later elements depend on."""
        if tag == _PIXEL_REPRESENTATION and len(raw) == 2:
            context.pixel_representation = int.from_bytes(raw, "little")
        elif tag == _LUT_DESCRIPTOR:
            context.lut_entries = int.from_bytes(raw[:2], "little")
        elif tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF:
            creator = raw.decode("latin-1").split("\\")[0].strip("\0 ")
            context.creators[tag & 0xFFFF0000 | tag & 0xFF] = creator

    def _fragments(self, tag: int, vr: bytes, start: int, end: int) -> int:
        """Keep an encapsulated value as it is, such as that of an icon."""
        _, after = scan_fragments(self._window, start, end)
        self._buffer += element_header(tag, vr if vr in (b"OB", b"OW") else b"OB", UNDEFINED_LENGTH)
        self._add(Range(start, after - start))
        return after

    def _sequence(
        self, extent: tuple[int, int, int], mode: Mode, context: _Context, depth: int
    ) -> int:
        """Write the items of a sequence; the position after it."""
        start, length, end = extent
        if depth > MAX_DEPTH:
            raise CannotUnderstand(f"sequences are nested over {MAX_DEPTH} deep")
        stop = end if length == UNDEFINED_LENGTH else start + length
        if stop > end:
            raise CannotUnderstand("a sequence is longer than what is there")
        position = start
        while position < stop:
            tag, _, item_length, value = self._header(position, stop, Mode.IMPLICIT)
            if tag == SEQUENCE_DELIMITATION:
                return value
            if tag != ITEM:
                raise CannotUnderstand(f"{tag_text(tag)} between the items of a sequence")
            self._buffer += _ITEM_BEGIN
            position = self._item(value, item_length, stop, mode, (context, depth))
            self._buffer += _ITEM_END
        if length == UNDEFINED_LENGTH:
            raise CannotUnderstand("the data set ends within a sequence")
        return position

    def _item(
        self, start: int, length: int, stop: int, mode: Mode, at: tuple[_Context, int]
    ) -> int:
        parent, depth = at
        context = _Context(parent.pixel_representation)
        end = stop if length == UNDEFINED_LENGTH else start + length
        if end > stop:
            raise CannotUnderstand("an item is longer than its sequence")
        position = start
        while position < end:
            header = self._header(position, end, mode)
            if header[0] == ITEM_DELIMITATION:
                return header[3]
            position = self._element(header, end, mode, context, depth)
        return position

    def _add(self, piece: Piece) -> None:
        self._flush()
        self._pieces.append(piece)

    def _flush(self) -> None:
        if self._buffer:
            self._pieces.append(bytes(self._buffer))
            self._buffer = bytearray()


def _swapped(raw: bytes, word_bytes: int) -> bytes:
    whole = len(raw) - len(raw) % word_bytes
    result = bytearray(raw)
    for i in range(word_bytes):
        result[i:whole:word_bytes] = raw[word_bytes - 1 - i : whole : word_bytes]
    return bytes(result)
