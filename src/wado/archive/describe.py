"""Write the metadata documents of series and studies: DICOM JSON, ready to send."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial

import orjson

from wado import vitals
from wado.archive.journal import Entry, Journals, SeriesView, described_line
from wado.archive.json_documents import gzipped, json_array, rebase_bulk_uris
from wado.archive.paths import journal_path, series_document_path, study_document_path
from wado.archive.reading import reading
from wado.dicom.media_types import media_type_of
from wado.dicom.uids import SeriesRef, StudyRef
from wado.errors import NotFound, Unreadable
from wado.ports import Archive, Level, Match, Message, Query, Row
from wado.records import DicomStateMeta, Topic

_GZIP_LEVEL = 5
_ALL_SERIES = 100_000
_TRIES = 3
_AVAILABLE_TRANSFER_SYNTAX_UID = "00083002"


def describe_series(archive: Archive, journals: Journals, ref: SeriesRef) -> SeriesView | None:
    """Bring the documents of a series up to date with its journal.

    Others may do so at the same time: what is announced in the journal are the documents that are
    there, and one that finds that it put older ones in their place writes them again.

    Returns
    -------
    view
        What the documents show; None if the series grew meanwhile and is to be described again,
        or if it has no instances. It is growing, too, while the index counts other instances than
        the journal has: the consumer writes to the one before the other.
    """
    for _ in range(_TRIES):
        view = journals.view(ref)
        row = archive.index.series(ref)
        if (row["number_of_series_related_instances"] if row else 0) != _count(view):
            return None
        path = series_document_path(ref)
        if view is None:
            archive.store.delete(documents_of(path))
            return None
        if view.described and are_there(archive, path, view.documents):
            return view
        documents = _put_both(archive, path, partial(_series_text, journals, view))
        # Only if nothing was appended while we wrote; else they are not announced as current.
        if archive.store.append({journal_path(ref): described_line(documents)}, at=view.size):
            return journals.view(ref)
        if journals.view(ref) is None:  # deleted while we wrote: nothing of it may stay
            archive.store.delete(documents_of(path))
            return None
    return None


def _series_text(journals: Journals, view: SeriesView) -> Iterator[bytes]:
    return json_array(text for _, text in shown(journals, view, view.ordered()))


def shown(
    journals: Journals, view: SeriesView, entries: Sequence[Entry]
) -> Iterator[tuple[Entry, bytes]]:
    """Read the DICOM JSON of instances as clients see it: it names their derived copies."""
    for entry, text in zip(entries, journals.metadata(view, entries), strict=True):
        yield entry, with_copies_named(entry, text)
        vitals.goes_on()


def available_transfer_syntaxes(entry: Entry) -> list[str]:
    """Values of Available Transfer Syntax UID (0008,3002): as stored, without loss, with loss.

    Of a video only the stored one is named: viewers tell by it that it is a video.
    """
    stored, copies = entry.transfer_syntax_uid, entry.derived.copies
    if media_type_of(stored).startswith("video/"):
        return [stored]
    others = sorted(copies.keys() - {stored}, key=lambda uid: (copies[uid].lossy, uid))
    return [stored, *others]


def with_copies_named(entry: Entry, text: bytes) -> bytes:
    """Name the copies of an instance in its DICOM JSON, which names the stored transfer syntax."""
    if not entry.derived.copies:
        return text
    values = available_transfer_syntaxes(entry)
    if len(values) == 1:
        return text
    alone = _available(values[:1])
    if text.count(alone) == 1:  # nearly always: then nothing has to be parsed
        return text.replace(alone, _available(values))
    metadata = orjson.loads(text)
    metadata[_AVAILABLE_TRANSFER_SYNTAX_UID] = {"vr": "UI", "Value": values}
    return orjson.dumps(metadata)


def _available(values: list[str]) -> bytes:
    element = orjson.dumps({"vr": "UI", "Value": values})
    return b'"%s":%s' % (_AVAILABLE_TRANSFER_SYNTAX_UID.encode(), element)


def are_there(archive: Archive, path: str, documents: Mapping[str, int]) -> bool:
    """Whether the documents at `path` are as long as was announced, by ending."""
    return all(
        (version := archive.store.version(f"{path}{ending}")) is not None and version[1] == size
        for ending, size in documents.items()
    )


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
    state = state_of_row(row, count)
    # First the record: were it the other way round, a crash in between would leave the warehouse
    # with the wrong count, and nothing would look at the series again.
    archive.log.publish([Message(Topic.DICOM_STATE, state.key, state.to_json())])
    archive.index.put([state])


def state_of_row(row: Row, count: int) -> DicomStateMeta:
    """Make the state of a series from its row; it has `count` instances now."""
    known = {f.name for f in fields(DicomStateMeta)}
    values = {k: v for k, v in row.items() if k in known}
    values["number_of_series_related_instances"] = count
    return DicomStateMeta(**values)


def describe_study(archive: Archive, journals: Journals, ref: StudyRef) -> bool:
    """Write the documents of a study from those of its series; False if one is not ready.

    Beside them ``<study>.parts`` names the series and the length of their journals, by which a
    reader tells whether the documents are current, and how long those are.
    """
    views = study_views(archive, journals, ref)
    path = study_document_path(ref)
    if not views:
        archive.store.delete(documents_of(path))
        return True
    if not all(v.described for v in views):
        return False
    parts = study_parts(views)
    announced = current_documents(archive, path, parts)
    if announced is not None and are_there(archive, path, announced):
        return True
    documents = _put_both(archive, path, lambda: json_array(study_texts(journals, views)))
    archive.store.put_document(f"{path}.parts", [parts, b"\n", orjson.dumps(documents)])
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
        for _, text in shown(journals, view, view.ordered()):
            yield rebase_bulk_uris(text, prefix)


def study_parts(views: Iterable[SeriesView]) -> bytes:
    """Fingerprint of the series of a study: which, and how long their journals are."""
    return orjson.dumps({v.ref.series_instance_uid: v.size for v in views})


def _put_both(archive: Archive, path: str, pieces: Callable[[], Iterable[bytes]]) -> dict[str, int]:
    """Write a document plain and gzipped; how long they are, by ending."""
    lengths: dict[str, int] = {}

    def counted(ending: str, data: Iterable[bytes]) -> Iterator[bytes]:
        lengths[ending] = 0
        for piece in data:
            lengths[ending] += len(piece)
            yield piece

    archive.store.put_document(f"{path}.json", counted(".json", pieces()))
    zipped = gzipped(pieces(), _GZIP_LEVEL)
    archive.store.put_document(f"{path}.json.gz", counted(".json.gz", zipped))
    return lengths


def current_documents(archive: Archive, path: str, parts: bytes) -> Mapping[str, int] | None:
    """How long the documents of a study are, by ending; None if they don't show these parts."""
    path = f"{path}.parts"
    try:
        with reading(path), archive.store.open(path) as file:
            announced, _, documents = file.read().partition(b"\n")
    except (NotFound, Unreadable):  # it is written anew
        return None
    if announced != parts:
        return None
    lengths: dict[str, int] = orjson.loads(documents) if documents else {}
    return lengths
