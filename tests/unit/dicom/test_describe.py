"""The metadata of a file is what pydicom makes of it, and costs no more than its header."""

import copy
import io
import os
import random
import struct

import orjson
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from same_metadata import bulk_resolved, comparable_items, same_values
from synthetic import NATIVE_TRANSFER_SYNTAXES, ct, large_part10, part10, with_transfer_syntax
from wado.dicom import window
from wado.dicom.describe import describe
from wado.dicom.part10 import file_meta
from wado.dicom.window import data_set_reader
from wado.errors import CannotUnderstand, Unavailable

ODDITIES = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
"""pydicom warns of what is odd in real files."""
EXPLICIT = "1.2.840.10008.1.2.1"
BROKEN = ("MR_truncated", "rtplan_truncated", "too_short")


def described(ds, **changes):
    ds = copy.deepcopy(ds)
    ds.update(changes)
    whole = part10(ds)
    return describe(lambda offset, length: whole[offset : offset + length], len(whole))


def raw_file(data_set, transfer_syntax_uid=EXPLICIT):
    """Describe a hand-made data set."""
    whole = file_meta("1.2", "1.2.3", transfer_syntax_uid) + data_set
    return describe(lambda offset, length: whole[offset : offset + length], len(whole))


def element(group, number, vr, value):
    return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value


def reader(description, read):
    """Read the bulk values of a description."""
    return lambda _, path: read(*description.bulk[path])


@ODDITIES
def test_real_files_give_what_pydicom_gives(real_data_sets, read_of):
    compared = 0
    for path, transfer_syntax_uid, _ in real_data_sets:
        whole = path.read_bytes()
        if any(name in path.name for name in BROKEN):
            with pytest.raises(CannotUnderstand):
                describe(read_of(whole), len(whole))
            continue
        ours = describe(read_of(whole), len(whole))
        read = data_set_reader(
            read_of(whole),
            len(whole),
            transfer_syntax_uid,
            ours.file_meta.data_set_offset,
        )
        # badVR.dcm has a Number of Frames that pydicom can't convert, and a list where it stops.
        lenient = "badVR" in path.name
        theirs = pydicom.dcmread(path).to_json_dict(suppress_invalid_tags=lenient)
        ours_json = comparable_items(ours.metadata, theirs=False)
        if lenient:
            ours_json = {tag: e for tag, e in ours_json.items() if tag in theirs}
        same_values(
            comparable_items(bulk_resolved(ours_json, reader(ours, read)), theirs=False),
            comparable_items(theirs, theirs=True),
            path,
        )
        assert orjson.loads(orjson.dumps(ours.metadata)) == ours.metadata, path
        compared += 1
    assert compared > 330


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_truncated_files_are_refused_and_never_crash(real_data_sets, data):
    path = data.draw(st.sampled_from([p for p, _, d in real_data_sets if len(d) < 100_000]))
    whole = path.read_bytes()
    whole = whole[: data.draw(st.integers(0, len(whole)))]
    try:
        orjson.dumps(describe(lambda o, n: whole[o : o + n], len(whole)).metadata)
    except CannotUnderstand as e:
        reason = str(e)
        assert reason


@ODDITIES
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damaged_files_never_crash(real_data_sets, data):
    path = data.draw(st.sampled_from([p for p, _, d in real_data_sets if len(d) < 20_000]))
    whole = bytearray(path.read_bytes())
    rng = random.Random(data.draw(st.integers(0, 1 << 30)))
    for _ in range(rng.randint(1, 20)):
        whole[rng.randrange(132, len(whole))] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256)))
    damaged = bytes(whole)
    try:
        orjson.dumps(describe(lambda o, n: damaged[o : o + n], len(damaged)).metadata)
    except CannotUnderstand as e:
        reason = str(e)
        assert reason


@pytest.mark.parametrize("transfer_syntax_uid", NATIVE_TRANSFER_SYNTAXES)
def test_each_native_syntax_gives_the_same_metadata(transfer_syntax_uid):
    description = described(with_transfer_syntax(ct(), transfer_syntax_uid))
    expected = described(ct())

    available = description.metadata.pop("00083002")
    del expected.metadata["00083002"]
    assert available == {"vr": "UI", "Value": [transfer_syntax_uid]}
    assert description.metadata == expected.metadata
    assert description.pixel.frame_length == expected.pixel.frame_length


