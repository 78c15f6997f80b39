"""Change the Transfer Syntax of frames (PS3.5 §8).

Importing this loads no codec and no numpy: a server hands these functions to worker processes.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wado.dicom.codec_table import (
    FAMILY,
    LOSSY_TARGETS,
    can_decode,
    can_encode,
    codec_of,
    encoder_of,
    is_lossy,
    lossy_method,
    recompresses,
    why_not_decoded,
)
from wado.dicom.image import ImagePixel
from wado.errors import CannotUnderstand, NotAcceptable, WadoError

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Decoded",
    "can_decode",
    "can_encode",
    "codec_of",
    "decode",
    "encode",
    "is_lossy",
    "lossy_method",
    "transcode",
    "why_not_decoded",
]


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
        The frame is damaged, or not what the attributes or the transfer syntax say.
    NotAcceptable
        There is no decoder for it.
    """
    from wado.dicom.codecs import decode_frame  # noqa: PLC0415 - loads numpy: in workers only

    return decode_frame(data, image, transfer_syntax_uid)


def encode(
    pixels: "np.ndarray", image: ImagePixel, transfer_syntax_uid: str, quality: int = 0
) -> bytes:
    """Encode a frame.

    Parameters
    ----------
    pixels
        As `decode` gives them.
    image
        Image Pixel Module that shall go with the frame; its Planar Configuration is that of native
        frames, and its Photometric Interpretation that of `pixels`.
    transfer_syntax_uid
        A lossless one, unless there is a quality.
    quality
        1 to 100, 100 being best, of a lossy transfer syntax; nothing is lost in others.

    Raises
    ------
    NotAcceptable
        The transfer syntax can't be made, or not for such pixels.
    """
    is_loss = transfer_syntax_uid in LOSSY_TARGETS
    if is_loss and not 1 <= quality <= 100:
        raise NotAcceptable(f"frames in {transfer_syntax_uid} are made only by a rule for loss")
    from wado.dicom.encoders import encode_frame  # noqa: PLC0415 - loads numpy: in workers only
    from wado.dicom.lossy_encoders import encode_lossy  # noqa: PLC0415

    try:
        if is_loss:
            return encode_lossy(pixels, image, transfer_syntax_uid, quality)
        return encode_frame(pixels, image, transfer_syntax_uid)
    except (WadoError, MemoryError):
        raise
    except Exception as e:  # codecs raise errors of many kinds
        raise CannotUnderstand(
            f"{encoder_of(transfer_syntax_uid)} can't encode the frame: {e or type(e).__name__}"
        ) from e


def transcode(
    data: bytes, image: ImagePixel, source_uid: str, target_uid: str, quality: int = 0
) -> tuple[bytes, str]:
    """Change the coding of a frame; raises as `decode` and `encode`.

    A compressed frame is decoded again and compared with the pixels that it was made of. Samples
    of native frames stay by plane if the instance has them so and its colour space stays: then
    what its metadata say holds for them, too.

    Parameters
    ----------
    data, image, source_uid
        As for `decode`.
    target_uid
        Transfer syntax of the result.
    quality
        1 to 100 if the target may be lossy; 0: nothing may be lost.

    Returns
    -------
    frame
        The frame in its new coding.
    photometric_interpretation
        That of an instance with such frames.

    Raises
    ------
    CannotUnderstand
        The frame is damaged, or a codec went wrong: what it made decodes to other pixels.
    NotAcceptable
        There is no codec for it, or the target does not take such pixels.
    """
    from wado.dicom import verification  # noqa: PLC0415 - in workers only

    if recompresses(source_uid, target_uid):
        from wado.dicom.recompression import recompressed  # noqa: PLC0415 - in workers only

        stream = recompressed(data, image, target_uid)
        if stream is not None:
            return stream, image.photometric_interpretation
    decoded = decode(data, image, source_uid)
    image = decoded_image(image, decoded)
    frame = encode(decoded.pixels, image, target_uid, quality)
    colour = coded_colour(image, target_uid, quality)
    verification.verify(frame, decoded, image, target_uid, quality)
    return frame, colour


def decoded_image(image: ImagePixel, decoded: Decoded) -> ImagePixel:
    """Image Pixel Module of decoded pixels."""
    colour = decoded.photometric_interpretation
    if colour == image.photometric_interpretation:
        return image
    return replace(image, photometric_interpretation=colour, planar_configuration=0)


def coded_colour(image: ImagePixel, transfer_syntax_uid: str, quality: int = 0) -> str:
    """Photometric Interpretation of a frame that `encode` makes (PS3.5 §8.2)."""
    if transfer_syntax_uid in LOSSY_TARGETS:
        from wado.dicom.lossy_encoders import lossy_colour  # noqa: PLC0415 - in workers only

        return lossy_colour(image, transfer_syntax_uid, quality)
    is_rgb = image.samples_per_pixel == 3 and image.photometric_interpretation == "RGB"
    transformed = is_rgb and FAMILY[transfer_syntax_uid] in ("jpeg_2000", "htj2k")
    return "YBR_RCT" if transformed else image.photometric_interpretation
