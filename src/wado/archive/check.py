"""Compare files, journals, documents, index, warehouse and log with each other; repair.

The files are the truth; everything else is derived from them and can be made again.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from wado.archive.describe import correct_count, describe_series
from wado.archive.journal import Entry, Journals, SeriesView, deleted_line
from wado.archive.paths import instance_path, journal_path
from wado.archive.store import announce_instances
from wado.dicom.part10 import read_file_meta
from wado.dicom.uids import SeriesRef
from wado.errors import CannotUnderstand
from wado.ports import Archive, StoredFile
from wado.records import DicomStateMeta, DicomStoreMeta

_READ_BYTES = 1 << 20
_HEAD_BYTES = 1 << 16


class Finding(StrEnum):
    """What can be wrong."""

    NOT_ANNOUNCED = "file that is not in the metadata"
    FILE_MISSING = "instance whose file is missing"
    FILE_CHANGED = "file that differs from what was received"
    UNREADABLE = "file that can't be read as DICOM"
    COUNT_WRONG = "series whose count in the index is wrong"
    NOT_INDEXED = "series that is not in the index"
    STALE_INDEX = "series in the index without instances"
    NOT_IN_WAREHOUSE = "series whose rows in the warehouse are too few"
    TOO_MANY_IN_WAREHOUSE = "series whose rows in the warehouse are too many"


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
) -> Report:
    """Compare everything; with `repair`, mend what is wrong; with `deep`, hash every file.

    Instances on their way through the log show up as problems: wait until it is read
    (`MessageLog.lag`), or check again.
    """
    return _Check(archive, repair=repair, deep=deep, progress=progress).run(tenant_id)


class _Check:
    def __init__(
        self, archive: Archive, *, repair: bool, deep: bool, progress: Progress | None
    ) -> None:
        self._archive = archive
        self._repair = repair
        self._deep = deep
        self._progress = progress or (lambda _report: None)
        self._journals = Journals(archive.store)
        self._report = Report()

    def run(self, tenant_id: str | None) -> Report:
        rows = warehouse_counts(self._archive, tenant_id)
        studies: set[int] = set()  # hashes: a few bytes each, however many there are
        for ref, files in series_files(self._archive, tenant_id):
            view = self._check_files(ref, files)
            self._check_index(ref, view)
            self._check_warehouse(ref, view, files, rows)
            self._report.series += 1
            studies.add(hash(ref.study))
            self._report.studies = len(studies)
            self._progress(self._report)
        for state in self._archive.index.all_series(tenant_id):
            self._check_state(state)
        return self._report

    def _found(
        self, finding: Finding, where: str, detail: str = "", *, repaired: bool = False
    ) -> None:
        self._report.problems.append(Problem(finding, where, detail, repaired))

    def _check_files(self, ref: SeriesRef, files: Sequence[StoredFile]) -> SeriesView | None:
        view = self._journals.view(ref)
        entries = dict(view.entries) if view else {}
        unknown: list[StoredFile] = []
        for file in files:
            self._report.instances += 1
            self._report.bytes += file.file_size
            entry = entries.pop(file.ref.sop_instance_uid, None)
            if entry is None:
                unknown.append(file)
            else:
                self._compare(file, entry)
        self._announce(unknown)
        self._bury(ref, [e.sop_instance_uid for e in entries.values()])
        return self._journals.view(ref)

    def _compare(self, file: StoredFile, entry: Entry) -> None:
        detail = ""
        if file.file_size != entry.file_size:
            detail = f"{file.file_size} bytes, {entry.file_size} were received"
        elif self._deep and digest_of(self._archive, file.file_path) != entry.digest:
            detail = "the SHA-256 differs"
        if detail:  # never repaired by itself: a person must decide which is right
            self._found(Finding.FILE_CHANGED, file.file_path, detail)

    def _announce(self, files: Sequence[StoredFile]) -> None:
        for file in files:
            try:
                meta = meta_of_file(self._archive, file)
            except CannotUnderstand as e:
                if self._repair:
                    self._archive.store.quarantine(file.file_path, str(e))
                self._found(Finding.UNREADABLE, file.file_path, str(e), repaired=self._repair)
                continue
            if self._repair:
                announce_instances(self._archive, [meta])
            self._found(Finding.NOT_ANNOUNCED, file.file_path, repaired=self._repair)

    def _bury(self, ref: SeriesRef, lost: Sequence[str]) -> None:
        """Take instances without a file out of the metadata: they can't be retrieved."""
        if not lost:
            return
        if self._repair:
            lines = b"".join(deleted_line(uid, "file missing") for uid in lost)
            self._archive.store.append({journal_path(ref): lines})
        for uid in lost:
            self._found(Finding.FILE_MISSING, f"{ref.path}/instances/{uid}", repaired=self._repair)

    def _check_index(self, ref: SeriesRef, view: SeriesView | None) -> None:
        row = self._archive.index.series(ref)
        count = len(view.entries) if view else 0
        if row is None:
            if count:
                self._found(Finding.NOT_INDEXED, ref.path, "run `wado reindex`")
            return
        if row["number_of_series_related_instances"] == count:
            return
        detail = f"{row['number_of_series_related_instances']} in the index, {count} there"
        if self._repair:
            correct_count(self._archive, ref, count)
            describe_series(self._archive, self._journals, ref)
        self._found(Finding.COUNT_WRONG, ref.path, detail, repaired=self._repair)

    def _check_warehouse(
        self,
        ref: SeriesRef,
        view: SeriesView | None,
        files: Sequence[StoredFile],
        rows: dict[tuple[str, str, str], int],
    ) -> None:
        there = rows.get((ref.tenant_id, ref.study_instance_uid, ref.series_instance_uid), 0)
        known = view.entries if view else {}
        if there == len(known):
            return
        too_few = there < len(known)
        if self._repair and too_few:
            # The consumer publishes the records again; rows that are there stay one.
            again = [f for f in files if f.ref.sop_instance_uid in known]
            announce_instances(self._archive, [meta_of_file(self._archive, f) for f in again])
        elif self._repair:
            extra = warehouse_instances(self._archive, ref) - known.keys()
            self._archive.warehouse.delete(ref, sorted(extra))
        self._found(
            Finding.NOT_IN_WAREHOUSE if too_few else Finding.TOO_MANY_IN_WAREHOUSE,
            ref.path,
            f"{there} of {len(known)}",
            repaired=self._repair,
        )

    def _check_state(self, state: DicomStateMeta) -> None:
        """Find series of the index whose files are all gone."""
        ref = state.series
        view = self._journals.view(ref)
        if view is not None:
            if next(self._archive.store.instances(ref), None):
                return  # the walk over the files has dealt with it
            self._bury(ref, list(view.entries))
        if self._repair:
            correct_count(self._archive, ref, 0)
            gone = warehouse_instances(self._archive, ref)
            self._archive.warehouse.delete(ref, sorted(gone))
        self._found(Finding.STALE_INDEX, ref.path, repaired=self._repair)


def series_files(
    archive: Archive, tenant_id: str | None = None
) -> Iterator[tuple[SeriesRef, list[StoredFile]]]:
    """Originals, a series at a time."""
    files = archive.store.instances(tenant_id)
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


def digest_of(archive: Archive, path: str) -> str:
    """SHA-256 of a file as hex digits."""
    with archive.store.open(path) as file:
        digest = hashlib.sha256()
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def meta_of_file(archive: Archive, file: StoredFile) -> DicomStoreMeta:
    """Announce a file anew from what it holds.

    Raises
    ------
    CannotUnderstand
        It has no File Meta Information.
    """
    with archive.store.open(file.file_path) as opened:
        head = read_file_meta(opened.read(_HEAD_BYTES))
    digest = digest_of(archive, file.file_path)
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
