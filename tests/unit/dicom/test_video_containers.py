"""What a stream of video is put in is told by its beginning, and by nothing that it names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stow
from wado.dicom.coded_video import H264, HEAD_BYTES, Container, container_of
from wado.dicom.media_types import media_type_of

PACKET = b"\x47\x40\x11\x10" + bytes(184)
STAMPED = b"\x12\x34\x56\x78" + PACKET


@pytest.mark.parametrize(
    ("head", "container"),
    [
        (stow.mp4(), Container.MP4),
        (b"\0\0\0\x08wide\0\0\0\x08mdat", Container.MP4),
        (PACKET * 8, Container.TRANSPORT_STREAM),
        (PACKET, Container.TRANSPORT_STREAM),
        (STAMPED * 8, Container.TRANSPORT_STREAM),
        (b"\0\0\1\xba\x44\0\4", Container.PROGRAM_STREAM),
        (b"\0\0\1\xb3\x14\0\xf0", Container.MPEG_STREAM),
        (b"\0\0\0\0\0\1\xb3\x14\0\xf0", Container.MPEG_STREAM),
        (b"\0\0\0\1\x67\x64\0\x29", Container.H264_STREAM),
        (b"\0\0\1\x09\x10\0\0\1\x67", Container.H264_STREAM),
        (b"\0\0\1\x06\5\xff", Container.H264_STREAM),
        (b"\0\0\0\1\x40\1\x0c", Container.HEVC_STREAM),
        (b"\0\0\1\x46\1\x50", Container.HEVC_STREAM),
        (b"", None),
        (bytes(1000), None),
        (b"\0\0\0\1", None),
        (b"\0\0\1\xff\xff", None),
        (b"--\0\0\1\xb3\x14\0", None),
        (PACKET * 2 + b"x" * 188, None),
        (b"\x47" + b"GGGG" * 9 + b"#EXTM3U\n" * 40, None),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", None),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", None),
        (b"RIFF\0\0\0\0AVI LIST", None),
        (b"\x1a\x45\xdf\xa3matroska", None),
    ],
)
def test_the_beginning_tells(head: bytes, container: Container | None):
    assert container_of(head[:HEAD_BYTES]) is container


@given(st.binary(max_size=400))
def test_whatever_it_is_it_is_told_or_nothing(data: bytes):
    assert container_of(data) in (None, *Container)


def test_byte_streams_have_neither_sound_nor_times():
    assert {c for c in Container if c.is_bare} == {
        Container.MPEG_STREAM, Container.H264_STREAM, Container.HEVC_STREAM,
    }  # fmt: skip


def test_transfer_syntaxes_of_h264_are_those_of_its_media_type():
    assert len(H264) == 10
    assert {media_type_of(uid) for uid in H264} == {"video/mp4"}
