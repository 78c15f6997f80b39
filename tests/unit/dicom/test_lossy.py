"""Lossy copies: made only with a quality, of fitting pixels, near to them, and marked rightly."""

from dataclasses import replace

import imagecodecs
import numpy as np
import pytest

from pictured import gray, picture, rgb
from wado.dicom.code_streams import read_jpeg
from wado.dicom.codec_table import LOSSY_TARGETS
from wado.dicom.image import FLOAT_PIXEL_DATA, ImagePixel
from wado.dicom.transcode import decode, encode, transcode
from wado.errors import NotAcceptable

ELE = "1.2.840.10008.1.2.1"
JPEG = "1.2.840.10008.1.2.4."
EIGHT = gray(bits_allocated=8, bits_stored=8, high_bit=7)
TWELVE = gray()
SIXTEEN = gray(bits_stored=16, high_bit=15)
SIGNED = gray(pixel_representation=1)
YBR = rgb(photometric_interpretation="YBR_FULL")
TAKEN = {
    "50": (EIGHT, rgb(), YBR),
    "51": (EIGHT, TWELVE, gray(bits_stored=10, high_bit=9), rgb(), YBR),
    "81": (EIGHT, TWELVE, SIXTEEN, rgb(), YBR),
    "91": (EIGHT, TWELVE, SIXTEEN, SIGNED, rgb(), YBR),
    "203": (EIGHT, TWELVE, SIXTEEN, SIGNED, rgb(), YBR),
    "112": (EIGHT, TWELVE, SIXTEEN, rgb()),
}
REFUSED = {
    "50": (TWELVE, SIXTEEN, SIGNED),
    "51": (SIXTEEN, SIGNED),
    "81": (SIGNED,),
    "91": (),
    "203": (),
    "112": (SIGNED, YBR),
}
COLOURS = {"50": "YBR_FULL_422", "51": "YBR_FULL_422", "81": "RGB", "91": "YBR_ICT",
           "203": "YBR_ICT", "112": "XYB"}  # fmt: skip


def native(image: ImagePixel) -> bytes:
    return encode(picture(image), image, ELE)


def error(image: ImagePixel, target: str, quality: int) -> float:
    """Root mean square error by the range of the pixels, after one way there and back."""
    frame, colour = transcode(native(image), image, ELE, JPEG + target, quality)
    coded = replace(image, photometric_interpretation=colour)
    back = decode(frame, coded, JPEG + target)
    made_of = picture(image).astype(np.float64)
    assert back.pixels.shape == made_of.shape
    assert back.pixels.dtype == picture(image).dtype
    return float(np.sqrt(np.mean((back.pixels - made_of) ** 2)) / np.ptp(made_of))


@pytest.mark.parametrize("target", sorted(TAKEN))
def test_the_table_of_the_documents_is_complete(target: str):
    assert JPEG + target in LOSSY_TARGETS
    assert len(TAKEN) == len(LOSSY_TARGETS)


@pytest.mark.parametrize("target", sorted(TAKEN))
def test_nothing_is_lost_unasked(target: str):
    for quality in (0, -1, 101):
        with pytest.raises(NotAcceptable, match="only by a rule"):
            transcode(native(EIGHT), EIGHT, ELE, JPEG + target, quality)


@pytest.mark.parametrize("target", sorted(TAKEN))
def test_what_comes_back_is_near(target: str):
    for image in TAKEN[target]:
        if image.photometric_interpretation == "YBR_FULL":
            frame, _ = transcode(native(image), image, ELE, JPEG + target, 90)
            assert len(frame) < len(native(image))
            continue
        assert error(image, target, 100) < 0.02
        assert error(image, target, 100) <= error(image, target, 20) < 0.1


@pytest.mark.parametrize("target", sorted(TAKEN))
def test_less_quality_is_smaller(target: str):
    for image in TAKEN[target]:
        sizes = [
            len(transcode(native(image), image, ELE, JPEG + target, quality)[0])
            for quality in (100, 60, 10)
        ]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[2] < len(native(image)) / 3


