"""Is it alive, is it ready, how is it doing."""

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from wado.services.monitor import readiness
from wado.services.server.calls import Answer, Call, json_answer
from wado.services.server.service import Service

_NO_STORE = ("cache-control", "no-store")


def livez(_service: Service, _call: Call) -> Answer:
    """Say that the process answers; asks nobody else."""
    return _fresh(json_answer({"status": "alive"}))


def readyz(service: Service, _call: Call) -> Answer:
    """Ask every port, in bounded time: 200 once all that is needed answers, else 503."""
    status, value = readiness(service.watch.readiness())
    return _fresh(json_answer(value, status=status))


def metrics(service: Service, _call: Call) -> Answer:
    """Give the metrics of this process and of the archive in the text format of Prometheus."""
    body = generate_latest(service.registry)
    return Answer(200, [("content-type", CONTENT_TYPE_LATEST), _NO_STORE], (body,))


def _fresh(answer: Answer) -> Answer:
    answer.headers.append(_NO_STORE)
    return answer
