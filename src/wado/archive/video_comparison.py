"""Whether an MP4 file shows what the video shows that it was made of: two streams, side by side.

A stream is read by the reader for what it is put in, and by no other: play lists and scripts, which
would have other files read, are none of them.
"""

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from wado.archive.video_program import LineReader, VideoProgram, url_of
from wado.dicom.coded_video import Container
from wado.errors import CannotUnderstand

VIDEO_CODECS = ("mpeg1video", "mpeg2video", "h264", "hevc")
SOUND_CODECS = ("aac", "ac3", "eac3", "mp1", "mp2", "mp3", "pcm_bluray", "pcm_dvd", "pcm_s16be",
                "pcm_s16le")  # fmt: skip
QUIET = ("-hide_banner", "-nostdin", "-loglevel", "error")
_READERS = {
    Container.MP4: "mov",
    Container.TRANSPORT_STREAM: "mpegts",
    Container.PROGRAM_STREAM: "mpeg",
    Container.MPEG_STREAM: "mpegvideo",
    Container.H264_STREAM: "h264",
    Container.HEVC_STREAM: "hevc",
}
_DECODERS = ",".join((*VIDEO_CODECS, *SOUND_CODECS, *(f"mp{n}float" for n in (1, 2, 3))))
_LOOKED_AT = ("-probesize", str(64 << 20), "-analyzeduration", "30000000")
"""How much is read to find sound and pictures: bytes and microseconds."""
_STRICT = ("-xerror", "-err_detect", "explode")
_LEAST_PSNR_DB, _LEAST_FRAME_PSNR_DB = 25.0, 15.0
"""Visually lossless video has 35 to 50; another picture than that of the source has about 10."""
_PEAK = 255.0**2
_COMPARED = re.compile(r"n:\d+ mse_avg:([\d.]+) ")
_HASHED = re.compile(r"([01]),.*, *(\w+)$")
_PACKET = re.compile(r"0, *(-?\d+), *(-?\d+), *(\d+), *\d+, *(\w+)(?:,|$)")
_NO_TIME = -(1 << 62)
"""Times below it are none; of some coded frames of MPEG-2 only one of two is told."""
_TIME_BASE = re.compile(r"#tb 0: (\d+/\d+)$")
_AS_STREAM, _SLICES = "h264_mp4toannexb", "filter_units=pass_types=1-5"
"""What is picture in a bit stream of H.264 (ITU-T H.264 Table 7-1)."""


class Differs(CannotUnderstand):
    """The result does not show what the video shows."""


@dataclass(frozen=True, slots=True)
class Source:
    """A stream in an open file; `rate` is how many frames a second it is said to have."""

    fd: int
    container: Container
    rate: float | None = None


def limits(max_pixels: int) -> tuple[str, ...]:
    """Arguments that let no other decoders be used, and no larger frames be decoded."""
    return ("-codec_whitelist", _DECODERS, "-max_pixels", str(max_pixels))


def input_of(source: Source) -> tuple[str, ...]:
    """Arguments that let one file be read, as what it is."""
    reader = _READERS[source.container]
    rate = ("-framerate", f"{source.rate:.6g}") if source.rate and source.container.is_bare else ()
    only = ("-protocol_whitelist", "file", "-format_whitelist", reader)
    return (*only, *_LOOKED_AT, *rate, "-f", reader, "-i", url_of(source.fd))


