"""wado-webworker: metadata of series that changed, commitments, copies, and what has expired."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from threading import Event, Thread

from wado import vitals
from wado.archive.commitment import forget_commitments, work_on
from wado.archive.describe import correct_count, describe_series, describe_study
from wado.archive.grace import compact, is_sparse, purge
from wado.archive.health import readers
from wado.archive.journal import Journals
from wado.archive.reading import must_answer
from wado.dicom.uids import SeriesRef, StudyRef
from wado.errors import InvalidMessage, OutOfResources, Unavailable, Unreadable, WadoError
from wado.ports import Archive, Batch, Delivered
from wado.records import CommitmentMeta, Topic
from wado.services import transcode_worker
from wado.settings import LogSettings, WebworkerSettings
from wado.telemetry import get_logger

_log = get_logger("webworker")
_LOOK_AT = 1000
_LONGEST_WAIT_S = 30.0
"""A series that never rests is described after this long all the same."""
_TRIM_INTERVAL_S = 60.0
_PURGE_INTERVAL_S = 300.0
_MAX_PURGED = 1000
"""Files removed at a time: series are described in between."""
_WEEK_S = 7 * 86400.0
_COMMITMENT_GROUP = "wado-commitment"
_BACK_OFF_S = 2.0
_SETTLE_S = 15.0
_SETTLE_POLL_S = 0.1
_TOGETHER = 50
"""Studies that are described, and then taken off the waiting list in one transaction."""
_DESCRIBE_LOCK_S = 60.0
"""For how long others leave a study alone, should its webworker die or be slow."""


@dataclass(slots=True)
class _Waiting:
    version: int
    changed_s: float
    first_seen_s: float


def run(
    archive: Archive,
    settings: WebworkerSettings,
    log_settings: LogSettings,
    stop: Event,
    *,
    deleted_keep_s: float = _WEEK_S,
) -> None:
    """Describe series at rest, make derived copies, work on commitments, until `stop` is set.

    Now and then the log is trimmed, and what has expired is purged. Several webworkers share the
    work by locks of the cache, which only spare double work: all of it may be done twice.
    """
    failures: list[BaseException] = []

    def guarded(work: Callable[[Archive, Event], None]) -> None:
        try:
            work(archive, stop)
        except BaseException as e:  # noqa: BLE001 - the main thread raises it again
            failures.append(e)
            stop.set()

    threads = [
        Thread(target=guarded, args=(work,), name=name, daemon=True)
        for name, work in (("commitments", work_on_commitments), ("copies", transcode_worker.run))
    ]
    for thread in threads:
        thread.start()
    try:
        _describe_and_purge(archive, settings, log_settings, stop, deleted_keep_s=deleted_keep_s)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def _describe_and_purge(
    archive: Archive,
    settings: WebworkerSettings,
    log_settings: LogSettings,
    stop: Event,
    *,
    deleted_keep_s: float,
) -> None:
    worker = Webworker(archive, settings)
    next_trim_s = time.monotonic() + _TRIM_INTERVAL_S
    purge_interval_s = min(max(deleted_keep_s, settings.interval_s), _PURGE_INTERVAL_S)
    next_purge_s = time.monotonic() + purge_interval_s
    while not stop.is_set():
        try:
            began = time.monotonic()
            worker.look(stop)
            vitals.count("wado_describe_seconds", time.monotonic() - began)
            if time.monotonic() >= next_trim_s:
                next_trim_s = time.monotonic() + _TRIM_INTERVAL_S
                with vitals.at("housekeeping"):
                    _trim(archive, keep_s=log_settings.retention_s)
            if time.monotonic() >= next_purge_s:
                with vitals.at("housekeeping"):
                    more = worker.purge(deleted_keep_s=deleted_keep_s)
                next_purge_s = time.monotonic() + (0 if more else purge_interval_s)
        except (Unavailable, OutOfResources) as e:
            _log.warning("waiting", reason=str(e))
            vitals.count("wado_waits")
        stop.wait(settings.interval_s)


def _trim(archive: Archive, *, keep_s: float) -> None:
    with archive.cache.lock("trim", ttl_s=_TRIM_INTERVAL_S) as held:
        if held:
            for topic in Topic:
                archive.log.trim(topic, readers(topic), keep_s=keep_s)


def work_on_commitments(archive: Archive, stop: Event) -> None:
    """Find the results of storage commitments; the log gives each to one worker at a time."""
    journals = Journals(archive.store)
    while not stop.is_set():
        try:
            for batch in archive.log.read(
                Topic.COMMITMENT, _COMMITMENT_GROUP, stop, max_messages=1
            ):
                with vitals.at("commitment"):
                    for message in batch.messages:
                        _commit_one(archive, journals, batch, message, stop)
                    batch.commit()
        except (Unavailable, OutOfResources) as e:
            _log.warning("waiting", doing="storage commitment", reason=str(e))
            stop.wait(_BACK_OFF_S)


def _commit_one(
    archive: Archive, journals: Journals, batch: Batch, message: Delivered, stop: Event
) -> None:
    try:
        meta = CommitmentMeta.from_json(message.body)
        done = work_on(archive, journals, meta, lambda: _settle(archive, stop))
    except Unreadable as e:
        must_answer(archive.store)
        batch.reject(message, f"its request can't be read: {e}")
        return
    except InvalidMessage as e:
        batch.reject(message, str(e))
        return
    if done:
        _log.info("storage commitment", tenant_id=meta.tenant_id, uid=meta.transaction_uid)


def _settle(archive: Archive, stop: Event) -> None:
    """Wait until what was stored before now is in the warehouse, but not for ever."""
    end = time.monotonic() + _SETTLE_S
    for topic, group in ((Topic.STORAGE, "wado-consumer"), (Topic.DICOM_IMAGE, "wado-warehouse")):
        while archive.log.lag(topic, group) and time.monotonic() < end and not stop.is_set():
            stop.wait(_SETTLE_POLL_S)


class Webworker:
    """Remembers since when series have been waiting."""

    def __init__(self, archive: Archive, settings: WebworkerSettings) -> None:
        self._archive = archive
        self._quiet_s = settings.quiet_s
        self._journals = Journals(archive.store)
        self._waiting: dict[SeriesRef, _Waiting] = {}

    def look(self, stop: Event) -> int:
        """Describe the series that rest; how many were described."""
        now = time.monotonic()
        listed = self._archive.index.awaiting_description(_LOOK_AT)
        due: list[tuple[SeriesRef, int]] = []
        waiting: dict[SeriesRef, _Waiting] = {}
        for ref, version in listed:
            known = self._waiting.get(ref) or _Waiting(version, now, now)
            if known.version != version:
                known.version, known.changed_s = version, now
            waiting[ref] = known
            if now - known.changed_s >= self._quiet_s:
                due.append((ref, version))
            elif now - known.first_seen_s >= _LONGEST_WAIT_S:
                due.append((ref, version))
                known.first_seen_s = now  # one that grows for hours is not written all the time
        self._waiting = waiting
        return self._describe(due, stop)

    def purge(self, *, deleted_keep_s: float) -> bool:
        """Remove for good what has expired, unless another does; whether there is more of it."""
        archive = self._archive
        with archive.cache.lock("purge", ttl_s=_PURGE_INTERVAL_S) as held:
            if not held:
                return False
            files = purge(archive, self._journals, keep_s=deleted_keep_s, limit=_MAX_PURGED)
            try:
                results = forget_commitments(archive, keep_s=archive.commitments_keep_s)
            except Unreadable as e:
                must_answer(archive.store)
                results = 0
                _log.error("not purged", what="commitments", reason=str(e))
        if files or results:
            _log.info("purged", deleted_files=files, commitments=results)
        return files >= _MAX_PURGED

    def _describe(self, due: list[tuple[SeriesRef, int]], stop: Event) -> int:
        of_study: dict[StudyRef, list[tuple[SeriesRef, int]]] = defaultdict(list)
        for ref, version in due:
            of_study[ref.study].append((ref, version))
        studies, count = iter(of_study.items()), 0
        while some := list(islice(studies, _TOGETHER)):
            count += self._describe_together(some, stop)
        if count:
            _log.info("described", series=count)
            vitals.count("wado_series_described", count)
        return count

    def _describe_together(
        self, studies: Iterable[tuple[StudyRef, list[tuple[SeriesRef, int]]]], stop: Event
    ) -> int:
        """Describe series of studies that no other webworker is at; how many were described.

        The locks are held until the waiting list knows, or others would look at them once more.
        """
        done: list[tuple[SeriesRef, int]] = []
        with ExitStack() as locks:
            for study, series in studies:
                if stop.is_set():
                    break
                name = f"describe:{study.tenant_id}:{study.study_instance_uid}"
                lock = self._archive.cache.lock(name, ttl_s=_DESCRIBE_LOCK_S)
                if locks.enter_context(lock):
                    with vitals.at("describe"):
                        done += self._describe_study(study, series)
            if done:
                self._archive.index.mark_described(done)
        for ref, _ in done:
            self._waiting.pop(ref, None)
        return len(done)

    def _describe_study(
        self, study: StudyRef, series: list[tuple[SeriesRef, int]]
    ) -> list[tuple[SeriesRef, int]]:
        done = [(ref, version) for ref, version in series if self._describe_one(ref)]
        if done:
            with _only_this_fails(self._archive, study):
                describe_study(self._archive, self._journals, study)
        return done

    def _describe_one(self, ref: SeriesRef) -> bool:
        """Describe a series; whether it is done with until it changes again."""
        described = True
        with _only_this_fails(self._archive, ref):
            try:
                described = self._is_described(ref)
            except Unreadable:
                if self._rests_long(ref):
                    raise
                must_answer(self._archive.store)
                return False  # it may pass
        vitals.goes_on()
        if described:
            return True
        if self._rests_long(ref):
            view = self._journals.view(ref)
            if view or next(self._archive.store.instances(ref), None) is None:
                # Nothing comes any more, and yet index and journal disagree: the journal is right.
                correct_count(self._archive, ref, view)
        return False

    def _is_described(self, ref: SeriesRef) -> bool:
        memory = self._journals.memory(ref)
        if memory is not None and is_sparse(memory):
            compact(self._archive, memory, before=0.0)  # all tombstones stay
        return describe_series(self._archive, self._journals, ref) is not None

    def _rests_long(self, ref: SeriesRef) -> bool:
        return time.monotonic() - self._waiting[ref].changed_s >= _LONGEST_WAIT_S


@contextmanager
def _only_this_fails(archive: Archive, ref: SeriesRef | StudyRef) -> Iterator[None]:
    """Let one that can't be described not stop the others; it is served without documents."""
    try:
        yield
    except WadoError as e:
        if isinstance(e, Unreadable):
            must_answer(archive.store)  # else the store is away, and waited for
        elif isinstance(e, Unavailable | OutOfResources):
            raise
        _log.error("not described", path=ref.path, tenant_id=ref.tenant_id, reason=str(e))
