"""Video: where its stream is, what that is put in, and which form of it browsers play."""

from datetime import UTC, datetime, timedelta

from wado.archive.pieces import OpenFiles, Piece, cut
from wado.archive.retrieve import Item, copy_of, slices
from wado.archive.transcode_rules import is_video
from wado.archive.values import is_plain
from wado.dicom.coded_video import H264, HEAD_BYTES, Container, container_of
from wado.errors import NotAcceptable, Unavailable, WadoError
from wado.transcode_settings import TranscodeSettings

_QUEUED_S = 3600.0
"""How long a video may wait for its turn, beside what its conversion takes."""


def stream_of(found: Item) -> tuple[Piece, ...] | None:
    """Locate a video: its fragments are one stream (PS3.5 §8.2.5 to §8.2.8); None if it is none."""
    pixel, entry = found.entry.pixel, found.entry
    if pixel is None or not is_video(entry.transfer_syntax_uid) or not is_plain(entry):
        return None
    flat = pixel.fragments
    return slices(found, zip(flat[::2], flat[1::2], strict=True))


def container(files: OpenFiles, stream: tuple[Piece, ...]) -> Container | None:
    """Tell what a stream is put in, by its beginning."""
    return container_of(b"".join(map(files.bytes_of, cut(stream, 0, HEAD_BYTES))))


def playable(files: OpenFiles, found: Item) -> Item | None:
    """Find what browsers play: the original if it is H.264 in an MP4 file, or its copy that is."""
    stream = stream_of(found)
    if stream is None:
        return None
    is_h264 = found.entry.transfer_syntax_uid in H264
    if is_h264 and container(files, stream) is Container.MP4:
        return found
    return playable_copy(found)


def playable_copy(found: Item) -> Item | None:
    """Find the copy of a video that browsers play."""
    for uid in sorted(H264 & found.entry.derived.copies.keys()):
        return copy_of(found, uid)
    return None


def without_mp4(settings: TranscodeSettings, found: Item, names: str) -> WadoError:
    """Say why a video can't be had as MP4: it can't be converted, or it wasn't yet.

    Parameters
    ----------
    settings
        Whether videos are converted when they arrive.
    found
        The original.
    names
        Media types in which it can be had.
    """
    instead = f"; it can be had as {names}"
    failures = found.entry.derived.failures
    for uid in sorted(H264 & failures.keys()):
        return NotAcceptable(f"the video can't be had as video/mp4: {failures[uid]}{instead}")
    if settings.enabled and _age(found) < timedelta(seconds=settings.video_timeout_s + _QUEUED_S):
        return Unavailable("the video waits to be converted for browsers: try again")
    return NotAcceptable(
        f"the video is not converted to video/mp4: `wado transcode` does it{instead}"
    )


def _age(found: Item) -> timedelta:
    return datetime.now(UTC) - datetime.fromisoformat(found.entry.received_at)
