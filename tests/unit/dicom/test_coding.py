"""What a frame really is: other codings than its transfer syntax says, processes without decoder,
streams that were cut off, signs and bits that contradict the attributes."""

import base64
import subprocess
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from independent import pixels_of
from pictured import gray, picture, rgb
from real import require
from wado.dicom.code_streams import read_jpeg
from wado.dicom.codec_table import FAMILY, FAMILY_NAMES, LOSSY_TARGETS, MAX_BITS
from wado.dicom.coding import coding_of
from wado.dicom.describe import describe
from wado.dicom.encoders import encode_frame
from wado.dicom.image import ImagePixel
from wado.dicom.jpeg_2000_stream import read_jpeg_2000
from wado.dicom.jpeg_xl_stream import read_jpeg_xl
from wado.dicom.transcode import decode, encode
from wado.errors import CannotUnderstand, NotAcceptable

JPEG = "1.2.840.10008.1.2.4."
EIGHT = gray(bits_allocated=8, bits_stored=8, high_bit=7)
PLAIN = ("native", "deflated")
CODED = {FAMILY[uid]: uid for uid in (*LOSSY_TARGETS, *MAX_BITS) if FAMILY[uid] not in PLAIN}


@pytest.mark.parametrize("family", sorted(CODED))
def test_a_frame_of_another_coding_is_named(family: str):
    data = encode(picture(gray()), gray(), CODED[family], 90)
    assert coding_of(data) == family
    for other, uid in CODED.items():
        if other == family:
            continue
        words = f"the frame is {FAMILY_NAMES[family]}, its transfer syntax says"
        with pytest.raises(CannotUnderstand, match=f"{words} {FAMILY_NAMES[other]}"):
            decode(data, gray(), uid)


def test_native_pixels_are_no_coding():
    image = gray()
    assert coding_of(encode(picture(image), image, "1.2.840.10008.1.2.1")) is None
    with pytest.raises(CannotUnderstand, match="no JPEG 2000 code stream"):
        decode(encode(picture(image), image, "1.2.840.10008.1.2.1"), image, JPEG + "90")


# ------------------------------------------------------------------ JPEG processes

# 16 x 16 pixels of the same sequential stream, its coefficients coded anew by jpegtran.
ARITHMETIC = {
    "54": "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAYEBQYFBAYGBQYHBwYIChAKCgkJChQODwwQFxQYGBcUFhYaHSUfGhsj"
    "HBYWICwgIyYnKSopGR8tMC0oMCUoKSj/yQALCAAQABABAREA/8wABgAQEAX/2gAIAQEAAD8A/wC0zPWJ62YUhayVIna"
    "V7K0JGaW8CbUIAZ6tGPOEBBo+k7NSoiTyy1vG3Y+EA1QuoRLBSjBUJL2zEOtMkBT/2Q==",
    "56": "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAYEBQYFBAYGBQYHBwYIChAKCgkJChQODwwQFxQYGBcUFhYaHSUfGhsj"
    "HBYWICwgIyYnKSopGR8tMC0oMCUoKSj/ygALCAAQABABAREA/8wABAAQ/9oACAEBAAAAAf8AaY0T0fWA/8wABBAF/9o"
    "ACAEBAAEFAhYDJxQl8zPaqCh2/8wABBAF/9oACAEBAAY/AgLyXuX7dHKjAB/vtACY/8wABBAF/9oACAEBAAE/IdNAXp"
    "W6pY+/RmRXgP/aAAgBAQAAABD4/8wABBAF/9oACAEBAAE/EKYQiMBqnKUL8M4Xmf/Z",
    "55": "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAYEBQYFBAYGBQYHBwYIChAKCgkJChQODwwQFxQYGBcUFhYaHSUfGhsj"
    "HBYWICwgIyYnKSopGR8tMC0oMCUoKSj/wgALCAAQABABAREA/8QAFgABAQEAAAAAAAAAAAAAAAAABgUH/9oACAEBAAA"
    "AATGin7f/xAAYEAADAQEAAAAAAAAAAAAAAAAAAwQFFP/aAAgBAQABBQKFJCkhSatHDnf/xAAdEAACAQQDAAAAAAAAAA"
    "AAAAAAAQMCERIiYcHw/9oACAEBAAY/AkIQ8HaaXSjt+4P/xAAbEAEAAgIDAAAAAAAAAAAAAAABAFERQSFhgf/aAAgBA"
    "QABPyGtK0rTrYhwnoPBs2x//9oACAEBAAAAEP8A/8QAGhAAAgIDAAAAAAAAAAAAAAAAAREAIRAxQf/aAAgBAQABPxDM"
    "RHfc37FKAuTE4EZ//9k=",
}


