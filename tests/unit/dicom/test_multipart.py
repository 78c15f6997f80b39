"""multipart/related is read in any pieces, and written so that strict clients read it."""

import email

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wado.dicom.multipart import (
    MultipartReader,
    PartBegin,
    PartData,
    PartEnd,
    boundary_of,
    closing,
    content_type,
    part_head,
)
from wado.errors import InvalidRequest


def message(*bodies, boundary="guid", preamble=b"", end=b"--guid--\r\n"):
    parts = [
        b"--" + boundary.encode() + b"\r\nContent-Type: application/dicom\r\n\r\n" + body + b"\r\n"
        for body in bodies
    ]
    return preamble + b"".join(parts) + end


def read(data, *, boundary="guid", size=None):
    reader = MultipartReader(boundary)
    parts, events = [], []
    for start in range(0, len(data), size or len(data)):
        for event in reader.feed(data[start : start + (size or len(data))]):
            match event:
                case PartBegin(headers):
                    parts.append((headers, bytearray()))
                case PartData(piece):
                    parts[-1][1].extend(piece)
                case PartEnd():
                    events.append(len(parts))
    reader.finish()
    assert events == list(range(1, len(parts) + 1))
    return [(headers, bytes(body)) for headers, body in parts]


@pytest.mark.parametrize("size", [None, 1, 2, 3, 7, 64])
@pytest.mark.parametrize("preamble", [b"", b"\r\n", b"a MIME message\r\nhere:\r\n"])
def test_parts_come_whole_however_they_are_cut(size, preamble):
    bodies = [b"one", b"\r\n--gui", b"", b"--guid-\r\n\r\n--guie", bytes(range(256))]
    parts = read(message(*bodies, preamble=preamble), size=size)
    assert [body for _, body in parts] == bodies
    assert {h["content-type"] for h, _ in parts} == {"application/dicom"}


def test_the_final_line_break_may_be_missing():
    assert len(read(message(b"x", end=b"--guid--"))) == 1


def test_spaces_behind_a_boundary_are_passed_over():
    data = b"--guid\r\n\r\none\r\n--guid  \r\nContent-Type: a/b\r\n\r\ntwo\r\n--guid--"
    assert [body for _, body in read(data)] == [b"one", b"two"]


def test_parts_without_headers_and_an_epilogue_are_read():
    data = b"--guid\r\n\r\none\r\n--guid--\r\nthe end"
    assert read(data) == [({}, b"one")]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"--guid\r\nContent-Type: application/dicom\r\n\r\nhalf of it",
        b"--guid\r\nContent-Type: application/dicom\r\n\r\nall of it\r\n--guid\r\n",
        b"--guid\r\nContent-Type: application/dicom\r\n\r\nall of it\r\n--gui",
        b"nothing of the kind",
    ],
)
def test_a_message_that_was_cut_off_is_refused(data):
    with pytest.raises(InvalidRequest, match="ends before its closing boundary"):
        read(data, size=11)


@pytest.mark.parametrize("boundary", ["", "x" * 201, "gr\u00fcn"])
def test_unusable_boundaries_are_refused(boundary):
    with pytest.raises(InvalidRequest, match="boundary"):
        MultipartReader(boundary)


def test_memory_is_bounded_where_nothing_is_found():
    reader = MultipartReader("guid")
    reader.feed(b"x" * 40000)
    with pytest.raises(InvalidRequest, match="not in the message"):
        reader.feed(b"x" * 40000)
    endless = MultipartReader("guid")
    endless.feed(b"--guid\r\nContent-Type: ")
    with pytest.raises(InvalidRequest, match="broken multipart"):
        endless.feed(b"y" * 9000)


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4), st.integers(1, 50))
def test_what_is_written_is_read_back(bodies, size):
    boundary = boundary_of("studies/1", "digest")
    data = b"".join(
        part_head(boundary, "application/dicom", first=i == 0) + body
        for i, body in enumerate(bodies)
    ) + closing(boundary)
    assert [b for _, b in read(data, boundary=boundary, size=size)] == bodies


def test_another_reader_agrees():
    boundary = boundary_of("x")
    head = f"Content-Type: {content_type(boundary, 'text/plain')}\r\n\r\n".encode()
    data = head + part_head(boundary, "text/plain", first=True) + b"hi" + closing(boundary)
    _, part = email.message_from_bytes(data).walk()
    assert part.get_payload() == "hi"


def test_the_head_of_a_part_is_spelled_for_strict_clients():
    head = part_head("b", "image/jls;transfer-syntax=1.2", first=True, length=5, location="/x")
    assert head == (
        b"--b\r\nContent-Type: image/jls;transfer-syntax=1.2\r\nContent-Length: 5\r\n"
        b"Content-Location: /x\r\n\r\n"
    )


def test_boundaries_follow_the_resource():
    assert boundary_of("a", "1") == boundary_of("a", "1")
    assert boundary_of("a", "1") != boundary_of("a", "2")
    assert 40 <= len(boundary_of("a")) <= 70
