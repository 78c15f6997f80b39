"""Deletion of studies, series and instances, through the log (ADR 0009).

A request is published with the announcements of what it deletes, so all agree what came before it
and is deleted, and what came after it and stays. The consumer carries it out: tombstones first,
then records and index, then the files. Each step may be repeated after a crash.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import orjson

from wado import vitals
from wado.archive.aside import deleted_files, remove_copies, set_deleted_aside
from wado.archive.describe import documents_of, state_of_row, study_views
from wado.archive.gone import no_instance, no_series, no_study
from wado.archive.growth import OVERTAKEN, Growth, grow, must_be_ours
from wado.archive.journal import ON_REQUEST, Journals, deleted_line
from wado.archive.paths import (
    deletion_path,
    instance_path,
    series_document_path,
    study_document_path,
)
from wado.archive.reading import reading
from wado.dicom.uids import InstanceRef, SeriesRef, StudyRef
from wado.errors import NotFound, Unavailable
from wado.ports import Archive, InstanceStore, Level, Match, Message, Query
from wado.records import (
    DicomDeleteMeta,
    DicomImageRemoval,
    DicomStateMeta,
    DicomStoreMeta,
    Topic,
)

_MAX_JOURNALS = 128
"""Journals appended at a time; each is an open file."""
_MAX_UIDS = 500
"""Instances in one record, and files moved at a time."""
_MAX_SERIES = 100_000
_REMEMBERED = 100
"""Requests whose end the document of a study tells."""

Ref = StudyRef | SeriesRef | InstanceRef
T = TypeVar("T")


# ------------------------------------------------------------------ asking for it


def request_deletion(
    archive: Archive, ref: Ref, *, user_name: str = "", source_address: str = ""
) -> DicomDeleteMeta:
    """Publish the request to delete a study, series or instance; durable on return.

    Raises
    ------
    Unavailable
        The log can't be written now.
    """
    meta = DicomDeleteMeta(
        tenant_id=ref.tenant_id,
        study_instance_uid=ref.study_instance_uid,
        series_instance_uid="" if isinstance(ref, StudyRef) else ref.series_instance_uid,
        sop_instance_uid=ref.sop_instance_uid if isinstance(ref, InstanceRef) else "",
        delete_requested_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        trace_id=os.urandom(16).hex(),
        user_name=user_name,
        source_address=source_address,
    )
    archive.log.publish([Message(Topic.STORAGE, meta.key, meta.to_json())])
    return meta


def is_done(archive: Archive, meta: DicomDeleteMeta) -> bool:
    """Whether a deletion was carried out a short while ago."""
    done = read_deletions(archive.store, meta.ref.study)
    return done is not None and meta.trace_id in done.requests


def must_exist(archive: Archive, journals: Journals, ref: Ref) -> None:
    """Make sure that there is something to delete; what is not catalogued yet counts.

    Raises
    ------
    Gone
        It was deleted.
    NotFound
        There is no such study, series or instance.
    """
    match ref:
        case InstanceRef():
            view = journals.memory(ref.series)
            found = view is not None and ref.sop_instance_uid in view.entries
            files = archive.store.version(instance_path(ref)) is not None
            error = no_instance(journals, ref)
        case SeriesRef():
            view = journals.memory(ref)
            found = view is not None and bool(view.entries)
            files = next(archive.store.instances(ref), None) is not None
            error = no_series(journals, ref)
        case StudyRef():
            found = bool(study_views(archive, journals, ref))
            files = next(archive.store.instances(ref), None) is not None
            error = no_study(archive.store, ref)
    if not found and not files:
        raise error


# ------------------------------------------------------------------ doing it


def delete_instances(
    archive: Archive,
    journals: Journals,
    meta: DicomDeleteMeta,
    still_ours: Callable[[], bool] | None = None,
) -> int:
    """Carry out a deletion; how many instances were there. The caller commits last.

    `still_ours` tells whether no other consumer has it in hand: what that one did since is newer.

    Raises
    ------
    InvalidRequest
        The message names nothing that could be deleted.
    Unavailable
        A service does not answer; the message comes again.
    Unreadable
        The disk does not give a journal.
    """
    ref = meta.ref
    count = 0
    for group in in_groups(_series_of(archive, ref), _MAX_JOURNALS):
        count += _bury(archive, journals, meta, group)
        states: list[DicomStateMeta] = []
        for series in group:
            must_be_ours(still_ours)
            states += _tell(archive, journals, meta, series)
        if still_ours and not still_ours():
            for series in group:
                _take_back(archive, journals, meta, series)
        must_be_ours(still_ours)
        archive.index.put(states)
        for series in group:
            must_be_ours(still_ours)
            _clear(archive, journals, meta, series)
            vitals.goes_on()
    archive.store.delete(documents_of(study_document_path(ref.study)))
    _remember(archive.store, meta)
    return count


def _series_of(archive: Archive, ref: Ref) -> Sequence[SeriesRef]:
    """List the series: by the index, and by the files, as a crash may have come in between."""
    if isinstance(ref, InstanceRef):
        return [ref.series]
    if isinstance(ref, SeriesRef):
        return [ref]
    matches = (Match("study_instance_uid", "single", (ref.study_instance_uid,)),)
    rows = archive.index.search(Query(ref.tenant_id, Level.SERIES, matches, limit=_MAX_SERIES))
    at = (ref.tenant_id, ref.study_instance_uid)
    found = {SeriesRef(*at, row["series_instance_uid"]) for row in rows}
    found |= {file.ref.series for file in archive.store.instances(ref)}
    found |= {file.ref.series for file in deleted_files(archive.store, ref)}
    return sorted(found)


def _bury(
    archive: Archive, journals: Journals, meta: DicomDeleteMeta, group: Iterable[SeriesRef]
) -> int:
    """Append the tombstones of a group of series, together."""
    growths: list[Growth] = []
    for series in group:
        seen = journals.memory(series)
        chosen = _covered(meta, series, seen.entries if seen else ())
        if chosen:
            lines = [deleted_line(uid, ON_REQUEST, at=meta.delete_requested_at) for uid in chosen]
            growths.append(Growth(series, seen, b"".join(lines)))
    if grow(archive.store, journals, growths):
        raise Unavailable(OVERTAKEN)
    return sum(growth.lines.count(b"\n") for growth in growths)


def _tell(
    archive: Archive, journals: Journals, meta: DicomDeleteMeta, series: SeriesRef
) -> list[DicomStateMeta]:
    """Publish the records of a series; its new state, if the index has it."""
    view = journals.memory(series)
    row = archive.index.series(series)
    at = (series.tenant_id, series.study_instance_uid, series.series_instance_uid)
    gone = _covered(meta, series, view.deleted if view else ())
    messages = [
        Message(Topic.DICOM_IMAGE, meta.key, DicomImageRemoval(*at, list(uids)).to_json())
        for uids in in_groups(gone, _MAX_UIDS)
    ]
    states = [state_of_row(row, len(view.entries) if view else 0)] if row else []
    messages += [Message(Topic.DICOM_STATE, s.key, s.to_json()) for s in states]
    if messages:
        archive.log.publish(messages)
    return states


def _take_back(
    archive: Archive, journals: Journals, meta: DicomDeleteMeta, series: SeriesRef
) -> None:
    """Announce anew what others stored since: records of its removal may be behind its own."""
    view = journals.view(series)
    messages: list[Message] = []
    for uid in _covered(meta, series, view.entries if view else ()):
        assert view is not None
        entry, path = view.entries[uid], instance_path(_instance(series, uid))
        again = DicomStoreMeta(
            tenant_id=series.tenant_id,
            study_instance_uid=series.study_instance_uid,
            series_instance_uid=series.series_instance_uid,
            sop_instance_uid=uid,
            sop_class_uid=entry.sop_class_uid,
            transfer_syntax_uid=entry.transfer_syntax_uid,
            patient_id="",
            file_name=f"{uid}.dcm",
            file_path=path,
            file_size=entry.file_size,
            digest=entry.digest,
            received_at=entry.received_at,
            trace_id=meta.trace_id,
        )
        messages.append(Message(Topic.STORAGE, again.key, again.to_json()))
    if messages:
        archive.log.publish(messages)


def _clear(archive: Archive, journals: Journals, meta: DicomDeleteMeta, series: SeriesRef) -> None:
    """Set the files of a series aside, and remove what was made from them."""
    view = journals.memory(series)
    gone = _covered(meta, series, view.deleted if view else ())
    for uids in in_groups(gone, _MAX_UIDS):
        set_deleted_aside(archive.store, [instance_path(_instance(series, uid)) for uid in uids])
    if view is None or not view.entries:
        archive.store.delete(documents_of(series_document_path(series)))
        remove_copies(archive.store, series)
    else:
        remove_copies(archive.store, series, frozenset(gone))


def in_groups(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut a sequence into groups of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _covered(
    meta: DicomDeleteMeta, series: SeriesRef, sop_instance_uids: Iterable[str]
) -> list[str]:
    return sorted(uid for uid in sop_instance_uids if meta.covers(_instance(series, uid)))


def _instance(series: SeriesRef, sop_instance_uid: str) -> InstanceRef:
    return InstanceRef(
        series.tenant_id, series.study_instance_uid, series.series_instance_uid, sop_instance_uid
    )


# ------------------------------------------------------------------ remembering it


@dataclass(frozen=True, slots=True)
class Deletions:
    """What the document of a study tells of deletions in it: the last time, the last requests."""

    deleted_at: str
    requests: tuple[str, ...]


def read_deletions(store: InstanceStore, ref: StudyRef) -> Deletions | None:
    """Read what is remembered of deletions in a study."""
    path = deletion_path(ref)
    if store.version(path) is None:
        return None
    try:
        with reading(path), store.open(path) as file:
            value = orjson.loads(file.read())
    except NotFound:  # forgotten a moment ago
        return None
    return Deletions(value["deleted_at"], tuple(value["requests"]))


def remember_deletion(
    store: InstanceStore, ref: StudyRef, at: str, requests: Iterable[str]
) -> None:
    """Write down that something of a study was deleted."""
    value = {"deleted_at": at, "requests": list(requests)[-_REMEMBERED:]}
    store.put_document(deletion_path(ref), [orjson.dumps(value)])


def _remember(store: InstanceStore, meta: DicomDeleteMeta) -> None:
    """Say that a request was carried out: who asked waits for it."""
    study = meta.ref.study
    known = read_deletions(store, study)
    requests = [r for r in (known.requests if known else ()) if r != meta.trace_id]
    remember_deletion(store, study, meta.delete_requested_at, [*requests, meta.trace_id])
