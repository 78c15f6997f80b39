"""Each frame is found where pydicom finds it, without reading the frames."""

import random
import struct

import orjson
import pydicom
import pytest
from pydicom.encaps import generate_frames

from synthetic import colour, encapsulated, multi_frame, part10
from wado.dicom.describe import describe
from wado.dicom.frames import PixelData, scan_fragments
from wado.dicom.window import Window
from wado.errors import CannotUnderstand, NotFound

ODDITIES = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
"""pydicom warns of what is odd in real files."""
JPEG = "1.2.840.10008.1.2.4.50"
RLE = "1.2.840.10008.1.2.5"
UNKNOWN_FRAMES = {"video_h264.dcm", "nested_priv_SQ.dcm", "pydicom__nested_priv_SQ.dcm"}
"""A video is one stream; the others have no image attributes."""


def pixel_of(whole):
    pixel = describe(lambda offset, length: whole[offset : offset + length], len(whole)).pixel
    assert pixel is not None
    return pixel


def frame_of(whole, pixel, number):
    return b"".join(whole[offset : offset + length] for offset, length in pixel.frame(number))


def jpeg_like(number, length=200):
    """Bytes with the markers of a JPEG image and no others."""
    body = random.Random(number).randbytes(length).replace(b"\xff", b"\xfe")
    return b"\xff\xd8\xff\xe0" + body + b"\xff\xd9"


@ODDITIES
def test_frames_of_real_files_are_those_of_pydicom(real_data_sets, read_of):
    compared = 0
    for path, _, _ in real_data_sets:
        whole = path.read_bytes()
        try:
            pixel = describe(read_of(whole), len(whole)).pixel
        except CannotUnderstand:
            continue
        if pixel is None or pixel.deflated:
            continue
        if path.name in UNKNOWN_FRAMES:
            assert pixel.reason
            continue
        assert pixel.reason == "", path
        ds = pydicom.dcmread(path)
        frames = [frame_of(whole, pixel, n + 1) for n in range(pixel.number_of_frames)]
        if pixel.encapsulated:
            theirs = generate_frames(
                ds.PixelData,
                number_of_frames=pixel.number_of_frames,
                extended_offsets=offsets_of(ds),
            )
            assert frames == list(theirs), path
        elif pixel.frame_length is not None:
            value = next(
                ds[t].value
                for t in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
                if t in ds
            )
            assert value.startswith(b"".join(frames)), path
            # What is left is padding, or trailing bytes of a careless writer.
            assert len(value) - sum(map(len, frames)) < len(frames[0]), path
        compared += 1
    assert compared > 200


def offsets_of(ds):
    if "ExtendedOffsetTable" not in ds:
        return None
    return ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths


@pytest.mark.parametrize(
    ("offset_table", "fragments_per_frame"),
    [("basic", 1), ("basic", 3), ("none", 1), ("none", 3), ("extended", 1)],
)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_encapsulated_frames(offset_table, fragments_per_frame, count):
    frames = [jpeg_like(n, 200 + 2 * n) for n in range(count)]
    whole = part10(
        encapsulated(
            multi_frame(count),
            JPEG,
            frames,
            fragments_per_frame=fragments_per_frame,
            offset_table=offset_table,
        )
    )

    pixel = pixel_of(whole)

    assert pixel.encapsulated
    assert [frame_of(whole, pixel, n + 1) for n in range(count)] == frames
    assert len(pixel.frame(1)) == fragments_per_frame
    assert whole[pixel.offset :].startswith(b"\xfe\xff\0\xe0")
    assert whole[pixel.offset + pixel.length :].startswith(b"\xfe\xff\xdd\xe0")


def test_fragments_that_cannot_be_told_apart_are_refused_and_not_guessed():
    frames = [bytes([n]) * 90 for n in range(3)]
    whole = part10(
        encapsulated(multi_frame(3), RLE, frames, fragments_per_frame=2, offset_table="none")
    )

    pixel = pixel_of(whole)

    assert "6 fragments" in pixel.reason
    with pytest.raises(CannotUnderstand, match="can't be told apart"):
        pixel.frame(1)
    assert len(pixel.fragments) == 12


