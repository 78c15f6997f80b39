"""What is asked of the program for video: to look at a stream, convert it, and compare the result.

A stream is read by the reader for what it is put in, and by no other: play lists and scripts, which
would have other files read, are none of them.
"""

import hashlib
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import orjson

from wado.archive.video_program import LineReader, VideoProgram, url_of
from wado.dicom.coded_media import SYNTAX
from wado.dicom.coded_video import Container
from wado.errors import CannotUnderstand, NotAcceptable

_READERS = {
    Container.MP4: "mov",
    Container.TRANSPORT_STREAM: "mpegts",
    Container.PROGRAM_STREAM: "mpeg",
    Container.MPEG_STREAM: "mpegvideo",
    Container.H264_STREAM: "h264",
    Container.HEVC_STREAM: "hevc",
}
_VIDEO = ("mpeg1video", "mpeg2video", "h264", "hevc")
_SOUND = ("aac", "ac3", "eac3", "mp1", "mp2", "mp3", "pcm_bluray", "pcm_dvd", "pcm_s16be",
          "pcm_s16le")  # fmt: skip
_DECODERS = ",".join((*_VIDEO, *_SOUND, *(f"mp{n}float" for n in (1, 2, 3))))
_PLAYED_PROFILES = ("High", "Main", "Constrained Baseline", "Baseline")
_PLAYED_FORMATS = ("yuv420p", "yuvj420p")
_LOOKED_AT = ("-probesize", str(64 << 20), "-analyzeduration", "30000000")
"""How much is read to find sound and pictures: bytes and microseconds."""
_STRICT = ("-xerror", "-err_detect", "explode")
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
_LEAST_PSNR_DB, _LEAST_FRAME_PSNR_DB = 25.0, 15.0
"""Visually lossless video has 35 to 50; another picture than that of the source has about 10."""
_PEAK = 255.0**2
_COMPARED = re.compile(r"n:\d+ mse_avg:([\d.]+) ")
_HASHED = re.compile(r"([01]),.*, *(\w+)$")


@dataclass(frozen=True, slots=True)
class Source:
    """A stream in an open file; `rate` is how many frames a second it is said to have."""

    fd: int
    container: Container
    rate: float | None = None


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
        *("-show_entries", _FIELDS, *_limits(max_pixels), *_input(source)),
    )
    program.run(command, (source.fd,), each_line=lines.add)
    try:
        streams: list[dict[str, Any]] = orjson.loads("".join(lines.lines)).get("streams", [])
        video = next(s for s in streams if s.get("codec_type") == "video")
    except (ValueError, StopIteration):
        raise CannotUnderstand(f"the {source.container} holds no video") from None
    columns, rows = video.get("width", 0), video.get("height", 0)
    codec = str(video.get("codec_name"))
    if codec not in _VIDEO or not columns or not rows:
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
    return sound.get("codec_name") in _SOUND and bool(told)


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


def _limits(max_pixels: int) -> tuple[str, ...]:
    return ("-codec_whitelist", _DECODERS, "-max_pixels", str(max_pixels))


