"""Encoders of frames for lossless transfer syntaxes; only worker processes import this."""

import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate
from struct import pack
from types import MappingProxyType

import imagecodecs
import numpy as np

from wado.dicom.codec_table import (
    DEFLATED_FRAMES,
    ENCAPSULATED_UNCOMPRESSED,
    EXPLICIT_VR_LITTLE_ENDIAN,
    MAX_BITS,
    RLE_LOSSLESS,
)
from wado.dicom.image import ImagePixel
from wado.dicom.jpeg_2000_stream import set_precision
from wado.errors import NotAcceptable

_JPEG = "1.2.840.10008.1.2.4."
_JPEG_2000_RESOLUTIONS = 6
_HTJ2K_LEVELS = 5
_LOWEST_RESOLUTION_BITS = 6
_JPEG_XL_EFFORT = 3
"""Higher ones take many times as long for a few per cent."""
_ANY_PREDICTOR = 4
"""Of the seven, for the transfer syntax that leaves the choice: the smallest on real images."""
_MOST_RLE_SEGMENTS = 15
_RLE_HEADER_BYTES = 64
"""Number of segments and their offsets (PS3.5 §G.5)."""


def encode_frame(pixels: np.ndarray, image: ImagePixel, transfer_syntax_uid: str) -> bytes:
    """See `wado.dicom.transcode.encode`."""
    most = MAX_BITS.get(transfer_syntax_uid)
    if most is None:
        raise NotAcceptable(f"frames of transfer syntax {transfer_syntax_uid} can't be made")
    if image.bits_allocated > most or (
        most <= 16 and (image.is_float or image.bits_allocated not in (8, 16))
    ):
        raise NotAcceptable(
            f"frames of {image.bits_allocated}-bit pixels can't be had in {transfer_syntax_uid}"
        )
    return _ENCODERS[transfer_syntax_uid](pixels, image)


def _native(pixels: np.ndarray, image: ImagePixel) -> bytes:
    """Give native bytes: little endian, in Bits Allocated, packed if that is no whole byte."""
    if image.planar_configuration == 1 and pixels.ndim == 3:
        pixels = pixels.transpose(2, 0, 1)
    bits = image.bits_allocated
    if image.is_float:
        return pixels.astype(f"<f{bits // 8}", copy=False).tobytes()
    if bits == 1:
        return np.packbits(pixels.reshape(-1).astype(np.uint8), bitorder="little").tobytes()
    if bits in (8, 16, 32, 64):
        return pixels.astype(f"<u{bits // 8}", casting="unsafe", copy=False).tobytes()
    size = pixels.dtype.itemsize
    raw = np.ascontiguousarray(pixels.reshape(-1, 1)).astype(f"<u{size}").view(np.uint8)
    ones = np.unpackbits(raw, axis=1, bitorder="little")[:, :bits]
    return np.packbits(ones, bitorder="little").tobytes()


def _deflated(pixels: np.ndarray, image: ImagePixel) -> bytes:
    compressor = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(_native(pixels, image)) + compressor.flush()


def _rle(pixels: np.ndarray, image: ImagePixel) -> bytes:
    if image.bits_allocated * image.samples_per_pixel > 8 * _MOST_RLE_SEGMENTS or (
        image.is_float or image.bits_allocated not in (1, 8, 16, 32, 64)
    ):
        bits = image.bits_allocated
        raise NotAcceptable(f"frames of {bits}-bit pixels can't be had as RLE Lossless")
    segments = [
        bytes(imagecodecs.packbits_encode(each, axis=-1)) for each in _planes(pixels, image)
    ]
    padded = [segment + b"\0" * (len(segment) % 2) for segment in segments]
    offsets = accumulate((len(segment) for segment in padded[:-1]), initial=_RLE_HEADER_BYTES)
    header = pack(f"<{len(padded) + 1}I", len(padded), *offsets)
    return b"".join((header.ljust(_RLE_HEADER_BYTES, b"\0"), *padded))


def _planes(pixels: np.ndarray, image: ImagePixel) -> Iterator[np.ndarray]:
    """Bytes of each sample, the most significant first, as planes: runs end with their row."""
    if image.bits_allocated == 1:
        packed = np.frombuffer(_native(pixels, image), np.uint8)
        yield packed.reshape(1, -1)
        return
    size = image.bits_allocated // 8
    wide = pixels.astype(f">u{size}", casting="unsafe").reshape(*pixels.shape[:2], -1)
    for plane in np.moveaxis(wide.view(np.uint8), 2, 0):
        yield np.ascontiguousarray(plane)


def unsigned(pixels: np.ndarray, image: ImagePixel) -> np.ndarray:
    """Stored values as numbers without sign, in the least bytes that hold Bits Stored."""
    kind = np.uint8 if image.bits_stored <= 8 else np.uint16
    wide = pixels.view(f"u{pixels.dtype.itemsize}") & np.uint16((1 << image.bits_stored) - 1)
    return np.ascontiguousarray(wide.astype(kind))


