"""Headers of images and video tell what DICOM needs; broken ones are refused with a reason."""

import io
import struct

import imagecodecs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import stow
from wado.dicom.coded_images import jpeg, jpeg_2000, jpeg_xl
from wado.dicom.coded_media import NeedsDecoding
from wado.dicom.coded_video import hevc, mp4, mpeg
from wado.dicom.raster import decode_raster
from wado.dicom.wrapped_media import coded_changes, transfer_syntax_of
from wado.errors import CannotUnderstand, TooLarge, UnsupportedMediaType, WadoError

SYNTAX = "1.2.840.10008.1.2.4."


def headers(function, data: bytes | bytearray):
    data = bytes(data)
    return function(lambda offset, length: data[offset : offset + length], len(data))


def test_a_container_of_still_images_is_left_out():
    data = imagecodecs.jpeg2k_encode(stow.picture(), level=0, codecformat="jp2")
    coded = headers(jpeg_2000, data)
    assert data[coded.start : coded.end].startswith(b"\xff\x4f\xff\x51")
    assert data[coded.end - 2 : coded.end] == b"\xff\xd9"


def test_a_claimed_transfer_syntax_must_fit():
    coded = headers(jpeg_2000, imagecodecs.jpeg2k_encode(stow.picture(), level=0))
    assert transfer_syntax_of(coded, "") == f"{SYNTAX}90"
    assert transfer_syntax_of(coded, f"{SYNTAX}91") == f"{SYNTAX}91"
    with pytest.raises(CannotUnderstand, match=r"4\.90"):
        transfer_syntax_of(coded, f"{SYNTAX}50")


def test_jpeg_that_dicom_does_not_hold():
    with pytest.raises(NeedsDecoding):
        headers(jpeg, stow.as_file(stow.picture(), "JPEG", progressive=True))
    cmyk = io.BytesIO()
    Image.new("CMYK", (8, 8)).save(cmyk, "JPEG")
    with pytest.raises(CannotUnderstand, match="4 components"):
        headers(jpeg, cmyk.getvalue())
    arithmetic = stow.as_file(stow.picture(), "JPEG").replace(b"\xff\xc0", b"\xff\xc9", 1)
    with pytest.raises(UnsupportedMediaType, match="SOF9"):
        headers(jpeg, arithmetic)


