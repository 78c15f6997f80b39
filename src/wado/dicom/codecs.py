"""Decoders of frames, one for each family of codings; only worker processes import this."""

import contextlib
import zlib
from collections.abc import Callable
from struct import unpack_from
from types import MappingProxyType
from typing import Any

import imagecodecs
import numpy as np

from wado.dicom.code_streams import CodeStream, read_jpeg, read_jpeg_2000, read_jpeg_xl
from wado.dicom.codec_table import FAMILY
from wado.dicom.image import ImagePixel
from wado.dicom.transcode import Decoded
from wado.errors import CannotUnderstand, NotAcceptable, WadoError

_SUBSAMPLED = frozenset({"YBR_FULL_422", "YBR_PARTIAL_422"})
_TRANSFORMED = frozenset({"YBR_RCT", "YBR_ICT"})
_DEFLATED_SLACK = 2
"""Bytes beyond the frame that a deflated one may hold: padding to an even length."""


def decode_frame(data: bytes, image: ImagePixel, transfer_syntax_uid: str) -> Decoded:
    """See `wado.dicom.transcode.decode`."""
    family = FAMILY.get(transfer_syntax_uid)
    if family is None:
        raise NotAcceptable(f"frames of transfer syntax {transfer_syntax_uid} can't be decoded")
    try:
        return _DECODERS[family](data, image)
    except (WadoError, MemoryError):
        raise
    except Exception as e:  # codecs raise errors of many kinds, and assert
        raise CannotUnderstand(f"the frame can't be decoded: {e or type(e).__name__}") from e


def samples_of(image: ImagePixel) -> int:
    """Samples of a frame."""
    return image.pixels * image.samples_per_pixel


def container(image: ImagePixel) -> np.dtype[Any]:
    """Type of the pixels: that of Bits Allocated."""
    if image.is_float:
        return np.dtype(np.float32 if image.bits_allocated == 32 else np.float64)
    size = next((n for n in (1, 2, 4, 8) if n * 8 >= image.bits_allocated), 8)
    return np.dtype(f"{'i' if image.is_signed else 'u'}{size}")


def _stored_values(raw: np.ndarray, image: ImagePixel, bits: int, shift: int = 0) -> np.ndarray:
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


# ------------------------------------------------------------------ native


def _native(data: bytes, image: ImagePixel) -> Decoded:
    colour = image.photometric_interpretation
    if colour in _SUBSAMPLED and image.samples_per_pixel == 3:
        return Decoded(_upsampled(data, image), "YBR_FULL")
    flat = _flat(data, image, samples_of(image))
    return Decoded(_arranged(flat, image, planar=image.planar_configuration == 1), colour)


def _flat(data: bytes, image: ImagePixel, count: int) -> np.ndarray:
    """Samples of a native frame, in the order of the file."""
    bits = image.bits_allocated
    needed = (count * bits + 7) // 8
    if len(data) < needed:
        raise CannotUnderstand(f"the frame has {len(data)} bytes, its attributes ask for {needed}")
    if image.is_float:
        return np.frombuffer(data, container(image).newbyteorder("<"), count).astype(
            container(image), copy=False
        )
    if bits == 1:
        return np.unpackbits(np.frombuffer(data, np.uint8, needed), count=count, bitorder="little")
    shift = max(image.high_bit + 1 - image.bits_stored, 0)
    if bits in (8, 16, 32, 64):
        raw = np.frombuffer(data, f"<u{bits // 8}", count)
    else:
        raw = _odd_bits(data, bits, count, container(image).itemsize)
    return _stored_values(raw, image, image.bits_stored, shift)


