"""Real code streams of every coding, made by encoders that are not ours."""

import io
import shutil
import subprocess
import tempfile
import zlib
from functools import lru_cache
from pathlib import Path
from struct import pack, unpack_from
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

import synthetic

Pixels = np.ndarray[Any, Any]
_SPECTRAL = "0: 0-0, 0, 0;\n0: 1-5, 0, 0;\n0: 6-63, 0, 0;\n"
_DIFFERENTIAL = {0xC0: 0xC5, 0xC1: 0xC5, 0xC2: 0xC6, 0xC3: 0xC7, 0xC9: 0xCD, 0xCA: 0xCE, 0xCB: 0xCF}
"""Frame header marker of a frame, to that of one that is added to the frame before it."""


def by_dcmtk(ds: Dataset, program: str, *options: str) -> Dataset:
    """Compress an instance by a program of DCMTK; its UID stays."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.dcm", Path(folder) / "made.dcm"
        given.write_bytes(synthetic.part10(ds))
        done = subprocess.run([program, *options, given, made], capture_output=True, check=False)
        assert done.returncode == 0, (program, options, done.stderr)
        return pydicom.dcmread(io.BytesIO(made.read_bytes()))


def streams_of(instance: Dataset | bytes) -> list[bytes]:
    """Code streams of the frames of an instance, or of a file."""
    ds = instance if isinstance(instance, Dataset) else pydicom.dcmread(io.BytesIO(instance))
    count = int(ds.get("NumberOfFrames") or 1)
    return list(generate_frames(ds.PixelData, number_of_frames=count))


def deflated(data: bytes, level: int = 6) -> bytes:
    """Compress by Deflate, without a header."""
    packer = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


# ------------------------------------------------------------------ JPEG


def has_cjpeg() -> bool:
    """Whether the encoder of arithmetic coding is there."""
    return shutil.which("cjpeg") is not None


def arithmetic_jpeg(pixels: Pixels, *options: str, spectral: bool = False) -> bytes:
    """Encode 8 bits by arithmetic coding, without subsampling (SOF9, or SOF10 if progressive)."""
    return cjpeg(pixels, "-arithmetic", *options, spectral=spectral)


def cjpeg(pixels: Pixels, *options: str, spectral: bool = False) -> bytes:
    """Encode 8 bits by cjpeg; `spectral`: in scans of some coefficients each."""
    with tempfile.TemporaryDirectory() as folder:
        if spectral:
            script = Path(folder) / "scans"
            script.write_text(_SPECTRAL)
            options = (*options, "-scans", str(script))
        command = ["cjpeg", "-quality", "92", "-sample", "1x1", *options]
        kind, (rows, columns) = ("P6" if pixels.ndim == 3 else "P5"), pixels.shape[:2]
        ppm = f"{kind} {columns} {rows} 255\n".encode() + pixels.tobytes()
        return subprocess.run(command, input=ppm, check=True, capture_output=True).stdout


def djpeg(stream: bytes) -> Pixels:
    """Decode 8 bits by djpeg."""
    from PIL import Image  # noqa: PLC0415

    command = ["djpeg", "-dct", "int", "-pnm"]
    done = subprocess.run(command, input=stream, check=True, capture_output=True)
    return np.asarray(Image.open(io.BytesIO(done.stdout)))


def segments(stream: bytes) -> list[tuple[int, int, int]]:
    """Marker, start and end of each segment of a JPEG stream up to the first scan, with that."""
    found, position = [], 2
    while True:
        marker, length = stream[position + 1], unpack_from(">H", stream, position + 2)[0]
        found.append((marker, position, position + 2 + length))
        if marker == 0xDA:
            return found
        position += 2 + length


def with_frame_header(stream: bytes, marker: int) -> bytes:
    """The same with another marker of the frame header: another process than its data are of."""
    at = _frame_header(stream)
    return stream[: at + 1] + bytes([marker]) + stream[at + 2 :]


def _frame_header(stream: bytes) -> int:
    frames = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
    return next(start for marker, start, _ in segments(stream) if marker in frames)


def hierarchical(base: bytes, difference: bytes) -> bytes:
    """Make a hierarchical stream of a frame, and one that is added to it (10918-1 Annex J).

    The second must be coded without prediction across blocks: each block an interval of its own.
    """
    at = _frame_header(base)
    if base[at + 1] == 0xC0:  # baseline is no process of a hierarchical stream
        base = with_frame_header(base, 0xC1)
    marker = _DIFFERENTIAL[difference[_frame_header(difference) + 1]]
    (length,) = unpack_from(">H", base, at + 2)
    progression = b"\xff\xde" + base[at + 2 : at + 2 + length]
    added = with_frame_header(difference, marker)
    return b"\xff\xd8" + progression + base[2:-2] + added[2:]


# ------------------------------------------------------------------ JPEG 2000, part 2


def with_component_transform(stream: bytes) -> bytes:
    """Say that the three components of a stream were made by a matrix (ISO/IEC 15444-2 Annex J).

    It swaps the first two: who knows part 1 alone sees red as green. The stream must be
    irreversible, as OpenJPEG undoes no other, and without a component transform of part 1.
    """
    size = unpack_from(">H", stream, 4)[0]
    coding = 4 + size
    assert stream[coding : coding + 2] == b"\xff\x52"
    assert stream[coding + 8] == 0
    end = coding + 2 + unpack_from(">H", stream, coding + 2)[0]
    swap = (0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    matrix = _segment(0xFF74, pack(">HHH", 0, 0x0901, 0) + pack(">9f", *swap))
    offsets = _segment(0xFF74, pack(">HHH", 0, 0x0A02, 0) + pack(">3f", 0, 0, 0))
    every = pack(">H3B", 3, 0, 1, 2)
    collection = _segment(
        0xFF75,
        pack(">HBHH", 0, 1, 0, 1) + b"\1" + every + every + bytes([0, 2, 1]),
    )
    ordering = _segment(0xFF77, bytes([1, 1]))
    capabilities = pack(">H", 0x8000 | 0x0100)
    coded = bytearray(stream[coding:end])
    coded[8] = 2
    return b"".join((
        stream[:6], capabilities, stream[8:coding], coded, matrix, offsets, collection, ordering,
        stream[end:],
    ))  # fmt: skip


def _segment(marker: int, body: bytes) -> bytes:
    return pack(">HH", marker, len(body) + 2) + body


# ------------------------------------------------------------------ video


@lru_cache(maxsize=32)
def video(
    codec: str, container: str, *options: str, frames: int = 10, size: str = "64x48"
) -> bytes:
    """Encode a moving test picture by FFmpeg."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "video"
        command = [
            "ffmpeg", "-v", "error", "-f", "lavfi", "-i", f"testsrc=size={size}:rate=25",
            "-frames:v", str(frames), "-c:v", codec, *options, "-f", container, str(made),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
        return made.read_bytes()


def pictures_of(stream: bytes) -> Pixels:
    """Decode a video by FFmpeg: frames of RGB."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video"
        path.write_bytes(stream)
        probe = subprocess.run(
            ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries",
             "stream=width,height", "-of", "csv=p=0", str(path)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        columns, rows = (int(n) for n in probe.stdout.split("\n")[0].strip(",").split(",")[:2])
        done = subprocess.run(
            ["ffmpeg", "-v", "error", "-i", str(path), "-fps_mode", "passthrough", "-pix_fmt",
             "rgb24", "-f", "rawvideo", "-"],
            check=True, capture_output=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, rows, columns, 3)