def test_an_offset_table_that_lies_is_not_believed():
    frames = [jpeg_like(n) for n in range(3)]
    whole = bytearray(part10(encapsulated(multi_frame(3), JPEG, frames, fragments_per_frame=2)))
    table = whole.index(struct.pack("<HHI", 0xFFFE, 0xE000, 12)) + 8
    whole[table + 4 : table + 8] = struct.pack("<I", 4)

    pixel = pixel_of(bytes(whole))

    assert [frame_of(whole, pixel, n + 1) for n in range(3)] == frames


@pytest.mark.parametrize("number", [0, -1, 4])
def test_other_frames_are_not_found(number):
    with pytest.raises(NotFound):
        pixel_of(part10(multi_frame(3))).frame(number)


def test_native_frames_are_arithmetic():
    ds = multi_frame(3)
    whole = part10(ds)

    pixel = pixel_of(whole)

    assert pixel.fragments == ()
    assert pixel.frame_length == len(ds.PixelData) // 3
    assert b"".join(frame_of(whole, pixel, n) for n in (1, 2, 3)) == ds.PixelData


def test_frames_of_single_bits_may_begin_within_a_byte():
    ds = multi_frame(3)
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = 3, 5, 1, 1, 0
    ds.PixelData = b"\x01\x80\x02\x40\x04\x00"
    ds["PixelData"].VR = "OB"
    whole = part10(ds)

    pixel = pixel_of(whole)

    assert pixel.frame_bits == 15
    assert pixel.frame_length is None
    offset = pixel.offset
    assert [pixel.frame(n) for n in (1, 2, 3)] == [
        [(offset, 2)],
        [(offset + 1, 3)],
        [(offset + 3, 3)],
    ]
    assert [pixel.first_bit(n) for n in (1, 2, 3)] == [0, 7, 6]


def test_subsampled_chroma_takes_two_thirds():
    ds = colour(8, 10)
    ds.PhotometricInterpretation = "YBR_FULL_422"
    ds.PixelData = bytes(8 * 10 * 2)
    assert pixel_of(part10(ds)).frame_length == 160


def test_too_little_pixel_data_is_told():
    ds = multi_frame(3)
    ds.PixelData = ds.PixelData[: len(ds.PixelData) // 2]
    assert "its attributes ask for" in pixel_of(part10(ds)).reason


@pytest.mark.parametrize(
    "pixel",
    [
        PixelData(100, 50, encapsulated=False, number_of_frames=1, frame_bits=400),
        PixelData(8, 9, encapsulated=False, number_of_frames=2, frame_bits=15, deflated=True),
        PixelData(8, 9, encapsulated=True, number_of_frames=2, fragments=(1, 2, 3, 4)),
        PixelData(8, 9, True, 1, fragments=(1, 2, 3, 4), starts=(0,), reason="why not"),  # noqa: FBT003
    ],
)
def test_pixel_data_travels_as_json(pixel):
    assert PixelData.from_json(orjson.loads(orjson.dumps(pixel.to_json()))) == pixel


@pytest.mark.parametrize(
    "items",
    [
        b"",
        struct.pack("<HHI", 0xFFFE, 0xE000, 0),
        struct.pack("<HHI", 0xFFFE, 0xE000, 100) + bytes(50),
        struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + bytes(50),
        struct.pack("<HHI", 0x0008, 0x0005, 0) + bytes(50),
    ],
)
def test_items_that_end_early_are_refused(items):
    with pytest.raises(CannotUnderstand):
        scan_fragments(Window(lambda o, n: items[o : o + n], len(items)), 0, len(items))


def test_many_small_fragments_take_few_reads():
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 1000) + bytes(1000)
    whole = item * 5000 + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    reads = []

    def read(offset, length):
        reads.append(length)
        return whole[offset : offset + length]

    items, after = scan_fragments(Window(read, len(whole)), 0, len(whole))

    assert len(items) == 10_000
    assert after == len(whole)
    assert len(reads) < 100
