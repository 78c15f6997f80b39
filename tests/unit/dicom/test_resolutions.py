"""Where HTJ2K frames may be cut, so that decoders give a lower resolution of them."""

import struct

import imagecodecs
import numpy as np
import openjpeg.utils
import pytest

from wado.dicom.image import ImagePixel
from wado.dicom.resolutions import END_OF_CODE_STREAM, HEAD_BYTES, resolution_ends
from wado.dicom.transcode import encode

RPCL = "1.2.840.10008.1.2.4.202"
RESOLUTIONS = imagecodecs.HTJ2K.TILEPART.RESOLUTIONS


def picture(rows: int, columns: int, samples: int = 1) -> np.ndarray:
    rng = np.random.default_rng(rows * columns)
    ramp = np.add.outer(np.arange(rows) ** 2, 7 * np.arange(columns)) % 200
    noisy = ramp[..., None] + rng.integers(0, 50, (rows, columns, samples))
    return noisy.astype(np.uint8).reshape((rows, columns, samples)[: 3 if samples > 1 else 2])


def image(pixels: np.ndarray) -> ImagePixel:
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    colour = "RGB" if samples == 3 else "MONOCHROME2"
    rows, columns = pixels.shape[:2]
    return ImagePixel(rows, columns, samples, colour, 8, 8, 7)


def prefix(frame: bytes, level: int) -> bytes:
    ends = resolution_ends(frame[:HEAD_BYTES], len(frame))
    return frame[: ends[-1 - level]] + END_OF_CODE_STREAM


@pytest.mark.parametrize(
    ("rows", "columns", "samples"),
    [(64, 64, 1), (513, 700, 1), (300, 301, 3), (1, 40, 1), (7, 5, 3), (2000, 90, 1)],
)
def test_the_beginning_of_a_frame_decodes_as_the_whole_does_at_that_level(
    rows: int, columns: int, samples: int
):
    pixels = picture(rows, columns, samples)
    frame = encode(pixels, image(pixels), RPCL)
    ends = resolution_ends(frame[:HEAD_BYTES], len(frame))
    assert len(ends) >= 6
    assert list(ends) == sorted(set(ends))
    for level in range(len(ends)):
        lower = prefix(frame, level)
        assert (len(lower) < len(frame)) == (level > 0)
        given = imagecodecs.htj2k_decode(lower, skipres=level)
        assert np.array_equal(given, imagecodecs.htj2k_decode(frame, skipres=level))
        assert given.shape[0] == -(-rows // 2**level)
        # Who does not ask for less gets the whole area, as far as its pixels are there.
        blurred = openjpeg.utils.decode(lower)
        assert np.asarray(blurred).shape[:2] == (rows, columns)
        if not level:
            assert np.array_equal(np.asarray(blurred), pixels)


def test_openjpeg_and_openjph_see_the_same_in_the_beginning_of_a_frame():
    pixels = picture(200, 130) // 2 + 64  # far from the ends, where one cuts off and one wraps
    frame = encode(pixels, image(pixels), RPCL)
    for level in (1, 2, 3):
        lower = prefix(frame, level)
        by_one = np.asarray(openjpeg.utils.decode(lower)).astype(int)
        by_other = imagecodecs.htj2k_decode(lower).astype(int)
        assert np.array_equal(by_one, by_other)


def test_what_does_not_say_where_is_not_cut():
    pixels = picture(100, 100)
    one_part = imagecodecs.htj2k_encode(pixels, reversible=True, tlm=True, resolutions=5)
    tiles = imagecodecs.htj2k_encode(
        pixels, reversible=True, tlm=True, tile=(64, 64), tilepart=RESOLUTIONS
    )
    no_tlm = imagecodecs.htj2k_encode(pixels, reversible=True, tilepart=RESOLUTIONS)
    others = [
        imagecodecs.jpeg2k_encode(pixels, codecformat="jp2"),
        b"",
        b"\xff\x4f\xff\x51",
        b"x" * 99,
    ]
    for frame in (one_part, tiles, no_tlm, *others):
        assert resolution_ends(bytes(frame[:HEAD_BYTES]), len(frame)) == ()


def test_a_header_that_lies_or_ends_early_gives_nothing():
    frame = encode(picture(64, 64), image(picture(64, 64)), RPCL)
    assert resolution_ends(frame[:HEAD_BYTES], len(frame) - 3) == ()
    for length in range(0, 150, 7):
        assert resolution_ends(frame[:length], len(frame)) == ()
    at = frame.index(b"\xff\x55")
    (size,) = struct.unpack_from(">H", frame, at + 2)
    longer = frame[: at + 2] + struct.pack(">H", size + 6) + frame[at + 4 :]
    assert resolution_ends(longer[:HEAD_BYTES], len(longer)) == ()