@pytest.mark.parametrize("size", [b"\0\0\0\x20", b"\0\x18\0\0"])
def test_an_image_without_pixels_is_refused(size: bytes):
    data = stow.as_file(stow.picture(24, 32), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    assert data[at : at + 4] == b"\0\x18\0\x20"
    coded = headers(jpeg, data[:at] + size + data[at + 4 :])
    with pytest.raises(CannotUnderstand, match="pixels can't be held"):
        coded_changes({}, coded, 1, len(data))


@pytest.mark.parametrize("shape", [(24, 32), (256, 128), (99, 1234), (512, 512), (300, 400)])
@pytest.mark.parametrize("colour", [True, False])
def test_jpeg_xl_of_any_size(shape: tuple[int, int], colour: bool):
    data = imagecodecs.jpegxl_encode(stow.picture(*shape, colour=colour), lossless=True, effort=1)
    coded = headers(jpeg_xl, data)
    assert (coded.rows, coded.columns) == shape
    assert (coded.samples_per_pixel, coded.bits_stored) == (3 if colour else 1, 8)
    assert coded.transfer_syntax_uid == f"{SYNTAX}110"


def test_jpeg_xl_of_sixteen_bits_and_of_a_jpeg():
    gray = stow.picture(colour=False).astype("u2") * 257
    coded = headers(jpeg_xl, imagecodecs.jpegxl_encode(gray, lossless=True, effort=1))
    assert (coded.bits_stored, coded.bits_allocated, coded.lossy) == (16, 16, False)
    source = stow.as_file(stow.picture(), "JPEG")
    coded = headers(jpeg_xl, imagecodecs.jpegxl_encode_jpeg(source))
    assert coded.transfer_syntax_uid == f"{SYNTAX}111"
    assert coded.lossy
    assert (coded.rows, coded.columns) == (24, 32)


def mpeg_2(level: int = 8, rate: int = 3, pictures: int = 7) -> bytes:
    sequence = struct.pack(">I", 720 << 20 | 576 << 8 | 3 << 4 | rate) + b"\xff\xff\xe0\0"
    extension = struct.pack(">I", (1 << 28) | (4 << 24) | (level << 20) | 1 << 17) + bytes(2)
    picture = b"\0\0\1\0" + b"\x42" * 300_000
    return b"\0\0\1\xb3" + sequence + b"\0\0\1\xb5" + extension + picture * pictures


def test_mpeg_2_is_read_and_its_pictures_are_counted():
    coded = headers(mpeg, mpeg_2())
    assert (coded.columns, coded.rows, coded.number_of_frames) == (720, 576, 7)
    assert (coded.transfer_syntax_uid, coded.frame_time_ms) == (f"{SYNTAX}100", 40)
    assert headers(mpeg, mpeg_2(level=4)).transfer_syntax_uid == f"{SYNTAX}101"
    with pytest.raises(UnsupportedMediaType):
        headers(mpeg, mpeg_2(level=10))


def hevc_stream(profile: int = 1, level: int = 120) -> bytes:
    def golomb(value: int) -> str:
        text = f"{value + 1:b}"
        return "0" * (len(text) - 1) + text

    bits = "".join(map(golomb, (0, 1, 1920, 1088))) + "1" + "".join(map(golomb, (0, 0, 0, 4)))
    bits += "0" * (-len(bits) % 8)
    size = int(bits, 2).to_bytes(len(bits) // 8, "big")
    tier = bytes([0x01, profile, 0x60, 0, 0, 0, 0, 0, 0, 0, 0, 0, level])
    raw = tier + size
    escaped = bytearray()
    for byte in raw:  # emulation prevention
        if escaped[-2:] == b"\0\0" and byte < 4:
            escaped.append(3)
        escaped.append(byte)
    return b"\0\0\0\1\x40\1\0\0\1\x42\1" + bytes(escaped)


def test_bare_hevc():
    coded = headers(hevc, hevc_stream())
    assert (coded.columns, coded.rows) == (1920, 1080)
    assert coded.transfer_syntax_uid == f"{SYNTAX}107"
    assert headers(hevc, hevc_stream(profile=2)).bits_stored == 10
    with pytest.raises(UnsupportedMediaType):
        headers(hevc, hevc_stream(level=180))


_FILES = [
    (jpeg, stow.as_file(stow.picture(), "JPEG")),
    (jpeg_2000, imagecodecs.jpeg2k_encode(stow.picture(), level=0, codecformat="jp2")),
    (jpeg_xl, imagecodecs.jpegxl_encode(stow.picture(), lossless=True, effort=1)),
    (mp4, stow.mp4()),
    (mpeg, mpeg_2(pictures=1)[:300]),
    (hevc, hevc_stream()),
]


@given(st.sampled_from(_FILES), st.integers(0, 900), st.binary(min_size=1, max_size=6))
def test_broken_headers_are_read_or_refused(file, at: int, change: bytes):
    function, data = file
    for broken in (data[:at] + change + data[at + len(change) :], data[:at], change):
        try:
            coded = headers(function, broken)
        except WadoError:
            continue
        assert 0 <= coded.start <= coded.end <= len(broken)


def test_pixels_beyond_the_limit_are_not_decoded():
    data = stow.as_file(stow.picture(), "PNG")
    assert decode_raster(data, 24 * 32).data == stow.picture().tobytes()
    with pytest.raises(TooLarge):
        decode_raster(data, 24 * 32 - 1)
    with pytest.raises(CannotUnderstand):
        decode_raster(data[:60], 1 << 20)
    with pytest.raises(CannotUnderstand):
        decode_raster(b"GIF89a", 1 << 20)


def test_transparent_parts_become_white():
    clear = io.BytesIO()
    Image.new("RGBA", (4, 4), (9, 9, 9, 0)).save(clear, "PNG")
    assert decode_raster(clear.getvalue(), 99).data == b"\xff" * 48
