"""Rebuild index, metadata and warehouse from the files alone."""

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import groupby

from wado.archive.aside import deleted_at, deleted_files, quarantine, remove_copies
from wado.archive.catalogue import Catalogued, catalogue, read_instance
from wado.archive.check import meta_of_file, series_files
from wado.archive.delete import remember_deletion
from wado.archive.describe import describe_series, describe_study
from wado.archive.journal import ON_REQUEST, Journals, deleted_line
from wado.archive.paths import deletion_path, instance_path, journal_path, series_document_path
from wado.archive.reading import must_give_others
from wado.dicom.uids import SeriesRef
from wado.errors import CannotUnderstand, Unreadable
from wado.ports import Archive, Message, StoredFile
from wado.records import DicomStateMeta, Table, Topic
from wado.telemetry import get_logger

_log = get_logger("reindex")
_BATCH = 500
_TABLES: dict[Topic, Table] = {
    Topic.DICOM_STATE: "dicom_state_meta",
    Topic.DICOM_IMAGE: "dicom_image_meta",
}


@dataclass(slots=True)
class Rebuilt:
    """How far a rebuild is."""

    instances: int = 0
    series: int = 0
    quarantined: int = 0
    unread: int = 0
    """Files that could not be read: they stay, and are announced by `wado check --repair`."""


def reindex(archive: Archive, progress: Callable[[Rebuilt], None] | None = None) -> Rebuilt:
    """Forget everything derived and make it again. The services must not run meanwhile."""
    done = Rebuilt()
    journals = Journals(archive.store)
    rebuild = _Rebuild(archive, journals, done)
    for state in archive.index.all_series():
        path = series_document_path(state.series)
        archive.store.delete([journal_path(state.series), f"{path}.json", f"{path}.json.gz"])
        # Last: should this end here, the next rebuild finds by it what else is to be forgotten.
        archive.index.put([_without_instances(state)])
    # What announces them is forgotten: they are made anew, of the originals that there are.
    remove_copies(archive.store)
    for table in (*_TABLES.values(), "dicom_object_meta"):
        archive.warehouse.clear(table)
    study = None
    for ref, files in series_files(archive):
        rebuild.series(ref, files)
        if study is not None and ref.study != study:
            describe_study(archive, journals, study)
        study = ref.study
        if progress:
            progress(done)
    if study is not None:
        describe_study(archive, journals, study)
    for _, group in groupby(deleted_files(archive.store), key=lambda file: file.ref.series):
        rebuild.deletions(group)
    return done


def _without_instances(state: DicomStateMeta) -> DicomStateMeta:
    return replace(state, number_of_series_related_instances=0)


class _Rebuild:
    def __init__(self, archive: Archive, journals: Journals, done: Rebuilt) -> None:
        self._archive = archive
        self._journals = journals
        self._done = done
        self._run = uuid.uuid4().hex
        self._loads = 0

    def series(self, ref: SeriesRef, files: list[StoredFile]) -> None:
        self._archive.store.delete([journal_path(ref)])
        self.deletions(deleted_files(self._archive.store, ref))
        for start in range(0, len(files), _BATCH):
            self._batch(files[start : start + _BATCH])
        describe_series(self._archive, self._journals, ref)
        self._done.series += 1

    def deletions(self, files: Iterable[StoredFile]) -> None:
        """Remember what was deleted from a series, by the files that are still kept of it."""
        store = self._archive.store
        times: dict[str, str] = {}
        for file in files:
            ref = file.ref
            view = self._journals.memory(ref.series)
            if view and ref.sop_instance_uid in view.deleted:
                continue
            if store.version(instance_path(ref)) is None:
                times[ref.sop_instance_uid] = max(
                    times.get(ref.sop_instance_uid, ""), deleted_at(file)
                )
        if times:
            lines = [deleted_line(uid, ON_REQUEST, at=at) for uid, at in sorted(times.items())]
            store.append({journal_path(ref.series): b"".join(lines)})
            if store.version(deletion_path(ref.study)) is None:
                remember_deletion(store, ref.study, max(times.values()), [])

    def _batch(self, files: list[StoredFile]) -> None:
        items: list[Catalogued] = []
        for file in files:
            try:
                items.append(read_instance(self._archive, meta_of_file(self._archive, file)))
            except CannotUnderstand as e:
                quarantine(self._archive.store, file.file_path, str(e))
                self._done.quarantined += 1
            except Unreadable as e:
                must_give_others(self._archive.store, file.ref.tenant_id, {file.file_path})
                _log.error("not read", path=file.file_path, reason=str(e))
                self._done.unread += 1
        catalogue(self._archive, self._journals, items, publish=self._load)
        if items:
            self._load_rows("dicom_object_meta", [i.meta.to_json() for i in items])
        self._done.instances += len(items)

    def _load(self, messages: list[Message]) -> None:
        """Load records straight into the warehouse: no loader runs now."""
        rows: dict[Table, list[bytes]] = defaultdict(list)
        for message in messages:
            rows[_TABLES[message.topic]].append(message.body)
        for table, bodies in rows.items():
            self._load_rows(table, bodies)

    def _load_rows(self, table: Table, rows: list[bytes]) -> None:
        self._loads += 1
        self._archive.warehouse.load(table, rows, f"reindex-{self._run}-{self._loads}")
