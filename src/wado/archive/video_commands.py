"""What is asked of the program for video: to look at a stream, and to convert it."""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import orjson

from wado.archive.video_comparison import (
    QUIET,
    SOUND_CODECS,
    VIDEO_CODECS,
    Comparison,
    Source,
    input_of,
    limits,
)
from wado.archive.video_program import VideoProgram, url_of
from wado.dicom.coded_media import SYNTAX
from wado.dicom.coded_video import Container
from wado.errors import CannotUnderstand, NotAcceptable

_PLAYED_PROFILES = ("High", "Main", "Constrained Baseline", "Baseline")
_PLAYED_FORMATS = ("yuv420p", "yuvj420p")
_FIELDS = (
    "stream=codec_type,codec_name,profile,width,height,pix_fmt,field_order,has_b_frames,"
    "r_frame_rate,avg_frame_rate,sample_rate,channels"
)
_MAX_ANSWER_BYTES = 1 << 20
_QUALITY = ("-preset", "medium", "-crf", "18")
_KEY_FRAME_EVERY = "30"
"""Frames; a player that seeks decodes from the key frame before."""
_BIT_RATES = ("-maxrate", "62500k", "-bufsize", "78125k")
"""Of High Profile at levels 4.1 and 4.2 (ITU-T H.264 Tables A-1 and A-2)."""
_USUAL_RATE, _MAX_RATE = 25.0, 240.0
_BLOCK = 16


@dataclass(frozen=True, slots=True)
class Video:
    """What a stream holds; `sound` is the coding of that which is kept, or empty."""

    codec: str
    columns: int
    rows: int
    rate: float
    is_interlaced: bool
    is_remuxed: bool
    sound: str
    has_sound: bool = False


