"""Instances, frames, bulk data and metadata (PS3.18 §10.4), found without opening DICOM files.

Everything here only says which ranges of which files make up an answer; they are read when they
are sent, so a study of any size passes with flat memory.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

import orjson

from wado.archive.describe import rebase_bulk_uris, study_parts, study_views
from wado.archive.journal import Entry, Journals, SeriesView
from wado.archive.paths import instance_path, series_document_path, study_document_path
from wado.archive.pieces import Computed, FileSlice, Piece
from wado.dicom.media_types import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    OCTET_STREAM,
    Offer,
    is_native,
    media_type_of,
)
from wado.dicom.part10 import MAX_FILE_META_BYTES, read_file_meta
from wado.dicom.sop_classes import transfer_syntax
from wado.dicom.uids import InstanceRef, SeriesRef, StudyRef
from wado.dicom.window import data_set_reader
from wado.errors import NotFound
from wado.ports import Archive


@dataclass(frozen=True, slots=True)
class Item:
    """An instance and what its series' journal says of it."""

    ref: InstanceRef
    entry: Entry


@dataclass(frozen=True, slots=True)
class Document:
    """Metadata: ready `pieces`, or a `stream` composed on the way; `etag` without quotes."""

    etag: str
    pieces: tuple[Piece, ...] = ()
    stream: Iterable[bytes] | None = None
    gzipped: bool = False


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
    if entry is None:
        raise NotFound("no such instance")
    return Item(ref, entry)


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
            return ready
    return Document(view.etag, stream=_array(journals.metadata(view)))


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
    return Document(etag, stream=_array(_study_texts(journals, views)))


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


def _study_texts(journals: Journals, views: Iterable[SeriesView]) -> Iterator[bytes]:
    for view in views:
        prefix = b"series/%s/instances/" % view.ref.series_instance_uid.encode()
        for text in journals.metadata(view):
            yield rebase_bulk_uris(text, prefix)


def _array(texts: Iterable[bytes]) -> Iterator[bytes]:
    opening = b"["
    for text in texts:
        yield opening + text
        opening = b",\n"
    yield b"]" if opening == b",\n" else b"[]"


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


def frame(archive: Archive, found: Item, number: int) -> tuple[Piece, ...]:
    """Locate a frame that exists (see `existing_frames`): its bytes without item headers.

    Raises
    ------
    NotFound
        The frames of the instance can't be told apart.
    """
    pixel = found.entry.pixel
    assert pixel is not None
    if pixel.reason:
        raise NotFound(pixel.reason)
    ranges = pixel.frame(number)
    bits, first_bit = pixel.frame_bits or 0, pixel.first_bit(number)
    if _is_plain(found) and not first_bit and bits % 8 == 0:
        return tuple(_slice(found, offset, length) for offset, length in ranges)
    ((offset, length),) = ranges

    def make() -> bytes:
        return aligned(_read_value(archive, found, pixel.offset, offset, length), first_bit, bits)

    return (Computed((bits + 7) // 8, make),)


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
        return frame_offers(found), [frame(archive, found, number) for number in numbers]
    offers = tuple(
        Offer(name) for name in dict.fromkeys((*_own_type(journals, found), OCTET_STREAM))
    )
    offset, length = place
    if _is_plain(found):
        return offers, [(_slice(found, offset, length),)]
    value = Computed(length, lambda: _read_value(archive, found, offset, offset, length))
    return offers, [(value,)]


def _own_type(journals: Journals, found: Item) -> Iterator[str]:
    """MIME Type of Encapsulated Document (0042,0012), if it is one."""
    if found.entry.pixel is None and "00420011" in found.entry.bulk:
        view = _view(journals, found.ref.series)
        for text in journals.metadata(view, [found.entry]):
            values = orjson.loads(text).get("00420012", {}).get("Value")
            if values and _MEDIA_TYPE.match(values[0]):
                yield values[0].lower()


_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+\Z", re.ASCII)


def _slice(found: Item, offset: int, length: int) -> FileSlice:
    return FileSlice(instance_path(found.ref), offset, length, found.entry.digest)


def _is_plain(found: Item) -> bool:
    """Whether values stand in the file as they are sent: not deflated, in little endian."""
    syntax = transfer_syntax(found.entry.transfer_syntax_uid)
    return not syntax.deflated and not syntax.big_endian


def _read_value(
    archive: Archive, found: Item, value_offset: int, offset: int, length: int
) -> bytes:
    """Read a range of a value that isn't plain: inflated, in little endian."""
    entry = found.entry
    syntax = transfer_syntax(entry.transfer_syntax_uid)
    with archive.store.open(instance_path(found.ref)) as file:

        def read(at: int, count: int) -> bytes:
            file.seek(at)
            return file.read(count)

        start = read_file_meta(read(0, MAX_FILE_META_BYTES)).data_set_offset
        reader = data_set_reader(read, entry.file_size, entry.transfer_syntax_uid, start)
        # The VR stands before the value (PS3.5 §7.1.2): of bulky values nearly always 8 bytes.
        vr = reader(value_offset - 8, 2)
        data = reader(offset, length)
    return swapped(data, _WORD_BYTES.get(vr, 1)) if syntax.big_endian else data


_WORD_BYTES = {b"OW": 2, b"OF": 4, b"OL": 4, b"OD": 8, b"OV": 8}
"""Bytes of the words of a VR, which big endian turns round; those of OB and UN stay."""


def swapped(data: bytes, word_bytes: int) -> bytes:
    """Turn round the bytes of each word."""
    whole = len(data) - len(data) % word_bytes
    result = bytearray(data)
    for i in range(word_bytes):
        result[i:whole:word_bytes] = data[word_bytes - 1 - i : whole : word_bytes]
    return bytes(result)


def aligned(data: bytes, first_bit: int, bits: int) -> bytes:
    """Move packed bits to a byte boundary; bits behind the last are 0 (PS3.18 §8.7.3.3.1)."""
    value = int.from_bytes(data, "little") >> first_bit
    value &= (1 << bits) - 1
    return value.to_bytes((bits + 7) // 8, "little")
