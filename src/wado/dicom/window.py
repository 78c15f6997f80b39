"""A sliding window over a stored file: headers are read from it, bulk values never are."""

import zlib
from collections.abc import Callable

from wado.dicom.sop_classes import transfer_syntax
from wado.errors import CannotUnderstand

Read = Callable[[int, int], bytes]
"""``read(offset, length)``: bytes of the file, as ``os.pread`` gives them."""

FIRST_WINDOW = 1 << 16
LARGEST_WINDOW = 1 << 20
MAX_HEADER_BYTES = 1 << 26
"""Metadata longer than 64 MiB is refused: as objects in memory it would take ten times as much."""
PADDING = bytes(16)
"""Behind the last window, so that a header can be unpacked before its length is checked."""

_INFLATE_STEP = 1 << 16
_MOST_INFLATED_BYTES = 1 << 30
_MOST_INFLATED_TIMES = 20


def inflated_limit(deflated: int) -> int:
    """Length beyond which a data set of `deflated` bytes is taken for an attack.

    Images shrink to a half or a third, by which a small file never gets large; blank ones shrink
    a thousand times, but aren't large.
    """
    return max(_MOST_INFLATED_BYTES, deflated * _MOST_INFLATED_TIMES)


class Window:
    """The part of a file that is in memory.

    Windows grow while they follow each other and start small again after a jump, so that long
    metadata takes few reads and a trailer after Pixel Data little memory.

    Attributes
    ----------
    data
        The bytes, with `PADDING` behind them.
    base, filled
        Offset in the file of the first byte, and how many there are.
    size
        Size of the file.
    """

    __slots__ = ("_loaded", "_read", "_step", "base", "data", "filled", "size")

    def __init__(self, read: Read, size: int, data: bytes = b"") -> None:
        self._read = read
        self._step = FIRST_WINDOW
        self._loaded = 0
        self.base = 0
        self.filled = len(data)
        self.data = data + PADDING
        self.size = size

    def load(self, position: int, length: int = 0) -> None:
        """Move the window so that it starts at `position` and holds `length` bytes at least.

        Raises
        ------
        CannotUnderstand
            The file is shorter than it was said to be, or its metadata endless.
        """
        follows = self.base < position <= self.base + self.filled
        self._step = min(self._step * 2, LARGEST_WINDOW) if follows else FIRST_WINDOW
        count = min(max(length, self._step), self.size - position)
        data = self._read(position, count) if count > 0 else b""
        if len(data) < count:
            raise CannotUnderstand(f"the file ends at {position + len(data)}, not at {self.size}")
        self.base, self.filled, self.data = position, len(data), data + PADDING
        self._loaded += count
        if self._loaded > MAX_HEADER_BYTES:
            raise CannotUnderstand(f"there are over {MAX_HEADER_BYTES} bytes of metadata")

    def bytes_at(self, position: int, length: int) -> bytes:
        """Bytes of the file; the window moves only if they aren't in it."""
        start = position - self.base
        if start < 0 or start + length > self.filled:
            self.load(position, length)
            start = 0
        return self.data[start : start + min(length, self.filled - start)]

    def fork(self) -> "Window":
        """Make a window that is at the same place, and is moved and counted on its own."""
        other = Window(self._read, self.size)
        other.base, other.filled, other.data = self.base, self.filled, self.data
        return other

    def slide(self, position: int) -> None:
        """Move a small window without counting: for structures that are followed, not kept."""
        data = self._read(position, min(FIRST_WINDOW, self.size - position))
        self.base, self.filled, self.data = position, len(data), data + PADDING

    def peek(self, position: int, length: int) -> bytes:
        """Bytes of the file; what isn't in the window is read alone, and the window stays."""
        start = position - self.base
        if start >= 0 and start + length <= self.filled:
            return self.data[start : start + length]
        return self._read(position, min(length, self.size - position))


class InflatedReader:
    """Random access to a deflated data set, by inflating it again from the start if need be.

    Parameters
    ----------
    read, file_size
        The stored file.
    offset
        Where the deflated data set starts in it.
    """

    def __init__(self, read: Read, file_size: int, offset: int) -> None:
        self._source, self._file_size, self._offset = read, file_size, offset
        self._rewind()

    def _rewind(self) -> None:
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._next = self._offset
        self._base, self._piece = 0, b""

    def size(self) -> int:
        """Length of the inflated data set; inflates all of it.

        Raises
        ------
        CannotUnderstand
            The stream is not complete, or not a deflated one.
        """
        limit = inflated_limit(self._file_size - self._offset)
        while self._advance():
            if self._base > limit:
                raise CannotUnderstand(f"the data set inflates to over {limit} bytes")
        total = self._base + len(self._piece)
        self._rewind()
        return total

    def __call__(self, offset: int, length: int) -> bytes:
        """Bytes of the inflated data set."""
        if offset < self._base:
            self._rewind()
        pieces = []
        while length > 0:
            start = offset - self._base
            part = self._piece[start : start + length]
            pieces.append(part)
            offset, length = offset + len(part), length - len(part)
            if length and not self._advance():
                break
        return b"".join(pieces)

    def _advance(self) -> bool:
        """Inflate the next piece; False at the end."""
        self._base += len(self._piece)
        self._piece = b""
        while not self._piece:
            if self._inflater.eof:
                return False
            data = self._inflater.unconsumed_tail or self._more()
            try:
                self._piece = self._inflater.decompress(data, _INFLATE_STEP)
            except zlib.error as e:
                raise CannotUnderstand(f"the data set can't be inflated: {e}") from e
            if not data and not self._piece and not self._inflater.eof:
                raise CannotUnderstand(
                    "the data set ends early: its deflated stream is not complete"
                )
        return True

    def _more(self) -> bytes:
        data = self._source(self._next, min(_INFLATE_STEP, self._file_size - self._next))
        self._next += len(data)
        return data


def data_set_reader(
    read: Read, file_size: int, transfer_syntax_uid: str, data_set_offset: int
) -> Read:
    """Make a reader in which offsets of a `Description` count.

    That is `read` itself, but for a deflated data set, whose offsets count in the inflated one.
    """
    if transfer_syntax(transfer_syntax_uid).deflated:
        return InflatedReader(read, file_size, data_set_offset)
    return read
