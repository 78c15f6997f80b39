"""Data sets of any transfer syntax, written anew in Explicit VR Little Endian."""

from io import BytesIO
from struct import pack

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from wado.dicom.rewriting import Changes, Piece, PixelsHere, Range, rewrite
from wado.dicom.sop_classes import transfer_syntax
from wado.dicom.window import Window
from wado.errors import CannotUnderstand

IMPLICIT, ELE, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
NONE = Changes()


def written(ds: Dataset, syntax: str) -> bytes:
    out = DicomBytesIO()
    out.is_implicit_VR, out.is_little_endian = syntax == IMPLICIT, syntax != BIG
    write_dataset(out, ds)
    return out.getvalue()


def pieces_of(data: bytes, syntax: str, changes: Changes = NONE) -> list[Piece]:
    window = Window(lambda offset, length: data[offset : offset + length], len(data))
    return rewrite(window, 0, transfer_syntax(syntax), changes)


def rewritten(data: bytes, syntax: str, changes: Changes = NONE) -> Dataset:
    out = b"".join(_bytes(piece, data) for piece in pieces_of(data, syntax, changes))
    return read_dataset(BytesIO(out), is_implicit_VR=False, is_little_endian=True)


def _bytes(piece: Piece, data: bytes) -> bytes:
    if isinstance(piece, bytes):
        return piece
    assert isinstance(piece, Range)
    raw = data[piece.offset : piece.offset + piece.length]
    step = piece.word_bytes
    return b"".join(raw[i : i + step][::-1] for i in range(0, len(raw), step))


def a_data_set() -> Dataset:
    ds = Dataset()
    ds.SOPInstanceUID = "1.2.3"
    ds.PatientName = "Äpfel^Zoë"
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.Rows, ds.Columns = 3, 700
    ds.PixelRepresentation = 1
    ds.add_new(0x00280106, "SS", -7)
    ds.RescaleSlope = "1.5"
    ds.add_new(0x00041220, "SQ", Sequence([Dataset()]))
    ds.add_new(0x00090010, "LO", "SIEMENS CT VA0  COAD")
    ds.add_new(0x00091010, "UN", b"unknown!")
    ds.add_new(0x00185100, "CS", "FFS")
    inner = Dataset()
    inner.CodeValue = "T-1"
    deeper = Dataset()
    deeper.FrameReferenceTime = "1"
    deeper.add_new(0x00720074, "FD", [1.5, -2.5])
    inner.add_new(0x0040A730, "SQ", Sequence([deeper, Dataset()]))
    ds.add_new(0x0040A730, "SQ", Sequence([inner]))
    ds.add_new(0x00209165, "AT", [0x00100010])
    ds.add_new(0x54000100, "SQ", Sequence([]))
    ds.add_new(0x7FE00010, "OW", bytes(range(200)) * 21)
    ds.add_new(0xFFFCFFFC, "OB", b"\0" * 6)
    return ds


@pytest.mark.parametrize("syntax", [IMPLICIT, ELE, BIG])
def test_elements_stay_what_they_are(syntax: str):
    ds = a_data_set()
    got = rewritten(written(ds, syntax), syntax)
    del ds[0xFFFCFFFC]
    for element in ds:
        if element.tag == 0x7FE00010:
            raw = element.value
            if syntax == BIG:
                raw = b"".join(raw[i : i + 2][::-1] for i in range(0, len(raw), 2))
            assert got[element.tag].value == raw
        else:
            assert got[element.tag] == element
    assert len(got) == len(ds)


def test_undefined_lengths_are_followed():
    inner = pack("<HHI4s", 0x0008, 0x0100, 4, b"T-1 ")
    item = pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + inner + pack("<HHI", 0xFFFE, 0xE00D, 0)
    end = pack("<HHI", 0xFFFE, 0xE0DD, 0)
    data = (
        pack("<HHI", 0x0040, 0xA730, 0xFFFFFFFF)
        + item * 2
        + end
        + pack("<HHI2s", 0x70, 2, 2, b"xx")
    )
    got = rewritten(data, IMPLICIT)
    assert [i.CodeValue for i in got[0x0040A730].value] == ["T-1", "T-1"]
    assert got[0x00700002].value


def test_group_lengths_and_padding_are_dropped():
    data = pack("<HHII", 0x0010, 0, 4, 99) + pack("<HHI4s", 0x0010, 0x0020, 4, b"PID ")
    data += pack("<HHI2s", 0xFFFC, 0xFFFC, 2, b"\0\0")
    assert list(rewritten(data, IMPLICIT).keys()) == [0x00100020]


