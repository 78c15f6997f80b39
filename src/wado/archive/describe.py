"""Write the metadata documents of series and studies: DICOM JSON, ready to send."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields

import orjson

from wado.archive.journal import Journals, SeriesView, described_line
from wado.archive.json_documents import gzipped, json_array, rebase_bulk_uris
from wado.archive.paths import journal_path, series_document_path, study_document_path
from wado.dicom.uids import SeriesRef, StudyRef
from wado.ports import Archive, Level, Match, Query, Row
from wado.records import DicomStateMeta

_GZIP_LEVEL = 5
_ALL_SERIES = 100_000


def describe_series(archive: Archive, journals: Journals, ref: SeriesRef) -> SeriesView | None:
    """Bring the documents of a series up to date with its journal.

    Returns
    -------
    view
        What the documents show; None if the series grew meanwhile and is to be described again,
        or if it has no instances. It is growing, too, while the index counts other instances than
        the journal has: the consumer writes to the one before the other.
    """
    view = journals.view(ref)
    row = archive.index.series(ref)
    if (row["number_of_series_related_instances"] if row else 0) != _count(view):
        return None
    path = series_document_path(ref)
    if view is None:
        archive.store.delete(documents_of(path))
        return None
    if view.described:
        return view
    _put_both(archive, path, lambda: json_array(journals.metadata(view)))
    # Only if nothing was appended while we wrote; else the documents are not announced as current.
    if not archive.store.append({journal_path(ref): described_line()}, at=view.size):
        if journals.view(ref) is None:  # deleted while we wrote: nothing of it may stay
            archive.store.delete(documents_of(path))
        return None
    return journals.view(ref)


def documents_of(path: str) -> list[str]:
    """Paths of the ready documents of a series or study, from that without an ending."""
    return [f"{path}.json", f"{path}.json.gz", f"{path}.parts"]


def _count(view: SeriesView | None) -> int:
    return len(view.entries) if view else 0


def correct_count(archive: Archive, ref: SeriesRef, view: SeriesView | None) -> None:
    """Make the index agree with the journal; only when no append can be on its way."""
    count = _count(view)
    row = archive.index.series(ref)
    if row is None or row["number_of_series_related_instances"] == count:
        return
    archive.index.put([state_of_row(row, count)])


def state_of_row(row: Row, count: int) -> DicomStateMeta:
    """Make the state of a series from its row; it has `count` instances now."""
    known = {f.name for f in fields(DicomStateMeta)}
    values = {k: v for k, v in row.items() if k in known}
    values["number_of_series_related_instances"] = count
    return DicomStateMeta(**values)


def describe_study(archive: Archive, journals: Journals, ref: StudyRef) -> bool:
    """Write the documents of a study from those of its series; False if one is not ready.

    Beside them ``<study>.parts`` names the series and the length of their journals, by which a
    reader tells whether the documents are current.
    """
    views = study_views(archive, journals, ref)
    path = study_document_path(ref)
    if not views:
        archive.store.delete(documents_of(path))
        return True
    if not all(v.described for v in views):
        return False
    parts = study_parts(views)
    if _read_or_none(archive, f"{path}.parts") == parts:
        return True
    _put_both(archive, path, lambda: json_array(study_texts(journals, views)))
    archive.store.put_document(f"{path}.parts", [parts])
    if not study_views(archive, journals, ref):  # deleted while we wrote: nothing of it may stay
        archive.store.delete(documents_of(path))
    return True


def study_views(archive: Archive, journals: Journals, ref: StudyRef) -> list[SeriesView]:
    """All series of a study, in the order of the index."""
    matches = (Match("study_instance_uid", "single", (ref.study_instance_uid,)),)
    rows = archive.index.search(Query(ref.tenant_id, Level.SERIES, matches, limit=_ALL_SERIES))
    refs = (
        SeriesRef(ref.tenant_id, ref.study_instance_uid, row["series_instance_uid"]) for row in rows
    )
    return [view for r in refs if (view := journals.view(r)) is not None]


def study_texts(journals: Journals, views: Iterable[SeriesView]) -> Iterator[bytes]:
    """DICOM JSON of all instances of a study; bulk data URIs are relative to the study."""
    for view in views:
        prefix = b"series/%s/instances/" % view.ref.series_instance_uid.encode()
        for text in journals.metadata(view):
            yield rebase_bulk_uris(text, prefix)


def study_parts(views: Iterable[SeriesView]) -> bytes:
    """Fingerprint of the series of a study: which, and how long their journals are."""
    return orjson.dumps({v.ref.series_instance_uid: v.size for v in views})


def _put_both(archive: Archive, path: str, pieces: Callable[[], Iterable[bytes]]) -> None:
    archive.store.put_document(f"{path}.json", pieces())
    archive.store.put_document(f"{path}.json.gz", gzipped(pieces(), _GZIP_LEVEL))


def _read_or_none(archive: Archive, path: str) -> bytes | None:
    if archive.store.version(path) is None:
        return None
    with archive.store.open(path) as file:
        return file.read()
