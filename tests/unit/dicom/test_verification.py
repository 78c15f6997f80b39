"""What codecs made is decoded again: frames with other pixels never get out."""

from dataclasses import replace

import numpy as np
import pytest

from pictured import gray, picture, rgb
from wado.dicom.codec_table import FAMILY, LOSSY_TARGETS, MAX_BITS, encoder_of
from wado.dicom.comparison import CodedFrame, Difference, compare, difference
from wado.dicom.transcode import Decoded, coded_colour, encode, transcode
from wado.dicom.verification import verify
from wado.errors import CannotUnderstand

ELE = "1.2.840.10008.1.2.1"
JPEG = "1.2.840.10008.1.2.4."
EIGHT = gray(bits_allocated=8, bits_stored=8, high_bit=7)
COMPRESSED = sorted(uid for uid in MAX_BITS if FAMILY[uid] != "native")


def decoded(pixels: np.ndarray, colour: str = "MONOCHROME2") -> Decoded:
    return Decoded(pixels, colour)


@pytest.mark.parametrize("uid", COMPRESSED)
def test_one_wrong_pixel_is_found_and_the_codec_named(uid: str):
    pixels = picture(gray())
    wrong = pixels.copy()
    wrong[50, 40] ^= 1
    frame = encode(wrong, gray(), uid)
    verify(frame, decoded(wrong), gray(), uid, 0)
    with pytest.raises(CannotUnderstand, match="1 of 7680 pixels differ, by up to 1") as caught:
        verify(frame, decoded(pixels), gray(), uid, 0)
    assert encoder_of(uid) in str(caught.value)


@pytest.mark.parametrize("uid", COMPRESSED)
def test_a_frame_that_is_cut_off_is_found(uid: str):
    pixels = picture(gray())
    frame = encode(pixels, gray(), uid)
    with pytest.raises(CannotUnderstand):
        verify(frame[: len(frame) // 2], decoded(pixels), gray(), uid, 0)


@pytest.mark.parametrize("uid", sorted(LOSSY_TARGETS))
def test_another_picture_is_no_loss(uid: str):
    pixels = picture(EIGHT)
    for other in (pixels[::-1], 255 - pixels, np.roll(pixels, 20, 1), np.full_like(pixels, 128)):
        frame = encode(np.ascontiguousarray(other), EIGHT, uid, 90)
        with pytest.raises(CannotUnderstand, match=r"lost too much|went wrong"):
            verify(frame, decoded(pixels), EIGHT, uid, 90)


@pytest.mark.parametrize("uid", [u for u in sorted(LOSSY_TARGETS) if u != JPEG + "81"])
def test_colours_that_changed_places_are_no_loss(uid: str):
    pixels = picture(rgb())
    pixels[:, :, 0] = 255 - pixels[:, :, 0]
    frame = encode(np.ascontiguousarray(pixels[:, :, ::-1]), rgb(), uid, 90)
    with pytest.raises(CannotUnderstand, match="lost too much"):
        verify(frame, decoded(pixels, "RGB"), rgb(), uid, 90)


@pytest.mark.parametrize("uid", COMPRESSED)
def test_pixel_padding_is_kept_exactly(uid: str):
    """Also where it is the lowest value that there can be."""
    image = gray(bits_stored=16, high_bit=15, pixel_representation=1)
    pixels = (picture(gray()) - 1024).astype(np.int16)
    pixels[:, :20] = -32768
    frame, _ = transcode(encode(pixels, image, ELE), image, ELE, uid)
    assert not compare(
        CodedFrame(frame, image, uid), CodedFrame(encode(pixels, image, ELE), image, ELE)
    ).differing


# ------------------------------------------------------------------ comparison


def test_differences_are_counted_by_pixel():
    one = picture(rgb())
    other = one.copy()
    other[3, 4, 0] += 3
    other[3, 4, 2] += 1
    other[9, 9, 1] += 7
    found = difference(decoded(one, "RGB"), decoded(other, "RGB"), 8)
    assert (found.pixels, found.differing, found.largest) == (7680, 2, 7)
    assert difference(decoded(one, "RGB"), decoded(one, "RGB"), 8) == Difference(7680, 0, 0)


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_the_largest_difference_there_is(kind: str):
    limits = np.iinfo(kind)
    one = np.array([[limits.min, 0]], kind)
    other = np.array([[limits.max, 0]], kind)
    found = difference(decoded(one), decoded(other), 8 * limits.dtype.itemsize)
    assert found.differing == 1
    assert found.largest == limits.max - limits.min


def test_numbers_that_are_none_are_the_same_only_at_the_same_place():
    one = np.array([[np.nan, 1.0, np.inf, 2.0]])
    assert difference(decoded(one), decoded(one.copy()), 64).differing == 0
    other = np.array([[1.0, np.nan, np.inf, 2.5]])
    assert difference(decoded(one), decoded(other), 64).differing == 3


def test_colour_is_brought_to_the_same_space():
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0] = 255, 0, 0
    pixels[0, 1] = 0, 255, 0
    pixels[1, 0] = 10, 20, 240
    ybr = np.array([[[76, 85, 255], [150, 44, 21]], [[42, 240, 105], [0, 128, 128]]], np.uint8)
    found = difference(decoded(pixels, "RGB"), decoded(ybr, "YBR_FULL"), 8)
    assert found.largest <= 2


def test_frames_of_different_codings_are_compared():
    image = rgb()
    native = CodedFrame(encode(picture(image), image, ELE), image, ELE)
    for target, quality in (("90", 0), ("202", 0), ("110", 0), ("50", 95), ("112", 95)):
        uid = JPEG + target
        frame, colour = transcode(native.data, image, ELE, uid, quality)
        assert colour == coded_colour(image, uid, quality)
        coded = CodedFrame(frame, replace(image, photometric_interpretation=colour), uid)
        found = compare(native, coded)
        assert found.pixels == 7680
        assert bool(found.differing) is (quality > 0)
        assert found.root_mean_square < found.spread / 10 or not quality


def test_frames_of_different_sizes_are_not():
    one, other = gray(), gray(rows=40)
    with pytest.raises(CannotUnderstand, match="samples"):
        compare(
            CodedFrame(encode(picture(one), one, ELE), one, ELE),
            CodedFrame(encode(picture(other), other, ELE), other, ELE),
        )
