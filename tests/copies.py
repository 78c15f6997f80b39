"""Images that viewers can't show, and what became of their copies."""

import copy
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from threading import Event
from typing import Any

import imagecodecs
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import RLELossless

import synthetic
from steps import batches, catalogue_all, series_of
from wado.archive.conversion import Converter
from wado.archive.derived import NOTHING, Derived
from wado.archive.journal import Journals
from wado.archive.pixel_workers import PixelWorkers
from wado.archive.store import Reception, Source, Stored, store_group
from wado.ports import Archive
from wado.records import Topic
from wado.services.patience import Patience
from wado.services.transcode_worker import GROUP, TranscodeWorker

DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
JPEG_XL_LOSSLESS = "1.2.840.10008.1.2.4.110"
HTJ2K_RPCL = "1.2.840.10008.1.2.4.202"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


def deflated(ds: Dataset) -> Dataset:
    """Compress each frame by Deflate (PS3.5 §A.4.13)."""
    packed = []
    for frame in frames_of(ds):
        packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
        packed.append(packer.compress(frame.tobytes()) + packer.flush())
    return synthetic.encapsulated(ds, DEFLATED_FRAMES, packed)


def jpeg_xl(ds: Dataset) -> Dataset:
    """Compress each frame by JPEG XL, without loss."""
    packed = [bytes(imagecodecs.jpegxl_encode(frame, lossless=True)) for frame in frames_of(ds)]
    return synthetic.encapsulated(ds, JPEG_XL_LOSSLESS, packed)


def broken(ds: Dataset) -> Dataset:
    """Make a JPEG XL image whose frames are none."""
    frames = [b"not JPEG XL " * 9 for _ in frames_of(ds)]
    return synthetic.encapsulated(ds, JPEG_XL_LOSSLESS, frames)


def part10(ds: Dataset) -> bytes:
    """Encode as a file."""
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, False
    out.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(out, ds.file_meta)
    return out.getvalue() + data_set(ds)


def data_set(ds: Dataset) -> bytes:
    """Encode the data set; pydicom writes none in a transfer syntax that it doesn't know."""
    known = copy.deepcopy(ds)
    known.file_meta.TransferSyntaxUID = RLELossless  # encapsulated, in Explicit VR Little Endian
    return synthetic.data_set(known)


def store(archive: Archive, *datasets: Dataset) -> None:
    """Store, announce and catalogue."""
    receptions = []
    for ds in datasets:
        reception = Reception(archive, "clinic", Source())
        reception.write(part10(ds))
        reception.finish()
        receptions.append(reception)
    results = store_group(archive, Journals(archive.store), receptions)
    assert all(isinstance(r, Stored) for r in results), results
    catalogue_all(archive)


def frames_of(ds: Dataset) -> list[Any]:
    """Pixels of each frame of a native instance."""
    pixels = ds.pixel_array
    return list(pixels) if int(ds.get("NumberOfFrames") or 1) > 1 else [pixels]


def streams(ds: Dataset) -> list[bytes]:
    """Compressed bytes of each frame."""
    return list(generate_frames(ds.PixelData, number_of_frames=int(ds.get("NumberOfFrames") or 1)))


def derived_of(archive: Archive, ds: Dataset) -> Derived:
    """What there is of an instance."""
    view = Journals(archive.store).view(series_of(ds))
    entry = view.entries.get(str(ds.SOPInstanceUID)) if view else None
    return entry.derived if entry else NOTHING


@contextmanager
def a_worker(archive: Archive, stop: Event, *, workers: int = 2) -> Iterator[TranscodeWorker]:
    """Open a worker of the queue in this process; the pixels are in others, as always."""
    settings = archive.transcode
    pixels = PixelWorkers(
        workers=workers,
        timeout_s=settings.frame_timeout_s,
        max_memory_bytes=settings.memory_bytes,
    )
    with ThreadPoolExecutor(workers) as threads, closing(pixels):
        converter = Converter(archive, Journals(archive.store), pixels, settings, stop)
        yield TranscodeWorker(converter, threads, Patience("webworker", "transcode", stop))


def convert_all(archive: Archive) -> None:
    """Make the copies that were asked for."""
    with a_worker(archive, Event()) as worker:
        for batch in batches(archive, Topic.TRANSCODE, GROUP):
            worker.work_on(batch)
