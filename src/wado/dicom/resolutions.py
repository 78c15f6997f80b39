"""Lower resolutions of an HTJ2K frame: its beginning is an image by itself (ISO/IEC 15444-1, -15).

That is so where a tile-part holds one resolution each, the lowest first, and the TLM marker segment
says how long they are: as this archive encodes, and as 1.2.840.10008.1.2.4.202 has it (PS3.5).
"""

from itertools import accumulate
from struct import error, unpack_from

from wado.dicom.jpeg_2000_stream import START

HEAD_BYTES = 4096
"""How much of a code stream is enough to read its main header, as a rule."""
END_OF_CODE_STREAM = b"\xff\xd9"
"""Marker EOC: what is cut off before it is closed by it."""

_SIZ, _COD, _TLM, _SOT = 0xFF51, 0xFF52, 0xFF55, 0xFF90
_BY_RESOLUTION = frozenset({1, 2})
"""Progression orders RLCP and RPCL (ISO/IEC 15444-1 Table A.16)."""
_MOST_SEGMENTS = 256


def resolution_ends(head: bytes, length: int) -> tuple[int, ...]:
    """Tell where each resolution of a code stream ends, the lowest first.

    Parameters
    ----------
    head
        Its first bytes.
    length
        Of the whole.

    Returns
    -------
    ends
        Up to which byte a decoder needs it; empty if it can't be cut so, or does not say where.
    """
    try:
        return _ends(head, length)
    except (error, IndexError):  # the header is longer than what was read, or no code stream
        return ()


def _ends(head: bytes, length: int) -> tuple[int, ...]:
    if not head.startswith(START):
        return ()
    position, levels, lengths = 2, None, []
    for _ in range(_MOST_SEGMENTS):
        marker, size = unpack_from(">HH", head, position)
        if marker == _SOT:
            break
        at = position + 4
        if marker == _SIZ and not _is_one_tile(head, at):
            return ()
        if marker == _COD:
            order, levels = head[at + 1], head[at + 5]
            if order not in _BY_RESOLUTION:
                return ()
        if marker == _TLM:
            lengths += _tile_parts(head, at, position + 2 + size)
        position += 2 + size
    ends = tuple(accumulate(lengths, initial=position))[1:]
    if levels is None or len(ends) != levels + 1:
        return ()
    is_all = ends[-1] + len(END_OF_CODE_STREAM) <= length
    return ends if is_all else ()


def _is_one_tile(head: bytes, at: int) -> bool:
    """Whether one tile holds the image (ISO/IEC 15444-1 §A.5.1)."""
    _, width, height, _, _, tile_width, tile_height, left, top = unpack_from(">HIIIIIIII", head, at)
    return bool(left + tile_width >= width and top + tile_height >= height)


def _tile_parts(head: bytes, at: int, end: int) -> list[int]:
    """Lengths of tile-parts (ISO/IEC 15444-1 §A.7.1)."""
    (_, sizes) = unpack_from(">BB", head, at)
    index_bytes, is_long = sizes >> 4 & 3, sizes >> 6 & 1
    length_bytes = 4 if is_long else 2
    starts = range(at + 2 + index_bytes, end, index_bytes + length_bytes)
    if end > len(head):
        raise error("the header is longer than what was read")
    return [int.from_bytes(head[start : start + length_bytes], "big") for start in starts]
