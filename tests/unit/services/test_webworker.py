"""The webworker: one series never stops the others, and what is not done stays on the list."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import synthetic
from service import wait_until
from steps import catalogue_all, load_all, series_of, store
from wado.archive import grace
from wado.archive.aside import deleted_files
from wado.archive.commitment import Wanted, find_transaction, request_commitment
from wado.archive.delete import request_deletion
from wado.archive.journal import Journals, SeriesView
from wado.archive.paths import series_document_path
from wado.errors import NotFound
from wado.ports import Archive
from wado.records import CommitmentMeta
from wado.services import webworker
from wado.services.webworker import Webworker
from wado.settings import LogSettings, WebworkerSettings

AT_ONCE = WebworkerSettings(quiet_s=0)
STOP = threading.Event()


def test_describes_what_rests(archive: Archive) -> None:
    ds = synthetic.ct()
    store(archive, ds)
    catalogue_all(archive)
    worker = Webworker(archive, AT_ONCE)
    assert worker.look(STOP) == 1
    assert worker.look(STOP) == 0
    view = Journals(archive.store).view(series_of(ds))
    assert view is not None
    assert view.described


def test_leaves_alone_what_another_is_at(archive: Archive) -> None:
    taken, free = synthetic.ct(study="1"), synthetic.ct(study="2")
    store(archive, taken, free)
    catalogue_all(archive)
    study = series_of(taken).study
    worker = Webworker(archive, AT_ONCE)
    name = f"describe:{study.tenant_id}:{study.study_instance_uid}"
    with archive.cache.lock(name, ttl_s=200) as held:
        assert held
        assert worker.look(STOP) == 1
        assert archive.store.version(f"{series_document_path(series_of(taken))}.json") is None
        assert worker.look(STOP) == 0
    assert worker.look(STOP) == 1
    with archive.cache.lock(name, ttl_s=200) as held:
        assert held, "it was let go of"


def test_one_purges_at_a_time(archive: Archive) -> None:
    worker = Webworker(archive, AT_ONCE)
    store(archive, synthetic.ct())
    catalogue_all(archive)
    request_deletion(archive, series_of(synthetic.ct()).study)
    catalogue_all(archive)
    with archive.cache.lock("purge", ttl_s=200):
        worker.purge(deleted_keep_s=0)
        assert list(deleted_files(archive.store))
    worker.purge(deleted_keep_s=0)
    assert not list(deleted_files(archive.store))


def test_series_that_cannot_be_described_stops_no_other(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = synthetic.ct(series="bad"), synthetic.ct(series="good")
    store(archive, bad, good)
    catalogue_all(archive)
    metadata = Journals.metadata

    def broken(journals: Journals, view: SeriesView, *entries: Any) -> Iterator[bytes]:
        if view.ref == series_of(bad):
            raise NotFound("the journal ends early")
        return metadata(journals, view, *entries)

    monkeypatch.setattr(Journals, "metadata", broken)
    worker = Webworker(archive, AT_ONCE)
    assert worker.look(STOP) == 2
    assert worker.look(STOP) == 0, "not again until it changes"
    assert archive.store.version(f"{series_document_path(series_of(good))}.json")
    assert archive.store.version(f"{series_document_path(series_of(bad))}.json") is None


def test_what_has_expired_is_purged(archive: Archive) -> None:
    ds = synthetic.ct()
    store(archive, ds)
    catalogue_all(archive)
    request_deletion(archive, series_of(ds).study)
    catalogue_all(archive)
    worker = Webworker(archive, AT_ONCE)
    assert not worker.purge(deleted_keep_s=3600)
    assert any(deleted_files(archive.store))
    assert not worker.purge(deleted_keep_s=-60)
    assert not any(deleted_files(archive.store))


def test_journal_of_replaced_lines_is_compacted(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grace, "_SPARSE_FROM_BYTES", 0)
    archive = replace(archive, replace_duplicates=True)
    ds, other = synthetic.ct_series(2)
    store(archive, other)
    for number in range(8):
        ds.PatientComments = f"version {number}"
        store(archive, ds)
        catalogue_all(archive)
    journals = Journals(archive.store)
    before = journals.view(series_of(ds))
    assert before is not None
    texts = list(journals.metadata(before))
    assert Webworker(archive, AT_ONCE).look(STOP) == 1
    after = journals.view(series_of(ds))
    assert after is not None
    assert after.described
    assert after.size * 3 < before.size
    assert list(journals.metadata(after)) == texts == list(journals.metadata(before))


def test_run_works_on_commitments_and_purges(archive: Archive) -> None:
    ds, deleted = synthetic.ct(), synthetic.ct(study="deleted")
    store(archive, ds, deleted)
    catalogue_all(archive)
    load_all(archive)
    request_deletion(archive, series_of(deleted).study)
    catalogue_all(archive)
    meta = CommitmentMeta("clinic", "1.2.3", "trace")
    request_commitment(archive, meta, [Wanted(ds.SOPClassUID, ds.SOPInstanceUID)], keep_s=3600)
    stop = threading.Event()
    settings = WebworkerSettings(interval_s=0.05, quiet_s=0)
    running = threading.Thread(
        target=webworker.run,
        args=(archive, settings, LogSettings(), stop),
        kwargs={"deleted_keep_s": 0.0},
    )
    running.start()

    def done() -> bool:
        found = find_transaction(archive, "clinic", "1.2.3", keep_s=3600)
        return found.result is not None and not any(deleted_files(archive.store))

    try:
        wait_until(done, timeout_s=60, reason="the result is there, the deleted file is not")
    finally:
        stop.set()
        running.join()
    result = find_transaction(archive, "clinic", "1.2.3", keep_s=3600).result
    assert result is not None
    assert list(result) == ["00081199"]


def test_wrong_count_is_corrected_only_when_nothing_comes_any_more(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds = synthetic.ct()
    store(archive, ds)
    catalogue_all(archive)
    (state,) = archive.index.all_series()
    archive.index.put([replace(state, number_of_series_related_instances=2)])

    def count() -> Any:
        row = archive.index.series(series_of(ds))
        assert row is not None
        return row["number_of_series_related_instances"]

    worker = Webworker(archive, AT_ONCE)
    monkeypatch.setattr(webworker, "_LONGEST_WAIT_S", 3600.0)
    assert worker.look(STOP) == 0
    assert count() == 2
    monkeypatch.setattr(webworker, "_LONGEST_WAIT_S", 0.0)
    worker.look(STOP)
    assert count() == 1
    assert worker.look(STOP) == 1
