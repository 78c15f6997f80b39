"""Health and metrics of a service: for Kubernetes, Prometheus, and whoever watches.

The web server answers them at its own address; the others are watched by a process beside them.
"""

import json
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from wado.archive.health import NEEDED, Queue, Readiness, Watch
from wado.errors import Unavailable
from wado.ports import Archive
from wado.settings import TelemetrySettings
from wado.telemetry import get_logger
from wado.vitals import HELP, Board

_log = get_logger("monitor")
_LISTEN_TIMEOUT_S = 10.0
Step = Mapping[str, Any]
"""Of which process, at what, for how many seconds."""


# ------------------------------------------------------------------ answers


def readiness(found: Readiness) -> tuple[int, dict[str, Any]]:
    """Make the answer of ``/readyz``: HTTP status, and JSON."""
    status = "not ready" if not found.ready else "degraded" if found.degraded else "ready"
    ports = {name: "ok" if port.answered else "down" for name, port in found.ports.items()}
    return 200 if found.ready else 503, {"status": status, "ports": ports}


def liveness(
    stuck: Sequence[Step], store_answers: Callable[[], bool]
) -> tuple[int, dict[str, Any]]:
    """Make the answer of ``/livez`` from the steps that take too long; 503 when there are some.

    Not while the store is away: whoever reads files hangs then, and would hang after a start, too.
    """
    if not stuck:
        return 200, {"status": "alive"}
    if store_answers():
        return 503, {"status": "stuck", "stuck": stuck}
    return 200, {"status": "waiting for the store", "stuck": stuck}


def stuck_steps(board: Board, *, stuck_after_s: float) -> list[Step]:
    """List what processes have been at for too long without progress."""
    return [
        {"process": process, "at": activity, "seconds": round(seconds, 1)}
        for process in board.processes
        for activity, seconds in board.busy_s(process).items()
        if seconds > stuck_after_s
    ]


# ------------------------------------------------------------------ metrics


class ArchiveCollector(Collector):
    """What ports and queues answer, asked when Prometheus asks, and no longer than a limit."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def describe(self) -> Iterator[Metric]:
        """Nothing is asked when this is registered."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Ask, and give what was answered; what is not known now is left out."""
        up = GaugeMetricFamily("wado_port_up", "Whether the port answers.", labels=["port"])
        took = GaugeMetricFamily(
            "wado_port_answer_seconds", "How long the last answer took.", labels=["port"]
        )
        now = self._watch.look()
        for name, found in now.ports.items():
            up.add_metric([name], float(found.answered))
            took.add_metric([name], found.seconds)
        yield up
        yield took
        yield from _of_queues(now.queues)
        if now.awaiting_description is not None:
            yield GaugeMetricFamily(
                "wado_series_awaiting_description",
                "Series whose metadata documents are not written yet (up to 10000).",
                value=now.awaiting_description,
            )


def _of_queues(queues: list[Queue]) -> Iterator[Metric]:
    lag = GaugeMetricFamily(
        "wado_topic_lag",
        "Messages that a group has not committed yet.",
        labels=["topic", "group"],
    )
    dead = GaugeMetricFamily(
        "wado_dead_letters", "Messages that were put aside (up to 10000).", labels=["topic"]
    )
    for queue in queues:
        if queue.lag is not None:
            lag.add_metric([queue.topic, queue.group], queue.lag)
        if queue.dead_letters is not None:
            dead.add_metric([queue.topic], queue.dead_letters)
    yield lag
    yield dead


class BoardCollector(Collector):
    """What the processes of a service counted, and what they are at."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        """Read the board."""
        for name, text in HELP.items():
            family = CounterMetricFamily(name, text, labels=["process"])
            for process in self._board.processes:
                family.add_metric([process], self._board.counts(process)[name])
            yield family
        busy = GaugeMetricFamily(
            "wado_busy_seconds",
            "For how long a process has been at something; it is absent when it waits.",
            labels=["process", "activity"],
        )
        for process in self._board.processes:
            for activity, seconds in self._board.busy_s(process).items():
                busy.add_metric([process, activity], seconds)
        yield busy


# ------------------------------------------------------------------ listener


def bound(settings: TelemetrySettings) -> socket.socket:
    """Open the socket of the listener.

    Raises
    ------
    Unavailable
        Another program has the port.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as e:
        raise Unavailable(
            f"telemetry: can't listen at {settings.host}:{settings.port}: {e.strerror or e}; "
            "choose another telemetry.port, or 0 for none"
        ) from e


def run(
    archive: Archive,
    settings: TelemetrySettings,
    stop: Event,
    *,
    board: Board,
    listener: socket.socket,
    needed: frozenset[str] = NEEDED,
) -> None:
    """Answer ``/livez``, ``/readyz`` and ``/metrics`` until `stop` is set.

    `needed` names the ports that the services that are watched need to begin with.
    """
    watch = Watch(archive)
    registry = CollectorRegistry()
    registry.register(BoardCollector(board))
    registry.register(ArchiveCollector(watch))
    answers = {
        "/livez": lambda: _json(
            *liveness(stuck_steps(board, stuck_after_s=settings.stuck_after_s), watch.store_answers)
        ),
        "/readyz": lambda: _json(*readiness(watch.readiness(needed))),
        "/metrics": lambda: (200, CONTENT_TYPE_LATEST, generate_latest(registry)),
    }
    server = _Server(
        listener.getsockname()[:2], partial(_Handler, answers), bind_and_activate=False
    )
    server.socket.close()
    server.socket = listener
    serving = Thread(target=server.serve_forever, args=(0.2,), name="monitor", daemon=True)
    serving.start()
    stop.wait()
    server.shutdown()
    serving.join()
    server.server_close()


def _json(status: int, value: dict[str, Any]) -> tuple[int, str, bytes]:
    return status, "application/json", json.dumps(value).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, _request: Any, _address: Any) -> None:
        """Pass over what goes wrong with one connection: a client that went away."""
        _log.debug("connection failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """One request, one answer."""

    timeout = _LISTEN_TIMEOUT_S
    server_version = "wado"
    sys_version = ""

    def __init__(self, answers: dict[str, Any], *arguments: Any) -> None:
        self._answers = answers
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Answer a GET."""
        ask = self._answers.get(self.path.partition("?")[0])
        if ask is None:
            status, media_type, body = _json(404, {"status": "no such page"})
        else:
            status, media_type, body = ask()
        self.send_response(status)
        self.send_header("content-type", media_type)
        self.send_header("content-length", str(len(body)))
        self.send_header("cache-control", "no-store")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the name is given

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is given
        """Say nothing: probes come every few seconds."""