@dataclass(frozen=True, slots=True)
class Level:
    """A level of H.264 that has a transfer syntax: macroblocks of a frame, and of a second."""

    name: str
    transfer_syntax_uid: str
    blocks: int
    blocks_per_s: int

    def holds(self, columns: int, rows: int, rate: float) -> bool:
        """Whether video of this size and rate fits (ITU-T H.264 §A.3.1)."""
        across, down = -(-columns // _BLOCK), -(-rows // _BLOCK)
        longest = math.isqrt(8 * self.blocks)
        blocks = across * down
        return (
            blocks <= self.blocks
            and max(across, down) <= longest
            and blocks * rate <= self.blocks_per_s
        )


_LEVELS = (
    Level("4.1", f"{SYNTAX}102", 8192, 245_760),
    Level("4.2", f"{SYNTAX}104", 8704, 522_240),
)


@dataclass(frozen=True, slots=True)
class Target:
    """What a video becomes: even sides, as large as its level holds."""

    columns: int
    rows: int
    level: Level
    filters: str


# ------------------------------------------------------------------ look


def probe(program: VideoProgram, source: Source, max_pixels: int) -> Video:
    """Look at what a stream holds.

    Raises
    ------
    CannotUnderstand
        No video that we know.
    NotAcceptable
        Its frames are too large.
    """
    lines = _Collected()
    command = (
        *(program.ffprobe, "-hide_banner", "-loglevel", "error", "-of", "json"),
        *("-show_entries", _FIELDS, *limits(max_pixels), *input_of(source)),
    )
    program.run(command, (source.fd,), each_line=lines.add)
    try:
        streams: list[dict[str, Any]] = orjson.loads("".join(lines.lines)).get("streams", [])
        video = next(s for s in streams if s.get("codec_type") == "video")
    except (ValueError, StopIteration):
        raise CannotUnderstand(f"the {source.container} holds no video") from None
    columns, rows = video.get("width", 0), video.get("height", 0)
    codec = str(video.get("codec_name"))
    if codec not in VIDEO_CODECS or not columns or not rows:
        raise CannotUnderstand(f"the {source.container} holds no video that can be converted")
    if columns * rows > max_pixels:
        raise NotAcceptable(
            f"its frames are of {columns} x {rows} pixels, over {max_pixels} aren't decoded"
        )
    sounds = [stream for stream in streams if stream.get("codec_type") == "audio"]
    return Video(
        codec,
        columns,
        rows,
        _rate(video),
        video.get("field_order") in ("tt", "bb", "tb", "bt"),
        _is_remuxed(video, source.container),
        str(sounds[0].get("codec_name")) if sounds and _is_kept(sounds[0]) else "",
        bool(sounds),
    )


def _is_kept(sound: dict[str, Any]) -> bool:
    """Whether sound can be decoded: a piece cut from a longer recording may have too little."""
    told = sound.get("channels") and sound.get("sample_rate") not in (None, "0")
    return sound.get("codec_name") in SOUND_CODECS and bool(told)


def _is_remuxed(video: dict[str, Any], container: Container) -> bool:
    """Whether the bit stream can stay as it is: browsers decode it, and it tells its times.

    A byte stream doesn't, where frames are coded in another order than they are shown in.
    """
    return (
        video["codec_name"] == "h264"
        and video.get("profile") in _PLAYED_PROFILES
        and video.get("pix_fmt") in _PLAYED_FORMATS
        and not (container.is_bare and video.get("has_b_frames"))
    )


def _rate(video: dict[str, Any]) -> float:
    for name in ("avg_frame_rate", "r_frame_rate"):
        try:
            rate = float(Fraction(str(video.get(name))))
        except (ValueError, ZeroDivisionError):
            continue
        if 0 < rate <= _MAX_RATE:
            return rate
    return _USUAL_RATE


class _Collected:
    """Lines that are kept, up to a length."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._length = 0

    def add(self, line: str) -> None:
        self._length += len(line)
        if self._length > _MAX_ANSWER_BYTES:
            raise CannotUnderstand("the stream holds more streams than anybody looks at")
        self.lines.append(line)


# ------------------------------------------------------------------ convert


def target_of(video: Video) -> Target:
    """Choose size and level: those of the source, made smaller only if no level holds it."""
    columns, rows = video.columns, video.rows
    level = _level(columns, rows, video.rate)
    factor = 1.0
    while level is None:
        factor *= 0.99
        columns, rows = (
            max(2, int(side * factor) // 2 * 2) for side in (video.columns, video.rows)
        )
        level = _level(columns, rows, video.rate)
    if factor == 1:
        columns, rows = columns + columns % 2, rows + rows % 2
    return Target(columns, rows, level, filters_to(video, columns, rows))


def filters_to(video: Video, columns: int, rows: int) -> str:
    """Say how frames of a video become so large: even sides are filled, others made smaller."""
    if (columns, rows) == (video.columns, video.rows):
        return "null"
    even = (video.columns + video.columns % 2, video.rows + video.rows % 2)
    if (columns, rows) == even:
        return f"pad={columns}:{rows}"
    return f"scale={columns}:{rows}:flags=lanczos"


def _level(columns: int, rows: int, rate: float) -> Level | None:
    return next((level for level in _LEVELS if level.holds(columns, rows, rate)), None)


@dataclass(frozen=True, slots=True)
class Conversion:
    """One stream on its way into an MP4 file.

    Attributes
    ----------
    program
        What does it.
    source, video
        The stream, and what is in it.
    result_fd
        Open file that becomes the MP4 file.
    max_pixels
        Most pixels of a frame.
    max_bytes
        Most bytes of the MP4 file.
    """

    program: VideoProgram
    source: Source
    video: Video
    result_fd: int
    max_pixels: int
    max_bytes: int

    def remux(self) -> int:
        """Put the bit stream as it is into an MP4 file; how many frames it has.

        Raises
        ------
        CannotUnderstand
            It can't be, or the frames that the result shows are not those of the source.
        """
        self._convert(("-c:v", "copy"))
        return self._comparison.same_frames()

    def encode(self, target: Target) -> int:
        """Encode as H.264 in an MP4 file; how many frames it has.

        Raises
        ------
        CannotUnderstand
            It can't be decoded without errors, or the result shows another thing.
        """
        filters, video = target.filters, self.video
        if self.source.container.is_bare:
            filters = f"setpts=N/({video.rate:.6g}*TB),{filters}"
        threads = str(max(1, (os.cpu_count() or 2) // 2))
        frames = self._convert(
            (
                *("-vf", filters, "-c:v", "libx264", *_QUALITY, *_BIT_RATES),
                *("-profile:v", "high", "-level:v", target.level.name, "-pix_fmt", "yuv420p"),
                *("-g", _KEY_FRAME_EVERY, "-threads:v", threads),
                *(("-flags:v", "+ildct+ilme") if video.is_interlaced else ()),
            )
        )
        return self._comparison.near_frames(target.filters, frames)

    @property
    def _comparison(self) -> Comparison:
        return Comparison(self.program, self.source, self.result_fd, self.max_pixels)

    def _convert(self, how: Iterable[str]) -> int:
        """Write the MP4 file, its index first; how many frames went into it."""
        os.ftruncate(self.result_fd, 0)
        sound = self.video.sound
        keep = ("-map", "0:a:0?", "-c:a", "copy" if sound == "aac" else "aac", "-b:a", "192k")
        progress = _Progress()
        self.program.run(
            (
                *(self.program.ffmpeg, *QUIET, "-y", "-progress", "pipe:1", "-nostats"),
                *(*limits(self.max_pixels), "-noautorotate", *input_of(self.source)),
                *("-map", "0:v:0", *(keep if sound else ("-an",)), "-sn", "-dn"),
                *("-map_metadata", "-1", "-map_chapters", "-1", "-fps_mode", "passthrough", *how),
                *("-movflags", "+faststart", "-fflags", "+bitexact"),
                *("-f", "mp4", url_of(self.result_fd)),
            ),
            (self.source.fd, self.result_fd),
            max_file_bytes=self.max_bytes,
            each_line=progress.add,
        )
        return progress.frames


class _Progress:
    """Counts the frames that were written."""

    def __init__(self) -> None:
        self.frames = 0

    def add(self, line: str) -> None:
        name, _, value = line.partition("=")
        if name == "frame" and value.strip().isdigit():
            self.frames = int(value)