def test_pixel_data_is_named_and_not_read():
    ds = ct()
    whole = part10(ds)
    description = describe(lambda o, n: whole[o : o + n], len(whole))

    uri = description.metadata["7FE00010"]
    assert uri == {
        "vr": "OW",
        "BulkDataURI": f"instances/{ds.SOPInstanceUID}/bulkdata/7FE00010",
    }
    offset, length = description.bulk["7FE00010"]
    assert whole[offset : offset + length] == ds.PixelData


def test_a_large_object_costs_a_few_small_reads(tmp_path):
    file = tmp_path / "large.dcm"
    with file.open("wb") as f:
        for piece in large_part10(30 << 20, fragments=True):
            f.write(piece)
    reads = []
    with file.open("rb") as f:

        def read(offset, length):
            reads.append(length)
            return os.pread(f.fileno(), length, offset)

        description = describe(read, file.stat().st_size)

    assert description.pixel is not None
    assert description.pixel.number_of_frames == 30
    assert sum(reads) < 200_000


def test_metadata_longer_than_a_window_is_read_whole(read_of):
    ds = ct()
    ds.ReferencedImageSequence = [Dataset() for _ in range(3000)]
    for i, item in enumerate(ds.ReferencedImageSequence):
        item.ReferencedSOPInstanceUID = f"1.2.3.{i}"
        item.TextValue = "x" * 60
    whole = part10(ds)
    assert len(whole) > 1 << 17

    metadata = describe(read_of(whole), len(whole)).metadata

    items = metadata["00081140"]["Value"]
    assert [i["00081155"]["Value"][0] for i in items] == [f"1.2.3.{i}" for i in range(3000)]


def test_bulk_values_inside_sequences_have_a_path(read_of):
    ds = ct()
    ds.WaveformSequence = [Dataset(), Dataset()]
    ds.WaveformSequence[1].WaveformBitsAllocated = 16
    ds.WaveformSequence[1].add_new(0x54001010, "OW", bytes(range(256)) * 1000)
    whole = part10(ds)

    description = describe(read_of(whole), len(whole))

    item = description.metadata["54000100"]["Value"][1]
    path = "54000100/1/54001010"
    assert item["54001010"]["BulkDataURI"].endswith(f"/bulkdata/{path}")
    offset, length = description.bulk[path]
    assert whole[offset : offset + length] == bytes(range(256)) * 1000
    assert description.metadata["54000100"]["Value"][0] == {}


@pytest.mark.parametrize("length", [1024, 1026])
def test_binary_values_are_inline_up_to_1024_bytes(length):
    ds = ct()
    ds.add_new(0x00091010, "OB", b"\1" * length)
    e = described(ds).metadata["00091010"]
    assert ("InlineBinary" in e) == (length == 1024)
    assert ("BulkDataURI" in e) == (length > 1024)


