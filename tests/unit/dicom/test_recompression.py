"""JPEG streams as JPEG XL and back: every byte is kept, and so is every pixel."""

import imagecodecs
import numpy as np
import pytest

from pictured import gray, picture, rgb
from wado.dicom.image import ImagePixel
from wado.dicom.transcode import decode, encode, transcode
from wado.errors import CannotUnderstand, NotAcceptable

ELE = "1.2.840.10008.1.2.1"
JPEG = "1.2.840.10008.1.2.4."
RECOMPRESSED = JPEG + "111"
EIGHT = gray(bits_allocated=8, bits_stored=8, high_bit=7)
YBR = rgb(photometric_interpretation="YBR_FULL_422")


def stream(image: ImagePixel, quality: int = 85) -> bytes:
    if image is EIGHT:
        return bytes(imagecodecs.jpeg8_encode(picture(image), quality))
    return bytes(
        imagecodecs.jpeg8_encode(
            picture(image), quality, colorspace="rgb", outcolorspace="ycbcr", subsampling="422"
        )
    )


@pytest.mark.parametrize("image", [EIGHT, YBR], ids=["gray", "colour"])
@pytest.mark.parametrize("end", [b"", b"\0"])
def test_a_stream_comes_back_byte_by_byte(image: ImagePixel, end: bytes):
    data = stream(image) + end
    frame, colour = transcode(data, image, JPEG + "50", RECOMPRESSED)
    assert colour == image.photometric_interpretation
    back, colour = transcode(frame, image, RECOMPRESSED, JPEG + "50")
    assert back == data
    assert colour == image.photometric_interpretation


@pytest.mark.parametrize("image", [EIGHT, YBR], ids=["gray", "colour"])
def test_its_pixels_are_those_of_the_stream(image: ImagePixel):
    data = stream(image)
    frame, _ = transcode(data, image, JPEG + "50", RECOMPRESSED)
    got, expected = decode(frame, image, RECOMPRESSED), decode(data, image, JPEG + "50")
    assert np.array_equal(got.pixels, expected.pixels)
    assert got.photometric_interpretation == expected.photometric_interpretation


def test_only_such_jpeg_is_taken():
    image = gray()
    twelve = encode(picture(image), image, JPEG + "51", 80)
    with pytest.raises(NotAcceptable, match="JPEG XL does not take this JPEG stream: extended"):
        transcode(twelve, image, JPEG + "51", RECOMPRESSED)
    with pytest.raises(NotAcceptable):
        encode(picture(EIGHT), EIGHT, RECOMPRESSED, 90)
    with pytest.raises(NotAcceptable):
        transcode(encode(picture(EIGHT), EIGHT, ELE), EIGHT, ELE, RECOMPRESSED)


def test_a_stream_of_another_size_is_refused_both_ways():
    other = gray(bits_allocated=8, bits_stored=8, high_bit=7, rows=40)
    data = stream(EIGHT)
    with pytest.raises(CannotUnderstand, match="size"):
        transcode(data, other, JPEG + "50", RECOMPRESSED)
    frame, _ = transcode(data, EIGHT, JPEG + "50", RECOMPRESSED)
    with pytest.raises(CannotUnderstand, match="size"):
        transcode(frame, other, RECOMPRESSED, JPEG + "50")


def test_what_was_made_of_pixels_is_decoded():
    frame = encode(picture(EIGHT), EIGHT, JPEG + "110")
    with pytest.raises(NotAcceptable, match="only by a rule"):
        transcode(frame, EIGHT, RECOMPRESSED, JPEG + "50")
    made, _ = transcode(frame, EIGHT, RECOMPRESSED, JPEG + "50", 90)
    assert made.startswith(b"\xff\xd8")
    assert transcode(frame, EIGHT, RECOMPRESSED, JPEG + "80")[1] == "MONOCHROME2"


def test_a_cut_off_stream_is_refused():
    data = stream(EIGHT)
    with pytest.raises((CannotUnderstand, NotAcceptable)):
        transcode(data[: len(data) // 2], EIGHT, JPEG + "50", RECOMPRESSED)