def test_a_second_delimiter_behind_pixels_is_dropped():
    end = pack("<HHI", 0xFFFE, 0xE0DD, 0)
    pixels = pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + end
    data = pixels + end + pack("<HH2sH2s", 0xFFFA, 0x10, b"LO", 2, b"x ")
    (here, after) = pieces_of(data, ELE, Changes(pixels_end=len(pixels)))
    assert here == PixelsHere(0x7FE00010)
    assert after == pack("<HH2sH2s", 0xFFFA, 0x10, b"LO", 2, b"x ")
    with pytest.raises(CannotUnderstand, match="FFFE,E00D"):
        pieces_of(pack("<HHI", 0xFFFE, 0xE00D, 0) + data, ELE)


def test_a_value_too_long_for_its_vr_becomes_un():
    data = pack("<HHI", 0x0010, 0x4000, 70000) + b"x" * 70000
    (head, where) = pieces_of(data, IMPLICIT)
    assert head == pack("<HH2sHI", 0x0010, 0x4000, b"UN", 0, 70000)
    assert where == Range(8, 70000)


def test_an_odd_length_is_made_even():
    data = pack("<HHI3s", 0x0010, 0x0020, 3, b"PID") + pack("<HHI2s", 0x0010, 0x0040, 2, b"M ")
    got = rewritten(data, IMPLICIT)
    assert (got.PatientID, got.PatientSex) == ("PID", "M")


def test_vrs_depend_on_what_stands_before():
    entries = pack("<HHI3H", 0x0028, 0x3002, 6, 1, 0, 16) + pack("<HHI2s", 0x0028, 0x3006, 2, b"ab")
    assert rewritten(entries, IMPLICIT)[0x00283006].VR == "US"
    many = entries.replace(pack("<3H", 1, 0, 16), pack("<3H", 9, 0, 16))
    assert rewritten(many, IMPLICIT)[0x00283006].VR == "OW"
    smallest = pack("<HHI2s", 0x0028, 0x0106, 2, b"\xff\xff")
    assert rewritten(smallest, IMPLICIT)[0x00280106].value == 65535
    signed = Changes(pixel_representation=1)
    assert rewritten(smallest, IMPLICIT, signed)[0x00280106].value == -1


def test_changes_take_the_place_of_what_is_there_and_come_in_order():
    data = pack("<HHI4s", 0x0010, 0x0020, 4, b"PID ") + pack("<HHI4s", 0x0028, 0x0004, 4, b"RGB ")
    data += pack("<HHI2s", 0x0028, 0x0010, 2, b"\1\0") + pack("<HHI8s", 0x7FE0, 1, 8, bytes(8))
    data += pack("<HHI4s", 0x7FE0, 0x0010, 4, b"abcd") + pack("<HHI2s", 0xFFFA, 0x2, 2, b"zz")
    changes = Changes(
        {0x00280004: (b"CS", b"YBR_FULL"), 0x00280006: (b"US", b"\0\0")}, len(data) - 10
    )
    before, here, after = pieces_of(data, IMPLICIT, changes)
    assert here == PixelsHere(0x7FE00010)
    assert isinstance(before, bytes)
    got = read_dataset(BytesIO(before), is_implicit_VR=False, is_little_endian=True)
    assert list(got.keys()) == [0x00100020, 0x00280004, 0x00280006, 0x00280010]
    assert got.PhotometricInterpretation == "YBR_FULL"
    assert isinstance(after, bytes)
    assert after.endswith(b"zz")


@pytest.mark.parametrize(
    "data",
    [
        pack("<HHI", 0x0010, 0x0020, 40) + b"PID ",
        pack("<HHI", 0xFFFE, 0xE00D, 0),
        pack("<HHI", 0x0040, 0xA730, 0xFFFFFFFF),
        pack("<HHI", 0x0040, 0xA730, 8) + pack("<HHI", 0x10, 0x20, 0),
        pack("<HHI", 0x0040, 0xA730, 8) + pack("<HHI", 0xFFFE, 0xE000, 99),
        pack("<HHIHHI", 0x0040, 0xA730, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF) * 100,
    ],
)
def test_what_can_not_be_followed_is_said(data: bytes):
    with pytest.raises(CannotUnderstand):
        pieces_of(data, IMPLICIT)