@pytest.mark.parametrize("target", sorted(TAKEN))
def test_every_quality_passes_its_own_check(target: str):
    for quality in (1, 5, 35, 75, 89, 90, 99):
        for image in TAKEN[target]:
            assert transcode(native(image), image, ELE, JPEG + target, quality)


@pytest.mark.parametrize("target", sorted(TAKEN))
def test_what_a_target_does_not_take_is_refused(target: str):
    palette = replace(EIGHT, photometric_interpretation="PALETTE COLOR")
    bit = replace(EIGHT, bits_stored=1, high_bit=0)
    for image in (*REFUSED[target], palette, bit):
        with pytest.raises(NotAcceptable, match=r"can't|not|alone"):
            encode(picture(image), image, JPEG + target, 90)
    real = gray(bits_allocated=32, bits_stored=32, high_bit=31, tag=FLOAT_PIXEL_DATA)
    with pytest.raises(NotAcceptable):
        encode(np.zeros((real.rows, real.columns), np.float32), real, JPEG + target, 90)


@pytest.mark.parametrize("target", sorted(TAKEN))
def test_the_colour_of_the_result_is_named(target: str):
    assert transcode(native(EIGHT), EIGHT, ELE, JPEG + target, 80)[1] == "MONOCHROME2"
    assert transcode(native(rgb()), rgb(), ELE, JPEG + target, 80)[1] == COLOURS[target]


def test_jpeg_keeps_the_chroma_of_each_pixel_if_the_quality_is_high():
    assert transcode(native(rgb()), rgb(), ELE, JPEG + "50", 90)[1] == "YBR_FULL"


def test_near_lossless_is_as_near_as_its_stream_says():
    frame, _ = transcode(native(TWELVE), TWELVE, ELE, JPEG + "81", 80)
    near = read_jpeg(frame).near
    assert near > 1
    difference = decode(frame, TWELVE, JPEG + "81").pixels.astype(int) - picture(TWELVE)
    is_highest = picture(TWELVE) > 4095 - near
    assert np.abs(difference[~is_highest]).max() == near
    assert -2 * near <= difference[is_highest].min()
    assert imagecodecs.jpegls_decode(frame).max() <= 4095, "no reader gets more than 12 bits"


def test_a_narrow_range_keeps_its_contrast():
    """A CT of few grey levels in many bits: quality counts by what it uses."""
    image = gray(bits_stored=16, high_bit=15, pixel_representation=1)
    pixels = (picture(gray()) // 8).astype(np.int16)
    source = encode(pixels, image, ELE)
    for target in ("91", "203"):
        frame, _ = transcode(source, image, ELE, JPEG + target, 80)
        back = decode(frame, image, JPEG + target).pixels.astype(float)
        assert np.sqrt(np.mean((back - pixels) ** 2)) < 2


@pytest.mark.parametrize("target", sorted(TAKEN))
def test_noise_is_lost_but_not_refused(target: str):
    rng = np.random.default_rng(11)
    for image in TAKEN[target][:4]:
        pixels = picture(image)
        low = -(1 << image.bits_stored - 1) if image.is_signed else 0
        noise = rng.integers(low, low + (1 << image.bits_stored), pixels.shape)
        source = encode(noise.astype(pixels.dtype), image, ELE)
        for quality in (5, 40, 89, 100):
            if image.samples_per_pixel == 1 or quality > 50:
                assert transcode(source, image, ELE, JPEG + target, quality)


def test_a_uniform_frame_can_be_had_in_all():
    for target in TAKEN:
        source = encode(np.full((96, 80), 7, np.uint8), EIGHT, ELE)
        frame, _ = transcode(source, EIGHT, ELE, JPEG + target, 50)
        assert np.abs(decode(frame, EIGHT, JPEG + target).pixels.astype(int) - 7).max() <= 4
