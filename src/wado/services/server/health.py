"""Is it alive, is it ready, how is it doing: answered also while all threads for files hang."""

import asyncio
from collections.abc import AsyncIterable, Callable

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from wado.services.monitor import liveness, readiness
from wado.services.server.calls import Answer, Call, json_answer
from wado.services.server.service import Service

_NO_STORE = ("cache-control", "no-store")


async def livez(service: Service, _call: Call, _body: AsyncIterable[bytes]) -> Answer:
    """Say that the process answers, and that its threads get to new work."""
    return await _apart(_livez, service)


async def readyz(service: Service, _call: Call, _body: AsyncIterable[bytes]) -> Answer:
    """Ask every port, in bounded time: 200 once all that is needed answers, else 503."""
    return await _apart(_readyz, service)


async def metrics(service: Service, _call: Call, _body: AsyncIterable[bytes]) -> Answer:
    """Give the metrics of this process and of the archive in the text format of Prometheus."""
    return await _apart(_metrics, service)


async def _apart(work: Callable[[Service], Answer], service: Service) -> Answer:
    """Work in a thread that nothing else uses: also those of the event loop read files."""
    return await asyncio.get_running_loop().run_in_executor(service.probes, work, service)


def _livez(service: Service) -> Answer:
    status, value = liveness(service.pulse.stuck(), service.watch.store_answers)
    return _fresh(json_answer(value, status=status))


def _readyz(service: Service) -> Answer:
    status, value = readiness(service.watch.readiness())
    return _fresh(json_answer(value, status=status))


def _metrics(service: Service) -> Answer:
    body = generate_latest(service.registry)
    return Answer(200, [("content-type", CONTENT_TYPE_LATEST), _NO_STORE], (body,))


def _fresh(answer: Answer) -> Answer:
    answer.headers.append(_NO_STORE)
    return answer
