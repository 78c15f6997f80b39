"""Frames that a worker process reads by itself: to send them there costs as much as to decode."""

import os
from dataclasses import replace
from typing import NamedTuple

from wado.dicom.codec_table import FAMILY
from wado.dicom.image import ImagePixel
from wado.dicom.rendering.display import Display
from wado.dicom.rendering.job import Form, render_frame
from wado.dicom.transcode import coded_colour, decode, decoded_image, encode, transcode
from wado.errors import NotFound, Unreadable

PLAIN = frozenset({"native", "deflated"})
"""Codings of frames in which Planar Configuration says how the samples lie."""
LONG_FRAME_BYTES = 1 << 16
"""From this length on a worker opens the file itself: that is quicker than to send the frame."""


class FrameFile(NamedTuple):
    """Where the bytes of a frame are: offset and length of its pieces in a file of this machine."""

    path: str
    ranges: tuple[tuple[int, int], ...]


def read_frame_file(frame: FrameFile) -> bytes:
    """Read a frame.

    Raises
    ------
    NotFound
        The file is gone, or shorter than it was.
    Unreadable
        The disk does not give it.
    """
    try:
        pieces = _pieces(frame)
    except FileNotFoundError:
        raise NotFound("the file of the instance is gone") from None
    except OSError as e:
        raise Unreadable(f"reading the file of the instance: {e.strerror or e}") from e
    if any(len(p) != length for p, (_, length) in zip(pieces, frame.ranges, strict=True)):
        raise NotFound("the file of the instance ends early")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _pieces(frame: FrameFile) -> list[bytes]:
    fd = os.open(frame.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return [os.pread(fd, length, offset) for offset, length in frame.ranges]
    finally:
        os.close(fd)


def render_frame_file(
    frame: FrameFile, image: ImagePixel, transfer_syntax_uid: str, display: Display, form: Form
) -> bytes:
    """Render a frame that is read first; else as `wado.dicom.rendering.job.render_frame`."""
    return render_frame(read_frame_file(frame), image, transfer_syntax_uid, display, form)


def transcode_frame_file(
    frame: FrameFile, image: ImagePixel, source_uid: str, target_uid: str
) -> tuple[bytes, str]:
    """Transcode a frame that is read first; else as `wado.dicom.transcode.transcode`."""
    return transcode(read_frame_file(frame), image, source_uid, target_uid)


def copy_frame(
    data: bytes, image: ImagePixel, source_uid: str, target_uid: str, quality: int
) -> tuple[bytes, str]:
    """Transcode a frame as `wado.dicom.transcode.transcode`, its samples always colour by pixel."""
    if not image.planar_configuration or FAMILY.get(target_uid) not in PLAIN:
        return transcode(data, image, source_uid, target_uid, quality)
    from wado.dicom.verification import verify  # noqa: PLC0415 - in workers only

    decoded = decode(data, image, source_uid)
    image = replace(decoded_image(image, decoded), planar_configuration=0)
    frame = encode(decoded.pixels, image, target_uid)
    verify(frame, decoded, image, target_uid, quality)
    return frame, coded_colour(image, target_uid)


def copy_frame_file(
    frame: FrameFile, image: ImagePixel, source_uid: str, target_uid: str, quality: int
) -> tuple[bytes, str]:
    """Transcode a frame that is read first; else as `copy_frame`."""
    return copy_frame(read_frame_file(frame), image, source_uid, target_uid, quality)
