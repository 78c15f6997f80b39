"""File Meta Information is written and read."""

import io

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthetic import ct, data_set, part10
from wado.dicom.part10 import (
    IMPLEMENTATION_CLASS_UID,
    MAX_FILE_META_BYTES,
    FileMeta,
    Incomplete,
    file_meta,
    read_file_meta,
)
from wado.errors import CannotUnderstand

CT = "1.2.840.10008.5.1.4.1.1.2"
ODDITIES = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
"""pydicom warns of what is odd in real files."""
EXPLICIT = "1.2.840.10008.1.2.1"
INSTANCE = "1.2.3.44"


def test_what_is_written_is_read_by_pydicom():
    ds = ct()
    whole = file_meta(ds.SOPClassUID, ds.SOPInstanceUID, EXPLICIT) + data_set(ds)

    read = pydicom.dcmread(io.BytesIO(whole))

    assert read == ds
    assert read.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert read.file_meta.TransferSyntaxUID == EXPLICIT
    assert read.file_meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert read.file_meta.ImplementationVersionName == "WADO_0_1"
    assert read.file_meta.FileMetaInformationVersion == b"\0\1"


def test_the_same_data_set_gets_the_same_file_meta():
    assert file_meta(CT, INSTANCE, EXPLICIT) == file_meta(CT, INSTANCE, EXPLICIT)


def test_what_is_written_is_read_by_us():
    written = file_meta(CT, INSTANCE, EXPLICIT)
    assert read_file_meta(written) == FileMeta(CT, INSTANCE, EXPLICIT, len(written))


@given(st.integers(min_value=0, max_value=400))
def test_a_part_of_it_asks_for_more(length: int):
    written = file_meta(CT, INSTANCE, EXPLICIT)
    if length < len(written):
        with pytest.raises(Incomplete):
            read_file_meta(written[:length])


@ODDITIES
def test_real_files_are_read_as_pydicom_reads_them(real_data_sets, real_files):
    assert len(real_data_sets) > 300
    for path in real_files:
        try:
            ours = read_file_meta(path.read_bytes())
        except CannotUnderstand:
            continue
        theirs = pydicom.dcmread(path, stop_before_pixels=True).file_meta
        assert ours.transfer_syntax_uid == theirs.TransferSyntaxUID, path
        assert ours.sop_class_uid == theirs.get("MediaStorageSOPClassUID", ""), path
        assert ours.sop_instance_uid == theirs.get("MediaStorageSOPInstanceUID", ""), path


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda b: b[132:], "no DICM"),
        (lambda b: b[:128] + b"DIXM" + b[132:], "no DICM"),
        (lambda b: b"\x08\x00\x05\x00CS" + b[:200], "no DICM"),
        (lambda b: b.replace(b"\2\0\x10\0UI", b"\2\0\x11\0UI"), "no Transfer Syntax UID"),
        (lambda b: b.replace(b"\2\0\2\0UI", b"\2\0\2\0\x1a\0"), "isn't in Explicit VR"),
        (lambda b: b.replace(b"\2\0\1\0OB\0\0\2\0\0\0", b"\2\0\1\0OB\0\0\0\0\0\x7f"), "claims"),
    ],
)
def test_what_is_not_a_dicom_file_is_refused_with_a_reason(change, reason):
    with pytest.raises(CannotUnderstand, match=reason) as refusal:
        read_file_meta(change(part10(ct())))
    assert not isinstance(refusal.value, Incomplete)


def test_endless_file_meta_is_refused():
    element = b"\2\0\x02\x01OB\0\0\0\xff\0\0" + bytes(0xFF00)
    head = bytes(128) + b"DICM" + element * (MAX_FILE_META_BYTES // len(element) + 2)
    with pytest.raises(CannotUnderstand) as refusal:
        read_file_meta(head)
    assert not isinstance(refusal.value, Incomplete)


def test_a_missing_group_length_is_tolerated():
    whole = part10(ct())
    expected = read_file_meta(whole)
    short = whole[:132] + whole[144:]

    meta = read_file_meta(short)

    assert meta.transfer_syntax_uid == expected.transfer_syntax_uid
    assert meta.data_set_offset == expected.data_set_offset - 12


def test_a_wrong_group_length_is_tolerated():
    whole = bytearray(part10(ct()))
    expected = read_file_meta(bytes(whole))
    whole[140] += 1

    assert read_file_meta(memoryview(whole)) == expected
