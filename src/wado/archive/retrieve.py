"""Instances, frames, bulk data and metadata (PS3.18 §10.4), found without opening DICOM files.

Everything here only says which ranges of which files make up an answer; they are read when they
are sent, so a study of any size passes with flat memory.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256

import orjson

from wado.archive.describe import (
    json_array,
    rebase_bulk_uris,
    study_parts,
    study_texts,
    study_views,
)
from wado.archive.journal import Entry, Journals, SeriesView
from wado.archive.paths import instance_path, series_document_path, study_document_path
from wado.archive.pieces import FileSlice, Piece
from wado.archive.values import StoredValue, is_plain
from wado.dicom.media_types import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    OCTET_STREAM,
    Offer,
    is_native,
    media_type_of,
)
from wado.dicom.uids import InstanceRef, SeriesRef, StudyRef
from wado.errors import NotFound
from wado.ports import Archive


@dataclass(frozen=True, slots=True)
class Item:
    """An instance, what its series' journal says of it, and the view that showed it."""

    ref: InstanceRef
    entry: Entry
    view: SeriesView


@dataclass(frozen=True, slots=True)
class Document:
    """Metadata: ready `pieces`, or a `stream` composed on the way; `etag` without quotes.

    `view` is what it shows, if that is one series.
    """

    etag: str
    pieces: tuple[Piece, ...] = ()
    stream: Iterable[bytes] | None = None
    gzipped: bool = False
    view: SeriesView | None = None


# ------------------------------------------------------------------ instances


def item(journals: Journals, ref: InstanceRef) -> Item:
    """Find an instance.

    Raises
    ------
    NotFound
        There is no such instance.
    """
    view = journals.recent(ref.series)
    if view is None or ref.sop_instance_uid not in view.entries:
        view = journals.view(ref.series)
    entry = view.entries.get(ref.sop_instance_uid) if view else None
    if view is None or entry is None:
        raise NotFound("no such instance")
    return Item(ref, entry, view)


def series_items(journals: Journals, ref: SeriesRef) -> list[Item]:
    """Find the instances of a series, by Instance Number; NotFound if there are none."""
    return _items(_view(journals, ref))


def study_items(archive: Archive, journals: Journals, ref: StudyRef) -> list[Item]:
    """Find the instances of a study, series after series; NotFound if there are none."""
    views = _study_views(archive, journals, ref)
    return [found for view in views for found in _items(view)]


def _view(journals: Journals, ref: SeriesRef) -> SeriesView:
    view = journals.view(ref)
    if view is None:
        raise NotFound("no such series")
    return view


def _study_views(archive: Archive, journals: Journals, ref: StudyRef) -> list[SeriesView]:
    views = study_views(archive, journals, ref)
    if not views:
        raise NotFound("no such study")
    return views


def _items(view: SeriesView) -> list[Item]:
    at = view.ref
    return [
        Item(
            InstanceRef(
                at.tenant_id, at.study_instance_uid, at.series_instance_uid, e.sop_instance_uid
            ),
            e,
            view,
        )
        for e in view.ordered()
    ]


def whole(found: Item) -> FileSlice:
    """Give the file of an instance, byte for byte as it was received."""
    entry = found.entry
    return FileSlice(instance_path(found.ref), 0, entry.file_size, entry.digest)


# ------------------------------------------------------------------ metadata


def instance_metadata(journals: Journals, found: Item, *, base_url: str) -> Document:
    """Compose the metadata of one instance; its bulk data URIs are absolute."""
    view = _view(journals, found.ref.series)
    texts = journals.metadata(view, [found.entry])
    prefix = f"{base_url}/{found.ref.series.path}/instances/".encode()
    body = b"[" + b"".join(rebase_bulk_uris(text, prefix) for text in texts) + b"]"
    return Document(sha256(body).hexdigest()[:32], (body,))


def series_metadata(
    archive: Archive, journals: Journals, ref: SeriesRef, *, gzip: bool
) -> Document:
    """Find the metadata of a series: the ready document if it is current, else the journal's."""
    view = _view(journals, ref)
    if view.described:
        ready = _ready(archive, series_document_path(ref), view.etag, gzip=gzip)
        if ready is not None:
            return replace(ready, view=view)
    return Document(view.etag, stream=json_array(journals.metadata(view)))


def study_metadata(archive: Archive, journals: Journals, ref: StudyRef, *, gzip: bool) -> Document:
    """Find the metadata of a study: the ready document if current, else one series by another."""
    views = _study_views(archive, journals, ref)
    path = study_document_path(ref)
    parts = study_parts(views)
    etag = sha256(parts).hexdigest()[:32]
    if _is_current(archive, path, parts):
        ready = _ready(archive, path, etag, gzip=gzip)
        if ready is not None:
            return ready
    return Document(etag, stream=json_array(study_texts(journals, views)))


def _is_current(archive: Archive, path: str, parts: bytes) -> bool:
    if archive.store.version(f"{path}.parts") is None:
        return False
    with archive.store.open(f"{path}.parts") as file:
        return file.read() == parts


