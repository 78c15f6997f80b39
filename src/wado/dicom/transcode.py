"""Change the Transfer Syntax of frames (PS3.5 §8).

Importing this loads no codec and no numpy: a server hands these functions to worker processes.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wado.dicom.codec_table import FAMILY, can_decode, can_encode, is_lossy
from wado.dicom.image import ImagePixel

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Decoded", "can_decode", "can_encode", "decode", "encode", "is_lossy", "transcode"]


@dataclass(frozen=True, slots=True)
class Decoded:
    """Pixels of a frame.

    Attributes
    ----------
    pixels
        Stored values, ``(rows, columns)`` or ``(rows, columns, samples)``: sign-correct, cut to
        Bits Stored, colour by pixel.
    photometric_interpretation
        Of these pixels, which may differ from that of the instance.
    """

    pixels: "np.ndarray"
    photometric_interpretation: str


def decode(data: bytes, image: ImagePixel, transfer_syntax_uid: str) -> Decoded:
    """Decode a frame.

    Colour of lossy JPEG and of JPEG 2000 with a component transform comes out as RGB. Native, RLE
    and lossless JPEG samples keep their colour space, as converting it would lose some; subsampled
    chroma is repeated, and ``YBR_FULL_422`` becomes ``YBR_FULL``.

    Parameters
    ----------
    data
        A native frame in little endian, starting on a byte boundary, or a compressed one.
    image
        Image Pixel Module of the instance.
    transfer_syntax_uid
        How the frame is coded.

    Raises
    ------
    CannotUnderstand
        The frame is damaged, or not what the attributes say.
    NotAcceptable
        There is no decoder for it.
    """
    from wado.dicom.codecs import decode_frame  # noqa: PLC0415 - loads numpy: in workers only

    return decode_frame(data, image, transfer_syntax_uid)


def encode(pixels: "np.ndarray", image: ImagePixel, transfer_syntax_uid: str) -> bytes:
    """Encode a frame without loss.

    Parameters
    ----------
    pixels
        As `decode` gives them.
    image
        Image Pixel Module that shall go with the frame; its Planar Configuration is that of native
        frames, and its Photometric Interpretation that of `pixels`.
    transfer_syntax_uid
        A lossless one.

    Raises
    ------
    NotAcceptable
        The transfer syntax can't be made, or not for such pixels.
    """
    from wado.dicom.encoders import encode_frame  # noqa: PLC0415 - loads numpy: in workers only

    return encode_frame(pixels, image, transfer_syntax_uid)


def transcode(
    data: bytes, image: ImagePixel, source_uid: str, target_uid: str
) -> tuple[bytes, str]:
    """Change the coding of a frame; raises as `decode` and `encode`.

    Samples of native frames stay by plane if the instance has them so and its colour space stays:
    then what its metadata say holds for them, too.

    Returns
    -------
    frame
        The frame in its new coding.
    photometric_interpretation
        That of an instance with such frames.
    """
    decoded = decode(data, image, source_uid)
    image = decoded_image(image, decoded)
    frame = encode(decoded.pixels, image, target_uid)
    return frame, coded_colour(image, target_uid)


def decoded_image(image: ImagePixel, decoded: Decoded) -> ImagePixel:
    """Image Pixel Module of decoded pixels."""
    colour = decoded.photometric_interpretation
    if colour == image.photometric_interpretation:
        return image
    return replace(image, photometric_interpretation=colour, planar_configuration=0)


def coded_colour(image: ImagePixel, transfer_syntax_uid: str) -> str:
    """Photometric Interpretation of a frame that `encode` makes (PS3.5 §8.2.4)."""
    is_rgb = image.samples_per_pixel == 3 and image.photometric_interpretation == "RGB"
    transformed = is_rgb and FAMILY[transfer_syntax_uid] in ("jpeg_2000", "htj2k")
    return "YBR_RCT" if transformed else image.photometric_interpretation
