"""Instances and frames (PS3.18 §10.4), found without opening DICOM files.

Everything here only says which ranges of which files make up an answer; they are read when they
are sent, so a study of any size passes with flat memory.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from wado.archive.derived import Copy
from wado.archive.describe import study_views
from wado.archive.gone import no_instance, no_series, no_study
from wado.archive.journal import Entry, Journals, SeriesView
from wado.archive.paths import derived_path, instance_path
from wado.archive.pieces import FileSlice, Piece
from wado.archive.values import StoredValue, is_plain
from wado.dicom.codec_table import why_not_decoded
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
    """An instance, what its series' journal says of it, and the view that showed it.

    A derived copy is an item, too (`copy_of`): then `entry` describes its file, not the original.
    """

    ref: InstanceRef
    entry: Entry
    view: SeriesView
    copy: Copy | None = None

    @property
    def path(self) -> str:
        """Path of its file."""
        if self.copy is not None:
            return derived_path(self.ref, self.copy.transfer_syntax_uid)
        return instance_path(self.ref)


def copy_of(found: Item, transfer_syntax_uid: str) -> Item | None:
    """Find the derived copy of an instance in a transfer syntax."""
    copy = found.entry.derived.copies.get(transfer_syntax_uid)
    if copy is None:
        return None
    entry = replace(
        found.entry,
        transfer_syntax_uid=copy.transfer_syntax_uid,
        file_size=copy.file_size,
        digest=copy.digest,
        pixel=copy.pixel,
        number_of_frames=copy.pixel.number_of_frames,
    )
    return replace(found, entry=entry, copy=copy)


def original_of(found: Item) -> Item:
    """Give the instance itself; `found` may be a copy of it."""
    if found.copy is None:
        return found
    entry = found.view.entries[found.ref.sop_instance_uid]
    return replace(found, entry=entry, copy=None)


# ------------------------------------------------------------------ instances


def item(journals: Journals, ref: InstanceRef) -> Item:
    """Find an instance.

    Raises
    ------
    NotFound
        There is no such instance, or (Gone) it was deleted.
    """
    view = journals.recent(ref.series)
    if view is None or ref.sop_instance_uid not in view.entries:
        view = journals.view(ref.series)
    entry = view.entries.get(ref.sop_instance_uid) if view else None
    if view is None or entry is None:
        raise no_instance(journals, ref)
    return Item(ref, entry, view)


def series_items(journals: Journals, ref: SeriesRef) -> list[Item]:
    """Find the instances of a series, by Instance Number; NotFound if there are none."""
    return _items(series_view(journals, ref))


def study_items(archive: Archive, journals: Journals, ref: StudyRef) -> list[Item]:
    """Find the instances of a study, series after series; NotFound if there are none."""
    views = views_of_study(archive, journals, ref)
    return [found for view in views for found in _items(view)]


def series_view(journals: Journals, ref: SeriesRef) -> SeriesView:
    """Find a series as it is now; NotFound if it has no instances."""
    view = journals.view(ref)
    if view is None:
        raise no_series(journals, ref)
    return view


def views_of_study(archive: Archive, journals: Journals, ref: StudyRef) -> list[SeriesView]:
    """Find all series of a study; NotFound if it has no instances."""
    views = study_views(archive, journals, ref)
    if not views:
        raise no_study(archive.store, ref)
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
    return FileSlice(found.path, 0, entry.file_size, entry.digest)


# ------------------------------------------------------------------ frames


def existing_frames(numbers: Sequence[int], found: Item) -> Sequence[int]:
    """Check frame numbers, which count from 1.

    Raises
    ------
    NotFound
        The instance has no pixel data, or not so many frames.
    """
    pixel = found.entry.pixel
    if pixel is None:
        why = why_not_decoded(found.entry.transfer_syntax_uid)
        raise NotFound(f"the instance has no pixel data{why and f': {why}'}")
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
        raise NotFound(_why_no_frames(found, pixel.reason))
    bits = pixel.frame_bits or 0
    if is_plain(found.entry) and bits % 8 == 0:
        return [slices(found, pixel.frame(number)) for number in numbers]
    value = stored_value(archive, found, pixel.offset)
    if pixel.encapsulated:
        return [
            tuple(chunk for at, size in pixel.frame(n) for chunk in value.chunks(at, 0, size * 8))
            for n in numbers
        ]
    return [value.chunks(pixel.frame(n)[0][0], pixel.first_bit(n), bits) for n in numbers]


def _why_no_frames(found: Item, reason: str) -> str:
    """Say of a video where it can be had; its fragments were never meant to be told apart."""
    uid = found.entry.transfer_syntax_uid
    if not media_type_of(uid).startswith("video/"):
        return reason
    return f"{why_not_decoded(uid)}: ask for …/pixeldata, or for …/rendered"


def slices(found: Item, ranges: Iterable[tuple[int, int]]) -> tuple[Piece, ...]:
    """Ranges of the file of an instance."""
    path, digest = found.path, found.entry.digest
    return tuple(FileSlice(path, offset, length, digest) for offset, length in ranges)


def stored_value(archive: Archive, found: Item, offset: int) -> StoredValue:
    """Open a value that isn't sent as it is stored."""
    return StoredValue(archive.store, found.path, found.entry, offset)
