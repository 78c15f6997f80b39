"""Metadata of studies, series and instances (PS3.18 §10.4.1.1.2), without opening DICOM files.

BulkDataURIs are kept relative, as nobody knows yet by which address a client calls us; they become
absolute on the way out, as clients in use take them for addresses as they are.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from zlib import crc32

from wado.archive.describe import (
    available_transfer_syntaxes,
    current_documents,
    shown,
    study_parts,
)
from wado.archive.journal import Entry, Journals, SeriesView
from wado.archive.json_documents import json_array, rebase_bulk_uris, rebased
from wado.archive.paths import series_document_path, study_document_path
from wado.archive.pieces import FileSlice
from wado.archive.retrieve import Item, series_view, views_of_study
from wado.dicom.uids import SeriesRef, StudyRef
from wado.errors import NotFound
from wado.ports import Archive

_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Metadata:
    """Metadata that were found and not read yet.

    Attributes
    ----------
    etag
        Changes with every change of them.
    path
        Of the resource they are the metadata of: ``studies/…``.
    shown
        The series that they show, and which of their instances, in this order.
    document
        Path of the ready documents, without ending; empty if none is current. Its BulkDataURIs are
        relative to the resource.
    lengths
        Of these documents, by ending, where they are known; one of another length is not current.
    """

    etag: str
    path: str
    shown: tuple[tuple[SeriesView, tuple[Entry, ...]], ...]
    document: str = ""
    lengths: Mapping[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many instances there are."""
        return sum(len(entries) for _, entries in self.shown)

    @property
    def has_bulk_data(self) -> bool:
        """Whether any value is given by BulkDataURI."""
        return any(e.bulk for _, entries in self.shown for e in entries)


def instance_metadata(found: Item) -> Metadata:
    """Find the metadata of an instance."""
    view, entry = found.view, found.entry
    etag = f"{view.identity:x}-{entry.metadata_offset:x}-{entry.metadata_length:x}"
    if entry.derived.copies:  # they are named
        etag += f"-{crc32(' '.join(available_transfer_syntaxes(entry)).encode()):x}"
    return Metadata(etag, found.ref.path, ((view, (entry,)),))


def series_metadata(journals: Journals, ref: SeriesRef) -> Metadata:
    """Find the metadata of a series; NotFound if there is none."""
    view = series_view(journals, ref)
    document = series_document_path(ref) if view.described else ""
    return Metadata(view.etag, ref.path, (_all_of(view),), document, view.documents)


def study_metadata(archive: Archive, journals: Journals, ref: StudyRef) -> Metadata:
    """Find the metadata of a study, series after series; NotFound if there is none."""
    views = views_of_study(archive, journals, ref)
    parts = study_parts(views)
    path = study_document_path(ref)
    lengths = current_documents(archive, path, parts)
    document = path if lengths is not None else ""
    etag = sha256(parts).hexdigest()[:32]
    return Metadata(etag, ref.path, tuple(map(_all_of, views)), document, lengths or {})


def _all_of(view: SeriesView) -> tuple[SeriesView, tuple[Entry, ...]]:
    return view, tuple(view.ordered())


def objects(
    journals: Journals, found: Metadata, base_url: str
) -> Iterator[tuple[SeriesView, Entry, bytes]]:
    """Read the metadata of each instance: its DICOM JSON, with absolute BulkDataURIs."""
    for view, entries in found.shown:
        prefix = f"{base_url}/{view.ref.path}/instances/".encode()
        for entry, text in shown(journals, view, entries):
            yield view, entry, rebase_bulk_uris(text, prefix)


def json_document(
    archive: Archive, journals: Journals, found: Metadata, base_url: str
) -> Iterator[bytes]:
    """Read the metadata as one JSON array, with absolute BulkDataURIs, piece by piece."""
    if found.document:
        try:
            file = archive.store.open(f"{found.document}.json")
        except NotFound:  # taken away since, or never written: the journals have all of it
            pass
        else:
            with file:
                if _is_as_long(found, ".json", file.seek(0, os.SEEK_END)):
                    file.seek(0)
                    pieces = iter(partial(file.read, _CHUNK_BYTES), b"")
                    yield from rebased(pieces, f"{base_url}/{found.path}/")
                    return
    yield from json_array(text for _, _, text in objects(journals, found, base_url))


def ready_document(archive: Archive, found: Metadata, *, gzip: bool) -> FileSlice | None:
    """Find the ready document if it can be sent as it is: it is current, and has no BulkDataURI."""
    if not found.document or found.has_bulk_data:
        return None
    ending = ".json.gz" if gzip else ".json"
    name = found.document + ending
    version = archive.store.version(name)
    if version is None or not _is_as_long(found, ending, version[1]):
        return None
    identity, size = version
    return FileSlice(name, 0, size, f"{identity}-{size}")


def _is_as_long(found: Metadata, ending: str, length: int) -> bool:
    """Whether a document is the one that was announced, not an older one put in its place."""
    return found.lengths.get(ending, length) == length
