"""What is drawn on a picture, and its size: overlay planes, text, viewport."""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from wado.dicom.image import ImagePixel
from wado.dicom.rendering.gray import Mask, Picture
from wado.dicom.rendering.placement import Placement
from wado.dicom.rendering.planes import Overlay

_WHITE = 255
_BLACK_RGB, _WHITE_RGB = (0, 0, 0), (255, 255, 255)
_LINES_OF_TEXT = 36
"""So many lines of text would fill the height of a picture."""
_SMALLEST_TEXT = 9
_MARGIN = 4


def draw_overlays(
    picture: Picture, overlays: tuple[Overlay, ...], raw: npt.NDArray[Any] | None
) -> Picture:
    """Draw planes in white; what reaches beyond the picture is cut.

    Parameters
    ----------
    picture
        Grey or RGB.
    overlays
        The planes.
    raw
        Pixels as they are stored, for planes in their unused bits; None if they aren't known.
    """
    if not overlays:
        return picture
    picture = np.array(picture)  # a view of what was looked up, or of bytes, can't be drawn on
    for overlay in overlays:
        plane = _plane(overlay, raw)
        if plane is None:
            continue
        top, left = overlay.top - 1, overlay.left - 1
        cut = plane[max(-top, 0) :, max(-left, 0) :]
        target = picture[max(top, 0) :, max(left, 0) :][: cut.shape[0], : cut.shape[1]]
        target[cut[: target.shape[0], : target.shape[1]]] = _WHITE
    return picture


def _plane(overlay: Overlay, raw: npt.NDArray[Any] | None) -> Mask | None:
    if overlay.bit_position is not None:
        return None if raw is None else (raw >> overlay.bit_position & 1).astype(np.bool_)
    bits = np.unpackbits(np.frombuffer(overlay.data, np.uint8), bitorder="little")
    count = overlay.rows * overlay.columns
    bits = bits[overlay.first_bit : overlay.first_bit + count]
    if bits.size < count:  # ends early
        bits = np.pad(bits, (0, count - bits.size))
    return bits.reshape(overlay.rows, overlay.columns).astype(np.bool_)


def raw_pixels(frame: bytes, image: ImagePixel) -> npt.NDArray[Any] | None:
    """Pixels of a native frame with all their bits; None if overlays can't be in them."""
    if image.samples_per_pixel != 1 or image.bits_allocated not in (8, 16, 32):
        return None
    size = image.bits_allocated // 8
    if len(frame) < image.pixels * size:
        return None
    values = np.frombuffer(frame, f"<u{size}", image.pixels)
    return values.reshape(image.rows, image.columns)


def placed(image: Image.Image, placement: Placement) -> Image.Image:
    """Cut, scale and flip."""
    size = placement.width, placement.height
    whole = (0.0, 0.0, float(image.width), float(image.height))
    if (size, placement.box) != (image.size, whole):
        left, top, right, bottom = placement.box
        smaller = size[0] < right - left
        # Bilinear takes all pixels of the source into account that make up one of the target.
        resample = Image.Resampling.BILINEAR if smaller else Image.Resampling.BICUBIC
        gap = 2.0 if smaller else None
        image = image.resize(size, resample, box=(left, top, right, bottom), reducing_gap=gap)
    if placement.flip_horizontally:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if placement.flip_vertically:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return image


def write_text(image: Image.Image, lines: tuple[str, ...]) -> Image.Image:
    """Write lines into the upper left corner, in white with a black outline."""
    if not lines:
        return image
    size = max(image.height // _LINES_OF_TEXT, _SMALLEST_TEXT)
    is_gray = image.mode == "L"
    ImageDraw.Draw(image).multiline_text(
        (_MARGIN, _MARGIN),
        "\n".join(lines),
        fill=255 if is_gray else _WHITE_RGB,
        font=ImageFont.load_default(size),
        stroke_width=max(size // 12, 1),
        stroke_fill=0 if is_gray else _BLACK_RGB,
    )
    return image
