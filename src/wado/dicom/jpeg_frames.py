"""Decoders of JPEG and JPEG-LS frames; only worker processes import this."""

from functools import partial

import imagecodecs
import numpy as np

from wado.dicom.code_streams import CodeStream, read_jpeg
from wado.dicom.image import ImagePixel
from wado.dicom.sample_values import check, shaped, stored_values
from wado.dicom.transcode import Decoded
from wado.errors import CannotUnderstand, NotAcceptable

_DECODABLE = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA})
"""Frame headers of the processes that libjpeg-turbo knows: no hierarchical ones, and no lossless
one with arithmetic coding."""
_SOS, _EOI = b"\xff\xda", b"\xff\xd9"
_OTHER_END = b"\x5a\xc3" * 256 + _EOI


def decode_jpeg(data: bytes, image: ImagePixel) -> Decoded:
    """Decode a JPEG frame; colour of lossy ones comes out as RGB."""
    stream = read_jpeg(data)
    if stream.marker not in _DECODABLE:
        raise NotAcceptable(
            f"there is no decoder for this JPEG process: {stream.process} (FF{stream.marker:02X})"
        )
    check(stream, image)
    colour = image.photometric_interpretation
    data = data[data.find(b"\xff\xd8\xff") :]
    if image.samples_per_pixel != 3:
        pixels = _pixels(data, stream)
    elif stream.is_lossless_jpeg:
        # No transform belongs to lossless JPEG (PS3.5 §8.2.1): samples are what they are called.
        pixels = _pixels(data, stream, "rgb")
    else:
        is_ycbcr = stream.is_ycbcr
        if is_ycbcr is None:
            is_ycbcr = colour != "RGB"
        pixels = _pixels(data, stream, "ycbcr" if is_ycbcr else "rgb")
        colour = "RGB"
    pixels = shaped(pixels, image)
    if not image.is_signed and not stream.is_lossless_jpeg and stream.precision > image.bits_stored:
        pixels = np.minimum(pixels, (1 << image.bits_stored) - 1)  # what overshoots
    return Decoded(stored_values(pixels, image, image.bits_stored), colour)


def _pixels(data: bytes, stream: CodeStream, colour: str | None = None) -> np.ndarray:
    """Decode; samples of `colour` become RGB, others stay as they are.

    The decoder fills up what is missing without a word, so a stream without end marker is decoded
    twice: if it is whole, it doesn't matter what stands behind it.
    """
    decode = partial(_by_libjpeg, stream=stream, colour=colour)
    if data.find(_EOI, max(data.find(_SOS), 0)) >= 0:
        return decode(data)
    pixels = decode(data + _EOI)
    if not np.array_equal(pixels, decode(data + _OTHER_END)):
        raise CannotUnderstand("the JPEG stream was cut off: it has no end marker")
    return pixels


def _by_libjpeg(data: bytes, stream: CodeStream, colour: str | None) -> np.ndarray:
    target = "rgb" if colour else None
    try:
        return np.asarray(imagecodecs.jpeg8_decode(data, colorspace=colour, outcolorspace=target))
    except imagecodecs.Jpeg8Error:
        if not stream.is_lossless_jpeg:
            raise
        return np.asarray(imagecodecs.jpegsof3_decode(data))  # it knows more, and is slower


def decode_jpeg_ls(data: bytes, image: ImagePixel) -> Decoded:
    """Decode a JPEG-LS frame."""
    stream = read_jpeg(data)
    check(stream, image)
    data = data[data.find(b"\xff\xd8\xff") :]
    pixels = shaped(np.asarray(imagecodecs.jpegls_decode(data)), image)
    if stream.near and not image.is_signed and stream.precision > image.bits_stored:
        pixels = np.minimum(pixels, (1 << image.bits_stored) - 1)  # what overshoots
    return Decoded(
        stored_values(pixels, image, image.bits_stored), image.photometric_interpretation
    )
