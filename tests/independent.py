"""Pixels of real files by decoders that are not ours: DCMTK, GDCM, OpenJPEG, pydicom's own."""

import subprocess
import tempfile
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import pydicom
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import pixel_array, unpack_bits

JPEG_DCT = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 53, 55))
LOSSY = JPEG_DCT | {f"1.2.840.10008.1.2.4.{n}" for n in (81, 91, 93, 203)}
_BY_DCMTK = JPEG_DCT | {"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"}
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")
_RLE = "1.2.840.10008.1.2.5"
_DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"


@lru_cache(maxsize=256)
def pixels_of(path: Path) -> tuple[np.ndarray, ...]:
    """All frames of a file; stored values, colour of JPEG as RGB."""
    ds = pydicom.dcmread(path, force=True)
    syntax = str(ds.file_meta.TransferSyntaxUID)
    if syntax in _BY_DCMTK:
        return _by_tool("dcmdjpeg", path)
    if syntax in _JPEG_LS:
        return _by_tool("dcmdjpls", path)
    if syntax == _DEFLATED_FRAMES:
        return _of_deflated(ds)
    if syntax in _HTJ2K:
        return tuple(_by_openjpeg(frame) for frame in _coded(ds))
    if ds.BitsAllocated == 1 and syntax == _RLE:
        return tuple(_of_packed_rle(frame, ds) for frame in _coded(ds))
    return _frames(path)


def _frames(path: Path) -> tuple[np.ndarray, ...]:
    ds = pydicom.dcmread(path, force=True)
    plugin = ""
    if ds.file_meta.TransferSyntaxUID.is_encapsulated:
        plugin = "pydicom" if ds.file_meta.TransferSyntaxUID == _RLE else "gdcm"
    pixels = pixel_array(ds, raw=True, decoding_plugin=plugin)
    return tuple(pixels) if int(ds.get("NumberOfFrames") or 1) > 1 else (pixels,)


def _by_tool(tool: str, path: Path) -> tuple[np.ndarray, ...]:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "native.dcm"
        subprocess.run([tool, str(path), str(target)], check=True, capture_output=True)
        return _frames(target)


def _coded(ds: pydicom.Dataset) -> list[bytes]:
    return list(generate_frames(ds.PixelData, number_of_frames=int(ds.get("NumberOfFrames") or 1)))


def _by_openjpeg(frame: bytes) -> np.ndarray:
    from openjpeg.utils import decode  # noqa: PLC0415

    return np.asarray(decode(frame))


def _of_deflated(ds: pydicom.Dataset) -> tuple[np.ndarray, ...]:
    shape = (ds.Rows, ds.Columns)
    frames = [zlib.decompress(frame, -15) for frame in _coded(ds)]
    return tuple(_unpacked(f)[: ds.Rows * ds.Columns].reshape(shape) for f in frames)


def _of_packed_rle(frame: bytes, ds: pydicom.Dataset) -> np.ndarray:
    from pydicom.pixels.decoders.rle import _rle_decode_segment  # noqa: PLC0415

    bits = _unpacked(bytes(_rle_decode_segment(frame[64:])))
    return np.asarray(bits[: ds.Rows * ds.Columns].reshape(ds.Rows, ds.Columns))


def _unpacked(packed: bytes) -> np.ndarray:
    bits = unpack_bits(packed)
    assert isinstance(bits, np.ndarray)
    return bits
