"""Copies of video that browsers play: H.264 in an MP4 file, by a program of its own.

H.264 in another container is put into an MP4 file bit for bit; other video is encoded anew, which
loses what nobody sees, and is marked so. No stream is held in memory.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from struct import pack
from typing import Any

from wado.archive.copies import Converter, Made, read_metadata, write_copy
from wado.archive.derived import Copy
from wado.archive.image_conversion import lossy_elements
from wado.archive.pieces import OpenFiles, piece_length
from wado.archive.retrieve import Item
from wado.archive.spool import unnamed_file, write_all
from wado.archive.transcoded_instances import around_pixels
from wado.archive.video import container, stream_of
from wado.archive.video_commands import Conversion, Target, Video, probe, target_of
from wado.archive.video_comparison import Source
from wado.archive.video_program import VideoProgram, video_program
from wado.dicom.coded_media import Coded
from wado.dicom.coded_video import H264, mp4
from wado.dicom.dataset_writer import Place
from wado.dicom.image import PIXEL_DATA, ImagePixel, first_value
from wado.dicom.part10 import file_meta
from wado.dicom.pixel_elements import encapsulated
from wado.errors import CannotUnderstand, CutShort, NotAcceptable
from wado.records import TranscodeMeta

_CHUNK_BYTES = 1 << 20
_MAX_GROWTH, _SPARE_BYTES = 16, 64 << 20
"""How many times as long as the source, and how much longer, the result may be."""
_YBR = "YBR_PARTIAL_420"
_METHODS = {
    "mpeg1video": "ISO_11172_2",
    "mpeg2video": "ISO_13818_2",
    "h264": "ISO_14496_10",
    "hevc": "ISO_23008_2",
}
"""Lossy Image Compression Method (PS3.3 §C.7.6.1.1.5.1); MPEG-1 has no defined term."""
_VERSION = re.compile(r"ffmpeg version (\S+)")
_MS_PER_S = 1000.0
_RATIO, _METHOD = "00282112", "00282114"


def convert_video(converter: Converter, found: Item, meta: TranscodeMeta) -> Made:
    """Make the copy of a video that browsers play.

    Raises
    ------
    CannotUnderstand, NotAcceptable
        The video is damaged, or can't be converted; or the program for it isn't installed.
    CutShort
        It crashed, took too long or too much memory.
    Unavailable, OutOfResources
        Not now.
    """
    if meta.target_transfer_syntax_uid not in H264:
        raise NotAcceptable(f"video can't become {meta.target_transfer_syntax_uid}, only H.264")
    with closing(OpenFiles(converter.archive.store, max_open=1)) as files:
        stream = stream_of(found)
        if not stream:
            raise CannotUnderstand("it has no stream of video")
        kind = container(files, stream)
        if kind is None:
            raise CannotUnderstand("its stream is none of video that we know")
        program = video_program(converter.settings, converter.stop)
        metadata = read_metadata(converter.journals, found)
        with unnamed_file(converter.archive.store) as spool:
            for chunk in files.chunks(stream):
                write_all(spool, chunk)
            source = Source(spool.fileno(), kind, rate_of(metadata))
            return _converted(converter, found, program, source, metadata)


def _converted(
    converter: Converter,
    found: Item,
    program: VideoProgram,
    source: Source,
    metadata: Mapping[str, Any],
) -> Made:
    max_pixels = converter.settings.max_pixels
    version = _version(program)
    video = probe(program, source, max_pixels)
    max_bytes = _MAX_GROWTH * os.fstat(source.fd).st_size + _SPARE_BYTES
    with unnamed_file(converter.archive.store) as result:
        conversion = Conversion(program, source, video, result.fileno(), max_pixels, max_bytes)
        wrapped = _Wrapped(converter, found, metadata, result.fileno())
        try:
            copy, how = _wrapped(conversion, wrapped, metadata)
        except CutShort:
            raise
        except CannotUnderstand:
            if not video.sound:
                raise
            conversion = replace(conversion, video=replace(video, sound=""))
            copy, how = _wrapped(conversion, wrapped, metadata)
    silent = ", without sound" * (video.has_sound and not conversion.video.sound)
    return Made(copy, f"ffmpeg {version} ({how}{silent})")


def _wrapped(
    conversion: Conversion, wrapped: "_Wrapped", metadata: Mapping[str, Any]
) -> tuple[Copy, str]:
    """Make the MP4 file, and the copy of it; also how that was done."""
    if frames := _remuxed(conversion):
        _check_count(frames, metadata)
        return wrapped.remuxed(), "remux"
    target = target_of(conversion.video)
    frames = conversion.encode(target)
    _check_count(frames, metadata)
    return wrapped.encoded(conversion.video, target, frames), "libx264"


def _remuxed(conversion: Conversion) -> int:
    """Put the bit stream as it is into an MP4 file; the number of frames, 0 if it can't be done."""
    if not conversion.video.is_remuxed:
        return 0
    try:
        return conversion.remux()
    except CutShort:
        raise
    except CannotUnderstand:
        return 0  # encoding it anew tells what is wrong with it, if it is the stream


