"""Hostile frames, decoded in a pixel worker as the archive does: refused, and at no great cost."""

import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from struct import pack, pack_into, unpack_from

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import codec_jobs
from codec_jobs import load, peak_kib, shape_of
from pictured import gray, picture, rgb
from wado.archive.pixel_workers import PixelWorkers
from wado.dicom.codec_table import LOSSY_TARGETS, MAX_BITS
from wado.dicom.image import ImagePixel
from wado.dicom.jpeg_xl_stream import read_jpeg_xl
from wado.dicom.transcode import decode, encode
from wado.errors import CannotUnderstand, WadoError

JPEG = "1.2.840.10008.1.2.4."
DEFLATED_FRAMES, RLE = "1.2.840.10008.1.2.8.1", "1.2.840.10008.1.2.5"
EIGHT = gray(bits_allocated=8, bits_stored=8, high_bit=7)
SMALL_KIB = 64 << 10
"""More than any refusal here takes, and far less than what the frames claim."""


@pytest.fixture(scope="module")
def workers() -> Iterator[PixelWorkers]:
    pixels = PixelWorkers(workers=1, timeout_s=60, max_memory_bytes=4 << 30)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(Path(codec_jobs.__file__).parent))
        yield pixels
    pixels.close()


def refused_cheaply(
    workers: PixelWorkers, data: bytes, image: ImagePixel, uid: str, match: str
) -> None:
    before = max(workers.run(load), workers.run(peak_kib))
    with pytest.raises(WadoError, match=match):
        workers.run(shape_of, data, image, uid)
    assert workers.run(peak_kib) - before < SMALL_KIB


def image_of(uid: str) -> ImagePixel:
    return EIGHT if uid.endswith(".50") else gray()


# ------------------------------------------------------------------ any damage

CODED = sorted({*LOSSY_TARGETS, *MAX_BITS} - {"1.2.840.10008.1.2.1"})


@lru_cache
def coded(uid: str) -> bytes:
    image = image_of(uid)
    return encode(picture(image), image, uid, 80)


@pytest.mark.parametrize("uid", CODED)
def test_what_was_not_changed_is_decoded(workers: PixelWorkers, uid: str):
    image = image_of(uid)
    assert workers.run(shape_of, coded(uid), image, uid) == (image.rows, image.columns)


@pytest.mark.parametrize("uid", CODED)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_whatever_was_changed_a_frame_has_its_shape_or_is_refused(
    workers: PixelWorkers, uid: str, data: st.DataObject
):
    image = image_of(uid)
    frame = bytearray(coded(uid))
    places = st.one_of(st.integers(0, min(len(frame), 160) - 1), st.integers(0, len(frame) - 1))
    for at in data.draw(st.lists(places, min_size=0, max_size=8), "places"):
        frame[at] = data.draw(st.integers(0, 255), "byte")
    end = data.draw(st.one_of(st.just(len(frame)), st.integers(0, len(frame))), "end")
    try:
        shape = workers.run(shape_of, bytes(frame[:end]), image, uid)
    except WadoError:
        return
    assert shape == (image.rows, image.columns)


@pytest.mark.parametrize("uid", CODED)
@settings(max_examples=10, deadline=None)
@given(data=st.binary(max_size=400))
def test_any_bytes_are_refused_or_have_the_shape(workers: PixelWorkers, uid: str, data: bytes):
    image = image_of(uid)
    start = coded(uid)[:40]
    for frame in (data, start + data):
        try:
            assert workers.run(shape_of, frame, image, uid) == (image.rows, image.columns)
        except WadoError:
            continue


# ------------------------------------------------------------------ claims


@pytest.mark.parametrize("uid", ["50", "51", "70", "80"])
def test_jpeg_of_a_giant_size_is_refused_by_its_head(workers: PixelWorkers, uid: str):
    image = image_of(JPEG + uid)
    data = bytearray(encode(picture(image), image, JPEG + uid, 80))
    head = next(
        data.index(m) for m in (b"\xff\xc0", b"\xff\xc1", b"\xff\xc3", b"\xff\xf7") if m in data
    )
    pack_into(">HH", data, head + 5, 65535, 65535)
    refused_cheaply(workers, bytes(data), image, JPEG + uid, "65535 x 65535")
    pack_into(">HH", data, head + 5, 0, 0)
    refused_cheaply(workers, bytes(data), image, JPEG + uid, "0 x 0")
    pack_into(">HHB", data, head + 5, image.rows, image.columns, 255)
    refused_cheaply(workers, bytes(data), image, JPEG + uid, "255 samples")


def siz(**changes: int) -> bytes:
    """Make a JPEG 2000 stream whose size segment says something else."""
    data = bytearray(encode(picture(gray()), gray(), JPEG + "90"))
    at = {"width": 8, "height": 12, "left": 16, "top": 20, "tile_width": 24, "tile_height": 28}
    for name, value in changes.items():
        if name in at:
            pack_into(">I", data, at[name], value)
        else:
            data[{"depth": 42, "step": 43}[name]] = value
    return bytes(data)


@pytest.mark.parametrize("uid", ["90", "201"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 0xFFFFFFFF, "height": 0xFFFFFFFF}, "4294967295 x 4294967295"),
        ({"width": 0xFFFFFFFF, "left": 0xFFFFFFFF - 80}, "wrong size|tiles"),
        ({"tile_width": 1, "tile_height": 1}, "claims 7680 tiles"),
        ({"tile_width": 0}, "wrong size segment"),
        ({"left": 80}, "wrong size segment"),
        ({"depth": 127}, "128 bits"),
        ({"depth": 37}, "38 bits"),
        ({"step": 0}, "wrong size segment"),
        ({"step": 2}, "several sizes"),
    ],
)
def test_jpeg_2000_that_claims_much_is_refused_by_its_head(
    workers: PixelWorkers, changes: dict[str, int], words: str, uid: str
):
    data = bytearray(siz(**changes))
    if uid == "201":
        data[6] |= 0x40
    refused_cheaply(workers, bytes(data), gray(), JPEG + uid, words)


