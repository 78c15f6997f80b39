"""The webworker: one series never stops the others, and what is not done stays on the list."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import synthetic
from steps import catalogue_all, series_of, store
from wado.archive.journal import Journals, SeriesView
from wado.archive.paths import series_document_path
from wado.errors import NotFound
from wado.ports import Archive
from wado.services import webworker
from wado.services.webworker import Webworker
from wado.settings import WebworkerSettings

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


def test_series_that_cannot_be_described_stops_no_other(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = synthetic.ct(series="bad"), synthetic.ct(series="good")
    store(archive, bad, good)
    catalogue_all(archive)
    metadata = Journals.metadata

    def broken(journals: Journals, view: SeriesView) -> Iterator[bytes]:
        if view.ref == series_of(bad):
            raise NotFound("the journal ends early")
        return metadata(journals, view)

    monkeypatch.setattr(Journals, "metadata", broken)
    worker = Webworker(archive, AT_ONCE)
    assert worker.look(STOP) == 2
    assert worker.look(STOP) == 0, "not again until it changes"
    assert archive.store.version(f"{series_document_path(series_of(good))}.json")
    assert archive.store.version(f"{series_document_path(series_of(bad))}.json") is None


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
    assert worker.look(STOP) == 0
    assert count() == 2
    monkeypatch.setattr(webworker, "_LONGEST_WAIT_S", 0.0)
    worker.look(STOP)
    assert count() == 1
    assert worker.look(STOP) == 1