@pytest.mark.parametrize(
    ("vr", "value", "expected"),
    [
        ("CS", b"A\\ B \\\\C ", {"vr": "CS", "Value": ["A", "B", None, "C"]}),
        ("LO", b"  ", {"vr": "LO"}),
        ("LT", b"a\\b ", {"vr": "LT", "Value": ["a\\b"]}),
        ("DS", b"1.50\\-2e3 ", {"vr": "DS", "Value": [1.5, -2000.0]}),
        ("DS", b"1.5\\\\2.5", {"vr": "DS", "Value": [1.5, None, 2.5]}),
        ("DS", b"1,5 ", {"vr": "DS", "Value": ["1,5"]}),
        ("DS", b"nan ", {"vr": "DS", "Value": ["nan"]}),
        ("DS", b"1e999 ", {"vr": "DS", "Value": ["1e999"]}),
        ("IS", b" 12\\+3", {"vr": "IS", "Value": [12, 3]}),
        ("IS", b"1.0 ", {"vr": "IS", "Value": [1]}),
        ("IS", b"1.5 ", {"vr": "IS", "Value": ["1.5"]}),
        ("IS", b"1_0 ", {"vr": "IS", "Value": ["1_0"]}),
        ("IS", b"9" * 20, {"vr": "IS", "Value": ["9" * 20]}),
        ("IS", b"1E99999999", {"vr": "IS", "Value": ["1E99999999"]}),
        ("US", b"\1\0\2\0", {"vr": "US", "Value": [1, 2]}),
        ("US", b"", {"vr": "US"}),
        ("SS", b"\xff\xff", {"vr": "SS", "Value": [-1]}),
        ("FD", struct.pack("<2d", 0.1, float("nan")), {"vr": "FD", "Value": [0.1, None]}),
        ("AT", b"\x28\0\x10\0", {"vr": "AT", "Value": ["00280010"]}),
        ("UI", b"1.2\0\\1.3\0", {"vr": "UI", "Value": ["1.2", "1.3"]}),
        ("PN", b"A^B=\xe5=c ", {"vr": "PN", "Value": [
            {"Alphabetic": "A^B", "Ideographic": "å", "Phonetic": "c"}]}),
        ("PN", b"=x\\\\y", {"vr": "PN", "Value": [
            {"Ideographic": "x"}, None, {"Alphabetic": "y"}]}),
        ("PN", b"== ", {"vr": "PN"}),
    ],
)  # fmt: skip
def test_values(vr, value, expected):
    data_set = element(8, 0x18, "UI", b"1.2\0") + element(0x11, 0x1010, vr, value)
    assert raw_file(data_set).metadata["00111010"] == expected