def _check_count(frames: int, metadata: Mapping[str, Any]) -> None:
    """Refuse video that lacks its end; a few frames more or less are counted otherwise only."""
    expected = first_value(metadata, "00280008")
    if isinstance(expected, int) and frames + max(2, expected // 100) < expected:
        raise CannotUnderstand(f"the video ends early: it has {frames} of {expected} frames")


def _version(program: VideoProgram) -> str:
    lines: list[str] = []
    program.run((program.ffmpeg, "-version"), each_line=lambda line: lines.append(line[:200]))
    found = _VERSION.match(lines[0]) if lines else None
    return found[1] if found else "of an unknown version"


def rate_of(metadata: Mapping[str, Any]) -> float | None:
    """Frames a second, for streams that don't say (PS3.3 §C.7.6.5)."""
    for tag in ("00082144", "00180040"):  # Recommended Display Frame Rate, Cine Rate
        rate = first_value(metadata, tag)
        if isinstance(rate, int | float) and 0 < rate <= _MS_PER_S:
            return float(rate)
    time_ms = first_value(metadata, "00181063")
    if isinstance(time_ms, int | float) and time_ms >= 1:
        return _MS_PER_S / time_ms
    return None


# ------------------------------------------------------------------ the copy


class _Wrapped:
    """An MP4 file that becomes the Pixel Data of a copy."""

    def __init__(
        self, converter: Converter, found: Item, metadata: Mapping[str, Any], fd: int
    ) -> None:
        self._converter, self._found, self._metadata, self._fd = converter, found, metadata, fd

    def remuxed(self) -> Copy:
        """Write a copy in which nothing but the container differs."""
        uid = self._found.entry.transfer_syntax_uid
        if uid not in H264:
            uid = self._coded().transfer_syntax_uid
        colour = str(first_value(self._metadata, "00280004") or _YBR)
        return self._written(uid, colour, {}, lossy=False)

    def encoded(self, video: Video, target: Target, frames: int) -> Copy:
        """Write a copy that tells what it is now, and what was lost."""
        coded, uid = self._coded(), target.level.transfer_syntax_uid
        if uid not in (coded.transfer_syntax_uid, *coded.also):
            raise CannotUnderstand(f"the result is in {coded.transfer_syntax_uid}, not in {uid}")
        if (coded.columns, coded.rows) != (target.columns, target.rows):
            raise CannotUnderstand(f"the result has {coded.columns} x {coded.rows} pixels")
        numbers = {
            0x00280002: coded.samples_per_pixel,
            0x00280010: coded.rows,
            0x00280011: coded.columns,
            0x00280100: coded.bits_allocated,
            0x00280101: coded.bits_stored,
            0x00280102: coded.bits_stored - 1,
            0x00280103: 0,
        }
        more = {tag: (b"US", pack("<H", value)) for tag, value in numbers.items()}
        before = _losses(self._metadata, video, self._stream_bytes(), frames)
        ratio = _native_bytes(coded.columns, coded.rows, frames) / self._size
        more |= lossy_elements(before, ratio, _METHODS["h264"])
        return self._written(uid, _YBR, more, lossy=True)

    @property
    def _size(self) -> int:
        return os.fstat(self._fd).st_size

    def _coded(self) -> Coded:
        return mp4(lambda offset, length: os.pread(self._fd, length, offset), self._size)

    def _stream_bytes(self) -> int:
        return sum(map(piece_length, stream_of(self._found) or ()))

    def _written(
        self, uid: str, colour: str, more: Mapping[int, tuple[bytes, bytes]], *, lossy: bool
    ) -> Copy:
        uid, elements = encapsulated(uid, [self._place(0, self._size)], is_video=True)
        chunks = self._file(uid, colour, more, elements[PIXEL_DATA])
        return write_copy(self._converter, self._found, uid, chunks, lossy=lossy)

    def _file(
        self,
        uid: str,
        colour: str,
        more: Mapping[int, tuple[bytes, bytes]],
        pixels: Iterable[bytes | Place],
    ) -> Iterator[bytes]:
        """The file of the copy; the data set is that of the original but for its pixels."""
        archive, entry = self._converter.archive, self._found.entry
        image = _image(self._metadata)
        before, _, after = around_pixels(archive, self._found, image, colour, more)
        yield file_meta(entry.sop_class_uid, entry.sop_instance_uid, uid)
        with closing(OpenFiles(archive.store, max_open=1)) as files:
            yield from files.chunks(before)
            for piece in pixels:
                if isinstance(piece, bytes):
                    yield piece
                else:
                    yield from piece.read()
            yield from files.chunks(after)

    def _place(self, start: int, end: int) -> Place:
        def read() -> Iterator[bytes]:
            for offset in range(start, end, _CHUNK_BYTES):
                yield os.pread(self._fd, min(_CHUNK_BYTES, end - offset), offset)

        return Place(
            end - start, read, lambda first, last: self._place(start + first, start + last)
        )


def _image(metadata: Mapping[str, Any]) -> ImagePixel:
    """Image Pixel Module of a video; nobody misses what of it is missing."""
    try:
        return ImagePixel.of(metadata)
    except CannotUnderstand:
        return ImagePixel(1, 1, 3, _YBR, 8, 8, 7)


def _native_bytes(columns: int, rows: int, frames: int) -> int:
    return columns * rows * 3 * frames


def _losses(
    metadata: Mapping[str, Any], video: Video, stream_bytes: int, frames: int
) -> dict[str, Any]:
    """What was lost before, as the metadata have it, or else by the coding of the source."""
    methods = metadata.get(_METHOD, {}).get("Value") or [_METHODS[video.codec]]
    ratios = metadata.get(_RATIO, {}).get("Value") or []
    if len(ratios) != len(methods):
        ratio = _native_bytes(video.columns, video.rows, frames) / max(stream_bytes, 1)
        ratios = [*ratios, *[round(ratio, 2)] * len(methods)][: len(methods)]
    return {_METHOD: {"Value": methods}, _RATIO: {"Value": ratios}}
