"""What making a copy needs and what comes of it, whatever is converted: images or video.

A copy is written whole or not at all, its digest taken on the way, and described again before
anybody hears of it.
"""

import hashlib
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import orjson

from wado.archive.derived import Copy, copy_line, failure_line
from wado.archive.journal import Journals
from wado.archive.paths import derived_path
from wado.archive.pixel_workers import PixelWorkers
from wado.archive.reading import reading
from wado.archive.retrieve import Item
from wado.dicom.describe import Description, describe
from wado.dicom.frames import PixelData
from wado.dicom.image import first_value
from wado.dicom.media_types import media_type_of
from wado.dicom.uids import InstanceRef, SeriesRef
from wado.errors import CannotUnderstand, NotFound
from wado.ports import Archive
from wado.records import TranscodeLog
from wado.transcode_settings import TranscodeSettings

_MAX_METADATA_BYTES = 64 << 20
_PHOTOMETRIC_INTERPRETATION = "00280004"


@dataclass(frozen=True, slots=True)
class Converter:
    """What conversion needs; one per process, used from any thread.

    Parameters
    ----------
    archive, journals
        Where the instances are.
    pixels
        Processes that decode and encode; may be shared by conversions that run at the same time.
    settings
        Limits, what viewers can show, and how often work is tried.
    stop
        Set when the service is to end: what is being made is given up, as Unavailable.
    """

    archive: Archive
    journals: Journals
    pixels: PixelWorkers
    settings: TranscodeSettings
    stop: Event = field(default_factory=Event)


@dataclass(frozen=True, slots=True)
class Made:
    """A copy whose file is written and verified, and the name of what encoded it."""

    copy: Copy
    codec: str = ""


@dataclass(frozen=True, slots=True)
class Converted:
    """What came of a conversion, to be announced (`wado.archive.conversion.announce`).

    Attributes
    ----------
    row
        For the warehouse.
    ref, digest
        The original that it was made from: it counts for no other.
    copy
        What was made; None: it failed, and `row` says why.
    """

    row: TranscodeLog
    ref: InstanceRef
    digest: str
    copy: Copy | None = None

    @property
    def series(self) -> SeriesRef:
        """In whose journal it is to stand."""
        return self.ref.series

    @property
    def line(self) -> bytes:
        """What the journal is to say."""
        row = self.row
        if self.copy is not None:
            return copy_line(row.sop_instance_uid, self.digest, self.copy)
        target, reason = row.target_transfer_syntax_uid, row.reason or "unknown"
        return failure_line(row.sop_instance_uid, self.digest, target, reason)


def read_metadata(journals: Journals, found: Item) -> dict[str, Any]:
    """Read the metadata of an original; raises CannotUnderstand if they are too long for that."""
    if found.entry.metadata_length > _MAX_METADATA_BYTES:
        raise CannotUnderstand(f"its metadata are {found.entry.metadata_length} bytes long")
    (text,) = journals.metadata(found.view, [found.entry])
    value: dict[str, Any] = orjson.loads(text)
    return value


def write_copy(
    converter: Converter,
    found: Item,
    target_uid: str,
    chunks: Iterable[bytes],
    *,
    lossy: bool = False,
) -> Copy:
    """Write the file of a copy and verify it; if it isn't right, nothing of it stays.

    Parameters
    ----------
    converter
        Where it is written.
    found
        The original.
    target_uid
        Transfer syntax of the copy.
    chunks
        The file, piece by piece; what they raise, is raised.
    lossy
        Whether its pixels differ from those of the original.

    Raises
    ------
    CannotUnderstand
        The file is not what it should be: this is a fault of ours.
    OutOfResources, Unavailable
        It can't be written now.
    """
    store, path = converter.archive.store, derived_path(found.ref, target_uid)
    digest, size = hashlib.sha256(), 0

    def counted() -> Iterator[bytes]:
        nonlocal size
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            yield chunk
        if not _is_present(converter, found):  # that of the one that is there now may be in place
            raise CannotUnderstand("the original was replaced or deleted meanwhile")

    try:
        store.put_document(path, counted())
    finally:  # not when the last trace of an error is forgotten: it may hold files and threads
        if isinstance(chunks, Generator):
            chunks.close()
    try:
        description = description_of(converter.archive, path, size)
        return Copy(
            target_uid,
            size,
            digest.hexdigest(),
            _checked_pixels(description, found, target_uid),
            str(first_value(description.metadata, _PHOTOMETRIC_INTERPRETATION) or ""),
            lossy,
        )
    except (CannotUnderstand, NotFound) as e:
        store.delete([path])
        raise CannotUnderstand(f"the copy is not right: {e}") from e


def description_of(archive: Archive, path: str, size: int) -> Description:
    """Describe the file of a copy, so long; raises as `describe`, or NotFound or Unreadable."""
    with reading(path), archive.store.open(path) as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        return describe(read, size)


def _is_present(converter: Converter, found: Item) -> bool:
    """Whether the archive still has the original from which a copy is made."""
    view = converter.journals.view(found.ref.series)
    entry = view.entries.get(found.ref.sop_instance_uid) if view else None
    return entry is not None and entry.digest == found.entry.digest


def _checked_pixels(description: Description, found: Item, target_uid: str) -> PixelData:
    """Pixel Data of a copy, once it is seen to be one of this original, with all its frames."""
    meta, pixel = description.file_meta, description.pixel
    said = (first_value(description.metadata, "00080018"), meta.transfer_syntax_uid)
    if said != (found.ref.sop_instance_uid, target_uid):
        raise CannotUnderstand(f"it is {said[0]} in {said[1]}")
    if pixel is None or found.entry.pixel is None:
        raise CannotUnderstand("it has no pixel data")
    if pixel.number_of_frames != found.entry.pixel.number_of_frames:
        raise CannotUnderstand(
            f"it has {pixel.number_of_frames} frames of {found.entry.pixel.number_of_frames}"
        )
    if media_type_of(target_uid).startswith("video/"):
        return pixel
    for number in range(1, pixel.number_of_frames + 1):
        if not all(length for _, length in pixel.frame(number)):
            raise CannotUnderstand(f"its frame {number} is empty")
    return pixel
