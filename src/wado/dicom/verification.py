"""Whether an encoded frame holds the pixels that it was made of; only worker processes import this.

Codecs are the work of others, and have been wrong before: what they make is decoded again before
anybody gets it.
"""

from dataclasses import replace

from wado.dicom.code_streams import read_jpeg
from wado.dicom.codec_table import (
    FAMILY,
    HTJ2K,
    JPEG_2000,
    JPEG_LS_NEAR,
    LOSSY_TARGETS,
    NATIVE,
    encoder_of,
)
from wado.dicom.comparison import NO_DAMAGE, Difference, difference
from wado.dicom.image import ImagePixel
from wado.dicom.transcode import Decoded, coded_colour, decode
from wado.errors import CannotUnderstand, WadoError

_MIDDLE = 50
_NO_DAMAGE_BELOW = 1 / 8
"""What `NO_DAMAGE` is below the middle quality."""
_WAVELETS = frozenset({JPEG_2000, HTJ2K})


def verify(
    frame: bytes, made_of: Decoded, image: ImagePixel, transfer_syntax_uid: str, quality: int
) -> None:
    """Decode a frame and compare it with the pixels that it was made of.

    Parameters
    ----------
    frame
        As `encode` gave it; a native one is not looked at, as no codec had it in hand.
    made_of, image
        The pixels, and the Image Pixel Module that they were encoded with.
    transfer_syntax_uid, quality
        Of the frame. If it is lossy, its error must be far below what a picture without any
        structure would have, the further the better the quality.

    Raises
    ------
    CannotUnderstand
        It holds other pixels; the message names the codec.
    """
    if transfer_syntax_uid in NATIVE or FAMILY[transfer_syntax_uid] == "native":
        return
    colour = coded_colour(image, transfer_syntax_uid, quality)
    coded = replace(image, photometric_interpretation=colour, planar_configuration=0)
    try:
        back = decode(frame, coded, transfer_syntax_uid)
        found = difference(made_of, back, image.bits_stored)
    except WadoError as e:
        raise CannotUnderstand(
            f"{encoder_of(transfer_syntax_uid)} made a frame that is wrong: {e}"
        ) from e
    if back.pixels.dtype != made_of.pixels.dtype:
        raise CannotUnderstand(
            f"{encoder_of(transfer_syntax_uid)} made pixels of {back.pixels.dtype}"
        )
    if transfer_syntax_uid not in LOSSY_TARGETS:
        allowed = 0
    elif transfer_syntax_uid == JPEG_LS_NEAR:
        # See `lossy_encoders`: the highest values were lowered first.
        allowed = read_jpeg(frame).near * (1 if image.bits_stored in (8, 16) else 2)
    else:
        _bounded(found, image, transfer_syntax_uid, quality)
        return
    if found.largest > allowed:
        raise CannotUnderstand(
            f"{encoder_of(transfer_syntax_uid)} went wrong: {found.differing} of {found.pixels} "
            f"pixels differ, by up to {found.largest}, where {allowed} is allowed"
        )


def _share(image: ImagePixel, transfer_syntax_uid: str, quality: int) -> float:
    """Error that a codec may leave, as a part of the spread: of pure noise it leaves most.

    Those that are made for the eye leave out noise of colour first.
    """
    if transfer_syntax_uid in _WAVELETS:
        return 0.25
    return min((1.1 if image.samples_per_pixel == 1 else 1.6) - quality / 100, 1.0)


def _bounded(found: Difference, image: ImagePixel, transfer_syntax_uid: str, quality: int) -> None:
    """Refuse an error that is no loss any more, but damage: wrong signs, colours, rows."""
    levels = (1 << image.bits_stored) - 1
    share = _share(image, transfer_syntax_uid, quality)
    limit = max(
        found.spread * share, levels * (_NO_DAMAGE_BELOW if quality < _MIDDLE else NO_DAMAGE)
    )
    if found.root_mean_square > limit:
        raise CannotUnderstand(
            f"{encoder_of(transfer_syntax_uid)} lost too much: the pixels differ by "
            f"{found.root_mean_square:.3g} (root mean square), where {limit:.3g} is allowed"
        )
