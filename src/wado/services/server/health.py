"""Is it alive, is it ready, how is it doing."""

from collections.abc import Callable
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from wado.dicom.matching import Level, Query
from wado.ports import Archive
from wado.records import Topic
from wado.services.server.calls import Answer, Call, json_answer
from wado.services.server.service import Service
from wado.telemetry import get_logger

_log = get_logger("wado-server")
_NO_STORE = ("cache-control", "no-store")


def livez(_service: Service, _call: Call) -> Answer:
    """Say that the process answers; asks nobody else."""
    return _fresh(json_answer({"status": "alive"}))


def readyz(service: Service, _call: Call) -> Answer:
    """Ask every port; 200 once all of them answer, else 503."""
    ports = {name: _answers(name, ask) for name, ask in _probes(service.archive).items()}
    ready = all(state == "ok" for state in ports.values())
    status = "ready" if ready else "not ready"
    return _fresh(json_answer({"status": status, "ports": ports}, status=200 if ready else 503))


def _probes(archive: Archive) -> dict[str, Callable[[], Any]]:
    nobody = Query("default", Level.STUDY, limit=1)
    return {
        "log": lambda: archive.log.lag(Topic.STORAGE, "wado-consumer"),
        "index": lambda: archive.index.search(nobody),
        "store": lambda: archive.store.version("incoming"),
        "cache": lambda: archive.cache.get("readyz"),
    }


def _answers(name: str, ask: Callable[[], Any]) -> str:
    try:
        ask()
    except Exception as e:  # noqa: BLE001 - whatever it is, the port does not answer
        _log.warning("port does not answer", port=name, reason=str(e))
        return "down"
    return "ok"


def metrics(service: Service, _call: Call) -> Answer:
    """Give the metrics of this process in the text format of Prometheus."""
    body = generate_latest(service.registry)
    return Answer(200, [("content-type", CONTENT_TYPE_LATEST), _NO_STORE], (body,))


def _fresh(answer: Answer) -> Answer:
    answer.headers.append(_NO_STORE)
    return answer
