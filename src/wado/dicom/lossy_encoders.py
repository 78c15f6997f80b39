"""Encoders of frames for lossy transfer syntaxes; only worker processes import this.

Nothing here is used unless a rule gives a quality: 1 is smallest, 100 is best. What a quality means
is measured by the values that a frame has, not by those that its bits could hold: a CT of 4000 grey
levels in 16 bits would lose its contrast otherwise.
"""

import math
from collections.abc import Callable
from types import MappingProxyType

import imagecodecs
import numpy as np

from wado.dicom.codec_table import (
    HTJ2K,
    JPEG_2000,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LS_NEAR,
    JPEG_XL,
)
from wado.dicom.encoders import (
    exact,
    htj2k_levels,
    is_rgb,
    jpeg_2000_resolutions,
    jpeg_ls_room,
    unsigned,
)
from wado.dicom.image import ImagePixel
from wado.errors import NotAcceptable

_PURE_CHROMA = 90
"""From this quality on JPEG keeps the chroma of every pixel."""
_MOST_NEAR = 255
_STEPS_PER_ERROR = 2.5
"""Quantisation step of a wavelet by the root mean square error that it leaves, about."""
_JPEG_XL_EFFORT = 3
_GRAY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_COLOUR = frozenset({"RGB", "YBR_FULL"})


def encode_lossy(
    pixels: np.ndarray, image: ImagePixel, transfer_syntax_uid: str, quality: int
) -> bytes:
    """Encode a frame with loss.

    Raises
    ------
    NotAcceptable
        The transfer syntax does not take such pixels, or loss would ruin them: entries of a
        palette, pixels of one bit, floating point numbers.
    """
    colours = _GRAY if image.samples_per_pixel == 1 else _COLOUR
    if image.photometric_interpretation not in colours or image.is_float:
        raise NotAcceptable(f"{image.photometric_interpretation} pixels must not be had with loss")
    if image.bits_stored == 1 or image.bits_allocated not in (8, 16):
        raise NotAcceptable(
            f"pixels of {image.bits_stored} in {image.bits_allocated} bits can't be had with loss"
        )
    if image.is_signed and transfer_syntax_uid not in _SIGNED:
        raise NotAcceptable(
            f"pixels with a sign can't be had in {transfer_syntax_uid}: it would ruin those near 0"
        )
    return _ENCODERS[transfer_syntax_uid](pixels, image, quality)


def lossy_colour(image: ImagePixel, transfer_syntax_uid: str, quality: int) -> str:
    """Photometric Interpretation of a frame that `encode_lossy` makes (PS3.5 §8.2)."""
    colour = image.photometric_interpretation
    if image.samples_per_pixel != 3:
        return colour
    if transfer_syntax_uid in (JPEG_BASELINE, JPEG_EXTENDED):
        return "YBR_FULL" if quality >= _PURE_CHROMA else "YBR_FULL_422"
    if transfer_syntax_uid in (JPEG_2000, HTJ2K) and colour == "RGB":
        return "YBR_ICT"
    return "XYB" if transfer_syntax_uid == JPEG_XL else colour


