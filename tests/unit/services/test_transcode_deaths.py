"""Webworkers that die over the transcode queue: what kills them is found, and all is on record."""

import threading
from dataclasses import replace
from threading import Event

import pytest

import copies
from attempts import Attempts, label_of, one, rows_of, some
from copies import HTJ2K_RPCL, convert_all, derived_of, store
from steps import batches, load_all, series_of
from wado.archive import statistics
from wado.archive.conversion import convert
from wado.archive.copies import Converted, Converter
from wado.archive.describe import describe_series
from wado.archive.journal import Journals
from wado.archive.paths import unfinished_path
from wado.archive.unfinished import Unfinished
from wado.errors import Unavailable
from wado.ports import Archive
from wado.records import Topic, TranscodeMeta
from wado.services import transcode_worker
from wado.services.transcode_worker import GROUP


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcode_worker, "_PAUSE_S", 0.01)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Attempts:
    return Attempts(monkeypatch)


DIED = "the webworker died while it worked on it, as one out of memory does"


class Death(BaseException):
    """Nobody takes anything back."""


def test_a_batch_that_killed_its_worker_is_worked_on_one_by_one(
    archive: Archive, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = some(3)
    store(archive, *datasets)
    Unfinished(archive.store, label_of(archive)).begin("0", 1, alone=False)
    at_once: list[int] = []
    running = threading.Semaphore(1)

    def alone(converter: Converter, meta: TranscodeMeta) -> Converted | None:
        at_once.append(int(running.acquire(blocking=False)))
        try:
            return attempts(converter, meta)
        finally:
            running.release()

    monkeypatch.setattr(transcode_worker, "convert", alone)
    convert_all(archive)
    assert at_once == [1, 1, 1]
    assert all(derived_of(archive, ds).copies for ds in datasets)
    assert archive.log.lag(Topic.TRANSCODE, GROUP) == 0


def test_what_kills_workers_is_found_and_put_on_record(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = some(3)
    store(archive, *datasets)
    poison = datasets[1]
    deaths = 0

    def deadly(converter: Converter, meta: TranscodeMeta) -> Converted | None:
        if meta.sop_instance_uid == str(poison.SOPInstanceUID):
            raise Death
        return convert(converter, meta)

    monkeypatch.setattr(transcode_worker, "convert", deadly)
    label = label_of(archive)
    while archive.log.lag(Topic.TRANSCODE, GROUP):
        assert deaths < 9, "it is tried for ever"
        try:
            one(archive)
        except Death:
            deaths += 1
    assert deaths == 1 + archive.transcode.attempts
    reason = derived_of(archive, poison).failures[HTJ2K_RPCL]
    assert "died 3 times" in reason
    assert all(derived_of(archive, ds).copies for ds in datasets if ds is not poison)
    assert archive.store.version(unfinished_path(label)) is None
    assert rows_of(archive, poison) == [*((n, False, DIED) for n in (1, 2, 3)), (4, False, reason)]
    for ds in datasets:
        if ds is not poison:
            *before, last = rows_of(archive, ds)
            assert last[1:] == (True, None)
            assert len(before) <= 1
            assert [row[1:] for row in before] == [(False, DIED)] * len(before)


def test_a_death_between_row_and_journal_is_on_record_and_no_copy_is_counted_twice(
    archive: Archive,
) -> None:
    (ds,) = some(1)
    store(archive, ds)
    kept = archive.store

    class DyingStore:
        def __getattr__(self, name: str) -> object:
            if name == "append":
                raise Death
            return getattr(kept, name)

    for _ in range(2):
        with pytest.raises(Death):
            one(replace(archive, store=DyingStore()))  # type: ignore[arg-type]
        load_all(archive)
    one(archive)
    assert rows_of(archive, ds) == [(1, False, DIED), (2, False, DIED), (3, True, None)]
    assert statistics.attempts(archive.warehouse) == statistics.Attempts(1, 2)
    assert statistics.failures(archive.warehouse) == []


def test_what_was_given_up_is_no_attempt(archive: Archive, attempts: Attempts) -> None:
    """Neither by itself nor where somebody died before."""
    (ds,) = some(1)
    store(archive, ds)
    for dead in (False, True):
        if dead:
            Unfinished(archive.store, label_of(archive)).begin("0", 1, alone=True)
        attempts.failing[str(ds.SOPInstanceUID)] = [Unavailable("away")]
        with pytest.raises(Unavailable):
            one(archive)
    one(archive)
    assert rows_of(archive, ds) == [(1, False, DIED), (2, True, None)]


def test_a_copy_that_is_there_is_not_called_fatal(archive: Archive) -> None:
    (ds,) = some(1)
    store(archive, ds)
    batch = next(batches(archive, Topic.TRANSCODE, GROUP))
    convert_all(archive)
    note = Unfinished(archive.store, batch.label)
    for _ in range(5):
        note.begin("0", 1, alone=True)
        note.count_death("0")
    with copies.a_worker(archive, Event()) as worker:
        worker.work_on(batch)
    assert derived_of(archive, ds).copies
    assert not derived_of(archive, ds).failures


def test_documents_are_written_though_the_worker_died_before_it_asked_for_it(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ds,) = some(1)
    store(archive, ds)
    assert describe_series(archive, Journals(archive.store), series_of(ds))
    archive.index.mark_described(archive.index.awaiting_description(9))
    index, failing = archive.index, True

    class Index:
        def __getattr__(self, name: str) -> object:
            if name == "await_description" and failing:
                raise KeyboardInterrupt
            return getattr(index, name)

    with pytest.raises(KeyboardInterrupt):
        one(replace(archive, index=Index()))  # type: ignore[arg-type]
    assert derived_of(archive, ds).copies, "it was announced"
    assert not archive.index.awaiting_description(9)
    failing = False
    one(archive)
    assert [ref for ref, _ in archive.index.awaiting_description(9)] == [series_of(ds)]
