"""Colour images and palettes to RGB of 8 bits (PS3.3 §C.7.6.3.1.2, §C.7.9)."""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from wado.dicom.rendering.display import Lut, Palette
from wado.dicom.rendering.gray import Picture, indexed
from wado.dicom.rendering.tables import entries_of, looked_up
from wado.errors import CannotUnderstand

_RGB = frozenset({"RGB", "YBR_RCT", "YBR_ICT"})
_YBR_FULL = frozenset({"YBR_FULL", "YBR_FULL_422"})
_YBR_PARTIAL = frozenset({"YBR_PARTIAL_420", "YBR_PARTIAL_422"})
_FROM_PARTIAL = np.array(
    [[1.1644, 0.0, 1.5960], [1.1644, -0.3917, -0.8130], [1.1644, 2.0173, 0.0]], np.float32
)
"""Rec. 601 with 16 to 235 for luminance, as PS3.3 §C.7.6.3.1.2 gives it the other way round."""
_PARTIAL_ZERO = np.array([16, 128, 128], np.float32)


def colour_picture(
    pixels: npt.NDArray[Any], photometric_interpretation: str, bits_stored: int
) -> Picture:
    """Turn decoded samples into RGB.

    Parameters
    ----------
    pixels
        Shape (rows, columns, 3); chroma of every pixel.
    photometric_interpretation
        That of `pixels`, which decoding may have changed.
    bits_stored
        Bits Stored (0028,0101).

    Raises
    ------
    CannotUnderstand
        A colour space that the Standard has retired, or another number of samples.
    """
    kind = photometric_interpretation
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise CannotUnderstand(f"{kind} pixels of shape {pixels.shape} can't be shown")
    samples = _eight_bits(pixels, bits_stored)
    if kind in _RGB:
        return samples
    if kind in _YBR_FULL:
        # The equations of JPEG's file format are those of the Standard.
        picture: Picture = np.asarray(Image.fromarray(samples, mode="YCbCr").convert("RGB"))
        return picture
    if kind in _YBR_PARTIAL:
        rgb = (samples.astype(np.float32) - _PARTIAL_ZERO) @ _FROM_PARTIAL.T
        return np.rint(np.clip(rgb, 0, 255)).astype(np.uint8)
    raise CannotUnderstand(f"the colour space {kind!r} can't be shown")


def _eight_bits(pixels: npt.NDArray[Any], bits_stored: int) -> Picture:
    """Scale samples so that the highest value that they can have becomes 255."""
    if pixels.dtype == np.uint8 and bits_stored == 8:
        return np.ascontiguousarray(pixels)
    highest = float((1 << bits_stored) - 1)
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:
        values = np.arange(1 << 8 * pixels.dtype.itemsize, dtype=np.float64)
        table = np.rint(np.minimum(values * (255 / highest), 255)).astype(np.uint8)
        return np.take(table, pixels)
    return np.rint(np.clip(pixels * (255 / highest), 0, 255)).astype(np.uint8)


def palette_picture(pixels: npt.NDArray[Any], palette: Palette) -> Picture:
    """Look stored values up in a palette."""
    levels = _palette_levels(palette)
    if pixels.dtype.kind in "iu" and pixels.dtype.itemsize <= 2:
        values, index = indexed(pixels)
        table = _coloured(values.astype(np.float64), palette, levels)
        return np.take(table, index, axis=0)
    return _coloured(pixels.astype(np.float64), palette, levels)


def supplemented(gray: Picture, pixels: npt.NDArray[Any], palette: Palette) -> Picture:
    """Colour those pixels of a grey picture that a supplemental palette is for (§C.7.6.19)."""
    picture = np.repeat(gray[..., np.newaxis], 3, axis=2)
    first, last = palette.red.first, palette.red.first + palette.red.entries - 1
    coloured = (pixels >= first) & (pixels <= last)
    if coloured.any():
        picture[coloured] = palette_picture(pixels[coloured], palette)
    return picture


def _coloured(values: npt.NDArray[np.float64], palette: Palette, levels: list[Picture]) -> Picture:
    channels = zip((palette.red, palette.green, palette.blue), levels, strict=True)
    picture: Picture = np.stack([looked_up(values, lut, level) for lut, level in channels], axis=-1)
    return picture


def _palette_levels(palette: Palette) -> list[Picture]:
    """Entries of the three tables, scaled to 8 bits."""
    luts: tuple[Lut, ...] = (palette.red, palette.green, palette.blue)
    entries = [entries_of(lut) for lut in luts]
    highest = max(int(values.max()) for values in entries)
    # Tables that claim 16 bits and use 8 are met in real images: as they stand all is black.
    bits = 8 if highest <= 0xFF else 16
    scale = 255 / ((1 << bits) - 1)
    return [np.rint(values * scale).astype(np.uint8) for values in entries]
