"""What the head of a compressed frame says of its pixels, read before a decoder allocates.

A header can claim anything: decoders are called only if the code stream is as large as the
attributes of the instance say (PS3.5 §8.2).
"""

from dataclasses import dataclass
from struct import Struct
from types import MappingProxyType

from wado.errors import CannotUnderstand

_SEGMENT = Struct(">BBH")
_FRAME_HEADER = Struct(">BHHB")

_SOI, _SOS, _EOI = 0xD8, 0xDA, 0xD9
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a segment behind them (ISO/IEC 10918-1 Table B.1)."""
_SOF_JPEG_LS = 0xF7
_DHP = 0xDE
_SOF = frozenset({*range(0xC0, 0xD0), _SOF_JPEG_LS, _DHP}) - {0xC4, 0xC8, 0xCC}
_SOF_LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF, _SOF_JPEG_LS})
_APP0, _APP14 = 0xE0, 0xEE
_MOST_SEGMENTS = 4096

_PROCESSES = MappingProxyType(
    {
        0xC0: "baseline",
        0xC1: "extended sequential",
        0xC2: "progressive",
        0xC3: "lossless",
        0xC5: "hierarchical, differential sequential",
        0xC6: "hierarchical, differential progressive",
        0xC7: "hierarchical, differential lossless",
        0xC9: "extended sequential, arithmetic coding",
        0xCA: "progressive, arithmetic coding",
        0xCB: "lossless, arithmetic coding",
        0xCD: "hierarchical, differential sequential, arithmetic coding",
        0xCE: "hierarchical, differential progressive, arithmetic coding",
        0xCF: "hierarchical, differential lossless, arithmetic coding",
        _DHP: "hierarchical",
        _SOF_JPEG_LS: "JPEG-LS",
    }
)
"""What the marker of a frame header says (ISO/IEC 10918-1 Table B.1)."""


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
    marker
        Of the frame header of JPEG or JPEG-LS, 0 for others; that of DHP if it is hierarchical.
    near
        Of JPEG-LS: the largest difference that its coder left.
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
    marker: int = 0
    near: int = 0

    @property
    def process(self) -> str:
        """Name of the JPEG process."""
        return _PROCESSES.get(self.marker, f"an unknown process (FF{self.marker:02X})")


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
                marker=marker,
                near=_near(data, end) if marker == _SOF_JPEG_LS else 0,
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


def _near(data: bytes, position: int) -> int:
    """NEAR of the first scan of a JPEG-LS stream (ISO/IEC 14495-1 §C.2.3)."""
    start = data.find(b"\xff\xda", position)
    if start < 0 or start + 5 > len(data):
        return 0
    at = start + 5 + 2 * data[start + 4]
    return data[at] if at < len(data) else 0


def _by_components(data: bytes, start: int, samples: int) -> bool | None:
    """Whether the components tell the colour: by the letters R, G, B, or by subsampled chroma."""
    at = start + _FRAME_HEADER.size
    names, factors = (data[at + i : at + samples * 3 : 3] for i in (0, 1))
    if names == b"RGB":
        return False
    return True if len(set(factors)) > 1 else None
