"""A service without web server, watched: probes and metrics over HTTP, as Kubernetes asks."""

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import synthetic
from backing.program import free_port
from service import Service, wait_until
from steps import store
from wado.bootstrap import open_archive
from wado.settings import load_settings


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def consumer(tmp_path: Path, port: int) -> Iterator[Service]:
    environment = {"WADO_TELEMETRY__PORT": str(port)}
    service = Service(
        "consumer", "--root", "data", log_path=tmp_path / "consumer.log", env=environment
    )
    (tmp_path / "data").mkdir()
    service.start(ready=None)
    yield service
    service.stop()


def answer(port: int, page: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=60) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read().decode()
    except OSError:
        return 0, ""


def counted(port: int, metric: str) -> float:
    lines = answer(port, "/metrics")[1].splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(metric + "{"))


def test_a_consumer_is_watched_killed_and_counts_on(
    consumer: Service, port: int, tmp_path: Path
) -> None:
    wait_until(lambda: answer(port, "/readyz")[0] == 200, timeout_s=60, reason=consumer.log)
    assert json.loads(answer(port, "/livez")[1]) == {"status": "alive"}

    def catalogued(number: int) -> None:
        wait_until(
            lambda: counted(port, "wado_messages_catalogued_total") == number,
            timeout_s=60,
            reason=answer(port, "/metrics")[1] + consumer.log,
        )

    with open_archive(load_settings(storage={"root": tmp_path / "data"})) as archive:
        store(archive, *synthetic.ct_series(3))
        catalogued(3)
        working, _watching = _children(consumer.pid)
        os.kill(working, signal.SIGKILL)  # it is started again
        store(archive, *synthetic.ct_series(2, study="other"))
        catalogued(5)
    assert answer(port, "/livez")[0] == 200
    assert consumer.stop() == 0


def _children(pid: int) -> list[int]:
    """Processes of the service, in the order in which they were started."""
    return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
