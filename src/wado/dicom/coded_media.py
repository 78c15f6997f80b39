"""What a compressed image or video tells of itself: its Image Pixel Module and transfer syntax.

Only headers are read, through a function that gives bytes at an offset; nothing is decoded.
"""

from collections.abc import Callable
from dataclasses import dataclass

from wado.errors import CannotUnderstand

Reader = Callable[[int, int], bytes]
"""Gives at most so many bytes (second) at an offset (first)."""

SYNTAX = "1.2.840.10008.1.2.4."


@dataclass(frozen=True, slots=True)
class Coded:
    """An image or video as its own headers describe it.

    Attributes
    ----------
    transfer_syntax_uid
        The one that its coding makes it.
    also
        Other transfer syntaxes under which the same bit stream may be stored.
    photometric_interpretation
        Empty if the headers leave it open.
    photometric_is_certain
        The headers say it; else it is what is usual.
    lossy, method
        Whether values were lost, and Lossy Image Compression Method (PS3.3 §C.7.6.1.1.5.1).
    start, end
        The bit stream within the file: containers of still images aren't stored.
    number_of_frames, frame_time_ms
        Of a video, as far as its container knows.
    """

    transfer_syntax_uid: str
    rows: int
    columns: int
    samples_per_pixel: int
    bits_stored: int
    photometric_interpretation: str
    end: int
    start: int = 0
    pixel_representation: int = 0
    photometric_is_certain: bool = False
    lossy: bool = True
    method: str = ""
    also: tuple[str, ...] = ()
    number_of_frames: int | None = None
    frame_time_ms: float | None = None
    is_video: bool = False

    @property
    def bits_allocated(self) -> int:
        """Bits Allocated (0028,0100): whole bytes."""
        return 8 if self.bits_stored <= 8 else 16 if self.bits_stored <= 16 else 32


class NeedsDecoding(CannotUnderstand):
    """An image that no transfer syntax of today holds, but that can be decoded and stored so."""


def number(data: bytes, at: int, length: int = 2) -> int:
    """Read a big-endian number; what is cut off is an error.

    Raises
    ------
    CannotUnderstand
        The bytes end early.
    """
    value = data[at : at + length]
    if len(value) != length:
        raise CannotUnderstand("the headers of the image end early")
    return int.from_bytes(value, "big")


_MAX_BOXES = 1000


def boxes(read: Reader, start: int, end: int) -> list[tuple[bytes, int, int]]:
    """Type, start and end of the content of each box of an ISO base media or JPEG 2000 file.

    Raises
    ------
    CannotUnderstand
        The boxes do not fit into each other.
    """
    found: list[tuple[bytes, int, int]] = []
    while start + 8 <= end:
        head = read(start, 16)
        length, header = number(head, 0, 4), 8
        if length == 1:
            length, header = number(head, 8, 8), 16
        elif length == 0:  # to the end of the file
            length = end - start
        if length < header or start + length > end or len(found) >= _MAX_BOXES:
            raise CannotUnderstand("the boxes of the file are broken")
        found.append((head[4:8], start + header, start + length))
        start += length
    return found
