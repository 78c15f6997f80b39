"""Measure each change of coding against the tools of DCMTK and GDCM, on the same files.

Writes a Markdown table to stdout. Counted is processor time, user and system, so that a busy
machine harms little: frames per second and core. Each job runs twice, with a file of one frame and
with one of many; the difference, by the frames between, is the time of a frame without the start
of the process. What a tool spends on reading and writing its files counts for it. Ours is a
process that transcodes the frames one after the other, in one thread, and decodes each compressed
one again to verify it ("made": without that). Memory is the largest resident size of the process
with the many frames.

    python scripts/bench_codecs.py                     three runs of 24 frames, about five minutes
    python scripts/bench_codecs.py --runs 1 --frames 8 --only dcmdjpeg
"""

import argparse
import importlib
import json
import os
import platform
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wado.dicom.image import ImagePixel

PROJECT = Path(__file__).resolve().parents[1]
CORPUS = Path(os.environ.get("WADO_TEST_CORPUS", PROJECT.parent / "shared" / "corpus"))
_JPEG = "1.2.840.10008.1.2.4."
ELE, RLE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENJPEG_NUM_THREADS"), "1")
_META_LENGTH_AT = 128 + 4 + 8
_KIB_PER_MIB = 1024


@dataclass(frozen=True)
class Conversion:
    """A change of coding, and the commands of others that do the same."""

    name: str
    source: str
    target: str
    peers: tuple[tuple[str, ...], ...] = ()
    image: str = "ct"
    quality: int = 0


_GDCM_RAW = ("gdcmconv", "--raw", "--force")
CONVERSIONS = (
    Conversion("JPEG baseline, RGB", _JPEG + "50", ELE, (("dcmdjpeg",), _GDCM_RAW), "rgb", 90),
    Conversion("JPEG extended, 12 bits", _JPEG + "51", ELE, (("dcmdjpeg",),), "12", 90),
    Conversion("JPEG lossless", _JPEG + "70", ELE, (("dcmdjpeg",), _GDCM_RAW)),
    Conversion("JPEG-LS", _JPEG + "80", ELE, (("dcmdjpls",), _GDCM_RAW)),
    Conversion("RLE", RLE, ELE, (("dcmdrle",), _GDCM_RAW)),
    Conversion("JPEG 2000", _JPEG + "90", ELE, (_GDCM_RAW,)),
    Conversion("HTJ2K", _JPEG + "202", ELE),
    Conversion("JPEG XL", _JPEG + "110", ELE),
    Conversion("JPEG baseline, RGB", ELE, _JPEG + "50", (("dcmcjpeg", "+eb"),), "rgb", 90),
    Conversion("JPEG lossless", ELE, _JPEG + "70", (("dcmcjpeg", "+e1"), ("gdcmconv", "--jpeg"))),
    Conversion("JPEG-LS", ELE, _JPEG + "80", (("dcmcjpls",), ("gdcmconv", "--jpegls"))),
    Conversion("RLE", ELE, RLE, (("dcmcrle",), ("gdcmconv", "--rle"))),
    Conversion("JPEG 2000", ELE, _JPEG + "90", (("gdcmconv", "--j2k"),)),
    Conversion("HTJ2K RPCL", ELE, _JPEG + "202"),
    Conversion("JPEG XL", ELE, _JPEG + "110"),
    Conversion("JPEG lossless to HTJ2K RPCL", _JPEG + "70", _JPEG + "202"),
    Conversion(
        "JPEG baseline to JPEG XL, the same stream", _JPEG + "50", _JPEG + "111", (), "rgb", 90
    ),
)


@dataclass(frozen=True)
class Figures:
    """What a run took: processor seconds of a frame, and the most memory."""

    seconds: float
    memory_mib: float


# ------------------------------------------------------------------ files


