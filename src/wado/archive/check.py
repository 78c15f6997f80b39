"""Compare files, journals, documents, index, warehouse and log with each other; repair.

The files are the truth; everything else is derived from them and can be made again.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial

from wado.archive.aside import bring_back, deleted_files, quarantine, set_deleted_aside
from wado.archive.derived import Copy
from wado.archive.describe import correct_count, describe_series
from wado.archive.digests import digest_of
from wado.archive.journal import Entry, Journals, SeriesView, deleted_line
from wado.archive.paths import DERIVED, derived_path, instance_path, journal_path
from wado.archive.reading import must_be_there, reading
from wado.archive.store import announce_instances
from wado.archive.wanted_copies import forget
from wado.dicom.part10 import read_file_meta
from wado.dicom.uids import InstanceRef, SeriesRef
from wado.errors import CannotUnderstand, NotFound, Unreadable
from wado.ports import Archive, StoredFile
from wado.records import DicomStoreMeta

_HEAD_BYTES = 1 << 16
_ABANDONED_S = 24 * 3600.0
_UNKNOWN_COPY_S = 6 * 3600.0
"""A copy may be written for so long, and wait to be announced, before it belongs to nothing."""


class Finding(StrEnum):
    """What can be wrong."""

    NOT_MOVED = "file of a deleted instance that was not set aside"
    SET_ASIDE = "instance whose file is among the deleted ones"
    NOT_ANNOUNCED = "file that is not in the metadata"
    FILE_MISSING = "instance whose file is missing"
    FILE_CHANGED = "file that differs from what was received"
    UNREADABLE = "file that can't be read as DICOM"
    UNREAD = "file that the disk does not give"
    COUNT_WRONG = "series whose count in the index is wrong"
    NOT_INDEXED = "series that is not in the index"
    STALE_INDEX = "series in the index without instances"
    NOT_IN_WAREHOUSE = "series whose rows in the warehouse are too few"
    ABANDONED = "temporary file of a process that died"
    TOO_MANY_IN_WAREHOUSE = "series whose rows in the warehouse are too many"
    COPY_MISSING = "derived copy whose file is missing"
    COPY_CHANGED = "derived copy that differs from what was made"
    COPY_UNKNOWN = "derived copy that belongs to nothing"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where, and whether it was repaired."""

    finding: Finding
    where: str
    detail: str = ""
    repaired: bool = False


@dataclass(slots=True)
class Report:
    """What a check saw."""

    studies: int = 0
    series: int = 0
    instances: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def unrepaired(self) -> list[Problem]:
        """What is still wrong."""
        return [p for p in self.problems if not p.repaired]


Progress = Callable[[Report], None]


def check(
    archive: Archive,
    *,
    repair: bool = False,
    deep: bool = False,
    tenant_id: str | None = None,
    progress: Progress | None = None,
    settle: Callable[[], object] | None = None,
) -> Report:
    """Compare everything; with `repair`, mend what is wrong; with `deep`, hash every file.

    What looks wrong is looked at again at the end, for in an archive at work it may just have been
    on its way. `settle` waits until that has arrived.
    """
    sight = _Check(archive, deep=deep, progress=progress or (lambda _report: None))
    suspects = list(sight.suspects(tenant_id))
    if suspects and settle is not None:
        settle()
    sight.judge(suspects, repair=repair)
    return sight.report


@dataclass(frozen=True, slots=True)
class _Fault:
    """Something that looks wrong, and how to mend it."""

    finding: Finding
    where: str
    detail: str = ""
    mend: Callable[[], object] | None = None


