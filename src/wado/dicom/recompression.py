"""JPEG streams as JPEG XL, and back, every byte kept (ISO/IEC 18181-2 Annex A); in workers only."""

import imagecodecs

from wado.dicom.code_streams import read_jpeg
from wado.dicom.codec_table import JPEG_BASELINE, JPEG_XL_RECOMPRESSION
from wado.dicom.image import ImagePixel
from wado.errors import CannotUnderstand, NotAcceptable

_BASELINE, _EXTENDED = 0xC0, 0xC1


def recompressed(data: bytes, image: ImagePixel, target_uid: str) -> bytes | None:
    """Turn a JPEG stream into JPEG XL, or back.

    Returns
    -------
    stream
        None if the JPEG XL frame was made of pixels, or its stream is of another JPEG process than
        the target: then it can only be decoded.

    Raises
    ------
    NotAcceptable
        JPEG XL does not take such a JPEG stream.
    CannotUnderstand
        The frame is damaged, or what was made of it does not give the stream back.
    """
    if target_uid == JPEG_XL_RECOMPRESSION:
        return _into_jpeg_xl(data, image)
    stream = jpeg_inside(data)
    if stream is None:
        return None
    head = read_jpeg(stream)
    if (head.rows, head.columns) != (image.rows, image.columns):
        raise CannotUnderstand("the JPEG stream within the JPEG XL frame has another size")
    fitting = (_BASELINE,) if target_uid == JPEG_BASELINE else (_BASELINE, _EXTENDED)
    return stream if head.marker in fitting else None


def _into_jpeg_xl(data: bytes, image: ImagePixel) -> bytes:
    head = read_jpeg(data)
    if (head.rows, head.columns) != (image.rows, image.columns):
        raise CannotUnderstand("the JPEG frame has another size than the attributes say")
    stream = data[data.find(b"\xff\xd8\xff") :]
    try:
        frame = bytes(imagecodecs.jpegxl_encode_jpeg(stream, numthreads=1))
    except imagecodecs.JpegxlError as e:
        raise NotAcceptable(f"JPEG XL does not take this JPEG stream: {head.process}") from e
    if jpeg_inside(frame) != stream:
        raise CannotUnderstand("imagecodecs (libjxl) did not give the JPEG stream back")
    return frame


def jpeg_inside(data: bytes) -> bytes | None:
    """Give the JPEG stream that a JPEG XL frame was made of; None if it was made of pixels."""
    try:
        return bytes(imagecodecs.jpegxl_decode_jpeg(data, numthreads=1))
    except (imagecodecs.JpegxlError, ValueError):
        return None
