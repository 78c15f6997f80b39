"""The head of a JPEG 2000 or HTJ2K code stream (ISO/IEC 15444-1 Annex A), and where it ends."""

from dataclasses import dataclass
from struct import Struct, unpack_from

from wado.dicom.code_streams import CodeStream
from wado.errors import CannotUnderstand

START = b"\xff\x4f\xff\x51"
_JP2_START = b"\0\0\0\x0cjP  "
_SIZE = Struct(">HIIIIIIIIH")
_TILE_PART = Struct(">HHHIBB")
_SOT, _EOC = 0xFF90, b"\xff\xd9"
_COD, _SOD = 0xFF52, 0xFF93
_HIGH_THROUGHPUT = 0x4000
_MOST_SEGMENTS = 4096
_MOST_COMPONENTS = 16384
_FEW_TILES = 64
_LEAST_TILE = 256
"""A decoder keeps a record for each tile: none of fewer pixels than this, if there are many."""


@dataclass(frozen=True, slots=True)
class _Size:
    """SIZ (A.5.1): sides and origins of the image and of its tiles, and of each component."""

    capabilities: int
    columns: int
    rows: int
    tiles: int
    depths: bytes
    steps: bytes


def read_jpeg_2000(data: bytes) -> CodeStream:
    """Read the head of a JPEG 2000 or HTJ2K stream, in a JP2 file or bare (ISO/IEC 15444-1 A.5).

    Raises
    ------
    CannotUnderstand
        There is no such head, or it claims what nobody means.
    """
    start = stream_start(data)
    if start < 0 or len(data) < start + 50:
        raise CannotUnderstand("the frame is no JPEG 2000 code stream")
    size = _size(data, start)
    if size.steps.strip(b"\x01"):
        raise CannotUnderstand("the JPEG 2000 code stream has components of several sizes")
    if size.tiles > max(size.rows * size.columns // _LEAST_TILE, _FEW_TILES):
        raise CannotUnderstand(f"the JPEG 2000 code stream claims {size.tiles} tiles")
    segments = start + 4 + unpack_from(">H", data, start + 4)[0]
    component_transform, is_reversible = _coding_style(data, segments)
    return CodeStream(
        size.rows,
        size.columns,
        len(size.depths),
        max(depth & 0x7F for depth in size.depths) + 1,
        is_signed=bool(size.depths[0] & 0x80),
        component_transform=component_transform,
        is_reversible=is_reversible,
    )


def stream_start(data: bytes) -> int:
    """Offset of the code stream, -1 if there is none."""
    position = max(data.find(START), 0) if data.startswith(_JP2_START) else 0
    return position if data[position : position + 4] == START else -1


def is_high_throughput(data: bytes) -> bool:
    """Whether the blocks are coded as HTJ2K has it (Rsiz, ISO/IEC 15444-15 A.3)."""
    start = stream_start(data)
    if start < 0 or start + 8 > len(data):
        return False
    capabilities: int = unpack_from(">H", data, start + 6)[0]
    return bool(capabilities & _HIGH_THROUGHPUT)


def _size(data: bytes, start: int) -> _Size:
    capabilities, *sides, count = _SIZE.unpack_from(data, start + 6)
    width, height, left, top, tile_width, tile_height, tiles_left, tiles_top = sides
    parts = data[start + 42 : start + 42 + 3 * count]
    is_wrong = not 1 <= count <= _MOST_COMPONENTS or len(parts) != 3 * count or not all(parts[1::3])
    if is_wrong or height <= top or width <= left or not tile_width or not tile_height:
        raise CannotUnderstand("the JPEG 2000 code stream has a wrong size segment")
    if not all(parts[2::3]) or tiles_left > left or tiles_top > top:
        raise CannotUnderstand("the JPEG 2000 code stream has a wrong size segment")
    tiles = -(-(width - tiles_left) // tile_width) * -(-(height - tiles_top) // tile_height)
    return _Size(
        capabilities,
        width - left,
        height - top,
        tiles,
        parts[::3],
        parts[1::3] + parts[2::3],
    )


def set_precision(stream: bytearray, bits: int) -> None:
    """Write another precision of all components into the head of a bare code stream."""
    (count,) = unpack_from(">H", stream, 40)
    for at in range(42, 42 + 3 * count, 3):
        stream[at] = (stream[at] & 0x80) | (bits - 1)


def _coding_style(data: bytes, position: int) -> tuple[bool, bool]:
    """Whether components were transformed, and the wavelet is reversible (COD, A.6.1)."""
    for _ in range(_MOST_SEGMENTS):
        if position + 14 > len(data):
            break
        marker, length = unpack_from(">HH", data, position)
        if marker == _COD:
            return data[position + 8] != 0, data[position + 13] == 1
        if marker in (_SOT, _SOD) or length < 2:
            break
        position += 2 + length
    return False, False


def whole_stream(data: bytes) -> bytes:
    """Give the code stream alone, with its end marker; some writers forget that.

    Raises
    ------
    CannotUnderstand
        A tile-part is longer than what is there: the stream was cut off.
    """
    start = stream_start(data)
    if start < 0:
        raise CannotUnderstand("the frame is no JPEG 2000 code stream")
    end = _end(data, start)
    if end is None:
        return data[start:]
    return data[start:end] + _EOC


def _end(data: bytes, start: int) -> int | None:
    """Offset behind the last tile-part; None if only its data tell (its length is 0, A.4.2)."""
    position = data.find(b"\xff\x90\0\x0a", start)
    last = None
    while position >= 0 and position + _TILE_PART.size <= len(data):
        marker, _, _, length, _, _ = _TILE_PART.unpack_from(data, position)
        if marker != _SOT:
            break
        if length < _TILE_PART.size:
            return None
        if position + length > len(data):
            raise CannotUnderstand("the JPEG 2000 code stream was cut off within a tile-part")
        position += length
        last = position
    return last
