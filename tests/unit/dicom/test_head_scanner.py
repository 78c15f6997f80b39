"""The receiver follows a data set however it is cut, and notices when it ends early."""

import io
import struct
import zlib
from itertools import pairwise
from typing import cast

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement

from synthetic import (
    NATIVE_TRANSFER_SYNTAXES,
    colour,
    ct,
    data_set,
    encapsulated,
    part10,
    with_transfer_syntax,
)
from wado.dicom.part10 import HeadScanner, read_file_meta
from wado.errors import CannotUnderstand

ODDITIES = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
"""pydicom warns of what is odd in real files."""
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
UIDS = {0x00080016, 0x00080018, 0x0020000D, 0x0020000E}
LARGEST_FRAGMENTED = 30_000


def outcome(transfer_syntax_uid, pieces):
    """What a scanner makes of the pieces: what it found, or that it refused."""
    scanner = HeadScanner(transfer_syntax_uid)
    try:
        for piece in pieces:
            scanner.feed(piece)
        scanner.finish()
    except CannotUnderstand as e:
        return "refused", str(e)
    return scanner.passed, scanner.found


def cut(data, places):
    edges = [0, *sorted(p % (len(data) + 1) for p in places), len(data)]
    return [memoryview(data)[a:b] for a, b in pairwise(edges)]


def element(group, number, vr, value):
    if vr in {"OB", "UN", "SQ", "OW"}:
        return struct.pack("<HH2sHI", group, number, vr.encode(), 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value


def undefined(group, number, vr):
    return struct.pack("<HH2sHI", group, number, vr, 0, 0xFFFFFFFF)


ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
ITEM_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
CLASS = element(8, 0x16, "UI", b"1.2.840\0")
STUDY = element(0x20, 0xD, "UI", b"1.2.3\0")
BEYOND = element(0x28, 0x10, "US", b"\1\0")


@pytest.mark.parametrize("transfer_syntax_uid", NATIVE_TRANSFER_SYNTAXES)
def test_the_identifying_attributes_are_found_in_each_syntax(transfer_syntax_uid):
    ds = with_transfer_syntax(ct(), transfer_syntax_uid)

    passed, found = outcome(transfer_syntax_uid, [data_set(ds)])

    assert passed
    assert {tag: value.decode().rstrip("\0 ") for tag, value in found.items()} == {
        0x00080016: ds.SOPClassUID,
        0x00080018: ds.SOPInstanceUID,
        0x00080020: ds.StudyDate,
        0x00100020: ds.PatientID,
        0x0020000D: ds.StudyInstanceUID,
        0x0020000E: ds.SeriesInstanceUID,
    }


@ODDITIES
def test_real_files_give_what_pydicom_reads(real_data_sets):
    refused = []
    for path, transfer_syntax_uid, data in real_data_sets:
        passed, found = outcome(transfer_syntax_uid, [data])
        if passed == "refused":
            refused.append(path.name)
            continue
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        expected = {tag: str(ds[tag].value) for tag in UIDS if tag in ds}
        ours = {tag: found[tag].decode().rstrip("\0 ") for tag in UIDS if tag in found}
        assert ours == expected, path
    broken = ("MR_truncated", "rtplan_truncated", "too_short")
    assert [name for name in refused if not any(b in name for b in broken)] == []
    assert len(refused) == 5


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_fragmentation_gives_the_same_as_one_piece(real_data_sets, data):
    small = [s for s in real_data_sets if len(s[2]) <= LARGEST_FRAGMENTED]
    name, transfer_syntax_uid, whole = data.draw(st.sampled_from(small))
    places = data.draw(st.lists(st.integers(0, len(whole)), max_size=40))
    assert outcome(transfer_syntax_uid, cut(whole, places)) == outcome(
        transfer_syntax_uid, [whole]
    ), name


@pytest.mark.parametrize("size", [1, 2, 7, 8, 11, 13])
def test_pieces_of_a_few_bytes_give_the_same_as_one_piece(real_data_sets, size):
    for name, transfer_syntax_uid, whole in real_data_sets:
        if len(whole) > 3000:
            continue
        pieces = [whole[i : i + size] for i in range(0, len(whole), size)]
        assert outcome(transfer_syntax_uid, pieces) == outcome(transfer_syntax_uid, [whole]), name


@pytest.mark.parametrize("transfer_syntax_uid", NATIVE_TRANSFER_SYNTAXES)
def test_a_data_set_that_is_cut_off_is_refused_unless_an_element_ends_there(transfer_syntax_uid):
    ds = with_transfer_syntax(colour(), transfer_syntax_uid)
    whole, ends = data_set(ds), element_ends(part10(ds))
    for length in range(1, len(whole)):
        scanner = HeadScanner(transfer_syntax_uid)
        scanner.feed(whole[:length])
        if transfer_syntax_uid != DEFLATED and ends_well(whole, length, ends):
            scanner.finish()
        else:
            with pytest.raises(CannotUnderstand, match="ends early"):
                scanner.finish()


def ends_well(whole, length, ends):
    """Whether an element ends there; a NUL more could be padding as well as a big endian tag."""
    return length in ends or (length - 1 in ends and whole[length - 1] == 0)


def element_ends(whole):
    """Where top-level elements of a data set end, by pydicom."""
    ds = pydicom.dcmread(io.BytesIO(whole))
    raw = cast("list[RawDataElement]", list(ds.elements()))
    start = read_file_meta(whole).data_set_offset
    return {0} | {r.value_tell + r.length - start for r in raw}


def test_attributes_inside_sequences_are_not_taken():
    nested = CLASS + STUDY
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(nested)) + nested
    for sequence in (
        element(8, 0x1115, "SQ", item),
        undefined(8, 0x1115, b"SQ") + item + SEQUENCE_END,
        undefined(8, 0x1115, b"SQ") + ITEM + nested + ITEM_END + SEQUENCE_END,
        undefined(9, 0x1015, b"UN") + ITEM + implicit(8, 0x16, b"1.2") + ITEM_END + SEQUENCE_END,
        undefined(9, 0x1015, b"UN") + ITEM + nested + ITEM_END + SEQUENCE_END,
    ):
        assert outcome(EXPLICIT, [sequence + BEYOND]) == (True, {})
        assert outcome(EXPLICIT, cut(sequence + BEYOND, range(200))) == (True, {})


