"""Between deletion and forgetting: deleted instances are listed, restored, at last purged."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby

from wado import vitals
from wado.archive.aside import deleted_files
from wado.archive.check import meta_of_file
from wado.archive.delete import Ref, read_deletions
from wado.archive.derived import derived_lines
from wado.archive.journal import (
    ON_REQUEST,
    Entry,
    Journals,
    SeriesView,
    compacted_line,
    deleted_line,
    described_line,
)
from wado.archive.paths import deletion_path, instance_path, journal_path
from wado.archive.reading import must_answer, reading
from wado.archive.store import announce_instances
from wado.dicom.uids import InstanceRef, SeriesRef, StudyRef
from wado.errors import NotFound, Unreadable
from wado.ports import Archive, StoredFile
from wado.telemetry import get_logger

_log = get_logger("webworker")
_MAX_ANNOUNCED = 500
_SPARSE_FROM_BYTES = 1 << 20
_SPARSE_FACTOR = 3
"""How many times as long as its live lines a journal may be."""
_MAX_TRIES = 5
"""How often a journal that grows meanwhile is compacted anew."""


# ------------------------------------------------------------------ listing


@dataclass(slots=True)
class DeletedSeries:
    """Instances of a series that were deleted and can be restored."""

    ref: SeriesRef
    instances: int = 0
    bytes: int = 0
    first_s: float = 0.0
    """When the first of them was deleted (seconds of the epoch)."""


def deleted_series(archive: Archive, tenant_id: str | None = None) -> Iterator[DeletedSeries]:
    """List what can be restored, a series at a time."""
    files = deleted_files(archive.store, tenant_id)
    for ref, group in groupby(files, key=lambda file: file.ref.series):
        found = DeletedSeries(ref)
        for file in group:
            found.instances += 1
            found.bytes += file.file_size
            found.first_s = min(found.first_s or file.changed_s, file.changed_s)
        yield found


# ------------------------------------------------------------------ restoring


@dataclass(slots=True)
class Restored:
    """What became of deleted instances: those that come back, and those whose place is taken."""

    instances: int = 0
    taken: list[InstanceRef] = field(default_factory=list)


def restore(archive: Archive, ref: Ref) -> Restored:
    """Announce deleted originals anew and move them back; the consumer makes them visible.

    Of an instance that was deleted several times the copy that was deleted last comes back. What
    was announced and not moved, the consumer moves.

    Raises
    ------
    NotFound
        Nothing of it is kept.
    Unavailable
        The log can't be written now; it may be done again.
    """
    done = Restored()
    found = False
    copies: list[StoredFile] = []
    for instance, group in groupby(deleted_files(archive.store, ref), key=lambda f: f.ref):
        found = True
        if archive.store.version(instance_path(instance)) is not None:
            done.taken.append(instance)
            continue
        copies.append(max(group, key=lambda file: file.changed_s))
        if len(copies) == _MAX_ANNOUNCED:
            done.instances += _bring_back(archive, copies)
            copies = []
    done.instances += _bring_back(archive, copies)
    if not found:
        raise NotFound("nothing of it is kept: it was not deleted, or it was purged since")
    return done


def _bring_back(archive: Archive, copies: Sequence[StoredFile]) -> int:
    now = time.time()
    announce_instances(
        archive,
        [
            replace(meta_of_file(archive, replace(file, modified_s=now)), source_protocol="restore")
            for file in copies
        ],
    )
    archive.store.move({file.file_path: instance_path(file.ref) for file in copies})
    return len(copies)


# ------------------------------------------------------------------ purging


def purge(archive: Archive, journals: Journals, *, keep_s: float, limit: int) -> int:
    """Remove for good what was deleted longer ago than `keep_s`; how many files, at most `limit`.

    What remembers them goes with them: the tombstones, and the metadata in the journals. Where a
    journal can't be read, its series is left for another time.
    """
    before = time.time() - keep_s
    count = 0
    for study, group in groupby(deleted_files(archive.store), key=lambda file: file.ref.study):
        gone = 0
        for ref, files in groupby(group, key=lambda file: file.ref.series):
            old = _older(files, before, limit - count)
            if old and _forget(archive, journals, ref, before):
                archive.store.delete([file.file_path for file in old])
                gone += len(old)
                count += len(old)
        if gone:
            _forget_study(archive, study, before)
        if count >= limit:
            break
    return count


def _older(files: Iterable[StoredFile], before: float, most: int) -> list[StoredFile]:
    old: list[StoredFile] = []
    for file in files:
        vitals.goes_on()
        if file.changed_s < before and len(old) < most:
            old.append(file)
    return old


def _forget(archive: Archive, journals: Journals, ref: SeriesRef, before: float) -> bool:
    """Leave out of a journal what is not kept any more; whether that can be read.

    It comes before the files: without these nobody would look at the journal again.
    """
    try:
        for _ in range(_MAX_TRIES):
            view = journals.memory(ref)
            if view is None or compact(archive, view, before=before):
                break
    except Unreadable as e:
        _leave(archive, ref, e)
        return False
    return True


def _forget_study(archive: Archive, study: StudyRef, before: float) -> None:
    """Forget that a study was deleted, once nothing of it is kept."""
    if next(deleted_files(archive.store, study), None) is not None:
        return
    try:
        known = read_deletions(archive.store, study)
    except Unreadable as e:
        _leave(archive, study, e)
        return
    if known and _seconds(known.deleted_at) < before:
        archive.store.delete([deletion_path(study)])


def _leave(archive: Archive, ref: SeriesRef | StudyRef, why: Unreadable) -> None:
    """Report what the disk does not give; raises Unavailable if the store is away."""
    must_answer(archive.store)
    _log.error("not purged", path=ref.path, tenant_id=ref.tenant_id, reason=str(why))


def is_sparse(view: SeriesView) -> bool:
    """Whether most of a journal is lines that were replaced, or tell of deleted instances."""
    live = sum(_line_bytes(e) + sum(e.derived.line_bytes.values()) for e in view.entries.values())
    return view.size > _SPARSE_FROM_BYTES and view.size > _SPARSE_FACTOR * live


def _line_bytes(entry: Entry) -> int:
    """Length of a line without its end."""
    return entry.metadata_offset + entry.metadata_length - entry.line_offset


def compact(archive: Archive, view: SeriesView, *, before: float) -> bool:
    """Leave out of a journal what was replaced, and what was deleted before that time.

    False if it grew meanwhile.
    """
    path = journal_path(view.ref)
    young = {uid: at for uid, at in view.deleted.items() if _seconds(at) >= before}
    if not view.entries and not young:
        archive.store.delete([path], at=view.size)
        return archive.store.version(path) is None
    return archive.store.put_document(path, _lines(archive, view, young), at=view.size)


def _lines(archive: Archive, view: SeriesView, young: dict[str, str]) -> Iterator[bytes]:
    yield compacted_line()
    for uid, at in young.items():
        yield deleted_line(uid, ON_REQUEST, at=at)
    path = journal_path(view.ref)
    with reading(path), archive.store.open(path) as file:
        for entry in view.entries.values():
            file.seek(entry.line_offset)
            yield file.read(_line_bytes(entry))
            yield b"\n"
            yield derived_lines(entry.sop_instance_uid, entry.digest, entry.derived)
    if view.described:
        yield described_line(view.documents)


def _seconds(time_: str) -> float:
    return datetime.fromisoformat(time_).timestamp()