def test_character_sets_change_within_items_only():
    item = element(8, 5, "CS", b"ISO_IR 192") + element(0x10, 0x10, "PN", "é".encode())
    sequence = struct.pack("<HH2sHI", 8, 0x1115, b"SQ", 0, len(item) + 8)
    sequence += struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item
    greek = element(8, 5, "CS", b"ISO_IR 126")
    name = "Διονυσιος".encode("iso-8859-7") + b" "

    metadata = raw_file(greek + sequence + element(0x10, 0x10, "PN", name)).metadata

    assert metadata["00100010"]["Value"] == [{"Alphabetic": "Διονυσιος"}]
    nested = metadata["00081115"]["Value"][0]
    assert nested["00100010"]["Value"] == [{"Alphabetic": "é"}]
    assert metadata["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}


def test_an_unknown_character_set_loses_no_more_than_its_characters():
    data_set = element(8, 5, "CS", b"NONSENSE") + element(0x10, 0x10, "PN", b"A^\xe9x")
    assert raw_file(data_set).metadata["00100010"]["Value"] == [{"Alphabetic": "A^éx"}]


def test_pixel_representation_decides_signs_in_implicit_vr_even_if_it_comes_later():
    def implicit(group, number, value):
        return struct.pack("<HHI", group, number, len(value)) + value

    smallest_valid = implicit(0x18, 0x9810, b"\xff\xff")  # US or SS, before (0028,0103)
    sign = implicit(0x28, 0x103, b"\1\0")
    padding = implicit(0x28, 0x120, b"\0\x80")
    start = implicit(8, 0x18, b"1.2\0")

    signed = raw_file(start + smallest_valid + sign + padding, "1.2.840.10008.1.2").metadata
    unsigned = raw_file(start + smallest_valid + padding, "1.2.840.10008.1.2").metadata

    assert signed["00189810"] == {"vr": "SS", "Value": [-1]}
    assert signed["00280120"] == {"vr": "SS", "Value": [-32768]}
    assert unsigned["00280120"] == {"vr": "US", "Value": [32768]}


def test_private_elements_in_implicit_vr_have_the_vr_their_creator_gives_them():
    def implicit(number, value):
        return struct.pack("<HHI", 0x2005, number, len(value)) + value

    known = implicit(0x10, b"Philips MR Imaging DD 001 ") + implicit(0x100E, struct.pack("<f", 2.5))
    metadata = raw_file(known, "1.2.840.10008.1.2").metadata
    assert metadata["20050010"] == {"vr": "LO", "Value": ["Philips MR Imaging DD 001"]}
    assert metadata["2005100E"] == {"vr": "FL", "Value": [2.5]}

    metadata = raw_file(implicit(0x10, b"NOBODY") + implicit(0x100E, b"ab"), "1.2.840.10008.1.2")
    assert metadata.metadata["2005100E"] == {"vr": "UN", "InlineBinary": "YWI="}


@pytest.mark.parametrize(
    ("data_set", "reason"),
    [
        (b"", "there is no data set"),
        (struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, 100) + bytes(50),
         "Pixel Data .7FE0,0010. claims 100 bytes, 50 are there"),
        (struct.pack("<HH2sHI", 8, 0x1115, b"SQ", 0, 0xFFFFFFFF), "ends early"),
        (element(8, 0x18, "UI", b"1.2\0") + b"\x08\0\x20", "ends early"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_a_reason(data_set, reason):
    with pytest.raises(CannotUnderstand, match=reason):
        raw_file(data_set)


def test_deep_nesting_is_refused():
    level = struct.pack("<HH2sHI", 8, 0x1115, b"SQ", 0, 0xFFFFFFFF)
    level += struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    with pytest.raises(CannotUnderstand, match="nested deeper"):
        raw_file(level * 5000)


def test_a_file_shorter_than_announced_is_refused(read_of):
    whole = part10(ct())
    with pytest.raises(CannotUnderstand):
        describe(read_of(whole), len(whole) + 100)


def test_what_breaks_the_rules_of_sequences_is_left_to_pydicom():
    """An item that claims more than its sequence; pydicom leaves out such a sequence."""
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 100) + element(0x10, 0x20, "LO", b"in")
    sequence = struct.pack("<HH2sHI", 8, 0x1115, b"SQ", 0, len(item)) + item
    long = struct.pack("<HH2sHI", 9, 0x1010, b"OB", 0, 70_000) + bytes(70_000)
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, 8) + b"pixels!!"
    data_set = element(8, 0x18, "UI", b"1.2\0") + sequence + long
    data_set += element(0x10, 0x10, "PN", b"A=B ") + pixels

    description = raw_file(data_set)

    assert description.metadata["00080018"] == {"vr": "UI", "Value": ["1.2"]}
    assert description.metadata["00100010"]["Value"][0] == {"Alphabetic": "A", "Ideographic": "B"}
    assert description.metadata["00091010"]["BulkDataURI"].endswith("/00091010")
    assert description.bulk["7FE00010"][1] == 8


@pytest.mark.parametrize("error", [OSError("the disk is gone"), Unavailable("no answer")])
def test_a_store_that_fails_is_not_taken_for_bad_data(error):
    whole = part10(ct()) + bytes(1 << 17)

    def read(offset, length):
        if offset:
            raise error
        return whole[:length]

    with pytest.raises(type(error)):
        describe(read, len(whole))


def test_endless_metadata_is_refused(monkeypatch):
    monkeypatch.setattr(window, "MAX_HEADER_BYTES", 1 << 20)
    many = element(0x11, 0x1010, "US", b"\1\0") * 200_000
    with pytest.raises(CannotUnderstand, match="bytes of metadata"):
        raw_file(many)


def test_elements_are_in_ascending_order():
    item = element(0x10, 0x20, "LO", b"b ") + element(8, 0x18, "UI", b"1.3\0")
    sequence = struct.pack("<HH2sHI", 8, 0x1115, b"SQ", 0, len(item) + 8)
    sequence += struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item
    metadata = raw_file(element(0x28, 0x10, "US", b"\1\0") + sequence).metadata
    assert list(metadata) == ["00081115", "00083002", "00280010"]
    assert list(metadata["00081115"]["Value"][0]) == ["00080018", "00100020"]


def test_the_oracle_reads_what_we_write():
    assert pydicom.dcmread(io.BytesIO(part10(ct()))).PatientID == "SYN-1"