def implicit(group, number, value):
    return struct.pack("<HHI", group, number, len(value)) + value


def test_long_private_elements_before_the_uids_are_passed_over_without_being_kept():
    private = struct.pack("<HH2sHI", 9, 0x1001, b"UN", 0, 100_000_000)
    scanner = HeadScanner(EXPLICIT)
    scanner.feed(CLASS + private)
    piece = bytes(1_000_000)
    for _ in range(100):
        assert not scanner.feed(piece)
        assert len(scanner._tail) < 16
    assert scanner.feed(STUDY + BEYOND)
    scanner.finish()
    assert scanner.found == {0x00080016: b"1.2.840\0", 0x0020000D: b"1.2.3\0"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (element(0x10, 0x20, "LO", b"x" * 1025), "longer than 1024"),
        (CLASS + element(8, 0x16, "UI", b"1.2.841\0"), "twice"),
        (undefined(8, 0x1115, b"SQ") + CLASS, "stands where an item"),
        (undefined(0x7FE0, 0x10, b"OB") + ITEM, "where it can't stand"),
        ((undefined(8, 0x1115, b"SQ") + ITEM) * 100, "nested deeper"),
    ],
)
def test_hostile_data_sets_are_refused(data, reason):
    kind, text = outcome(EXPLICIT, [data])
    assert kind == "refused"
    assert reason in text


def test_the_same_value_twice_is_tolerated():
    assert outcome(EXPLICIT, [CLASS + CLASS + BEYOND]) == (True, {0x00080016: b"1.2.840\0"})


@pytest.mark.parametrize(
    "padding", [b"\0", bytes(7), bytes(20), b"\xfc\xff\xfc\xffOB\0\0\2\0\0\0xx"]
)
def test_padding_at_the_end_is_tolerated(padding):
    assert outcome(EXPLICIT, [CLASS + BEYOND + padding])[0] is True


def test_encapsulated_pixel_data_is_followed_to_its_end():
    frames = [bytes([n]) * 100 for n in range(3)]
    whole = data_set(encapsulated(colour(), "1.2.840.10008.1.2.4.50", frames))
    assert outcome("1.2.840.10008.1.2.4.50", [whole])[0] is True
    assert outcome("1.2.840.10008.1.2.4.50", [whole[:-8]])[0] == "refused"
    assert outcome("1.2.840.10008.1.2.4.50", [whole[:-50]])[0] == "refused"


def test_a_writer_that_announces_the_wrong_vr_form_is_understood():
    whole = data_set(ct())
    assert outcome(IMPLICIT, [whole]) == outcome(EXPLICIT, [whole])


def test_a_private_transfer_syntax_counts_as_explicit():
    assert outcome("1.2.3.4.5", [data_set(ct())])[0] is True


def test_a_deflated_bomb_costs_no_memory():
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    private = struct.pack("<HH2sHI", 9, 0x1001, b"UN", 0, 50_000_000)
    stream = packer.compress(private + bytes(50_000_000)) + packer.flush()
    scanner = HeadScanner(DEFLATED)
    scanner.feed(stream)
    scanner.finish()
    assert len(scanner._tail) == 0


@pytest.mark.parametrize("data", [b"\xff" * 50, b"", data_set(ct())[:1000]])
def test_what_does_not_inflate_is_refused(data):
    assert outcome(DEFLATED, [data])[0] == "refused"


def test_readers_that_can_seek_pass_over_values():
    whole = data_set(ct())
    scanner = HeadScanner(EXPLICIT)
    at = whole.index(b"\xe0\x7f\x10\0OW") + 12
    scanner.feed(whole[:at])
    assert scanner.pass_over(1 << 30) == len(whole) - at
    scanner.finish()
