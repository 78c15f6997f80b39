"""Images, video and documents stored beside metadata (PS3.18 §10.5): what their files tell."""

import io
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

import stow
from service import RunningArchive

pytestmark = pytest.mark.filterwarnings("ignore")

_JPEG = "1.2.840.10008.1.2.4."


@pytest.fixture(scope="session")
def client(running: RunningArchive) -> stow.Client:
    return stow.Client(running.dicomweb, "stow-media")


def first_frame(ds: Dataset) -> bytes:
    return next(generate_frames(ds.PixelData, number_of_frames=1))


_GRAY16 = stow.picture(colour=False).astype("u2") * 257
_LOSSLESS_JPEG = imagecodecs.ljpeg_encode(_GRAY16, bitspersample=16)
_SCAN = b"\xff\xda\0\x08\1\0\0"
_FIRST_ORDER = _LOSSLESS_JPEG.replace(_SCAN + b"\6", _SCAN + b"\1")
"""With another selection value in the header, which is all that is looked at."""


@pytest.mark.ps318("store-compressed-bulk")
@pytest.mark.parametrize(
    ("media_type", "data", "syntax", "expected"),
    [
        ("image/jpeg", stow.as_file(stow.picture(), "JPEG"), "50",
         ("YBR_FULL_422", 3, 8, "01", "ISO_10918_1")),
        ("image/jpeg", stow.as_file(stow.picture(), "JPEG", subsampling=0), "50",
         ("YBR_FULL", 3, 8, "01", "ISO_10918_1")),
        ("image/jpg", stow.as_file(stow.picture(colour=False), "JPEG"), "50",
         ("MONOCHROME2", 1, 8, "01", "ISO_10918_1")),
        ("image/jpeg", _LOSSLESS_JPEG, "57", ("MONOCHROME2", 1, 16, None, None)),
        ("image/jpeg", _FIRST_ORDER, "70", ("MONOCHROME2", 1, 16, None, None)),
        ("image/jls", imagecodecs.jpegls_encode(_GRAY16), "80",
         ("MONOCHROME2", 1, 16, None, None)),
        ("image/jls", imagecodecs.jpegls_encode(_GRAY16, level=3), "81",
         ("MONOCHROME2", 1, 16, "01", "ISO_14495_1")),
        ("image/jp2", imagecodecs.jpeg2k_encode(stow.picture(), level=0, codecformat="jp2"), "90",
         ("YBR_RCT", 3, 8, None, None)),
        ("image/jp2", imagecodecs.jpeg2k_encode(_GRAY16, level=30, codecformat="j2k",
                                                reversible=False), "91",
         ("MONOCHROME2", 1, 16, "01", "ISO_15444_1")),
        ("image/jphc", imagecodecs.htj2k_encode(_GRAY16), "201",
         ("MONOCHROME2", 1, 16, None, None)),
        ("image/jxl", imagecodecs.jpegxl_encode(stow.picture(), lossless=True), "110",
         ("RGB", 3, 8, None, None)),
        ("image/jxl", imagecodecs.jpegxl_encode(stow.picture(), lossless=False, distance=2.0),
         "112", ("XYB", 3, 8, "01", "ISO_18181_1")),
    ],
    ids=lambda v: v if isinstance(v, str) and len(v) < 20 else None,
)  # fmt: skip
def test_images_keep_their_bits_and_tell_their_attributes(
    client: stow.Client, media_type: str, data: bytes, syntax: str, expected: tuple[Any, ...]
):
    ds = stow.bare(("image", syntax, expected, len(data)))
    answer = client.wrapped(ds, data, media_type=media_type)
    assert answer.status_code == 200, (answer.text, answer.headers)
    got = client.fetch(ds)
    assert got.file_meta.TransferSyntaxUID == _JPEG + syntax
    assert first_frame(got)[: len(data)].rstrip(b"\0") in data
    assert len(first_frame(got)) > 60
    assert (got.Rows, got.Columns) == (24, 32)
    assert (
        got.PhotometricInterpretation, got.SamplesPerPixel, got.BitsStored,
        got.get("LossyImageCompression"), got.get("LossyImageCompressionMethod"),
    ) == expected  # fmt: skip
    assert (got.BitsAllocated, got.HighBit) == (-(-expected[2] // 8) * 8, expected[2] - 1)


@pytest.mark.ps318("store-compressed-bulk")
def test_frames_come_as_parts_in_order(client: stow.Client):
    frames = [stow.as_file(np.roll(stow.picture(), n, 0), "JPEG") for n in range(3)]
    ds = stow.bare("frames", stow.TRUE_COLOR)
    assert client.wrapped(ds, *frames, media_type="image/jpeg").status_code == 200
    got = client.fetch(ds)
    assert got.NumberOfFrames == 3
    kept = list(generate_frames(got.PixelData, number_of_frames=3))
    assert [k.rstrip(b"\0") for k in kept] == frames
    short = stow.bare("frame missing", stow.TRUE_COLOR, NumberOfFrames=4)
    answer = client.wrapped(short, *frames, media_type="image/jpeg")
    assert (answer.status_code, stow.reason(answer)) == (409, 0xC000)
    assert "3 parts came" in answer.headers["warning"]


@pytest.mark.ps318("store-compressed-bulk")
@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA", "I;16", "1"])
def test_png_becomes_native_pixels(client: stow.Client, mode: str):
    if mode == "I;16":
        image = Image.fromarray(_GRAY16)
    else:
        image = Image.fromarray(stow.picture(colour=mode != "L")).convert(mode)
    out = io.BytesIO()
    image.save(out, "PNG")
    ds = stow.bare(("png", mode))
    answer = client.wrapped(ds, out.getvalue(), media_type="image/png")
    assert answer.status_code == 200, answer.headers
    got = client.fetch(ds)
    assert got.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    wanted = _GRAY16 if mode == "I;16" else np.asarray(
        image.convert("L" if mode in "L1" else "RGB"))  # fmt: skip
    assert np.array_equal(got.pixel_array, wanted)


@pytest.mark.ps318("store-compressed-bulk")
def test_animations_and_progressive_jpeg_are_decoded(client: stow.Client):
    steps = [Image.fromarray(np.roll(stow.picture(), 5 * n, 1)) for n in range(4)]
    out = io.BytesIO()
    steps[0].save(out, "GIF", save_all=True, append_images=steps[1:], duration=40)
    ds = stow.bare("gif", stow.TRUE_COLOR)
    assert client.wrapped(ds, out.getvalue(), media_type="image/gif").status_code == 200
    got = client.fetch(ds)
    assert (got.NumberOfFrames, got.FrameTime, got.PhotometricInterpretation) == (4, 40, "RGB")
    assert got.pixel_array.shape == (4, 24, 32, 3)
    single = client.wrapped(stow.bare("gif 2"), out.getvalue(), media_type="image/gif")
    assert (single.status_code, stow.reason(single)) == (409, 0xA900)
    ds = stow.bare("progressive")
    image = stow.as_file(stow.picture(), "JPEG", progressive=True)
    assert client.wrapped(ds, image, media_type="image/jpeg").status_code == 200
    got = client.fetch(ds)
    assert np.array_equal(got.pixel_array, np.asarray(Image.open(io.BytesIO(image))))
    assert got.LossyImageCompression == "01"


@pytest.mark.ps318("store-compressed-bulk")
def test_a_real_video(client: stow.Client, corpus: Path):
    real_video = pydicom.dcmread(corpus / "derived" / "video_h264.dcm")
    data = first_frame(real_video)
    ds = stow.bare("real video", stow.VIDEO_PHOTOGRAPHIC)
    assert client.wrapped(ds, data, media_type="video/mp4").status_code == 200
    got = client.fetch(ds)
    assert got.file_meta.TransferSyntaxUID == f"{_JPEG}102"
    assert first_frame(got) == data
    for keyword in ("Rows", "Columns", "NumberOfFrames", "PhotometricInterpretation"):
        assert got[keyword].value == real_video[keyword].value
    assert got.FrameIncrementPointer == 0x00181063


@pytest.mark.ps318("store-compressed-bulk")
@pytest.mark.parametrize(
    ("data", "syntax"),
    [
        (stow.mp4(), "102"), (stow.mp4(level=42), "104"), (stow.mp4(profile=128), "106"),
        (stow.mp4(codec=b"hvc1", profile=1, level=153), "107"),
        (stow.mp4(codec=b"hev1", profile=2, level=120), "108"),
        (stow.mp4(level=52), None), (stow.mp4(profile=110), None),
        (stow.mp4(codec=b"hvc1", profile=4, level=120), None), (stow.mp4(frames=0), None),
        (stow.mp4()[:99], None),
    ],
)  # fmt: skip
def test_profiles_and_levels_choose_the_transfer_syntax(
    client: stow.Client, data: bytes, syntax: str | None
):
    ds = stow.bare(("video", len(data), syntax, data[:600]), stow.VIDEO_PHOTOGRAPHIC)
    answer = client.wrapped(ds, data, media_type="video/mp4")
    if syntax is None:
        assert answer.status_code in (409, 415)
        assert answer.headers["warning"]
        return
    assert answer.status_code == 200, answer.headers
    got = client.fetch(ds)
    assert got.file_meta.TransferSyntaxUID == _JPEG + syntax
    assert (got.Rows, got.Columns, got.NumberOfFrames, got.FrameTime) == (48, 64, 50, 40)
    assert got.BitsStored == (10 if syntax == "108" else 8)


@pytest.mark.ps318("store-compressed-bulk")
def test_documents(client: stow.Client):
    pdf = b"%PDF-1.4\n" + bytes(999)
    ds = stow.bare("pdf", stow.ENCAPSULATED_PDF)
    part = stow.bulk("file", pdf, "application/pdf")
    answer = client.store(stow.metadata(stow.described(ds, "file", "00420011")), part)
    assert answer.status_code == 200, answer.headers
    got = client.fetch(ds)
    assert got.EncapsulatedDocument == pdf
    assert got.EncapsulatedDocumentLength == len(pdf)
    assert got.MIMETypeOfEncapsulatedDocument == "application/pdf"
    for other in (
        stow.bulk("file", b"<a/>", "text/xml"),
        stow.bulk("file", b"x", "application/pdf"),
    ):
        ds = stow.bare(("pdf", other), stow.ENCAPSULATED_PDF)
        answer = client.store(stow.metadata(stow.described(ds, "file", "00420011")), other)
        assert (answer.status_code, stow.reason(answer)) == (409, 0xA900)


@pytest.mark.parametrize(
    ("media_type", "data", "expected"),
    [
        ("image/jpeg", b"no image", 0xC000),
        ("image/jpeg", stow.as_file(stow.picture(), "JPEG")[:100], 0xC000),
        ("image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.70",
         stow.as_file(stow.picture(), "JPEG"), 0xC000),
        ("image/png", b"\x89PNG\r\n\x1a\nbroken", 0xC000),
        ("image/jp2", b"\0\0\0\x0cjP  \r\n\x87\n" + b"\xff" * 50, 0xC000),
        ("image/jxl", b"\xff\x0a", 0xC000),
        ("image/dicom-rle", bytes(64), 0xC000),
        ("application/octet-stream; transfer-syntax=1.2.840.10008.1.2.2", bytes(64), 0xC000),
        ("application/octet-stream; transfer-syntax=1.2.3", bytes(64), 0xC000),
        ("image/tiff", b"II*\0", 0xC000),
        ("video/mpeg", bytes(500), 0xC000),
        ("video/H265", bytes(500), 0xC000),
    ],
)  # fmt: skip
def test_files_that_are_not_what_they_say(
    client: stow.Client, media_type: str, data: bytes, expected: int
):
    answer = client.wrapped(stow.bare(("lies", media_type, data)), data, media_type=media_type)
    assert (answer.status_code, stow.reason(answer)) == (409, expected), answer.headers
    assert answer.headers["warning"]
