"""Pixel Data, native and encapsulated, around pieces that lie elsewhere."""

import io

import pydicom
import pytest
from pydicom.encaps import generate_frames

from wado.dicom import pixel_elements
from wado.dicom.dataset_writer import Place, length_of
from wado.dicom.pixel_elements import encapsulated, native, native_length
from wado.errors import CannotUnderstand

IMAGE = {
    "00280010": {"vr": "US", "Value": [3]}, "00280011": {"vr": "US", "Value": [3]},
    "00280100": {"vr": "US", "Value": [8]}, "00280101": {"vr": "US", "Value": [8]},
}  # fmt: skip


def place(data: bytes) -> Place:
    return Place(len(data), lambda: (data,), lambda a, b: place(data[a:b]))


def joined(pieces) -> bytes:
    data = b"".join(p if isinstance(p, bytes) else b"".join(p.read()) for p in pieces)
    assert len(data) == length_of(pieces)
    return data


_FIRST = b"\x08\0\x60\0CS\2\0OT"
"""An element by which pydicom tells the transfer syntax."""


def read(data: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(_FIRST + data), force=True)


def pixels_of(elements) -> pydicom.Dataset:
    data = b"".join(joined(elements[key]) for key in sorted(elements))
    return read(data)


def test_native_pixels_are_padded_and_of_the_right_length():
    ds = read(joined(native(IMAGE, place(b"123456789"))))
    assert ds.PixelData == b"123456789\0"
    for wrong in (b"12345678", b"12345678901", b""):
        with pytest.raises(CannotUnderstand, match="it must be 9"):
            native(IMAGE, place(wrong))
    with pytest.raises(CannotUnderstand):
        native({}, place(b""))


@pytest.mark.parametrize(
    ("more", "length"),
    [
        ({"00280002": 3}, 27), ({"00280002": 3, "00280004": "YBR_FULL_422"}, 18),
        ({"00280008": 5}, 45), ({"00280100": 1, "00280101": 1, "00280008": 3}, 4),
        ({"00280100": 16}, 18),
    ],
)  # fmt: skip
def test_the_length_of_native_pixels(more, length):
    assert native_length({**IMAGE, **{k: {"Value": [v]} for k, v in more.items()}}) == length


def test_frames_become_fragments_with_a_table():
    frames = [b"first", b"second", b"3"]
    uid, elements = encapsulated("1.2.3", list(map(place, frames)), is_video=False)
    assert uid == "1.2.3"
    value = pixels_of(elements).PixelData
    assert value[:8] == b"\xfe\xff\0\xe0\x0c\0\0\0"
    got = [f.rstrip(b"\0") for f in generate_frames(value, number_of_frames=3)]
    assert got == frames


def test_what_32_bits_can_not_count_gets_the_extended_table(monkeypatch):
    monkeypatch.setattr(pixel_elements, "UNDEFINED_LENGTH", 20)
    _, elements = encapsulated("1.2.3", [place(b"1234567"), place(b"89"), place(b"0")],
                               is_video=False)  # fmt: skip
    ds = pixels_of({k: v for k, v in elements.items() if k != "7FE00010"})
    assert ds.ExtendedOffsetTable == b"".join(n.to_bytes(8, "little") for n in (0, 16, 26))
    assert ds.ExtendedOffsetTableLengths == b"".join(n.to_bytes(8, "little") for n in (7, 2, 1))


def test_a_video_is_one_fragment_as_long_as_it_fits(monkeypatch):
    video = "1.2.840.10008.1.2.4.102"
    _, elements = encapsulated(video, [place(b"123456789")], is_video=True)
    value = pixels_of(elements).PixelData
    assert value[:8] == b"\xfe\xff\0\xe0\0\0\0\0"
    assert next(generate_frames(value, number_of_frames=1)) == b"123456789\0"
    monkeypatch.setattr(pixel_elements, "MAX_VALUE_BYTES", 4)
    uid, elements = encapsulated(video, [place(b"123456789")], is_video=True)
    assert uid == f"{video}.1"
    value = joined(elements["7FE00010"])
    assert value.count(b"\xfe\xff\0\xe0\4\0\0\0") == 2
    with pytest.raises(CannotUnderstand):
        encapsulated("1.2.840.10008.1.2.4.107", [place(b"123456789")], is_video=True)
    with pytest.raises(CannotUnderstand):
        encapsulated("1.2.3", [place(b"123456789")], is_video=False)