def _ready(archive: Archive, path: str, etag: str, *, gzip: bool) -> Document | None:
    name = f"{path}.json.gz" if gzip else f"{path}.json"
    version = archive.store.version(name)
    if version is None:
        return None
    identity, size = version
    return Document(etag, (FileSlice(name, 0, size, f"{identity}-{size}"),), gzipped=gzip)


# ------------------------------------------------------------------ frames and bulk data


def existing_frames(numbers: Sequence[int], found: Item) -> Sequence[int]:
    """Check frame numbers, which count from 1.

    Raises
    ------
    NotFound
        The instance has no pixel data, or not so many frames.
    """
    pixel = found.entry.pixel
    if pixel is None:
        raise NotFound("the instance has no pixel data")
    count = pixel.number_of_frames
    for number in numbers:
        if not 1 <= number <= count:
            raise NotFound(f"no frame {number}: the instance has {count}")
    return numbers


def frame_offers(found: Item) -> tuple[Offer, ...]:
    """Give `frame_offers_of` the transfer syntax of an instance."""
    return frame_offers_of(found.entry.transfer_syntax_uid)


@lru_cache(maxsize=256)
def frame_offers_of(transfer_syntax_uid: str) -> tuple[Offer, ...]:
    """Forms in which frames of this transfer syntax can be given, the preferred one first.

    Native frames are the same bytes in implicit and explicit little endian, so they go out as
    Explicit VR Little Endian, which the Standard wants (PS3.18 §8.7.3.4). Compressed ones go out
    as stored, as octet stream too, as clients in wide use ask for any syntax by that name.
    """
    if is_native(transfer_syntax_uid):
        return (Offer(OCTET_STREAM, transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN),)
    media_type = media_type_of(transfer_syntax_uid)
    names = dict.fromkeys((media_type, OCTET_STREAM))
    return tuple(Offer(name, transfer_syntax=transfer_syntax_uid) for name in names)


def frames(archive: Archive, found: Item, numbers: Iterable[int]) -> list[tuple[Piece, ...]]:
    """Locate frames that exist (see `existing_frames`): their bytes without item headers.

    Raises
    ------
    NotFound
        The frames of the instance can't be told apart.
    """
    pixel = found.entry.pixel
    assert pixel is not None
    if pixel.reason:
        raise NotFound(pixel.reason)
    bits = pixel.frame_bits or 0
    if is_plain(found.entry) and bits % 8 == 0:
        return [_slices(found, pixel.frame(number)) for number in numbers]
    value = _stored_value(archive, found, pixel.offset)
    if pixel.encapsulated:
        return [
            tuple(chunk for at, size in pixel.frame(n) for chunk in value.chunks(at, 0, size * 8))
            for n in numbers
        ]
    return [value.chunks(pixel.frame(n)[0][0], pixel.first_bit(n), bits) for n in numbers]


def bulk_data(
    archive: Archive, journals: Journals, found: Item, path: str
) -> tuple[tuple[Offer, ...], list[tuple[Piece, ...]]]:
    """Locate a bulky value by its tag path: the forms it can be had in, and its parts.

    Compressed pixel data has a part for each frame (PS3.18 §10.4.1.1.5); all else is one part.

    Raises
    ------
    NotFound
        The metadata names no such bulk data.
    """
    pixel = found.entry.pixel
    place = found.entry.bulk.get(path.upper())
    if place is None:
        raise NotFound("no such bulk data")
    if pixel is not None and pixel.encapsulated and place[0] == pixel.offset:
        numbers = existing_frames(range(1, pixel.number_of_frames + 1), found)
        return frame_offers(found), frames(archive, found, numbers)
    offers = tuple(
        Offer(name) for name in dict.fromkeys((*_own_type(journals, found), OCTET_STREAM))
    )
    offset, length = place
    if is_plain(found.entry):
        return offers, [_slices(found, [place])]
    return offers, [_stored_value(archive, found, offset).chunks(offset, 0, length * 8)]


def _own_type(journals: Journals, found: Item) -> Iterator[str]:
    """MIME Type of Encapsulated Document (0042,0012), if it is one."""
    if found.entry.pixel is None and "00420011" in found.entry.bulk:
        view = _view(journals, found.ref.series)
        for text in journals.metadata(view, [found.entry]):
            values = orjson.loads(text).get("00420012", {}).get("Value")
            if values and _MEDIA_TYPE.match(values[0]):
                yield values[0].lower()


_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+\Z", re.ASCII)


def _slices(found: Item, ranges: Iterable[tuple[int, int]]) -> tuple[Piece, ...]:
    path, digest = instance_path(found.ref), found.entry.digest
    return tuple(FileSlice(path, offset, length, digest) for offset, length in ranges)


def _stored_value(archive: Archive, found: Item, offset: int) -> StoredValue:
    return StoredValue(archive.store, instance_path(found.ref), found.entry, offset)
