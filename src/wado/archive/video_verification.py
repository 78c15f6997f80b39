"""Whether the copy of a video is what it should be: read again beside its original.

Of a bit stream that was kept each coded frame must be the same; of one that was encoded anew, the
frames must be as near as when it was made, as many, and as long.
"""

from contextlib import ExitStack, closing
from dataclasses import dataclass
from io import FileIO
from os import fstat, pread
from threading import Event

from wado.archive.copies import read_metadata
from wado.archive.journal import Journals
from wado.archive.pieces import OpenFiles
from wado.archive.retrieve import Item
from wado.archive.spool import unnamed_file, write_all
from wado.archive.video import container, stream_of
from wado.archive.video_commands import filters_to, probe
from wado.archive.video_comparison import Comparison, Differs, Packets, Source
from wado.archive.video_conversion import rate_of
from wado.archive.video_program import video_program
from wado.dicom.coded_video import Container, mp4
from wado.errors import CannotUnderstand, CutShort, NotAcceptable, NotFound, OutOfResources
from wado.ports import Archive

_SAMPLED_FRAMES = 1000
"""Frames that are decoded where not all are."""
_OTHERWISE_S, _OTHERWISE = 0.2, 0.01
"""How far lengths in seconds may be apart: they are counted otherwise in other containers."""


@dataclass(frozen=True, slots=True)
class VideoCheck:
    """What came of looking at the copy of a video.

    `differs` and `unreadable` say what is wrong with it, `not_decoded` why that is not known;
    `frames` were decoded and compared.
    """

    frames: int = 0
    differs: str = ""
    unreadable: str = ""
    not_decoded: str = ""


def check_video(
    archive: Archive,
    journals: Journals,
    found: Item,
    copied: Item,
    *,
    every_frame: bool,
    stop: Event,
) -> VideoCheck:
    """Compare the copy of a video with its original, within the limits of a conversion.

    Parameters
    ----------
    archive, journals
        Where they are, and the limits.
    found, copied
        The original, and its copy.
    every_frame
        Decode all frames; else the first thousand, and all are counted.
    stop
        Set when this is to end.

    Raises
    ------
    Unavailable
        It is to end, or can't be done now.
    """
    with ExitStack() as stack:
        try:
            program = video_program(archive.transcode, stop)
            video = _spooled(archive, found, stack)
            with closing(OpenFiles(archive.store, max_open=1)) as files:
                kind = container(files, stream_of(found) or ())
            if kind is None:
                return VideoCheck(not_decoded="of the original: its stream is none that we know")
            result = _spooled(archive, copied, stack)
            comparison = Comparison(
                program,
                Source(video.fileno(), kind, rate_of(read_metadata(journals, found))),
                result.fileno(),
                archive.transcode.max_pixels,
                0 if every_frame else _SAMPLED_FRAMES,
            )
            return _compared(comparison, is_kept=copied.copy is not None and not copied.copy.lossy)
        except (CannotUnderstand, NotAcceptable, NotFound, OutOfResources) as e:
            return VideoCheck(not_decoded=str(e))


def _spooled(archive: Archive, found: Item, stack: ExitStack) -> FileIO:
    """Copy a stream into a file that the program can be given."""
    spool = stack.enter_context(unnamed_file(archive.store))
    with closing(OpenFiles(archive.store, max_open=1)) as files:
        for chunk in files.chunks(stream_of(found) or ()):
            write_all(spool, chunk)
    return spool


def _compared(comparison: Comparison, *, is_kept: bool) -> VideoCheck:
    """Compare; where that can't be done, find out which of the two is the reason."""
    try:
        copy = comparison.packets(comparison.result, of_h264=is_kept)
        original = comparison.packets(comparison.source, of_h264=is_kept)
        _check_packets(copy, original, comparison.source.container, is_kept=is_kept)
        if is_kept:
            return VideoCheck(comparison.same_frames())
        return VideoCheck(comparison.near_frames(_filters(comparison), copy.count))
    except Differs as e:
        return VideoCheck(differs=str(e))
    except CutShort:
        raise
    except CannotUnderstand as e:
        try:
            comparison.decodes()
        except CutShort:
            raise
        except CannotUnderstand as of_copy:
            return VideoCheck(unreadable=str(of_copy))
        return VideoCheck(not_decoded=f"of the original: {e}")


def _check_packets(
    copy: Packets, original: Packets, container_: Container, *, is_kept: bool
) -> None:
    """See that a copy has all frames, and lasts as long."""
    if is_kept and (copy.count, copy.digest.digest()) != (
        original.count,
        original.digest.digest(),
    ):
        raise Differs("its coded frames are not those of the original")
    few = max(2, round(_OTHERWISE * original.count))
    # A coded frame of an interlaced original may be a field.
    if not original.count / 2 - few <= copy.count <= original.count + few:
        raise Differs(f"it has {copy.count} frames, the original {original.count}")
    apart_s = max(_OTHERWISE_S, _OTHERWISE * original.seconds)
    if (
        not container_.is_bare
        and original.seconds
        and abs(copy.seconds - original.seconds) > apart_s
    ):
        raise Differs(f"it lasts {copy.seconds:.2f} s, the original {original.seconds:.2f} s")


def _filters(comparison: Comparison) -> str:
    """Say how frames of the original become as large as those of the copy."""
    fd = comparison.result_fd
    coded = mp4(lambda offset, length: pread(fd, length, offset), fstat(fd).st_size)
    video = probe(comparison.program, comparison.source, comparison.max_pixels)
    return filters_to(video, coded.columns, coded.rows)