def jpeg_xl_head(*fields: tuple[int, int]) -> bytes:
    """Write a head of JPEG XL: values and their numbers of bits, the least significant first."""
    value, at = 0, 0
    for number, bits in fields:
        value |= number << at
        at += bits
    return b"\xff\x0a" + value.to_bytes(32, "little")


SIZE = ((0, 1), (0, 2), (95, 9), (0, 3), (0, 2), (79, 9))
"""96 rows and 80 columns, as two numbers."""
USUAL_BITS = ((0, 1), (0, 2), (0, 1))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (((0, 1), (3, 2), ((1 << 30) - 1, 30), (1, 3)), "1073741824 x 1073741824"),
        ((*SIZE, (0, 1), (1, 1), (0, 3), (0, 1), (0, 1), (1, 1)), "animation"),
        ((*SIZE, (0, 1), (1, 1), (0, 3), (0, 1), (1, 1)), "preview"),
        ((*SIZE, (0, 1), (0, 1), *USUAL_BITS, (3, 2), (4095, 12)), "further channels"),
        ((*SIZE, (0, 1), (0, 1), (0, 1), (3, 2), (63, 6), (0, 1)), "64 bits"),
    ],
)
def test_jpeg_xl_that_claims_much_is_refused_by_its_head(
    workers: PixelWorkers, fields: tuple[tuple[int, int], ...], words: str
):
    refused_cheaply(workers, jpeg_xl_head(*fields), gray(), JPEG + "110", words)


def test_heads_of_jpeg_xl_are_read_as_they_are_written():
    found = read_jpeg_xl(jpeg_xl_head(*SIZE, (0, 1), (0, 1), *USUAL_BITS, (0, 2)))
    assert (found.rows, found.columns, found.precision) == (96, 80, 8)


# ------------------------------------------------------------------ bombs


def test_a_deflated_frame_is_not_inflated_beyond_its_size(workers: PixelWorkers):
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(512)) + bomb.flush()
    before = workers.run(load)
    assert workers.run(shape_of, data, gray(), DEFLATED_FRAMES) == (96, 80)
    assert workers.run(peak_kib) - before < SMALL_KIB


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_runs_are_not_written_beyond_the_frame(workers: PixelWorkers, bits: int):
    image = gray(bits_allocated=bits, bits_stored=bits, high_bit=bits - 1)
    runs = b"\x81\x55" * (4 << 20)  # 128 bytes each: half a gigabyte
    segments = max(bits // 8, 1)
    offsets = [64 + i * len(runs) for i in range(segments)]
    data = pack("<I", segments) + b"".join(pack("<I", o) for o in offsets)
    before = workers.run(load)
    with suppress(CannotUnderstand):  # or what is too much, is left out
        workers.run(shape_of, data.ljust(64, b"\0") + runs * segments, image, RLE)
    assert workers.run(peak_kib) - before < 4 * SMALL_KIB, "the frame itself has up to 16 MiB"


@pytest.mark.parametrize("surplus", [b"\0\0", b"\x03\1\2\3\4\0", b"\x81\0" * 100])
@pytest.mark.parametrize(
    "image",
    [
        gray(),
        gray(bits_allocated=8, bits_stored=8, high_bit=7),
        rgb(),
        gray(bits_allocated=32, bits_stored=32, high_bit=31),
    ],
)
def test_segments_may_hold_more_than_their_pixels(image: ImagePixel, surplus: bytes):
    """Some write a run too much; other readers leave it out."""
    data = encode(picture(image), image, RLE)
    count, *starts = unpack_from("<16I", data)
    ends = [*starts[1:count], len(data)]
    for which in range(count):
        segments = [data[a:b] for a, b in zip(starts, ends, strict=False)]
        segments[which] = segments[which].rstrip(b"\0") + surplus
        offsets = accumulate((len(s) for s in segments[:-1]), initial=64)
        longer = pack(f"<{count + 1}I", count, *offsets).ljust(64, b"\0") + b"".join(segments)
        assert (decode(longer, image, RLE).pixels == picture(image)).all()
    short = data[: starts[count - 1] + 3]
    with pytest.raises(CannotUnderstand):
        decode(short, image, RLE)


@pytest.mark.parametrize("segments", [0, 16, 0xFFFFFFFF])
def test_a_wrong_number_of_segments_is_refused(workers: PixelWorkers, segments: int):
    data = pack("<I", segments) + pack("<I", 64) + bytes(600)
    refused_cheaply(workers, data, gray(), RLE, "decoded|RLE")


def test_pixels_that_fit_no_memory_cost_one_process(workers: PixelWorkers):
    """The attributes claim the same as the stream; then the limit of the process holds."""
    image = rgb(rows=65500, columns=65500)
    data = bytearray(encode(picture(rgb()), rgb(), JPEG + "50", 80))
    pack_into(">HH", data, data.index(b"\xff\xc0") + 5, 65500, 65500)
    with pytest.raises(CannotUnderstand):
        workers.run(shape_of, bytes(data), image, JPEG + "50")
    assert workers.run(shape_of, encode(picture(EIGHT), EIGHT, JPEG + "50", 80), EIGHT, JPEG + "50")
