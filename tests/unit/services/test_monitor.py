"""Health and metrics of services without a web server."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

import synthetic
from backing.program import free_port
from service import wait_until
from steps import store
from wado import vitals
from wado.errors import Unavailable
from wado.ports import Archive
from wado.services import monitor
from wado.settings import TelemetrySettings
from wado.vitals import Board


@pytest.fixture
def board() -> Iterator[Board]:
    board = Board(["consumer-1", "consumer-2"])
    vitals.use(board.row("consumer-1"))
    yield board
    vitals.use(Board(["alone"]).row("alone"))


@pytest.fixture
def url(archive: Archive, board: Board) -> Iterator[str]:
    settings = TelemetrySettings(port=free_port(), stuck_after_s=0.2)
    listener, stop = monitor.bound(settings), threading.Event()
    running = threading.Thread(
        target=monitor.run,
        args=(archive, settings, stop),
        kwargs={"board": board, "listener": listener},
    )
    running.start()
    yield f"http://127.0.0.1:{settings.port}"
    stop.set()
    running.join(60)
    assert not running.is_alive()


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read()


def status(url: str) -> tuple[int, Any]:
    code, body = get(url)
    return code, json.loads(body)


def test_alive_until_it_is_at_one_thing_for_too_long(url: str) -> None:
    assert status(f"{url}/livez") == (200, {"status": "alive"})
    with vitals.at("catalogue"):
        wait_until(lambda: status(f"{url}/livez")[0] == 503, timeout_s=60, reason="it is not stuck")
        (stuck,) = status(f"{url}/livez")[1]["stuck"]
        assert (stuck["process"], stuck["at"]) == ("consumer-1", "catalogue")
        metrics = get(f"{url}/metrics")[1].decode()
        assert 'wado_busy_seconds{activity="catalogue",process="consumer-1"}' in metrics
    assert status(f"{url}/livez")[0] == 200


def test_ready(url: str) -> None:
    wait_until(lambda: status(f"{url}/readyz")[0] == 200, timeout_s=60, reason="not ready")
    assert status(f"{url}/readyz")[1]["ports"]["store"] == "ok"


def test_metrics_of_all_processes_and_of_the_archive(url: str, archive: Archive) -> None:
    vitals.count("wado_messages_loaded", 5)
    store(archive, *synthetic.ct_series(3))
    deadline = time.monotonic() + 60
    while True:
        lines = get(f"{url}/metrics")[1].decode().splitlines()
        lag = 'wado_topic_lag{group="wado-consumer",topic="storage_queue"} 3.0'
        if lag in lines and "wado_series_awaiting_description 0.0" in lines:
            break
        assert time.monotonic() < deadline, lines
        time.sleep(0.2)
    for line in (
        'wado_messages_loaded_total{process="consumer-1"} 5.0',
        'wado_messages_loaded_total{process="consumer-2"} 0.0',
        'wado_port_up{port="log"} 1.0',
        'wado_dead_letters{topic="storage_queue"} 0.0',
    ):
        assert line in lines


def test_other_pages(url: str) -> None:
    assert get(f"{url}/else")[0] == 404


def test_a_port_that_is_taken_is_named(url: str) -> None:
    port = int(url.rpartition(":")[2])
    with pytest.raises(Unavailable, match=rf"telemetry.*{port}.*telemetry\.port"):
        monitor.bound(TelemetrySettings(port=port))
