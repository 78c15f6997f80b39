"""Decoders of JPEG 2000 and HTJ2K frames; only worker processes import this."""

import imagecodecs
import numpy as np

from wado.dicom.code_streams import CodeStream
from wado.dicom.image import ImagePixel
from wado.dicom.jpeg_2000_stream import read_jpeg_2000, whole_stream
from wado.dicom.sample_values import check, shaped, stored_values
from wado.dicom.transcode import Decoded

_TRANSFORMED = frozenset({"YBR_RCT", "YBR_ICT"})


def decode_jpeg_2000(data: bytes, image: ImagePixel) -> Decoded:
    """Decode a JPEG 2000 frame; colour that was transformed comes out as RGB."""
    stream = read_jpeg_2000(data)
    check(stream, image)
    return _values(_by_openjpeg(whole_stream(data)), stream, image)


def decode_htj2k(data: bytes, image: ImagePixel) -> Decoded:
    """Decode an HTJ2K frame, as `decode_jpeg_2000`."""
    stream = read_jpeg_2000(data)
    check(stream, image)
    # The quicker decoder lets what overshoots wrap round, which only a lossy stream does.
    decoder = imagecodecs.htj2k_decode if stream.is_reversible else _by_openjpeg
    return _values(np.asarray(decoder(whole_stream(data))), stream, image)


def _by_openjpeg(data: bytes) -> np.ndarray:
    from openjpeg.utils import decode  # noqa: PLC0415 - only for such frames

    return decode(data, j2k_format=0)


def _values(pixels: np.ndarray, stream: CodeStream, image: ImagePixel) -> Decoded:
    """Take the sign from Pixel Representation: code streams that say otherwise are common.

    A stream of more bits than are stored, and without a sign, may hold either: values with the
    sign at the highest stored bit, if none needs more than those bits; or at its own highest.
    """
    colour = image.photometric_interpretation
    if stream.component_transform or colour in _TRANSFORMED:
        colour = "RGB"
    pixels = shaped(pixels, image)
    bits = stream.precision
    if image.is_signed and not stream.is_signed and bits > image.bits_stored:
        is_short = int(pixels.max()) < 1 << image.bits_stored
        bits = image.bits_stored if is_short else bits
    return Decoded(stored_values(pixels, image, bits), colour)
