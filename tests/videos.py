"""Small videos, made by ffmpeg: a test picture that moves, and instances that hold them."""

import json
import re
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import VideoPhotographicImageStorage

import real
import synthetic

JPEG = "1.2.840.10008.1.2.4."
MPEG_2_MAIN, MPEG_2_HIGH, H264, H264_42 = (f"{JPEG}{n}" for n in (100, 101, 102, 104))
HEVC_MAIN, HEVC_MAIN_10 = (f"{JPEG}{n}" for n in (107, 108))
FRAMES, RATE, COLUMNS, ROWS = 12, 25, 96, 64

_SOUND = ("-f", "lavfi", "-i", "sine=duration=1")
_X264 = ("-c:v", "libx264", "-bf", "2", "-profile:v", "high", "-level:v", "4.1")
_MPEG_2 = ("-c:v", "mpeg2video", "-q:v", "3", "-bf", "2")
_UNTIMED = ("-c:v", "libx265", "-x265-params", "log-level=none:vui-timing-info=0")
_X265 = ("-c:v", "libx265", "-x265-params", "log-level=none")
_KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "h264.mp4": ("mp4", _X264),
    "h264.ts": ("mpegts", (*_X264, "-c:a", "aac")),
    "h264.264": ("h264", (*_X264, "-bf", "0")),
    "h264-reordered.264": ("h264", _X264),
    "h264-422.ts": ("mpegts", ("-c:v", "libx264", "-pix_fmt", "yuv422p")),
    "mpeg2.m2v": ("mpeg2video", _MPEG_2),
    "mpeg2.mpg": ("vob", (*_MPEG_2, "-c:a", "mp2")),
    "mpeg2.ts": ("mpegts", (*_MPEG_2, "-c:a", "mp2")),
    "mpeg2-interlaced.m2v": ("mpeg2video", (*_MPEG_2, "-flags:v", "+ildct+ilme")),
    "hevc.hevc": ("hevc", _X265),
    "hevc-untimed.hevc": ("hevc", _UNTIMED),
    "hevc.mp4": ("mp4", (*_X265, "-tag:v", "hvc1")),
    "hevc-10.mp4": ("mp4", (*_X265, "-pix_fmt", "yuv420p10le", "-tag:v", "hvc1")),
}
KINDS = tuple(_KINDS)
_NOTHING = (b"\xfe\xff\x00\xe0" + bytes(4)) * 2 + b"\xfe\xff\xdd\xe0" + bytes(4)
"""An empty offset table and an empty fragment."""


def ffmpeg(*arguments: str | Path) -> bytes:
    """Run ffmpeg to its end; what it prints."""
    command: list[str | Path] = [real.require("ffmpeg"), "-nostdin", "-loglevel", "error"]
    done = subprocess.run([*command, *arguments], capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def hanging(folder: Path) -> Path:
    """Make a program that tells its version as ffmpeg does, and then does nothing for an hour."""
    path = folder / "ffmpeg"
    path.write_text('#!/bin/sh\ncase "$*" in *-version*) echo "ffmpeg version 0 x";; '
                    "*) sleep 3600;; esac\n")  # fmt: skip
    path.chmod(0o755)
    return path


@lru_cache
def content(
    kind: str,
    *,
    frames: int = FRAMES,
    size: tuple[int, int] = (COLUMNS, ROWS),
    rate: int = RATE,
    sound: bool = False,
) -> bytes:
    """Make a video of one of `KINDS`; `size` is columns and rows."""
    container, how = _KINDS[kind]
    picture = "testsrc" if size[0] % 2 else "testsrc2"  # the second makes sides even
    picture = f"{picture}=size={size[0]}x{size[1]}:rate={rate}"
    pixels = () if "-pix_fmt" in how else ("-pix_fmt", "yuv420p")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made"
        inputs = ("-f", "lavfi", "-i", picture, *(_SOUND if sound else ()))
        ffmpeg(*inputs, "-frames:v", str(frames), *pixels, *how, "-f", container, made)
        return made.read_bytes()


def instance(
    stream: bytes,
    transfer_syntax_uid: str,
    *,
    frames: int = FRAMES,
    size: tuple[int, int] = (COLUMNS, ROWS),
    fragments: int = 1,
    **attributes: Any,
) -> Dataset:
    """Make an instance that holds a video."""
    name = (hash(stream), transfer_syntax_uid, frames, fragments, sorted(attributes.items()))
    ds = synthetic.instance(VideoPhotographicImageStorage, study=("video", *name), Modality="XC")
    bits = 10 if transfer_syntax_uid == HEVC_MAIN_10 else 8
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 3, "YBR_PARTIAL_420"
    ds.PlanarConfiguration, ds.PixelRepresentation = 0, 0
    ds.Columns, ds.Rows = size
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = (16 if bits > 8 else 8), bits, bits - 1
    ds.FrameTime, ds.FrameIncrementPointer = str(1000 / RATE), 0x00181063
    ds.LossyImageCompression, ds.LossyImageCompressionRatio = "01", "20"
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    made = synthetic.encapsulated(
        ds, transfer_syntax_uid, [stream or b"--"], fragments_per_frame=fragments,
        offset_table="none",
    )  # fmt: skip
    if not stream:
        made.PixelData = _NOTHING
        made["PixelData"].is_undefined_length = True
    made.NumberOfFrames = frames
    return made


def stream_of(ds: Dataset) -> bytes:
    """The stream in the fragments of an instance."""
    from pydicom.encaps import generate_fragments  # noqa: PLC0415

    return b"".join(generate_fragments(ds.PixelData))


def frame_hashes(stream: bytes) -> list[str]:
    """Digests of the decoded frames of a video, in the order in which they are shown."""
    with _kept(stream) as path:
        output = ("-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framemd5", "-")
        hashed = ffmpeg("-i", path, *output)
    return [
        line.rpartition(",")[2].strip()
        for line in hashed.decode().splitlines()
        if not line.startswith("#")
    ]


def psnr_db(one: bytes, other: bytes) -> list[float]:
    """Peak signal-to-noise ratio of each frame; what is smaller is made larger."""
    graph = (
        "[1:v:0]format=yuv420p,settb=1/1000,setpts=N*1000[b];"
        "[0:v:0]format=yuv420p,settb=1/1000,setpts=N*1000[a];"
        "[b][a]scale2ref[c][d];[d][c]psnr=stats_file=-"
    )
    with _kept(one) as first, _kept(other) as second:
        said = ffmpeg("-i", first, "-i", second, "-lavfi", graph, "-f", "null", "-")
    return [float(value) for value in re.findall(r"psnr_avg:(\S+)", said.decode())]


def streams(content: bytes) -> list[dict[str, object]]:
    """What ffprobe says of the streams of a video."""
    with _kept(content) as path:
        said = subprocess.run(
            [real.require("ffmpeg").with_name("ffprobe"), "-v", "error", "-show_streams",
             "-count_frames", "-of", "json", path],
            capture_output=True, check=True, timeout=120,
        )  # fmt: skip
    found: list[dict[str, object]] = json.loads(said.stdout)["streams"]
    return found


class _kept(tempfile.TemporaryDirectory):  # type: ignore[type-arg]  # noqa: N801
    """A file that holds a stream, for programs that want one."""

    def __init__(self, stream: bytes) -> None:
        super().__init__()
        self._stream = stream

    def __enter__(self) -> Path:
        path = Path(super().__enter__()) / "video"
        path.write_bytes(self._stream)
        return path
