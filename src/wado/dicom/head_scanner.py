"""Follow a data set as it arrives: find the identifying attributes, notice an early end."""

import zlib
from typing import Final

from wado.dicom.elements import (
    BIG_ENDIAN,
    ITEM,
    ITEM_DELIMITATION,
    LITTLE_ENDIAN,
    MAX_DEPTH,
    PIXEL_DATA,
    SEQUENCE_DELIMITATION,
    UNDEFINED_LENGTH,
    VALUE_OFFSET,
    Mode,
    first_mode,
    read_header,
    tag_text,
)
from wado.dicom.sop_classes import transfer_syntax
from wado.dicom.window import inflated_limit
from wado.errors import CannotUnderstand

MAX_VALUE_BYTES = 1024
"""Longest value of an identifying attribute that is kept; a longer one is refused."""

WANTED: Final = (0x00080016, 0x00080018, 0x00080020, 0x00100020, 0x0020000D, 0x0020000E)
"""SOP Class UID, SOP Instance UID, Study Date, Patient ID, Study and Series Instance UID."""

_INFLATE_STEP = 1 << 16
_ELEMENTS, _ITEMS, _FRAGMENTS = range(3)
_SEQUENCE_VRS = frozenset({b"SQ", b"UN", b""})


class HeadScanner:
    """Follow the top-level structure of a data set that comes in pieces of any length.

    Values are passed over by arithmetic, what has an undefined length is followed to its
    delimiter, at any depth; nothing but the values of `WANTED` and an element header that is cut
    by the end of a piece is kept. Attributes are never taken from inside a sequence.

    Parameters
    ----------
    transfer_syntax_uid
        How the data set is encoded; one that isn't known counts as Explicit VR Little Endian.

    Attributes
    ----------
    found
        Raw values (padding included) of the `WANTED` attributes met by now, by tag.
    passed
        All that is wanted has gone by: a tag beyond (0020,000E) was met.
    """

    __slots__ = (
        "_deflated",
        "_inflated",
        "_inflater",
        "_last",
        "_layout",
        "_mode",
        "_skip",
        "_stack",
        "_started",
        "_stops",
        "_tail",
        "found",
        "passed",
    )

    def __init__(self, transfer_syntax_uid: str) -> None:
        syntax = transfer_syntax(transfer_syntax_uid)
        self.found: dict[int, bytes] = {}
        self.passed = False
        self._layout = BIG_ENDIAN if syntax.big_endian else LITTLE_ENDIAN
        self._stops = _STOPS_BIG if syntax.big_endian else _STOPS_LITTLE
        self._mode = Mode.IMPLICIT if syntax.implicit else Mode.EXPLICIT
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS) if syntax.deflated else None
        self._deflated = self._inflated = 0
        self._started = False
        self._skip = 0
        self._tail = b""
        self._last = 0
        self._stack: list[tuple[int, Mode]] = []

    def feed(self, data: bytes | memoryview) -> bool:
        """Follow the next piece; True once all that is wanted has been passed.

        Raises
        ------
        CannotUnderstand
            The bytes aren't a data set of the transfer syntax, or a wanted value is too long or
            contradicted by a second one.
        """
        if self._inflater is None:
            self._follow(data)
        else:
            self._inflate(data)
        return self.passed

    def finish(self) -> None:
        """Check that the data set ended where an element ends.

        Raises
        ------
        CannotUnderstand
            It ended early.
        """
        if self._inflater is not None and not self._inflater.eof:
            raise CannotUnderstand("the data set ends early: its deflated stream is not complete")
        if self._skip:
            raise CannotUnderstand(
                f"the data set ends early: {self._skip} bytes of {tag_text(self._last)} are missing"
            )
        # A few NULs at the end are padding of writers that round up the size of the file.
        if self._tail.strip(b"\0"):
            raise CannotUnderstand(
                f"the data set ends early: within the element after {tag_text(self._last)}"
            )
        if self._stack:
            raise CannotUnderstand(
                f"the data set ends early: within a sequence or Pixel Data of undefined length, "
                f"after {tag_text(self._last)}"
            )

    def pass_over(self, limit: int) -> int:
        """Pass over at most `limit` bytes of a value without seeing them; returns how many.

        For readers that can seek: what is passed over here must not be fed. Always 0 in a deflated
        data set.
        """
        if self._inflater is not None:
            return 0
        count = min(self._skip, limit)
        self._skip -= count
        return count

    def _inflate(self, data: bytes | memoryview) -> None:
        assert self._inflater is not None
        self._deflated += len(data)
        limit = inflated_limit(self._deflated)
        while not self._inflater.eof:
            try:
                piece = self._inflater.decompress(data, _INFLATE_STEP)
            except zlib.error as e:
                raise CannotUnderstand(f"the data set can't be inflated: {e}") from e
            self._inflated += len(piece)
            if self._inflated > limit:
                raise CannotUnderstand(f"the data set inflates to over {limit} bytes")
            self._follow(piece)
            data = self._inflater.unconsumed_tail
            if not data and len(piece) < _INFLATE_STEP:
                return

    def _follow(self, data: bytes | memoryview) -> None:
        if self._skip >= len(data):  # the usual case: in the midst of Pixel Data
            self._skip -= len(data)
            return
        position, self._skip = self._skip, 0
        if self._tail:
            data = self._tail + data
        end = len(data)
        while position < end:
            if not self._stack and self._started:
                position = self._run(data, position)
                if position >= end:
                    break
            after = self._step(data, position)
            if after < 0:
                break
            position = after
        self._skip = max(0, position - end)
        self._tail = bytes(data[position:])

    def _run(self, data: bytes | memoryview, position: int) -> int:
        """Pass over top-level elements that nothing is special about; returns where it stopped."""
        if self._mode is Mode.IMPLICIT:
            position, raw = self._run_implicit(data, position)
        else:
            position, raw = self._run_explicit(data, position)
        if raw >= 0:
            self._note(self._layout.tag(raw))
        return position

    def _run_explicit(self, data: bytes | memoryview, position: int) -> tuple[int, int]:
        header, long = self._layout.explicit.unpack_from, self._layout.long.unpack_from
        stops, value_offset = self._stops, VALUE_OFFSET.get
        last, raw = len(data) - 12, -1
        while position <= last:
            tag, vr, length = header(data, position)
            if tag in stops:
                break
            offset = value_offset(vr)
            if offset == 12:
                length = long(data, position + 8)[0]
                if length == UNDEFINED_LENGTH:
                    break
            elif offset is None:
                break
            raw = tag
            position += offset + length
        return position, raw

    def _run_implicit(self, data: bytes | memoryview, position: int) -> tuple[int, int]:
        header, stops = self._layout.implicit.unpack_from, self._stops
        last, raw = len(data) - 8, -1
        while position <= last:
            tag, length = header(data, position)
            if length == UNDEFINED_LENGTH or tag in stops:
                break
            raw = tag
            position += 8 + length
        return position, raw

    def _note(self, tag: int) -> None:
        self._last = tag
        if tag > WANTED[-1]:
            self.passed = True

    def _step(self, data: bytes | memoryview, position: int) -> int:
        """Follow one header of any kind; returns the position after it, or -1 if it is cut."""
        if not self._started:
            if len(data) < 8:
                return -1
            self._mode = first_mode(data, position, self._mode)
            self._started = True
        kind, mode = self._stack[-1] if self._stack else (_ELEMENTS, self._mode)
        header = read_header(self._layout, mode, data, position)
        if header is None:
            return -1
        tag, vr, length, start = header
        if tag >> 16 == 0xFFFE:
            return self._delimiter(tag, length, start)
        if kind != _ELEMENTS:
            raise CannotUnderstand(
                f"{tag_text(tag)} stands where an item of a sequence must (PS3.5 §7.5)"
            )
        if not self._stack:
            if tag in WANTED and not self._keep(tag, length, data, start):
                return -1
            self._note(tag)
        if length != UNDEFINED_LENGTH:
            return start + length
        self._open(tag, vr, mode)
        return start

    def _keep(self, tag: int, length: int, data: bytes | memoryview, start: int) -> bool:
        if length > MAX_VALUE_BYTES:
            raise CannotUnderstand(f"{tag_text(tag)} is longer than {MAX_VALUE_BYTES} bytes")
        value = bytes(data[start : start + length])
        if len(value) < length:
            return False
        if self.found.get(tag, value) != value:
            raise CannotUnderstand(f"{tag_text(tag)} is there twice, with different values")
        self.found[tag] = value
        return True

    def _open(self, tag: int, vr: bytes, mode: Mode) -> None:
        """Enter a value of undefined length."""
        if len(self._stack) >= MAX_DEPTH:
            raise CannotUnderstand(f"sequences are nested deeper than {MAX_DEPTH} levels")
        if tag == PIXEL_DATA or vr not in _SEQUENCE_VRS:
            self._stack.append((_FRAGMENTS, mode))
        else:
            self._stack.append((_ITEMS, Mode.EITHER if vr == b"UN" else mode))

    def _delimiter(self, tag: int, length: int, start: int) -> int:
        if not self._stack:
            return start  # a delimiter that nothing was opened for changes nothing
        kind, mode = self._stack[-1]
        if tag == ITEM and kind != _ELEMENTS:
            if length != UNDEFINED_LENGTH:
                return start + length
            if kind == _ITEMS:
                self._stack.append((_ELEMENTS, mode))
                return start
        elif tag == (ITEM_DELIMITATION if kind == _ELEMENTS else SEQUENCE_DELIMITATION):
            self._stack.pop()
            return start
        raise CannotUnderstand(
            f"{tag_text(tag)} where it can't stand, after {tag_text(self._last)}"
        )


_STOPS_BIG = frozenset(WANTED) | {ITEM, ITEM_DELIMITATION, SEQUENCE_DELIMITATION}
_STOPS_LITTLE = frozenset(LITTLE_ENDIAN.tag(tag) for tag in _STOPS_BIG)
