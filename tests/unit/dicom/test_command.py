"""DIMSE command sets: bytes <-> values."""

import contextlib
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.filereader import read_dataset

from wado.dicom.command import (
    Command,
    CommandField,
    Status,
    comment_of,
    decode_command,
    encode_command_set,
    response_to,
)
from wado.errors import MalformedPDU

CT = "1.2.840.10008.5.1.4.1.1.2"
shorts = st.integers(0, 65535)
uids = st.lists(st.integers(1, 99999), min_size=2, max_size=7).map(lambda n: ".".join(map(str, n)))
words = st.text("AZ 09-", max_size=30).map(lambda text: f"x{text}x")
commands = st.builds(
    Command,
    command_field=shorts,
    message_id=st.none() | shorts,
    message_id_being_responded_to=st.none() | shorts,
    command_data_set_type=shorts,
    affected_sop_class_uid=st.none() | uids,
    affected_sop_instance_uid=st.none() | uids,
    priority=st.none() | shorts,
    status=st.none() | shorts,
    error_comment=st.none() | words,
)


@given(commands)
def test_a_command_set_is_read_back(command):
    assert decode_command(encode_command_set(command)) == command


def test_pydicom_reads_the_same():
    request = Command(CommandField.C_STORE_RQ, 7, None, 1, CT, "1.2.3", 0)
    response = response_to(request, 0xC000, "no pixels")
    ds = read_dataset(
        BytesIO(encode_command_set(response)), is_implicit_VR=True, is_little_endian=True
    )
    assert ds.CommandGroupLength == len(encode_command_set(response)) - 12
    assert ds.CommandField == 0x8001
    assert ds.MessageIDBeingRespondedTo == 7
    assert ds.CommandDataSetType == 0x0101
    assert ds.Status == 0xC000
    assert ds.ErrorComment == "no pixels"
    assert ds.AffectedSOPClassUID == CT
    assert ds.AffectedSOPInstanceUID == "1.2.3"


def test_properties_of_a_command():
    request = Command(CommandField.C_ECHO_RQ, 1)
    assert not request.has_data_set
    assert not request.is_response
    assert response_to(request).is_response
    assert response_to(request).status == Status.SUCCESS
    assert Command(1, command_data_set_type=0).has_data_set


def test_the_response_to_an_unknown_command_has_its_response_bit():
    assert response_to(Command(0x0777, 3), 0x0211).command_field == 0x8777


def test_elements_that_we_do_not_know_are_passed_over():
    unknown = b"\0\0\x31\x50\4\0\0\0abcd"
    data = encode_command_set(Command(CommandField.C_ECHO_RQ, 1)) + unknown
    assert decode_command(data) == Command(CommandField.C_ECHO_RQ, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0\1",
        b"\0\0\0\1\4\0\0\0\1\0\0\0",
        b"\0\0\0\1\2\0\0\0\1",
        b"\x08\0\x16\0\2\0\0\0\1\0",
        encode_command_set(Command(1))[:-1],
    ],
    ids=["empty", "short header", "long number", "cut value", "group 0008", "cut"],
)
def test_what_is_no_command_set_is_refused(data):
    with pytest.raises(MalformedPDU):
        decode_command(data)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_and_nothing_worse(data):
    with contextlib.suppress(MalformedPDU):
        decode_command(data)


@given(st.text())
def test_comments_are_short_and_printable(text):
    comment = comment_of(text)
    assert len(comment) <= 64
    assert comment.isascii()
    assert comment.isprintable()
    assert "\\" not in comment


def test_a_long_comment_ends_with_dots():
    assert comment_of("x" * 64) == "x" * 64
    assert comment_of("x" * 65) == "x" * 61 + "..."