def _jpeg_lossless(pixels: np.ndarray, image: ImagePixel, predictor: int = 1) -> bytes:
    colour = "rgb" if pixels.ndim == 3 else None
    return bytes(
        imagecodecs.jpeg8_encode(
            unsigned(pixels, image),
            lossless=True,
            predictor=predictor,
            bitspersample=max(image.bits_stored, 2),
            colorspace=colour,
            outcolorspace=colour,
        )
    )


def _jpeg_ls(pixels: np.ndarray, image: ImagePixel) -> bytes:
    samples = unsigned(pixels, image)
    return bytes(imagecodecs.jpegls_encode(samples, out=jpeg_ls_room(samples)))


def jpeg_ls_room(samples: np.ndarray) -> int:
    """Bytes that a JPEG-LS stream may take: noise takes more than its samples do."""
    return 2 * samples.nbytes + 1024


def _jpeg_2000(pixels: np.ndarray, image: ImagePixel) -> bytes:
    return bytes(
        imagecodecs.jpeg2k_encode(
            exact(pixels, image),
            codecformat="j2k",
            reversible=True,
            mct=is_rgb(image),
            bitspersample=image.bits_stored,
            resolutions=jpeg_2000_resolutions(image),
        )
    )


def jpeg_2000_resolutions(image: ImagePixel) -> int:
    """Count the resolutions that a JPEG 2000 stream gets: no more than its smallest side has.

    Of one bit, a wavelet would make two that the encoder has no room for.
    """
    if image.bits_stored == 1:
        return 1
    return max(min(min(image.rows, image.columns).bit_length(), _JPEG_2000_RESOLUTIONS), 1)


def exact(pixels: np.ndarray, image: ImagePixel) -> np.ndarray:
    """Stored values in the least bytes that hold Bits Stored, with their sign."""
    kind = np.dtype(f"{'i' if image.is_signed else 'u'}{1 if image.bits_stored <= 8 else 2}")
    return np.ascontiguousarray(pixels.astype(kind, copy=False))


def is_rgb(image: ImagePixel) -> bool:
    """Whether the pixels are red, green and blue, which codecs may transform."""
    return image.samples_per_pixel == 3 and image.photometric_interpretation == "RGB"


def _htj2k(pixels: np.ndarray, image: ImagePixel) -> bytes:
    """Encode by resolutions (RPCL), the lowest of 64 pixels at most, with a list of tile-parts.

    That is what 1.2.840.10008.1.2.4.202 asks for (PS3.5), and harms the other not. The encoder
    takes whole bytes for the precision, but it shall be Bits Stored (PS3.5 §8.2.14): what stands in
    the head is corrected, and the middle, which a decoder adds to numbers without sign, with it.
    """
    samples = exact(pixels, image)
    bits, width = image.bits_stored, samples.dtype.itemsize * 8
    if bits < width and not image.is_signed:
        samples = samples + samples.dtype.type((1 << width - 1) - (1 << bits - 1))
    stream = bytearray(
        imagecodecs.htj2k_encode(
            samples,
            reversible=True,
            rgb=is_rgb(image),
            tlm=True,
            tilepart=imagecodecs.HTJ2K.TILEPART.RESOLUTIONS,
            resolutions=htj2k_levels(image),
        )
    )
    set_precision(stream, bits)
    return bytes(stream)


def htj2k_levels(image: ImagePixel) -> int:
    """Count the wavelet levels of an HTJ2K stream: its lowest resolution has 64 pixels at most."""
    levels = (max(image.rows, image.columns) - 1).bit_length() - _LOWEST_RESOLUTION_BITS
    return max(levels, _HTJ2K_LEVELS)


def _jpeg_xl(pixels: np.ndarray, image: ImagePixel) -> bytes:
    if image.photometric_interpretation.startswith("YBR"):
        raise NotAcceptable("luminance and chroma can't be had as JPEG XL without loss")
    return bytes(
        imagecodecs.jpegxl_encode(
            unsigned(pixels, image),
            lossless=True,
            effort=_JPEG_XL_EFFORT,
            bitspersample=image.bits_stored,
            usecontainer=False,
        )
    )


_ENCODERS: MappingProxyType[str, Callable[[np.ndarray, ImagePixel], bytes]] = MappingProxyType(
    {
        EXPLICIT_VR_LITTLE_ENDIAN: _native,
        ENCAPSULATED_UNCOMPRESSED: _native,
        DEFLATED_FRAMES: _deflated,
        RLE_LOSSLESS: _rle,
        f"{_JPEG}57": partial(_jpeg_lossless, predictor=_ANY_PREDICTOR),
        f"{_JPEG}70": _jpeg_lossless,
        f"{_JPEG}80": _jpeg_ls,
        f"{_JPEG}90": _jpeg_2000,
        f"{_JPEG}110": _jpeg_xl,
        f"{_JPEG}201": _htj2k,
        f"{_JPEG}202": _htj2k,
    }
)
