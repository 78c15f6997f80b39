"""The head of a JPEG XL stream, bare or in a container (ISO/IEC 18181-1 §D, 18181-2 §9)."""

from dataclasses import dataclass
from struct import Struct

from wado.dicom.code_streams import CodeStream
from wado.errors import CannotUnderstand

START = b"\xff\x0a"
CONTAINER = b"\0\0\0\x0cJXL "
_BOX = Struct(">I4s")
_MOST_BOXES = 256
_HEAD_BYTES = 64
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def read_jpeg_xl(data: bytes) -> CodeStream:
    """Read size and bits at the head of a JPEG XL stream.

    Raises
    ------
    CannotUnderstand
        There is no such head, or it announces an animation, a preview or further channels: no
        frame of DICOM has those, and a decoder would take memory for them.
    """
    start = _stream_start(data)
    if start < 0 or data[start : start + 2] != START:
        raise CannotUnderstand("the frame is no JPEG XL code stream")
    bits = _Bits(int.from_bytes(data[start + 2 : start + 2 + _HEAD_BYTES], "little"))
    rows, columns = _size(bits)
    return CodeStream(rows, columns, precision=_precision(bits))


@dataclass(slots=True)
class _Bits:
    """Bits read from the least significant on."""

    value: int

    def take(self, count: int) -> int:
        taken = self.value & ((1 << count) - 1)
        self.value >>= count
        return taken


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)
    rows = _side(bits, small=small)
    ratio = bits.take(3)
    if not ratio:
        return rows, _side(bits, small=small)
    numerator, denominator = _RATIOS[ratio - 1]
    return rows, rows * numerator // denominator


def _side(bits: _Bits, *, small: int) -> int:
    if small:
        return (bits.take(5) + 1) * 8
    return bits.take((9, 13, 18, 30)[bits.take(2)]) + 1


def _precision(bits: _Bits) -> int:
    """Bits of a sample (ImageMetadata)."""
    if bits.take(1):  # all is as usual
        return 8
    if bits.take(1):
        bits.take(3)  # orientation
        if bits.take(1):
            _size(bits)
        if bits.take(1) or bits.take(1):
            raise CannotUnderstand("the JPEG XL code stream is an animation or has a preview")
    is_float = bits.take(1)
    usual = (32, 16, 24) if is_float else (8, 10, 12)
    choice = bits.take(2)
    precision = bits.take(6) + 1 if choice == 3 else usual[choice]
    if is_float:
        bits.take(4)
    bits.take(1)
    if bits.take(2):
        raise CannotUnderstand("the JPEG XL code stream has further channels, such as transparency")
    return precision


def _stream_start(data: bytes) -> int:
    """Offset of the code stream; -1 if there is none."""
    if not data.startswith(CONTAINER):
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
