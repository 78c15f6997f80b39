"""Bulk data (PS3.18 §10.4.1.1.5): values that the metadata leave out, located by the journals."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import orjson

from wado.archive import retrieve
from wado.archive.journal import Journals
from wado.archive.pieces import Piece
from wado.archive.retrieve import Item, existing_frames, frames, slices, stored_value
from wado.archive.transcoding import frame_offers
from wado.archive.values import is_plain
from wado.dicom.frames import PixelData
from wado.dicom.media_types import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    OCTET_STREAM,
    Offer,
    media_type_of,
)
from wado.errors import InvalidRequest, NotFound, WadoError
from wado.ports import Archive

PIXELS = frozenset({"7FE00008", "7FE00009", "7FE00010"})
"""Float, Double Float and plain Pixel Data (PS3.3 §C.7.6.24, §C.7.6.25, §C.7.6.3)."""
_TAG_PATH = re.compile(r"[0-9A-F]{8}(?:/\d{1,9}/[0-9A-F]{8})*\Z", re.ASCII)
_MAX_PATH_LENGTH = 2048
_ENCAPSULATED_DOCUMENT, _MIME_TYPE = "00420011", "00420012"
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class BulkValue:
    """A value of an instance: the forms it can be had in, and its parts as it is stored.

    Compressed pixel data has a part for each frame (PS3.18 §10.4.1.1.5), of a video and of all else
    there is one part.
    """

    found: Item
    path: str
    offers: tuple[Offer, ...]
    parts: list[tuple[Piece, ...]]


def bulk_value(archive: Archive, journals: Journals, found: Item, path: str) -> BulkValue:
    """Locate a value by its tag path: ``7FE00010``, ``54000100/0/54001010``.

    Raises
    ------
    InvalidRequest
        It is no tag path.
    NotFound
        The metadata name no such bulk data.
    """
    path = path.strip("/").upper()
    if len(path) > _MAX_PATH_LENGTH or not _TAG_PATH.match(path):
        raise InvalidRequest(f"not a tag path: {path[:80]!r}")
    place = found.entry.bulk.get(path)
    if place is None:
        raise NotFound("no such bulk data")
    pixel = found.entry.pixel
    offset, length = place
    if pixel is not None and pixel.encapsulated and offset == pixel.offset:
        return BulkValue(found, path, _offers(found, pixel), _compressed(archive, found, pixel))
    names = dict.fromkeys((*_own_type(journals, found, path), OCTET_STREAM))
    if is_plain(found.entry):
        pieces = slices(found, [(offset, length)])
    else:
        pieces = stored_value(archive, found, offset).chunks(offset, 0, length * 8)
    return BulkValue(found, path, tuple(map(Offer, names)), [pieces])


def _offers(found: Item, pixel: PixelData) -> tuple[Offer, ...]:
    """Forms of compressed pixel data: as stored, and native if it can be decoded."""
    stored = retrieve.frame_offers(found)
    if pixel.reason:
        return stored
    native = EXPLICIT_VR_LITTLE_ENDIAN
    offers = frame_offers(found.entry.transfer_syntax_uid)
    return tuple(offer for offer in offers if offer.stored or offer.transfer_syntax == native)


def _compressed(archive: Archive, found: Item, pixel: PixelData) -> list[tuple[Piece, ...]]:
    """Locate compressed frames; a video, or what can't be cut into frames, is one part."""
    is_video = media_type_of(found.entry.transfer_syntax_uid).startswith("video/")
    if is_video or pixel.reason:
        flat = pixel.fragments
        return [slices(found, zip(flat[::2], flat[1::2], strict=True))]
    numbers = existing_frames(range(1, pixel.number_of_frames + 1), found)
    return frames(archive, found, numbers)


def _own_type(journals: Journals, found: Item, path: str) -> Iterator[str]:
    """MIME Type of Encapsulated Document (0042,0012), if it is one."""
    if path != _ENCAPSULATED_DOCUMENT:
        return
    for text in journals.metadata(found.view, [found.entry]):
        values = orjson.loads(text).get(_MIME_TYPE, {}).get("Value")
        if values and isinstance(values[0], str) and _MEDIA_TYPE.match(values[0]):
            yield values[0].lower()


def bulk_values(
    archive: Archive, journals: Journals, items: Iterable[Item], *, pixels_only: bool
) -> tuple[list[BulkValue], list[str]]:
    """Locate all bulk data of instances, or their pixel data alone.

    Returns
    -------
    values
        In the order of the instances and of their tags.
    left_out
        Why values are not among them: one text each.
    """
    values: list[BulkValue] = []
    left_out: list[str] = []
    for found in items:
        for path in sorted(found.entry.bulk):
            if pixels_only and path not in PIXELS:
                continue
            try:
                values.append(bulk_value(archive, journals, found, path))
            except WadoError as e:
                left_out.append(f"{path} of {found.ref.sop_instance_uid}: {e}")
    return values, left_out