def write_files(conversion: Conversion, frames: int, folder: Path) -> None:
    """Write a file of one frame and one of many, no two frames alike, in the source's coding."""
    import numpy as np  # noqa: PLC0415 - not where the tools are timed
    import pydicom  # noqa: PLC0415
    from pydicom.encaps import encapsulate  # noqa: PLC0415

    from wado.dicom.part10 import file_meta  # noqa: PLC0415
    from wado.dicom.transcode import encode  # noqa: PLC0415

    (source,) = CORPUS.rglob("*US1_UNC.dcm" if conversion.image == "rgb" else "*CT1_UNC.dcm")
    ds = pydicom.dcmread(source)
    first = ds.pixel_array
    if conversion.image == "12":
        low = max(int(first.min()), -1024)
        first = np.clip(first.astype(np.int32) - low, 0, 4095).astype(np.uint16)
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 11, 0
    ds.PlanarConfiguration = 0
    if conversion.image != "rgb":
        del ds.PlanarConfiguration
    for count in (1, frames):
        pixels = [np.ascontiguousarray(np.roll(first, 7 * i, axis=0)) for i in range(count)]
        ds.NumberOfFrames = count
        image = _image_of(ds)
        is_native = conversion.source == ELE
        ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(ELE if is_native else RLE)
        coded = [encode(each, image, conversion.source, conversion.quality) for each in pixels]
        if is_native:
            ds.PixelData = b"".join(coded)
        else:
            ds.PixelData = encapsulate(coded)
            ds["PixelData"].is_undefined_length = True
            if conversion.source == _JPEG + "50":
                ds.PhotometricInterpretation = "YBR_FULL"
        path = folder / f"{count}.dcm"
        ds.save_as(path, implicit_vr=False, little_endian=True, enforce_file_format=False)
        body = path.read_bytes()
        meta = file_meta(str(ds.SOPClassUID), str(ds.SOPInstanceUID), conversion.source)
        # The writer does not know all transfer syntaxes: its File Meta is replaced.
        (length,) = struct.unpack_from("<I", body, _META_LENGTH_AT)
        path.write_bytes(meta + body[_META_LENGTH_AT + 4 + length :])
        ds.PhotometricInterpretation = "RGB" if conversion.image == "rgb" else "MONOCHROME2"


def _image_of(ds: Any) -> "ImagePixel":
    from wado.dicom.image import ImagePixel  # noqa: PLC0415

    names = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated",
             "BitsStored", "HighBit", "PixelRepresentation")  # fmt: skip
    return ImagePixel(*(getattr(ds, name) for name in names))


# ------------------------------------------------------------------ runs


