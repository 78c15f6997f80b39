"""The steps of rendering one after the other (PS3.4 §N.2)."""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from wado.dicom.image import ImagePixel
from wado.dicom.media_types import is_native
from wado.dicom.rendering.colour import colour_picture, palette_picture, supplemented
from wado.dicom.rendering.display import Display
from wado.dicom.rendering.drawing import draw_overlays, placed, raw_pixels, write_text
from wado.dicom.rendering.encoding import encoded, with_profile
from wado.dicom.rendering.gray import Picture, gray_picture
from wado.dicom.rendering.job import Form
from wado.dicom.transcode import decode


def rendered(
    frame: bytes, image: ImagePixel, transfer_syntax_uid: str, display: Display, form: Form
) -> bytes:
    """Do what `wado.dicom.rendering.job.render_frame` says."""
    decoded = decode(frame, image, transfer_syntax_uid)
    picture = picture_of(
        decoded.pixels, decoded.photometric_interpretation, image.bits_stored, display
    )
    raw = None
    if any(overlay.bit_position is not None for overlay in display.overlays):
        # Decoding cuts pixels to the bits that are stored; only native ones have others.
        raw = raw_pixels(frame, image) if is_native(transfer_syntax_uid) else None
    picture = draw_overlays(picture, display.overlays, raw)
    shown = placed(Image.fromarray(picture), form.placement)
    shown, icc_profile = with_profile(shown, form.icc_profile, display.icc_profile)
    return encoded(write_text(shown, display.text), form.media_type, form.quality, icc_profile)


def picture_of(
    pixels: npt.NDArray[Any], photometric_interpretation: str, bits_stored: int, display: Display
) -> Picture:
    """Turn decoded pixels into grey levels or RGB of 8 bits."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim == 3:
        return colour_picture(pixels, photometric_interpretation, bits_stored)
    if display.palette is not None and not display.palette.supplemental:
        return palette_picture(pixels, display.palette)
    gray = gray_picture(np.ascontiguousarray(pixels), display)
    if display.palette is None:
        return gray
    return supplemented(gray, pixels, display.palette)
