"""Images that viewers can't show, and what became of their copies."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from threading import Event
from typing import Any

import imagecodecs
from pydicom.dataset import Dataset

import coded_streams
import steps
import synthetic
from steps import batches, catalogue_all, series_of
from wado.archive.copies import Converter
from wado.archive.derived import NOTHING, Derived
from wado.archive.journal import Journals
from wado.archive.pixel_workers import PixelWorkers
from wado.ports import Archive
from wado.records import DicomStoreMeta, Topic
from wado.services.patience import Patience
from wado.services.transcode_worker import GROUP, TranscodeWorker

DEFLATED_FRAMES, JPEG_XL_LOSSLESS = synthetic.NOT_OF_PYDICOM
HTJ2K_RPCL = "1.2.840.10008.1.2.4.202"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


def deflated(ds: Dataset) -> Dataset:
    """Compress each frame by Deflate (PS3.5 §A.4.13)."""
    packed = [coded_streams.deflated(frame.tobytes()) for frame in frames_of(ds)]
    return synthetic.encapsulated(ds, DEFLATED_FRAMES, packed)


def jpeg_xl(ds: Dataset) -> Dataset:
    """Compress each frame by JPEG XL, without loss."""
    packed = [bytes(imagecodecs.jpegxl_encode(frame, lossless=True)) for frame in frames_of(ds)]
    return synthetic.encapsulated(ds, JPEG_XL_LOSSLESS, packed)


def broken(ds: Dataset) -> Dataset:
    """Make a JPEG XL image whose frames are none."""
    frames = [b"not JPEG XL " * 9 for _ in frames_of(ds)]
    return synthetic.encapsulated(ds, JPEG_XL_LOSSLESS, frames)


def store(archive: Archive, *sources: Dataset | bytes) -> list[DicomStoreMeta]:
    """Store, announce and catalogue; how they were announced."""
    results = steps.store(archive, *sources)
    catalogue_all(archive)
    return [result.meta for result in results]


def frames_of(ds: Dataset) -> list[Any]:
    """Pixels of each frame of a native instance."""
    pixels = ds.pixel_array
    return list(pixels) if int(ds.get("NumberOfFrames") or 1) > 1 else [pixels]


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