def run_peer(command: Sequence[str], one: Path, many: Path, frames: int) -> Figures | None:
    """Time a tool on both files; None if it fails."""
    spent = []
    memory = 0.0
    for path in (one, many):
        target = path.with_suffix(".out")
        process = subprocess.Popen(
            [*command, str(path), str(target)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        if status or not target.exists():
            return None
        target.unlink()
        spent.append(usage.ru_utime + usage.ru_stime)
        memory = usage.ru_maxrss / _KIB_PER_MIB
    return Figures(max(spent[1] - spent[0], 0.0) / (frames - 1), memory)


def run_ours(conversion: Conversion, many: Path, *, verify: bool) -> Figures:
    """Time a process of ours on the frames of the long file."""
    arguments = [conversion.target, str(conversion.quality), str(many), str(int(verify))]
    done = subprocess.run(
        [sys.executable, __file__, "--ours", *arguments],
        check=True,
        capture_output=True,
        env={**os.environ, **_ONE_THREAD},
    )
    return Figures(*json.loads(done.stdout))


def ours(target_uid: str, quality: int, path: Path, *, verify: bool) -> tuple[float, float]:
    """Transcode all frames of a file; processor seconds of a frame, and memory in MiB."""
    from wado.dicom.describe import describe  # noqa: PLC0415
    from wado.dicom.image import ImagePixel  # noqa: PLC0415
    from wado.dicom.transcode import decode, decoded_image, encode, transcode  # noqa: PLC0415

    for name in ("wado.dicom.codecs", "wado.dicom.verification", "openjpeg.utils", "rle.utils"):
        importlib.import_module(name)
    whole = path.read_bytes()
    found = describe(lambda offset, length: whole[offset : offset + length], len(whole))
    image, source_uid = ImagePixel.of(found.metadata), found.file_meta.transfer_syntax_uid
    assert found.pixel is not None
    spent = []
    for number in range(1, found.pixel.number_of_frames + 1):
        data = b"".join(whole[o : o + n] for o, n in found.pixel.frame(number))
        began = time.process_time()
        if verify:
            transcode(data, image, source_uid, target_uid, quality)
        else:
            decoded = decode(data, image, source_uid)
            encode(decoded.pixels, decoded_image(image, decoded), target_uid, quality)
        spent.append(time.process_time() - began)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB_PER_MIB
    return statistics.mean(spent[1:]), memory


def measure(conversion: Conversion, options: argparse.Namespace) -> str:
    """Measure a conversion, runs interleaved, and give its line of the table."""
    peers = [p for p in conversion.peers if shutil.which(p[0])]
    runs: dict[str, list[Figures]] = {}
    recompressed = conversion.target == _JPEG + "111"
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own: the memory of this one would count for those it starts.
        arguments = [str(CONVERSIONS.index(conversion)), str(options.frames), folder]
        subprocess.run([sys.executable, __file__, "--write", *arguments], check=True)
        one, many = Path(folder, "1.dcm"), Path(folder, f"{options.frames}.dcm")
        for _ in range(options.runs):
            runs.setdefault("ours", []).append(run_ours(conversion, many, verify=True))
            if conversion.target != ELE and not recompressed:
                runs.setdefault("made", []).append(run_ours(conversion, many, verify=False))
            for peer in peers:
                figures = run_peer(peer, one, many, options.frames)
                if figures is not None and figures.seconds > 0:
                    runs.setdefault(peer[0], []).append(figures)
    return " | ".join(_line(conversion, runs))


def _line(conversion: Conversion, runs: dict[str, list[Figures]]) -> Iterator[str]:
    medians = {
        name: Figures(
            statistics.median(f.seconds for f in each),
            statistics.median(f.memory_mib for f in each),
        )
        for name, each in runs.items()
    }
    what = "decoded" if conversion.target == ELE else "made"
    arrow = " to " in conversion.name
    yield f"| {conversion.name}{'' if arrow else ', ' + what}"
    yield f"{1 / medians['ours'].seconds:.1f}"
    yield f"{1 / medians['made'].seconds:.1f}" if "made" in medians else "-"
    best = medians.get("made", medians["ours"])
    for toolkit in ("dcm", "gdcm"):
        peer = next((m for name, m in medians.items() if name.startswith(toolkit)), None)
        if peer is None:
            yield "- | -"
        else:
            yield f"{1 / peer.seconds:.1f} | {peer.seconds / best.seconds:.2f}"
    memory = [f"{medians['ours'].memory_mib:.0f}"]
    memory += [f"{m.memory_mib:.0f}" for name, m in medians.items() if name not in ("ours", "made")]
    yield " / ".join(memory) + " |"


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--only", default="", help="a part of a name, a transfer syntax or a tool")
    parser.add_argument("--ours", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--write", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        index, frames, folder = options.write
        write_files(CONVERSIONS[int(index)], int(frames), Path(folder))
        return
    if options.ours:
        target, quality, path, verify = options.ours
        result = ours(target, int(quality), Path(path), verify=verify == "1")
        sys.stdout.write(json.dumps(result))
        return
    load = os.getloadavg()[0]
    sys.stdout.write(
        f"{options.runs} runs of {options.frames} frames (CT 512x512 of 16 or 12 bits; ultrasound "
        f"640x480 RGB), medians, Python {platform.python_version()}, load {load:.1f} on "
        f"{os.cpu_count()} cores. Frames for each second of processor time; ratios compare what is "
        "made without verifying, over 1 we are faster; memory in MiB: ours, then the tools.\n\n"
        "| conversion | ours | not verified | DCMTK | ratio | GDCM | ratio | memory |\n"
        "|---|---|---|---|---|---|---|---|\n"
    )
    for conversion in CONVERSIONS:
        if options.only.lower() in repr(conversion).lower():
            sys.stdout.write(measure(conversion, options) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
