"""Stored values of the pixels of a frame as arrays; only worker processes import this."""

from typing import Any

import numpy as np

from wado.dicom.code_streams import CodeStream
from wado.dicom.image import ImagePixel
from wado.errors import CannotUnderstand


def samples_of(image: ImagePixel) -> int:
    """Samples of a frame."""
    return image.pixels * image.samples_per_pixel


def container(image: ImagePixel) -> np.dtype[Any]:
    """Type of the pixels: that of Bits Allocated."""
    if image.is_float:
        return np.dtype(np.float32 if image.bits_allocated == 32 else np.float64)
    size = next((n for n in (1, 2, 4, 8) if n * 8 >= image.bits_allocated), 8)
    return np.dtype(f"{'i' if image.is_signed else 'u'}{size}")


def stored_values(raw: np.ndarray, image: ImagePixel, bits: int, shift: int = 0) -> np.ndarray:
    """Cut to `bits` from bit `shift` on, with the sign of the highest of them."""
    target = container(image)
    unsigned = np.dtype(f"u{target.itemsize}")
    values = raw.astype(unsigned, copy=False)
    width = target.itemsize * 8
    if bits < width or shift:
        left = width - bits - shift
        values = values << unsigned.type(left)
        if image.is_signed:
            return np.asarray(values.view(target) >> target.type(width - bits))
        return np.asarray(values >> unsigned.type(width - bits))
    return values.view(target)


def arranged(flat: np.ndarray, image: ImagePixel, *, planar: bool) -> np.ndarray:
    """Give samples their shape: rows, columns, and samples if there are several."""
    shape = (image.rows, image.columns)
    if image.samples_per_pixel == 1:
        return flat.reshape(shape)
    if planar:
        return np.ascontiguousarray(
            flat.reshape(image.samples_per_pixel, *shape).transpose(1, 2, 0)
        )
    return flat.reshape(*shape, image.samples_per_pixel)


def check(stream: CodeStream, image: ImagePixel) -> None:
    """Refuse a code stream of another size than the attributes say.

    Raises
    ------
    CannotUnderstand
        It is larger, smaller, or has other samples.
    """
    said = (image.rows, image.columns, image.samples_per_pixel)
    found = (stream.rows, stream.columns, stream.samples or image.samples_per_pixel)
    if found != said:
        raise CannotUnderstand(
            "the compressed frame is {1} x {0} pixels of {2} samples,".format(*found)
            + " the attributes say {1} x {0} of {2}".format(*said)
        )
    if stream.precision > image.bits_allocated:
        raise CannotUnderstand(
            f"the compressed frame has {stream.precision} bits for each sample, "
            f"the attributes say {image.bits_allocated}"
        )


def shaped(pixels: np.ndarray, image: ImagePixel) -> np.ndarray:
    """Check what a decoder gave; some give a plane for each sample."""
    shape: tuple[int, ...] = (image.rows, image.columns)
    if image.samples_per_pixel > 1:
        by_plane = (image.samples_per_pixel, *shape)
        if pixels.shape == by_plane != (*shape, image.samples_per_pixel):
            pixels = pixels.transpose(1, 2, 0)
        shape = (*shape, image.samples_per_pixel)
    elif pixels.shape == (*shape, 1):
        pixels = pixels[:, :, 0]
    if pixels.shape != shape:
        raise CannotUnderstand(f"the frame decodes to an array of {pixels.shape}, not {shape}")
    return np.ascontiguousarray(pixels)
