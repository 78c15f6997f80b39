"""Frames that a worker process reads by itself: to send them there costs as much as to decode."""

import os
from typing import NamedTuple

from wado.dicom.image import ImagePixel
from wado.dicom.rendering.display import Display
from wado.dicom.rendering.job import Form, render_frame
from wado.dicom.transcode import transcode
from wado.errors import NotFound

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
    """
    try:
        fd = os.open(frame.path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound("the file of the instance is gone") from None
    try:
        pieces = [os.pread(fd, length, offset) for offset, length in frame.ranges]
    finally:
        os.close(fd)
    if any(len(p) != length for p, (_, length) in zip(pieces, frame.ranges, strict=True)):
        raise NotFound("the file of the instance ends early")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


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