@dataclass(slots=True)
class Packets:
    """The coded frames of a stream: how many, for how many seconds, and a digest of all."""

    count: int = 0
    first: int | None = None
    end: int = 0
    time_base: Fraction = Fraction(0)
    digest: Any = field(default_factory=hashlib.sha256)

    @property
    def seconds(self) -> float:
        """From the first that is shown to the end of the last."""
        return float((self.end - (self.first or 0)) * self.time_base)

    def add(self, line: str) -> None:
        """Count what a line tells of."""
        if base := _TIME_BASE.match(line):
            self.time_base = Fraction(base[1])
        elif found := _PACKET.match(line):
            decoded, shown, lasts = (int(number) for number in found.groups()[:3])
            self.count += 1
            self.digest.update(found[4].encode())
            at = shown if shown > _NO_TIME else decoded
            if at > _NO_TIME:
                self.first = at if self.first is None else min(self.first, at)
                self.end = max(self.end, at + lasts)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A video, and the MP4 file that was made of it.

    Attributes
    ----------
    program
        What does it.
    source
        The video.
    result_fd
        Open MP4 file.
    max_pixels
        Most pixels of a frame.
    most_frames
        Frames that are decoded, from the first; 0: all.
    """

    program: VideoProgram
    source: Source
    result_fd: int
    max_pixels: int
    most_frames: int = 0

    @property
    def result(self) -> Source:
        """The MP4 file."""
        return Source(self.result_fd, Container.MP4)

    def same_frames(self) -> int:
        """Decode both; how many frames they have, of which each is the same.

        Raises
        ------
        Differs
            They are not.
        CannotUnderstand
            One can't be decoded without errors.
        """
        hashed = _Hashed()
        graph = f"[0:v:0]{self._in_order}[a];[1:v:0]{self._in_order}[b]"
        output = ("-map", "[a]", "-map", "[b]", "-f", "framehash", "-hash", "murmur3", "pipe:1")
        self._decode_both(graph, output, hashed.add)
        return hashed.frames()

    def near_frames(self, filters: str, frames: int) -> int:
        """Decode both, and see that they show the same; how many frames were compared.

        Parameters
        ----------
        filters
            How frames of the video become as large as those of the result.
        frames
            How many the result has.

        Raises
        ------
        Differs, CannotUnderstand
            As `same_frames`.
        """
        graph = (
            f"[0:v:0]{filters},format=yuv420p,{self._in_order}[a];"
            f"[1:v:0]format=yuv420p,{self._in_order}[b];"
            "[a][b]psnr=stats_file=-:eof_action=endall"
        )
        compared = _Compared()
        self._decode_both(graph, ("-f", "null", "-"), compared.add)
        compared.check(min(frames, self.most_frames or frames))
        return compared.frames

    def packets(self, source: Source, *, of_h264: bool) -> Packets:
        """Read the coded frames of the video or of the result; nothing is decoded.

        Of a bit stream of H.264 what is no picture is left out: it goes with containers.
        """
        found = Packets()
        slices = _SLICES if source.container is not Container.MP4 else f"{_AS_STREAM},{_SLICES}"
        output = (
            *("-map", "0:v:0", "-c", "copy", *(("-bsf:v", slices) if of_h264 else ())),
            *("-f", "framehash", "-hash", "murmur3", "pipe:1"),
        )
        program = self.program
        command = (program.ffmpeg, *QUIET, *limits(self.max_pixels), *input_of(source), *output)
        program.run(command, (source.fd,), each_line=found.add)
        return found

    def decodes(self) -> None:
        """Decode the result by itself; raises CannotUnderstand if that has errors."""
        strict = (*_STRICT, *limits(self.max_pixels))
        output = ("-map", "0:v:0", "-f", "null", "-")
        program = self.program
        command = (program.ffmpeg, *QUIET, *strict, *input_of(self.result), *output)
        program.run(command, (self.result_fd,))

    @property
    def _in_order(self) -> str:
        """Filters: frames have their numbers for times, and end with the last that is wanted."""
        end = f",trim=end_frame={self.most_frames}" if self.most_frames else ""
        return f"settb=1/1000,setpts=N*1000{end}"

    def _decode_both(self, graph: str, output: Iterable[str], each_line: LineReader) -> None:
        """Decode source and result strictly, side by side."""
        strict = (*_STRICT, *limits(self.max_pixels), "-noautorotate")
        self.program.run(
            (
                *(self.program.ffmpeg, *QUIET),
                *(*strict, *input_of(self.source), *strict, *input_of(self.result)),
                *("-filter_complex", graph, "-fps_mode", "passthrough", *output),
            ),
            (self.source.fd, self.result_fd),
            each_line=each_line,
        )


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
            raise Differs("the MP4 file does not show the same frames")
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
            raise Differs(f"{self.frames} of {frames} frames are the same in the result")
        mean, worst = (_psnr_db(e) for e in (self.total / frames, self.largest))
        if mean < _LEAST_PSNR_DB or worst < _LEAST_FRAME_PSNR_DB:
            raise Differs(
                f"the result differs from the video: {mean:.1f} dB on average, {worst:.1f} dB at "
                f"worst, where {_LEAST_PSNR_DB:g} and {_LEAST_FRAME_PSNR_DB:g} are the least"
            )


def _psnr_db(mean_squared_error: float) -> float:
    if not mean_squared_error:
        return math.inf
    return 10 * math.log10(_PEAK / mean_squared_error)