@pytest.mark.parametrize(
    ("uid", "process"),
    [
        ("54", "extended sequential, arithmetic coding"),
        ("56", "progressive, arithmetic coding"),
        ("55", "progressive"),
    ],
)
def test_retired_processes_are_decoded(uid: str, process: str):
    y, x = np.mgrid[0:16, 0:16]
    sequential = imagecodecs.jpeg8_encode(((x * 13 + y * 7) % 256).astype(np.uint8), 80)
    data = base64.b64decode(ARITHMETIC[uid])
    image = replace(EIGHT, rows=16, columns=16)
    assert read_jpeg(data).process == process
    assert np.array_equal(
        decode(data, image, JPEG + uid).pixels, decode(bytes(sequential), image, JPEG + "50").pixels
    )


@pytest.mark.parametrize("option", ["+ee", "+es", "+ep", "+el +sv 2", "+el +sv 7", "+e1"])
@pytest.mark.parametrize("name", ["CT1_UNC", "US1_UNC"])
def test_what_another_toolkit_encodes_is_decoded_the_same(
    corpus: Path, name: str, option: str, tmp_path: Path
):
    require("dcmtk")
    (source,) = corpus.rglob(f"*{name}.dcm")
    path = tmp_path / "coded.dcm"
    subprocess.run(["dcmcjpeg", *option.split(), source, path], check=True, capture_output=True)
    whole = path.read_bytes()
    found = describe(lambda offset, length: whole[offset : offset + length], len(whole))
    image, pixel = ImagePixel.of(found.metadata), found.pixel
    assert pixel is not None
    data = b"".join(whole[o : o + n] for o, n in pixel.frame(1))
    got = decode(data, image, found.file_meta.transfer_syntax_uid)
    expected = pixels_of(path)[0]
    assert np.abs(got.pixels.astype(int) - expected).max() <= (0 if "l" in option else 1)


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        (0xC5, "hierarchical, differential sequential"),
        (0xC7, "hierarchical, differential lossless"),
        (0xCB, "lossless, arithmetic coding"),
        (0xCE, "hierarchical, differential progressive, arithmetic coding"),
        (0xDE, "hierarchical"),
    ],
)
def test_a_process_without_decoder_is_named(marker: int, words: str):
    data = bytearray(encode(picture(EIGHT), EIGHT, JPEG + "50", 80))
    data[data.index(b"\xff\xc0") + 1] = marker
    for uid in ("50", "55", "59", "66"):
        with pytest.raises(NotAcceptable, match=f"no decoder for this JPEG process: {words}"):
            decode(bytes(data), EIGHT, JPEG + uid)


# ------------------------------------------------------------------ cut off

SILENT = {"50": EIGHT, "51": gray(), "57": gray(), "70": gray(), "90": gray(), "91": gray(),
          "201": gray(), "202": gray(), "203": gray()}  # fmt: skip


@pytest.mark.parametrize("uid", sorted(SILENT))
def test_a_stream_that_was_cut_off_is_not_filled_up(uid: str):
    """Decoders add gray to what is missing, and say nothing."""
    image = SILENT[uid]
    data = encode(picture(image), image, JPEG + uid, 90)
    for part in (0.4, 0.7, 0.95):
        with pytest.raises(CannotUnderstand):
            decode(data[: int(len(data) * part)], image, JPEG + uid)