def _nearness(pixels: np.ndarray, image: ImagePixel, quality: int) -> int:
    """Largest difference that near-lossless JPEG-LS leaves (NEAR, ISO/IEC 14495-1 §C.2.3)."""
    most = min(_MOST_NEAR, ((1 << image.bits_stored) - 1) // 2)
    return min(max(round(_range(pixels) * (100 - quality) / 2500), 1), most)


def _range(pixels: np.ndarray) -> int:
    """Highest value less the lowest."""
    return max(int(pixels.max()) - int(pixels.min()), 1)


def _aim(quality: int) -> float:
    """Ratio of signal to noise in decibels."""
    return 30 + 0.3 * quality


def _baseline(pixels: np.ndarray, image: ImagePixel, quality: int) -> bytes:
    if image.bits_allocated != 8:
        raise NotAcceptable("JPEG baseline takes 8 bits alone")
    return _jpeg(pixels, image, quality, 8)


def _extended(pixels: np.ndarray, image: ImagePixel, quality: int) -> bytes:
    if image.bits_allocated == 8:
        return _jpeg(pixels, image, quality, 8)
    if not 8 < image.bits_stored <= 12:
        raise NotAcceptable(f"JPEG extended takes 8 or up to 12 bits, not {image.bits_stored}")
    return _jpeg(pixels, image, quality, 12)


def _jpeg(pixels: np.ndarray, image: ImagePixel, quality: int, precision: int) -> bytes:
    colour, subsampling = None, None
    if image.samples_per_pixel == 3:
        colour = "rgb" if is_rgb(image) else "ycbcr"
        subsampling = "444" if quality >= _PURE_CHROMA else "422"
    return bytes(
        imagecodecs.jpeg8_encode(
            unsigned(pixels, image),
            quality,
            bitspersample=precision,
            colorspace=colour,
            outcolorspace="ycbcr" if colour else None,
            subsampling=subsampling,
            optimize=precision > 8,
        )
    )


def _jpeg_ls(pixels: np.ndarray, image: ImagePixel, quality: int) -> bytes:
    """Encode near-losslessly, with room above the highest value.

    The encoder knows 8 and 16 bits alone: what is stored in fewer must not come out as more.
    """
    samples, near = unsigned(pixels, image), _nearness(pixels, image, quality)
    if image.bits_stored not in (8, 16):
        samples = np.minimum(samples, (1 << image.bits_stored) - 1 - near)
    return bytes(imagecodecs.jpegls_encode(samples, near, out=jpeg_ls_room(samples)))


def _jpeg_2000(pixels: np.ndarray, image: ImagePixel, quality: int) -> bytes:
    # The encoder measures noise by all that the bits can hold.
    unused = 20 * math.log10((1 << image.bits_stored) / _range(pixels))
    return bytes(
        imagecodecs.jpeg2k_encode(
            exact(pixels, image),
            round(_aim(quality) + unused),
            codecformat="j2k",
            reversible=False,
            mct=is_rgb(image),
            bitspersample=image.bits_stored,
            resolutions=jpeg_2000_resolutions(image),
        )
    )


def _htj2k(pixels: np.ndarray, image: ImagePixel, quality: int) -> bytes:
    samples = exact(pixels, image)
    error = _range(pixels) * 10 ** (-_aim(quality) / 20)
    step = _STEPS_PER_ERROR * error / (1 << 8 * samples.dtype.itemsize)
    return bytes(
        imagecodecs.htj2k_encode(
            samples,
            step,
            reversible=False,
            rgb=is_rgb(image),
            tlm=True,
            tilepart=imagecodecs.HTJ2K.TILEPART.RESOLUTIONS,
            resolutions=htj2k_levels(image),
        )
    )


def _jpeg_xl(pixels: np.ndarray, image: ImagePixel, quality: int) -> bytes:
    if image.photometric_interpretation == "YBR_FULL":
        raise NotAcceptable("luminance and chroma can't be had as JPEG XL")
    used = _range(pixels) / (1 << image.bits_stored)
    return bytes(
        imagecodecs.jpegxl_encode(
            unsigned(pixels, image),
            distance=max((0.1 + 0.1 * (100 - quality)) * used, 0.01),
            effort=_JPEG_XL_EFFORT,
            bitspersample=image.bits_stored,
            usecontainer=False,
        )
    )


_ENCODERS: MappingProxyType[str, Callable[[np.ndarray, ImagePixel, int], bytes]] = MappingProxyType(
    {
        JPEG_BASELINE: _baseline,
        JPEG_EXTENDED: _extended,
        JPEG_LS_NEAR: _jpeg_ls,
        JPEG_2000: _jpeg_2000,
        HTJ2K: _htj2k,
        JPEG_XL: _jpeg_xl,
    }
)
_SIGNED = frozenset({JPEG_2000, HTJ2K})
"""Codings that know of a sign; in others a small error at zero would become the largest."""