def _odd_bits(data: bytes, bits: int, count: int, size: int) -> np.ndarray:
    """Samples that lie bit behind bit, such as 12 in 12, as old devices wrote."""
    packed = np.frombuffer(data, np.uint8, (count * bits + 7) // 8)
    ones = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
    wide = np.zeros((count, size * 8), np.uint8)
    wide[:, :bits] = ones
    return np.packbits(wide, axis=1, bitorder="little").view(f"<u{size}").reshape(count)


def _upsampled(data: bytes, image: ImagePixel) -> np.ndarray:
    """Repeat the chroma of two pixels: Y, Y, Cb, Cr (PS3.3 §C.7.6.3.1.2)."""
    if image.pixels % 2:
        raise CannotUnderstand("YBR_FULL_422 of an odd number of pixels")
    flat = _flat(data, image, image.pixels * 2).reshape(-1, 2, 2)
    pixels = np.empty((image.pixels // 2, 2, 3), flat.dtype)
    pixels[:, :, 0] = flat[:, 0]
    pixels[:, :, 1:] = flat[:, 1:2]
    return pixels.reshape(image.rows, image.columns, 3)


def _arranged(flat: np.ndarray, image: ImagePixel, *, planar: bool) -> np.ndarray:
    shape = (image.rows, image.columns)
    if image.samples_per_pixel == 1:
        return flat.reshape(shape)
    if planar:
        return np.ascontiguousarray(
            flat.reshape(image.samples_per_pixel, *shape).transpose(1, 2, 0)
        )
    return flat.reshape(*shape, image.samples_per_pixel)


def _deflated(data: bytes, image: ImagePixel) -> Decoded:
    """Inflate a frame (PS3.5 §A.4): the native one, deflated on its own."""
    bits = samples_of(image) * image.bits_allocated
    limit = (bits + 7) // 8 + _DEFLATED_SLACK
    native = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, limit)
    return _native(native, image)


# ------------------------------------------------------------------ compressed


def _rle(data: bytes, image: ImagePixel) -> Decoded:
    """Decode RLE (PS3.5 Annex G): a segment for each byte of each sample, all by plane."""
    from rle.utils import (  # type: ignore[attr-defined]  # noqa: PLC0415 - only for such frames
        decode_frame as decode_rle,
    )

    if image.bits_allocated == 1:
        flat = _rle_bits(data, samples_of(image))
    else:
        plain = decode_rle(data, image.pixels, image.bits_allocated, "<")
        flat = _flat(plain, image, samples_of(image))
    return Decoded(_arranged(flat, image, planar=True), image.photometric_interpretation)


def _rle_bits(data: bytes, count: int) -> np.ndarray:
    """Decode pixels of one bit: eight to a byte, as native ones; some writers take a byte each."""
    (start,) = unpack_from("<I", data, 4)
    plain = imagecodecs.packbits_decode(data[start:])
    if len(plain) >= count:
        return np.frombuffer(plain, np.uint8, count) & 1
    packed = np.frombuffer(plain, np.uint8, (count + 7) // 8)
    return np.unpackbits(packed, count=count, bitorder="little")


def _check(stream: CodeStream, image: ImagePixel) -> None:
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


def _shaped(pixels: np.ndarray, image: ImagePixel) -> np.ndarray:
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


def _jpeg(data: bytes, image: ImagePixel) -> Decoded:
    stream = read_jpeg(data)
    _check(stream, image)
    colour = image.photometric_interpretation
    if image.samples_per_pixel != 3:
        pixels = _jpeg_pixels(data, stream)
    elif stream.is_lossless_jpeg:
        # No transform belongs to lossless JPEG (PS3.5 §8.2.1): samples are what they are called.
        pixels = _jpeg_pixels(data, stream, "rgb")
    else:
        is_ycbcr = stream.is_ycbcr
        if is_ycbcr is None:
            is_ycbcr = colour != "RGB"
        pixels = _jpeg_pixels(data, stream, "ycbcr" if is_ycbcr else "rgb")
        colour = "RGB"
    pixels = _shaped(pixels, image)
    if not image.is_signed and not stream.is_lossless_jpeg and stream.precision > image.bits_stored:
        pixels = np.minimum(pixels, (1 << image.bits_stored) - 1)  # what overshoots
    return Decoded(_stored_values(pixels, image, image.bits_stored), colour)


def _jpeg_pixels(data: bytes, stream: CodeStream, colour: str | None = None) -> np.ndarray:
    """Decode; samples of `colour` become RGB, others stay as they are."""
    target = "rgb" if colour else None
    start = data.find(b"\xff\xd8\xff")
    if stream.is_lossless_jpeg:
        with contextlib.suppress(Exception):  # the other decoder knows more, and is slower
            return np.asarray(
                imagecodecs.jpeg8_decode(data[start:], colorspace=colour, outcolorspace=target)
            )
        return np.asarray(imagecodecs.jpegsof3_decode(data[start:]))
    return np.asarray(
        imagecodecs.jpeg8_decode(data[start:], colorspace=colour, outcolorspace=target)
    )


def _jpeg_ls(data: bytes, image: ImagePixel) -> Decoded:
    stream = read_jpeg(data)
    _check(stream, image)
    pixels = _shaped(np.asarray(imagecodecs.jpegls_decode(data)), image)
    return Decoded(
        _stored_values(pixels, image, image.bits_stored), image.photometric_interpretation
    )


def _jpeg_2000(data: bytes, image: ImagePixel) -> Decoded:
    stream = read_jpeg_2000(data)
    _check(stream, image)
    return _of_jpeg_2000(_by_openjpeg(data), stream, image)


def _htj2k(data: bytes, image: ImagePixel) -> Decoded:
    stream = read_jpeg_2000(data)
    _check(stream, image)
    # The quicker decoder lets what overshoots wrap round, which only a lossy stream does.
    decoder = imagecodecs.htj2k_decode if stream.is_reversible else _by_openjpeg
    return _of_jpeg_2000(np.asarray(decoder(data)), stream, image)


def _by_openjpeg(data: bytes) -> np.ndarray:
    from openjpeg.utils import decode  # noqa: PLC0415 - only for such frames

    return decode(data)


def _of_jpeg_2000(pixels: np.ndarray, stream: CodeStream, image: ImagePixel) -> Decoded:
    """Take the sign from Pixel Representation: code streams that say otherwise are common."""
    colour = image.photometric_interpretation
    if stream.component_transform or colour in _TRANSFORMED:
        colour = "RGB"
    values = _stored_values(_shaped(pixels, image), image, stream.precision)
    return Decoded(values, colour)


def _jpeg_xl(data: bytes, image: ImagePixel) -> Decoded:
    _check(read_jpeg_xl(data), image)
    pixels = _shaped(np.asarray(imagecodecs.jpegxl_decode(data)), image)
    colour = image.photometric_interpretation
    colour = "RGB" if image.samples_per_pixel == 3 else colour
    return Decoded(_stored_values(pixels, image, image.bits_stored), colour)


_DECODERS: MappingProxyType[str, Callable[[bytes, ImagePixel], Decoded]] = MappingProxyType(
    {
        "native": _native,
        "deflated": _deflated,
        "rle": _rle,
        "jpeg": _jpeg,
        "jpeg_ls": _jpeg_ls,
        "jpeg_2000": _jpeg_2000,
        "htj2k": _htj2k,
        "jpeg_xl": _jpeg_xl,
    }
)