@pytest.mark.parametrize("uid", sorted(SILENT))
def test_a_whole_stream_without_end_marker_is_decoded(uid: str):
    """Some writers forget it, or padding was cut off with it."""
    image = SILENT[uid]
    data = encode(picture(image), image, JPEG + uid, 90)
    assert data.endswith(b"\xff\xd9")
    expected = decode(data, image, JPEG + uid).pixels
    assert np.array_equal(decode(data[:-2], image, JPEG + uid).pixels, expected)
    assert np.array_equal(decode(data + b"\0", image, JPEG + uid).pixels, expected)


# ------------------------------------------------------------------ signs and bits


@pytest.mark.parametrize("stored", [10, 12, 16])
def test_the_sign_is_that_of_pixel_representation(stored: int):
    """A code stream without sign holds two's complement, at its own bits or at those stored."""
    image = gray(bits_stored=stored, high_bit=stored - 1, pixel_representation=1)
    pixels = picture(image)
    for bits in {stored, 16}:
        as_stored = pixels.view(np.uint16) & np.uint16((1 << stored) - 1)
        spread = pixels.view(np.uint16)
        for raw in (as_stored, spread if bits == 16 else as_stored):
            data = bytes(
                imagecodecs.jpeg2k_encode(
                    raw, codecformat="j2k", reversible=True, bitspersample=bits
                )
            )
            assert not read_jpeg_2000(data).is_signed
            assert np.array_equal(decode(data, image, JPEG + "90").pixels, pixels)


def test_a_stream_with_sign_is_read_by_attributes_without():
    image = gray(bits_stored=16, high_bit=15)
    pixels = picture(image)
    data = bytes(
        imagecodecs.jpeg2k_encode(pixels.view(np.int16), codecformat="j2k", reversible=True)
    )
    assert read_jpeg_2000(data).is_signed
    assert np.array_equal(decode(data, image, JPEG + "90").pixels, pixels)


@pytest.mark.parametrize("is_signed", [0, 1])
@pytest.mark.parametrize("stored", [1, 2, 7, 8, 9, 10, 12, 13, 15, 16])
def test_precision_and_sign_of_what_is_made_are_those_of_the_attributes(
    stored: int, is_signed: int
):
    if stored == is_signed:
        return
    image = gray(bits_stored=stored, high_bit=stored - 1, pixel_representation=is_signed)
    for made in (image, replace(image, samples_per_pixel=3, photometric_interpretation="RGB")):
        for uid in ("90", "201", "202"):
            if stored == 1 and made.samples_per_pixel == 3:
                continue
            data = encode_frame(picture(made), made, JPEG + uid)
            head = read_jpeg_2000(data)
            assert (head.precision, head.is_signed) == (stored, bool(is_signed))
            assert np.array_equal(decode(data, made, JPEG + uid).pixels, picture(made))
            by_others = imagecodecs.jpeg2k_decode(data)  # OpenJPEG, also for HTJ2K
            assert np.array_equal(by_others, picture(made))
    assert read_jpeg_xl(encode_frame(picture(image), image, JPEG + "110")).precision == stored


def test_bits_that_overshoot_are_cut_at_the_highest_value():
    """12 bits of lossy JPEG for 10 that are stored."""
    image = gray(bits_stored=10, high_bit=9)
    pixels = picture(image)
    pixels[20:60, 20:60:2] = 1023
    data = encode(pixels, image, JPEG + "51", 20)
    assert imagecodecs.jpeg8_decode(data).max() > 1023
    assert decode(data, image, JPEG + "51").pixels.max() == 1023


def test_part_2_of_jpeg_2000_is_decoded_where_it_is_as_part_1():
    image = rgb()
    data = bytearray(encode(picture(image), image, JPEG + "90"))
    data[6] |= 0x80
    for uid in ("92", "93"):
        assert np.array_equal(decode(bytes(data), image, JPEG + uid).pixels, picture(image))
    volume = replace(image, samples_per_pixel=1, photometric_interpretation="MONOCHROME2")
    with pytest.raises(CannotUnderstand, match="of 3 samples, the attributes say 80 x 96 of 1"):
        decode(bytes(data), volume, JPEG + "92")
