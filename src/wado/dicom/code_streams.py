"""What the head of a compressed frame says of its pixels, read before a decoder allocates.

A header can claim anything: decoders are called only if the code stream is as large as the
attributes of the instance say (PS3.5 §8.2).
"""

from dataclasses import dataclass
from struct import Struct, unpack_from

from wado.errors import CannotUnderstand

_SEGMENT = Struct(">BBH")
_FRAME_HEADER = Struct(">BHHB")
_SIZE = Struct(">HIIIIIIIIH")
_BOX = Struct(">I4s")

_SOI, _SOS, _EOI = 0xD8, 0xDA, 0xD9
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a segment behind them (ISO/IEC 10918-1 Table B.1)."""
_SOF_JPEG_LS, _LSE = 0xF7, 0xF8
_SOF = frozenset({*range(0xC0, 0xD0), _SOF_JPEG_LS}) - {0xC4, 0xC8, 0xCC}
_SOF_LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF, _SOF_JPEG_LS})
_APP0, _APP14 = 0xE0, 0xEE
_MOST_SEGMENTS = 4096

_J2K_START = b"\xff\x4f\xff\x51"
_JP2_START = b"\0\0\0\x0cjP  "
_JXL_START = b"\xff\x0a"
_JXL_CONTAINER = b"\0\0\0\x0cJXL "
_MOST_BOXES = 256
_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


@dataclass(frozen=True, slots=True)
class CodeStream:
    """The head of a code stream.

    Attributes
    ----------
    rows, columns, samples
        Size of the image; `samples` is 0 if that is not known.
    precision
        Bits of a sample, 0 if not known.
    is_signed
        Whether samples are two's complement; only JPEG 2000 says so.
    is_lossless_jpeg
        JPEG lossless or JPEG-LS: no colour transform belongs to it.
    is_ycbcr
        What the markers of a JPEG stream say of its colour; None if nothing.
    component_transform, is_reversible
        Of JPEG 2000: the decoder undoes a multiple component transform; its wavelet loses nothing.
    """

    rows: int
    columns: int
    samples: int = 0
    precision: int = 0
    is_signed: bool = False
    is_lossless_jpeg: bool = False
    is_ycbcr: bool | None = None
    component_transform: bool = False
    is_reversible: bool = False


def read_jpeg(data: bytes) -> CodeStream:
    """Read the head of a JPEG or JPEG-LS stream (ISO/IEC 10918-1 Annex B, 14495-1 Annex C).

    Raises
    ------
    CannotUnderstand
        There is no frame header.
    """
    position = data.find(b"\xff\xd8\xff")
    if not 0 <= position <= 16:
        raise CannotUnderstand("the frame is no JPEG stream: it has no start marker")
    is_ycbcr: bool | None = None
    adobe = False
    position += 2
    for _ in range(_MOST_SEGMENTS):
        marker, start, end = _next_segment(data, position)
        if marker in _SOF:
            found = _jpeg_frame(data, start, marker)
            by_names = _by_components(data, start, found.samples)
            return CodeStream(
                found.rows,
                found.columns,
                found.samples,
                found.precision,
                is_lossless_jpeg=marker in _SOF_LOSSLESS,
                is_ycbcr=by_names if is_ycbcr is None else is_ycbcr,
            )
        if marker == _APP14 and data[start : start + 5] == b"Adobe" and end - start >= 12:
            is_ycbcr, adobe = data[start + 11] != 0, True
        elif marker == _APP0 and data[start : start + 4] == b"JFIF" and not adobe:
            is_ycbcr = True
        position = end
    raise CannotUnderstand("the JPEG stream has no frame header")


def _next_segment(data: bytes, position: int) -> tuple[int, int, int]:
    """Marker, start and end of the segment after `position`."""
    while position + 4 <= len(data):
        prefix, marker, length = _SEGMENT.unpack_from(data, position)
        if prefix != 0xFF:
            break
        if marker == 0xFF:  # fill bytes
            position += 1
        elif marker in _ALONE:
            position += 2
        elif marker in (_SOS, _EOI) or length < 2:
            break
        else:
            return marker, position + 4, position + 2 + length
    raise CannotUnderstand("the JPEG stream has no frame header")


def _jpeg_frame(data: bytes, start: int, marker: int) -> CodeStream:
    if start + _FRAME_HEADER.size > len(data):
        raise CannotUnderstand(f"the JPEG stream ends within its frame header FF{marker:02X}")
    precision, rows, columns, samples = _FRAME_HEADER.unpack_from(data, start)
    return CodeStream(rows, columns, samples, precision)


def _by_components(data: bytes, start: int, samples: int) -> bool | None:
    """Whether the components tell the colour: by the letters R, G, B, or by subsampled chroma."""
    at = start + _FRAME_HEADER.size
    names, factors = (data[at + i : at + samples * 3 : 3] for i in (0, 1))
    if names == b"RGB":
        return False
    return True if len(set(factors)) > 1 else None


def read_jpeg_2000(data: bytes) -> CodeStream:
    """Read the head of a JPEG 2000 or HTJ2K stream, in a JP2 file or bare (ISO/IEC 15444-1 A.5).

    Raises
    ------
    CannotUnderstand
        There is no such head.
    """
    position = 0
    if data.startswith(_JP2_START):
        position = max(data.find(_J2K_START), 0)
    if data[position : position + 4] != _J2K_START or len(data) < position + 50:
        raise CannotUnderstand("the frame is no JPEG 2000 code stream")
    _, width, height, left, top, *_, count = _SIZE.unpack_from(data, position + 6)
    segments = position + 4 + unpack_from(">H", data, position + 4)[0]
    depths = data[position + 42 : position + 42 + 3 * count : 3]
    if not 1 <= count <= 16384 or len(depths) != count or height <= top or width <= left:
        raise CannotUnderstand("the JPEG 2000 code stream has a wrong size segment")
    component_transform, is_reversible = _coding_style(data, segments)
    return CodeStream(
        height - top,
        width - left,
        count,
        max(depth & 0x7F for depth in depths) + 1,
        is_signed=bool(depths[0] & 0x80),
        component_transform=component_transform,
        is_reversible=is_reversible,
    )


def _coding_style(data: bytes, position: int) -> tuple[bool, bool]:
    """Whether components were transformed, and the wavelet is reversible (COD, A.6.1)."""
    for _ in range(_MOST_SEGMENTS):
        if position + 14 > len(data):
            break
        marker, length = unpack_from(">HH", data, position)
        if marker == 0xFF52:
            return data[position + 8] != 0, data[position + 13] == 1
        if marker in (0xFF90, 0xFF93) or length < 2:
            break
        position += 2 + length
    return False, False


def read_jpeg_xl(data: bytes) -> CodeStream:
    """Read the size at the head of a JPEG XL stream, bare or in a container (ISO/IEC 18181-1).

    Raises
    ------
    CannotUnderstand
        There is no such head.
    """
    start = _jpeg_xl_start(data)
    if start < 0 or data[start : start + 2] != _JXL_START:
        raise CannotUnderstand("the frame is no JPEG XL code stream")
    bits = _Bits(int.from_bytes(data[start + 2 : start + 18], "little"))
    small = bits.take(1)
    rows = _jpeg_xl_size(bits, small=small)
    ratio = bits.take(3)
    if ratio:
        numerator, denominator = _JXL_RATIOS[ratio - 1]
        columns = rows * numerator // denominator
    else:
        columns = _jpeg_xl_size(bits, small=small)
    return CodeStream(rows, columns)


@dataclass(slots=True)
class _Bits:
    """Bits read from the least significant on."""

    value: int

    def take(self, count: int) -> int:
        taken = self.value & ((1 << count) - 1)
        self.value >>= count
        return taken


def _jpeg_xl_size(bits: _Bits, *, small: int) -> int:
    if small:
        return (bits.take(5) + 1) * 8
    return bits.take((9, 13, 18, 30)[bits.take(2)]) + 1


def _jpeg_xl_start(data: bytes) -> int:
    """Offset of the code stream; -1 if there is none."""
    if not data.startswith(_JXL_CONTAINER):
        return 0
    position = 0
    for _ in range(_MOST_BOXES):
        if position + 8 > len(data):
            return -1
        length, kind = _BOX.unpack_from(data, position)
        start = position + 8
        if length == 1:
            length = int.from_bytes(data[start : start + 8], "big")
            start += 8
        if kind == b"jxlc":
            return start
        if kind == b"jxlp":
            return start + 4
        if length < 8:
            return -1
        position += length
    return -1
