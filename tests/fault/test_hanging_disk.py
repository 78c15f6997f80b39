"""Reads that hang, as those of a network file system that is away: seen, and by whom it may help.

A process that hangs while the store answers is not alive. One that hangs because the store is away
waits: to start it again would not help, and it is not ready meanwhile.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

import synthetic
from bad_file import bad
from service import wait_until
from steps import GROUP, ref_of, store
from wado import vitals
from wado.archive.journal import Journals
from wado.archive.paths import instance_path
from wado.ports import Archive
from wado.records import Topic
from wado.services import monitor
from wado.services.consumer import catalogue_storage
from wado.services.server.service import THREADS, Service, open_service
from wado.settings import Settings, TelemetrySettings
from wado.vitals import Board
from web import fetch

WITHIN_S = 60.0
HANG = 0
STUCK_AFTER_S = 0.5
ALIVE = (200, {"status": "alive"})


@contextmanager
def in_thread(work: Any, *args: Any, stop: threading.Event, **kwargs: Any) -> Iterator[None]:
    thread = threading.Thread(target=work, args=args, kwargs=kwargs)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(WITHIN_S)
        assert not thread.is_alive()


@pytest.fixture
def url(archive: Archive) -> Iterator[str]:
    """Where a monitor answers for the consumer of this process."""
    board, stop = Board(["consumer-1"]), threading.Event()
    vitals.use(board.row("consumer-1"))
    settings = TelemetrySettings(port=0, stuck_after_s=STUCK_AFTER_S)
    listener = monitor.bound(settings)
    at = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with in_thread(monitor.run, archive, settings, stop, stop=stop, board=board, listener=listener):
        yield at
    vitals.use(Board(["alone"]).row("alone"))


def status(url: str, page: str) -> tuple[int, Any]:
    answer = requests.get(f"{url}{page}", timeout=WITHIN_S)
    return answer.status_code, answer.json()


def test_a_consumer_that_hangs_is_not_alive_unless_the_store_is_away(
    url: str, archive: Archive, settings: Settings
) -> None:
    ds = synthetic.ct()
    store(archive, ds)
    path = archive.store.local_path(instance_path(ref_of(ds)))
    assert path is not None
    stop = threading.Event()
    with (
        bad(path, HANG) as file,
        in_thread(catalogue_storage, archive, settings.consumer, stop, stop=stop),
    ):
        assert file.read.wait(WITHIN_S)
        wait_until(
            lambda: status(url, "/livez")[0] == 503, timeout_s=WITHIN_S, reason="it is not alive"
        )
        (stuck,) = status(url, "/livez")[1]["stuck"]
        assert (stuck["process"], stuck["at"]) == ("consumer-1", "catalogue")
        with bad(settings.storage.root / "incoming", HANG) as away:
            # Until somebody hangs in it, an answer may be one of before.
            wait_until(
                lambda: status(url, "/livez")[0] == 200 and away.read.is_set(),
                timeout_s=WITHIN_S,
                reason="it waits",
            )
            assert status(url, "/livez")[1]["status"] == "waiting for the store"
            assert status(url, "/readyz")[0] == 503
        file.mend()
        wait_until(lambda: status(url, "/livez") == ALIVE, timeout_s=WITHIN_S, reason="it works")
        wait_until(
            lambda: archive.log.lag(Topic.STORAGE, GROUP) == 0,
            timeout_s=WITHIN_S,
            reason="it goes on",
        )
    view = Journals(archive.store).view(ref_of(ds).series)
    assert view is not None
    assert list(view.entries) == [str(ds.SOPInstanceUID)]


@pytest.fixture
def service(archive: Archive, settings: Settings) -> Iterator[Service]:
    with open_service(
        archive, settings.server, default_tenant="default", stuck_after_s=STUCK_AFTER_S
    ) as service:
        yield service


def test_a_server_all_of_whose_threads_hang_is_not_alive_unless_the_store_is_away(
    service: Service, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1234")

    def livez() -> int:
        return fetch(service, "GET", "/livez").status

    with bad(path, HANG) as file:
        hanging = [service.threads.submit(path.read_bytes) for _ in range(THREADS - 1)]
        assert file.read.wait(WITHIN_S)
        assert not service.pulse.stuck()
        service.threads.submit(lambda: None).result(WITHIN_S)  # one thread is left
        # That for uploads, which none hangs in, may get to its turn a moment later.
        wait_until(lambda: not service.pulse.stuck(), timeout_s=WITHIN_S, reason="it is alive")
        hanging.append(service.threads.submit(path.read_bytes))
        wait_until(lambda: livez() == 503, timeout_s=WITHIN_S, reason="it is not alive")
        with bad(settings.storage.root / "incoming", HANG) as away:
            wait_until(
                lambda: livez() == 200 and away.read.is_set(),
                timeout_s=WITHIN_S,
                reason="it waits",
            )
            assert b"waiting for the store" in fetch(service, "GET", "/livez").body
            assert fetch(service, "GET", "/readyz").status == 503
        file.mend()
        wait_until(
            lambda: fetch(service, "GET", "/livez").body == b'{"status":"alive"}',
            timeout_s=WITHIN_S,
            reason="it answers again",
        )
    for each in hanging:
        assert isinstance(each.exception(WITHIN_S), OSError)