def _input(source: Source) -> tuple[str, ...]:
    """Arguments that let one file be read, as what it is."""
    reader = _READERS[source.container]
    rate = ("-framerate", f"{source.rate:.6g}") if source.rate and source.container.is_bare else ()
    only = ("-protocol_whitelist", "file", "-format_whitelist", reader)
    return (*only, *_LOOKED_AT, *rate, "-f", reader, "-i", url_of(source.fd))


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
    if factor < 1:
        return Target(columns, rows, level, f"scale={columns}:{rows}:flags=lanczos")
    even = (columns + columns % 2, rows + rows % 2)
    filters = "null" if even == (columns, rows) else f"pad={even[0]}:{even[1]}"
    return Target(*even, level, filters)


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
        hashed = _Hashed()
        graph = "[0:v:0]settb=1/1000,setpts=N*1000[a];[1:v:0]settb=1/1000,setpts=N*1000[b]"
        output = ("-map", "[a]", "-map", "[b]", "-f", "framehash", "-hash", "murmur3", "pipe:1")
        self._compare(graph, output, hashed.add)
        return hashed.frames()

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
        graph = (
            f"[0:v:0]{target.filters},format=yuv420p,settb=1/1000,setpts=N*1000[a];"
            "[1:v:0]format=yuv420p,settb=1/1000,setpts=N*1000[b];"
            "[a][b]psnr=stats_file=-:eof_action=endall"
        )
        compared = _Compared()
        self._compare(graph, ("-f", "null", "-"), compared.add)
        compared.check(frames)
        return frames

    def _convert(self, how: Iterable[str]) -> int:
        """Write the MP4 file, its index first; how many frames went into it."""
        os.ftruncate(self.result_fd, 0)
        sound = self.video.sound
        keep = ("-map", "0:a:0?", "-c:a", "copy" if sound == "aac" else "aac", "-b:a", "192k")
        progress = _Progress()
        self.program.run(
            (
                *(self.program.ffmpeg, *_QUIET, "-y", "-progress", "pipe:1", "-nostats"),
                *(*_limits(self.max_pixels), "-noautorotate", *_input(self.source)),
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

    def _compare(self, graph: str, output: Iterable[str], each_line: LineReader) -> None:
        """Decode source and result strictly, side by side."""
        result = Source(self.result_fd, Container.MP4)
        strict = (*_STRICT, *_limits(self.max_pixels), "-noautorotate")
        self.program.run(
            (
                *(self.program.ffmpeg, *_QUIET),
                *(*strict, *_input(self.source), *strict, *_input(result)),
                *("-filter_complex", graph, "-fps_mode", "passthrough", *output),
            ),
            (self.source.fd, self.result_fd),
            each_line=each_line,
        )


_QUIET = ("-hide_banner", "-nostdin", "-loglevel", "error")


class _Progress:
    """Counts the frames that were written."""

    def __init__(self) -> None:
        self.frames = 0

    def add(self, line: str) -> None:
        name, _, value = line.partition("=")
        if name == "frame" and value.strip().isdigit():
            self.frames = int(value)


@dataclass(slots=True)
class _Hashed:
    """Digests of the frames of two streams, which must be the same."""

    counts: list[int] = field(default_factory=lambda: [0, 0])
    digests: tuple[Any, Any] = field(default_factory=lambda: (hashlib.sha256(), hashlib.sha256()))

    def add(self, line: str) -> None:
        found = _HASHED.match(line)
        if found:
            number = int(found[1])
            self.counts[number] += 1
            self.digests[number].update(found[2].encode())

    def frames(self) -> int:
        """How many there are, of which each is the same in both."""
        one, other = (digest.digest() for digest in self.digests)
        if one != other or self.counts[0] != self.counts[1] or not self.counts[0]:
            raise CannotUnderstand("the MP4 file does not show the same frames")
        return self.counts[0]


@dataclass(slots=True)
class _Compared:
    """Mean squared errors of the frames of a result."""

    frames: int = 0
    total: float = 0.0
    largest: float = 0.0

    def add(self, line: str) -> None:
        found = _COMPARED.match(line)
        if found:
            self.frames += 1
            error = float(found[1])
            self.total += error
            self.largest = max(self.largest, error)

    def check(self, frames: int) -> None:
        """See that all frames are there, and that they show what the source shows."""
        if not frames or self.frames != frames:
            raise CannotUnderstand(f"{self.frames} of {frames} frames are the same in the result")
        mean, worst = (_psnr_db(e) for e in (self.total / frames, self.largest))
        if mean < _LEAST_PSNR_DB or worst < _LEAST_FRAME_PSNR_DB:
            raise CannotUnderstand(
                f"the result differs from the video: {mean:.1f} dB on average, {worst:.1f} dB at "
                f"worst, where {_LEAST_PSNR_DB:g} and {_LEAST_FRAME_PSNR_DB:g} are the least"
            )


def _psnr_db(mean_squared_error: float) -> float:
    if not mean_squared_error:
        return math.inf
    return 10 * math.log10(_PEAK / mean_squared_error)