class _Check:
    def __init__(self, archive: Archive, *, deep: bool, progress: Progress) -> None:
        self._archive = archive
        self._deep = deep
        self._progress = progress
        self._journals = Journals(archive.store)
        self._unannounced: list[DicomStoreMeta] = []
        self.report = Report()

    def suspects(self, tenant_id: str | None) -> Iterator[SeriesRef]:
        """Walk everything and name the series in which something looks wrong."""
        rows = warehouse_counts(self._archive, tenant_id)
        studies: set[int] = set()  # hashes: a few bytes each, however many there are
        suspected: set[SeriesRef] = set()
        for ref, files in series_files(self._archive, tenant_id):
            self.report.series += 1
            self.report.instances += len(files)
            self.report.bytes += sum(file.file_size for file in files)
            studies.add(hash(ref.study))
            self.report.studies = len(studies)
            there = rows.get((ref.tenant_id, ref.study_instance_uid, ref.series_instance_uid), 0)
            if next(self._readable(ref, self._faults(ref, files, there)), None):
                suspected.add(ref)
                yield ref
            self._progress(self.report)
        for state in self._archive.index.all_series(tenant_id):
            if next(self._archive.store.instances(state.series), None) is None:
                yield state.series
        for ref, copies in series_files(self._archive, tenant_id, place=DERIVED):
            # Those that are announced were compared with the files of their series.
            faults = self._readable(ref, self._unknown_copies(ref, copies))
            if ref not in suspected and next(faults, None):
                yield ref

    def judge(self, suspects: Sequence[SeriesRef], *, repair: bool) -> None:
        """Look at series again, report what is wrong, and mend it."""
        for ref in suspects:
            files = list(self._archive.store.instances(ref))
            there = len(warehouse_instances(self._archive, ref))
            # What is mended first, is not found by what is compared after it.
            copies = self._archive.store.instances(ref, place=DERIVED)
            faults = self._faults(ref, files, there), self._unknown_copies(ref, copies)
            self._report(self._readable(ref, itertools.chain(*faults)), repair=repair)
            if repair:
                announce_instances(self._archive, self._unannounced)
            self._unannounced.clear()
        self._report(self._abandoned(), repair=repair)

    def _report(self, faults: Iterator[_Fault], *, repair: bool) -> None:
        for fault in faults:
            repaired = repair and fault.mend is not None
            if repaired and fault.mend is not None:
                fault.mend()
            self.report.problems.append(Problem(fault.finding, fault.where, fault.detail, repaired))

    def _abandoned(self) -> Iterator[_Fault]:
        store = self._archive.store
        for path in store.abandoned(older_than_s=_ABANDONED_S):
            yield _Fault(Finding.ABANDONED, path, mend=partial(store.delete, [path]))

    def _faults(self, ref: SeriesRef, files: Sequence[StoredFile], there: int) -> Iterator[_Fault]:
        view = self._journals.view(ref)
        known = view.entries if view else {}
        memory = self._journals.memory(ref)
        for file in files:
            try:
                yield from self._file_faults(file, memory)
            except Unreadable as e:  # not mended here: neither is the disk
                must_be_there(self._archive.store)
                yield _Fault(Finding.UNREAD, file.file_path, str(e))
        yield from self._lost(ref, files, known.values())
        view = self._journals.view(ref)
        yield from self._index_faults(ref, view, files)
        yield from self._warehouse_faults(ref, view, files, there)
        yield from self._copy_faults(ref, view, files)

    def _readable(self, ref: SeriesRef, faults: Iterator[_Fault]) -> Iterator[_Fault]:
        """Find a journal that can't be read: the other series are looked at all the same."""
        try:
            yield from faults
        except Unreadable as e:
            must_be_there(self._archive.store)
            yield _Fault(Finding.UNREAD, ref.path, str(e))

    def _file_faults(self, file: StoredFile, memory: SeriesView | None) -> Iterator[_Fault]:
        uid = file.ref.sop_instance_uid
        if memory and uid in memory.entries:
            yield from self._changed(file, memory.entries[uid])
        elif memory and file.modified_s < _seconds(memory.deleted.get(uid)):
            # The way from the tombstone to here was not finished, and isn't on the log.
            mend = partial(set_deleted_aside, self._archive.store, [file.file_path])
            yield _Fault(Finding.NOT_MOVED, file.file_path, mend=mend)
        else:
            yield from self._unknown(file)

    def _changed(self, file: StoredFile, entry: Entry) -> Iterator[_Fault]:
        detail = ""
        if file.file_size != entry.file_size:
            detail = f"{file.file_size} bytes, {entry.file_size} were received"
        elif self._deep and digest_of(self._archive.store, file.file_path) != entry.digest:
            detail = "the SHA-256 differs"
        if detail:  # never mended by itself: a person must decide which is right
            yield _Fault(Finding.FILE_CHANGED, file.file_path, detail)

    def _unknown(self, file: StoredFile) -> Iterator[_Fault]:
        path = file.file_path
        try:
            meta = meta_of_file(self._archive, file)
        except CannotUnderstand as e:
            mend = partial(quarantine, self._archive.store, path, str(e))
            yield _Fault(Finding.UNREADABLE, path, str(e), mend)
        except NotFound:
            return  # moved to the quarantine meanwhile
        else:
            mend = partial(self._unannounced.append, meta)
            yield _Fault(Finding.NOT_ANNOUNCED, path, mend=mend)

    def _lost(
        self, ref: SeriesRef, files: Sequence[StoredFile], entries: Iterable[Entry]
    ) -> Iterator[_Fault]:
        """Find instances without a file; mended, they are out of the metadata."""
        there = {file.ref.sop_instance_uid for file in files}
        store = self._archive.store
        for entry in [e for e in entries if e.sop_instance_uid not in there]:
            uid = entry.sop_instance_uid
            at = InstanceRef(ref.tenant_id, ref.study_instance_uid, ref.series_instance_uid, uid)
            if store.version(instance_path(at)) is not None:
                continue  # it came a moment ago
            if any(deleted_files(store, at)):
                back = partial(bring_back, store, at, digest=entry.digest)
                yield _Fault(Finding.SET_ASIDE, at.path, mend=back)
            else:
                lines = {journal_path(ref): deleted_line(uid, "file missing")}
                mend = partial(store.append, lines)
                yield _Fault(Finding.FILE_MISSING, at.path, mend=mend)

    def _copy_faults(
        self, ref: SeriesRef, view: SeriesView | None, files: Sequence[StoredFile]
    ) -> Iterator[_Fault]:
        """Find copies without their file; mended, they are forgotten, and made again."""
        entries = view.entries.values() if view else ()
        if any(entry.derived.copies for entry in entries):
            known = self._archive.store.instances(ref, place=DERIVED)
            sizes = {file.file_path: file.file_size for file in known}
            originals = {file.ref.sop_instance_uid: file for file in files}
            for entry in entries:
                for copy in entry.derived.copies.values():
                    original = originals.get(entry.sop_instance_uid)
                    if original is not None:
                        yield from self._copy_fault(original, entry, copy, sizes)

    def _copy_fault(
        self, original: StoredFile, entry: Entry, copy: Copy, sizes: Mapping[str, int]
    ) -> Iterator[_Fault]:
        uid = copy.transfer_syntax_uid
        path = derived_path(original.ref, uid)
        size, finding, detail = sizes.get(path), Finding.COPY_CHANGED, ""
        if size is None:
            finding = Finding.COPY_MISSING
        elif size != copy.file_size:
            detail = f"{size} bytes, {copy.file_size} were written"
        elif not (detail := self._differs(path, copy.digest) if self._deep else ""):
            return

        def remake() -> None:
            copy_of = (entry.sop_instance_uid, uid)
            forget(self._archive, self._journals, original.ref.series, [copy_of])
            self._announce_again([original])  # the consumer has it made again

        yield _Fault(finding, path, detail, remake)

    def _differs(self, path: str, digest: str) -> str:
        """How a copy differs from what was made; of one that can't be read, why."""
        try:
            return "" if digest_of(self._archive.store, path) == digest else "the SHA-256 differs"
        except Unreadable as e:
            must_be_there(self._archive.store)  # else all copies would look damaged
            return str(e)

    def _unknown_copies(self, ref: SeriesRef, copies: Iterable[StoredFile]) -> Iterator[_Fault]:
        """Find files that nothing announces, and that nobody is about to announce."""
        view = self._journals.view(ref)
        before = time.time() - _UNKNOWN_COPY_S
        for file in copies:
            entry = view.entries.get(file.ref.sop_instance_uid) if view else None
            known = entry is not None and file.transfer_syntax_uid in entry.derived.copies
            if not known and file.modified_s < before:
                mend = partial(self._archive.store.delete, [file.file_path])
                yield _Fault(Finding.COPY_UNKNOWN, file.file_path, mend=mend)

    def _index_faults(
        self, ref: SeriesRef, view: SeriesView | None, files: Sequence[StoredFile]
    ) -> Iterator[_Fault]:
        row = self._archive.index.series(ref)
        count = len(view.entries) if view else 0
        indexed = row["number_of_series_related_instances"] if row else 0
        if indexed == count or (files and not count):  # not even announced
            return

        def correct() -> None:
            correct_count(self._archive, ref, view)
            describe_series(self._archive, self._journals, ref)

        detail = f"{indexed} in the index, {count} there"
        if row is None:
            # The consumer puts the series of what is announced into the index.
            again = partial(self._announce_again, files[:1])
            yield _Fault(Finding.NOT_INDEXED, ref.path, detail, again)
        else:
            finding = Finding.COUNT_WRONG if count else Finding.STALE_INDEX
            yield _Fault(finding, ref.path, detail, correct)

    def _warehouse_faults(
        self, ref: SeriesRef, view: SeriesView | None, files: Sequence[StoredFile], there: int
    ) -> Iterator[_Fault]:
        known = view.entries if view else {}
        detail = f"{there} of {len(known)}"
        if there < len(known):
            # The consumer publishes the records again; rows that are there stay one.
            known_files = [f for f in files if f.ref.sop_instance_uid in known]
            again = partial(self._announce_again, known_files)
            yield _Fault(Finding.NOT_IN_WAREHOUSE, ref.path, detail, again)
        elif there > len(known):

            def delete() -> None:
                extra = warehouse_instances(self._archive, ref) - known.keys()
                self._archive.warehouse.delete(ref, sorted(extra))

            yield _Fault(Finding.TOO_MANY_IN_WAREHOUSE, ref.path, detail, delete)

    def _announce_again(self, files: Sequence[StoredFile]) -> None:
        for file in files:
            with suppress(NotFound, CannotUnderstand, Unreadable):
                self._unannounced.append(meta_of_file(self._archive, file))


