"""Decoders of frames, one for each family of codings; only worker processes import this."""

import zlib
from collections.abc import Callable
from itertools import pairwise
from struct import unpack_from
from types import MappingProxyType

import imagecodecs
import numpy as np

from wado.dicom.codec_table import FAMILY, why_not_decoded
from wado.dicom.coding import check_coding
from wado.dicom.image import ImagePixel
from wado.dicom.jpeg_2000_frames import decode_htj2k, decode_jpeg_2000
from wado.dicom.jpeg_frames import decode_jpeg, decode_jpeg_ls
from wado.dicom.jpeg_xl_stream import CONTAINER, read_jpeg_xl
from wado.dicom.recompression import jpeg_inside
from wado.dicom.sample_values import arranged, check, container, samples_of, shaped, stored_values
from wado.dicom.transcode import Decoded
from wado.errors import CannotUnderstand, NotAcceptable, WadoError

_SUBSAMPLED = frozenset({"YBR_FULL_422", "YBR_PARTIAL_422"})
_DEFLATED_SLACK = 2
"""Bytes beyond the frame that a deflated one may hold: padding to an even length."""
_PACKBITS_SLACK = 16
_NO_RUN = 128
"""Head of a run that says nothing (PS3.5 §G.3.2)."""
_TELL_THEMSELVES = frozenset({"jpeg", "jpeg_ls", "jpeg_2000", "htj2k", "jpeg_xl", "rle"})


def decode_frame(data: bytes, image: ImagePixel, transfer_syntax_uid: str) -> Decoded:
    """See `wado.dicom.transcode.decode`."""
    family = FAMILY.get(transfer_syntax_uid)
    if family is None:
        raise NotAcceptable(why_not_decoded(transfer_syntax_uid))
    if family in _TELL_THEMSELVES:
        check_coding(data, family)
    try:
        return _DECODERS[family](data, image)
    except (WadoError, MemoryError):
        raise
    except Exception as e:  # codecs raise errors of many kinds, and assert
        raise CannotUnderstand(
            "the frame is damaged, or coded in a way that its decoder does not know "
            f"({str(e) or type(e).__name__})"
        ) from e
    except BaseException as e:  # a panic of the RLE decoder's Rust, which would end the process
        if type(e).__name__ != "PanicException":
            raise
        raise CannotUnderstand("an RLE segment of the frame holds more than its pixels") from e


# ------------------------------------------------------------------ native


def _native(data: bytes, image: ImagePixel) -> Decoded:
    colour = image.photometric_interpretation
    if colour in _SUBSAMPLED and image.samples_per_pixel == 3:
        return Decoded(_upsampled(data, image), "YBR_FULL")
    flat = _flat(data, image, samples_of(image))
    return Decoded(arranged(flat, image, planar=image.planar_configuration == 1), colour)


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
    at_most = bits - image.bits_stored  # a High Bit beyond that is none
    shift = min(max(image.high_bit + 1 - image.bits_stored, 0), at_most)
    if bits in (8, 16, 32, 64):
        raw = np.frombuffer(data, f"<u{bits // 8}", count)
    else:
        raw = _odd_bits(data, bits, count, container(image).itemsize)
    return stored_values(raw, image, image.bits_stored, shift)


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
        try:
            plain = decode_rle(data, image.pixels, image.bits_allocated, "<")
        except BaseException as e:
            if isinstance(e, MemoryError | KeyboardInterrupt | SystemExit):
                raise
            plain = _rle_too_long(data, image)
        flat = _flat(plain, image, samples_of(image))
    return Decoded(arranged(flat, image, planar=True), image.photometric_interpretation)


def _rle_too_long(data: bytes, image: ImagePixel) -> bytes:
    """Decode segments of which some hold more than their pixels; what is too much is left out."""
    count, *offsets = unpack_from("<16I", data)
    width = image.bits_allocated // 8
    if count != image.samples_per_pixel * width or count > len(offsets):
        raise CannotUnderstand(f"the RLE frame has {count} segments")
    offsets = [*offsets[:count], len(data)]
    planes = [
        np.frombuffer(_rle_segment(data[start:end], image.pixels), np.uint8)
        for start, end in pairwise(offsets)
    ]
    high_first = np.stack(planes).reshape(image.samples_per_pixel, width, image.pixels)
    return high_first[:, ::-1].transpose(0, 2, 1).tobytes()


def _rle_segment(segment: bytes, count: int) -> bytes:
    """Decode the runs of a segment that make up its pixels, and no more of them."""
    at = found = 0
    while found < count and at < len(segment):
        head = segment[at]
        length = head + 1 if head < _NO_RUN else 257 - head if head > _NO_RUN else 0
        at += 2 if head > _NO_RUN else 1 + length
        found += length
    if found < count or at > len(segment):
        raise CannotUnderstand(f"an RLE segment of the frame has {found} of {count} bytes")
    plain = imagecodecs.packbits_decode(segment[:at], out=found)
    return bytes(plain[:count])


def _rle_bits(data: bytes, count: int) -> np.ndarray:
    """Decode pixels of one bit: eight to a byte, as native ones; some writers take a byte each."""
    (start,) = unpack_from("<I", data, 4)
    plain = imagecodecs.packbits_decode(data[start:], out=count + _PACKBITS_SLACK)
    if len(plain) >= count:
        return np.frombuffer(plain, np.uint8, count) & 1
    packed = np.frombuffer(plain, np.uint8, (count + 7) // 8)
    return np.unpackbits(packed, count=count, bitorder="little")


def _jpeg_xl(data: bytes, image: ImagePixel) -> Decoded:
    """Decode JPEG XL; what was made of a JPEG stream, by that stream: then each pixel is its."""
    check(read_jpeg_xl(data), image)
    if data.startswith(CONTAINER) and (stream := jpeg_inside(data)) is not None:
        return decode_jpeg(stream, image)
    pixels = shaped(np.asarray(imagecodecs.jpegxl_decode(data, numthreads=1)), image)
    colour = image.photometric_interpretation
    colour = "RGB" if image.samples_per_pixel == 3 else colour
    return Decoded(stored_values(pixels, image, image.bits_stored), colour)


_DECODERS: MappingProxyType[str, Callable[[bytes, ImagePixel], Decoded]] = MappingProxyType(
    {
        "native": _native,
        "deflated": _deflated,
        "rle": _rle,
        "jpeg": decode_jpeg,
        "jpeg_ls": decode_jpeg_ls,
        "jpeg_2000": decode_jpeg_2000,
        "htj2k": decode_htj2k,
        "jpeg_xl": _jpeg_xl,
    }
)
