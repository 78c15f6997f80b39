"""Tell the coding of a frame by its first bytes, whatever its transfer syntax says."""

from itertools import pairwise
from struct import unpack_from

from wado.dicom import jpeg_2000_stream, jpeg_xl_stream
from wado.dicom.code_streams import read_jpeg
from wado.dicom.codec_table import FAMILY_NAMES
from wado.errors import CannotUnderstand

_JPEG_LS = 0xF7
_RLE_HEADER_BYTES = 64
_MOST_RLE_SEGMENTS = 15


def coding_of(data: bytes) -> str | None:
    """Family of a compressed frame as in `codec_table.FAMILY`; None if nothing tells."""
    if 0 <= data[:24].find(b"\xff\xd8\xff") <= 16:
        try:
            return "jpeg_ls" if read_jpeg(data).marker == _JPEG_LS else "jpeg"
        except CannotUnderstand:
            return None
    if jpeg_2000_stream.stream_start(data) >= 0:
        return "htj2k" if jpeg_2000_stream.is_high_throughput(data) else "jpeg_2000"
    if data.startswith((jpeg_xl_stream.START, jpeg_xl_stream.CONTAINER)):
        return "jpeg_xl"
    return "rle" if _is_rle(data) else None


def _is_rle(data: bytes) -> bool:
    """Whether a frame begins as RLE does: up to 15 rising offsets, the first behind the header."""
    if len(data) < _RLE_HEADER_BYTES:
        return False
    count, *offsets = unpack_from("<16I", data)
    if not 1 <= count <= _MOST_RLE_SEGMENTS or offsets[0] != _RLE_HEADER_BYTES:
        return False
    rising = all(a < b for a, b in pairwise([*offsets[:count], len(data) + 1]))
    return rising and not any(offsets[count:])


def check_coding(data: bytes, family: str) -> None:
    """Refuse a frame that is of another coding than its transfer syntax says.

    Raises
    ------
    CannotUnderstand
        It is; the message says of which.
    """
    found = coding_of(data)
    if found is not None and found != family:
        raise CannotUnderstand(
            f"the frame is {FAMILY_NAMES[found]}, its transfer syntax says {FAMILY_NAMES[family]}"
        )