def _seconds(time: str | None) -> float:
    return datetime.fromisoformat(time).timestamp() if time else 0.0


def series_files(
    archive: Archive, tenant_id: str | None = None, *, place: str = ""
) -> Iterator[tuple[SeriesRef, list[StoredFile]]]:
    """Originals, or the files of a place, a series at a time."""
    files = archive.store.instances(tenant_id, place=place)
    for ref, group in itertools.groupby(files, key=lambda f: f.ref.series):
        yield ref, list(group)


def warehouse_counts(archive: Archive, tenant_id: str | None) -> dict[tuple[str, str, str], int]:
    """Rows of `dicom_image_meta` by tenant, study and series."""
    where, parameters = ("where tenant_id = ?", (tenant_id,)) if tenant_id else ("", ())
    rows = archive.warehouse.query(
        "select tenant_id, study_instance_uid, series_instance_uid, count(*) as n"  # noqa: S608
        f" from dicom_image_meta {where} group by 1, 2, 3",
        parameters,
    )
    return {
        (r["tenant_id"], r["study_instance_uid"], r["series_instance_uid"]): r["n"] for r in rows
    }


def warehouse_instances(archive: Archive, ref: SeriesRef) -> set[str]:
    """SOP Instance UIDs of a series in `dicom_image_meta`."""
    rows = archive.warehouse.query(
        "select sop_instance_uid from dicom_image_meta"
        " where tenant_id = ? and study_instance_uid = ? and series_instance_uid = ?",
        (ref.tenant_id, ref.study_instance_uid, ref.series_instance_uid),
    )
    return {r["sop_instance_uid"] for r in rows}


def meta_of_file(archive: Archive, file: StoredFile) -> DicomStoreMeta:
    """Announce a file anew from what it holds.

    Raises
    ------
    CannotUnderstand
        It has no File Meta Information.
    Unreadable
        It can't be read now.
    """
    path = file.file_path
    with reading(path), archive.store.open(path) as opened:
        head = read_file_meta(opened.read(_HEAD_BYTES))
    digest = digest_of(archive.store, path)
    ref = file.ref
    return DicomStoreMeta(
        tenant_id=ref.tenant_id,
        study_instance_uid=ref.study_instance_uid,
        series_instance_uid=ref.series_instance_uid,
        sop_instance_uid=ref.sop_instance_uid,
        sop_class_uid=head.sop_class_uid,
        transfer_syntax_uid=head.transfer_syntax_uid,
        patient_id="",
        file_name=f"{ref.sop_instance_uid}.dcm",
        file_path=instance_path(ref),
        file_size=file.file_size,
        digest=digest,
        received_at=datetime.fromtimestamp(file.modified_s, UTC).isoformat(timespec="microseconds"),
        # The same file gets the same trace: announcing it twice is one row in the warehouse.
        trace_id=digest[:32],
        source_protocol="check",
    )
