"""Two consumers on Kafka and PostgreSQL; one is frozen amid a batch that the other takes over."""

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Event, Lock, get_ident
from typing import Any, cast

import orjson
import pytest

import backing_kafka
import backing_postgresql
import synthetic
from freezing import is_frozen, thaw
from service import wait_until
from steps import GROUP, series_of, store
from wado.archive.catalogue import catalogue_batch
from wado.archive.check import check
from wado.archive.delete import is_done, request_deletion
from wado.archive.journal import Journals
from wado.archive.paths import journal_path
from wado.bootstrap import open_archive
from wado.dicom.uids import SeriesRef, StudyRef
from wado.errors import Unavailable
from wado.ports import Archive, InstanceStore, Message
from wado.records import Topic
from wado.services import webworker
from wado.services.consumer import LOADED, catalogue_storage, load_batch
from wado.services.webworker import Webworker
from wado.settings import Settings, load_settings

_FORK = multiprocessing.get_context("fork")
_OVERTAKEN = 7
_WITHIN_S = 60.0


@pytest.fixture
def settings(run_folder: Path, tmp_path: Path) -> Iterator[Settings]:
    """An archive on a Kafka and a PostgreSQL that are there for the run."""
    url = f"{backing_kafka.shared_kafka(run_folder)}/{backing_kafka.new_prefix()}"
    more: dict[str, Any] = {
        "partitions": 1,
        "replication_factor": 1,
        "min_in_sync_replicas": 1,
    }
    backing_kafka.prepared(url, **more)
    server = backing_postgresql.server(run_folder)
    database = server.database()
    yield load_settings(
        storage={"root": tmp_path / "data"},
        log={"url": url, "session_timeout_s": backing_kafka.SESSION_S, **more},
        index={"url": database.url},
    )
    server.drop(database)


class Freezing:
    """A port at which this process stops itself once, before a method.

    Records are published while the journals are written: it stops when those are, for the others
    can't write to a journal while one is amid it.
    """

    def __init__(self, archive: Archive, port: str, method: str, appending: Lock) -> None:
        self._port = getattr(archive, port)
        self._store = archive.store
        self._method = method
        self._appending = appending
        self.stopped = False

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._port, name)
        if name != self._method:
            return value

        def freeze(*args: Any, **kwargs: Any) -> Any:
            if not self.stopped:
                self.stopped = True
                if name == "publish":
                    wait_until(
                        lambda: all(
                            self._store.version(journal_path(_series(message)))
                            for message in args[0]
                        ),
                        timeout_s=_WITHIN_S,
                        reason="the journals are there",
                    )
                with self._appending:  # who wrote them was not done when they were there
                    # To this thread, and so at once: another may be slow to take it for all.
                    signal.pthread_kill(get_ident(), signal.SIGSTOP)
            return value(*args, **kwargs)

        return freeze


class Locking:
    """A store that holds a lock while it appends."""

    def __init__(self, store: InstanceStore, appending: Lock) -> None:
        self._store = store
        self._appending = appending

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def append(self, *args: Any, **kwargs: Any) -> bool:
        with self._appending:
            return self._store.append(*args, **kwargs)


def _series(message: Message) -> SeriesRef:
    body = orjson.loads(message.body)
    uids = body["study_instance_uid"], body["series_instance_uid"]
    return SeriesRef(body["tenant_id"], *uids)


def catalogue_once(settings: Settings, port: str, method: str) -> None:
    """Catalogue one batch, frozen on the way; the exit code says whether it went wrong."""
    with open_archive(settings) as archive:
        appending = Lock()
        late = replace(archive, store=cast("Any", Locking(archive.store, appending)))
        freezing = Freezing(late, port, method, appending)
        late = replace(late, **cast("Any", {port: freezing}))
        while True:  # until it was frozen, it goes on as the service does
            try:
                for batch in archive.log.read(Topic.STORAGE, GROUP, Event()):
                    catalogue_batch(late, Journals(archive.store), batch)
                    sys.exit(0)
            except Unavailable:
                if freezing.stopped:
                    sys.exit(_OVERTAKEN)


def catalogue_all(settings: Settings) -> None:
    with open_archive(settings) as archive:
        catalogue_storage(archive, settings.consumer, Event())


@contextmanager
def running(work: Callable[..., None], *args: Any) -> Iterator[BaseProcess]:
    process = _FORK.Process(target=work, args=args)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def is_stopped(process: BaseProcess) -> bool:
    assert process.pid is not None
    assert process.is_alive(), process.exitcode
    return is_frozen(process.pid)


def wake(process: BaseProcess) -> None:
    assert process.pid is not None
    thaw(process.pid)


def load_all(archive: Archive) -> None:
    """Load what was catalogued into the warehouse as the service does: again after a failure."""
    deadline = time.monotonic() + _WITHIN_S
    for topic, table in LOADED.items():
        while archive.log.lag(topic, "wado-warehouse"):
            stop = Event()
            try:
                for batch in archive.log.read(topic, "wado-warehouse", stop):
                    load_batch(archive, table, batch)
                    batch.commit()
                    if not archive.log.lag(topic, "wado-warehouse"):
                        stop.set()
            except Unavailable:
                assert time.monotonic() < deadline


def counted(archive: Archive, *datasets: Any) -> int:
    row = archive.index.series(series_of(datasets[0]))
    return row["number_of_series_related_instances"] if row else 0


@pytest.mark.parametrize(
    ("port", "method"),
    [("store", "open"), ("index", "put"), ("store", "append"), ("log", "publish")],
)
def test_who_wakes_up_brings_nothing_back(
    settings: Settings, port: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, grown = synthetic.ct_series(2), synthetic.ct_series(4, study="b", series="b")
    with open_archive(settings) as archive:
        store(archive, *gone, *grown[:2])
        with running(catalogue_once, settings, port, method) as frozen:
            wait_until(
                lambda: is_stopped(frozen), timeout_s=_WITHIN_S, reason="one consumer is frozen"
            )
            with running(catalogue_all, settings):
                wait_until(
                    lambda: counted(archive, *grown) == 2,
                    timeout_s=_WITHIN_S,
                    reason="the other took over",
                )
                store(archive, *grown[2:])
                study = StudyRef("clinic", str(gone[0].StudyInstanceUID))
                deletion = request_deletion(archive, study)
                wait_until(
                    lambda: is_done(archive, deletion),
                    timeout_s=_WITHIN_S,
                    reason="the other deletes",
                )
                wait_until(
                    lambda: counted(archive, *grown) == 4,
                    timeout_s=_WITHIN_S,
                    reason="the other goes on",
                )
                wake(frozen)
                frozen.join(_WITHIN_S)
                assert frozen.exitcode == _OVERTAKEN
        journals = Journals(archive.store)
        assert journals.view(series_of(gone[0])) is None
        view = journals.view(series_of(grown[0]))
        assert view is not None
        assert len(view.entries) == 4
        assert counted(archive, *grown) == 4
        # What it told the index of the deleted series, the webworker takes back.
        monkeypatch.setattr(webworker, "_LONGEST_WAIT_S", 0.0)
        worker = Webworker(archive, settings.webworker.model_copy(update={"quiet_s": 0.0}))
        for _ in range(2):
            worker.look(Event())
        assert counted(archive, *gone) == 0
        load_all(archive)
        assert check(archive).problems == []
        (state,) = archive.warehouse.query(
            "SELECT number_of_series_related_instances AS n FROM dicom_state_meta"
            " WHERE series_instance_uid = ?",
            [str(grown[0].SeriesInstanceUID)],
        )
        assert state["n"] == 4
