"""The access log: what was asked and answered, published in batches by a thread of its own.

Requests only append to a queue of bounded length; if the log can't keep up, entries are dropped
and counted, never waited for. Metrics are counted in the same thread, off the hot path.
"""

import os
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from threading import Event, Thread
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry, Counter, Histogram

from wado.errors import WadoError
from wado.ports import Archive, Message
from wado.records import Topic, WadoAccessLog
from wado.telemetry import get_logger

_MAX_WAITING = 50_000
_MAX_BATCH = 1000
_LINES_OF_A_MESSAGE = 100
_INTERVAL_S = 0.25
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass(slots=True)
class Access:
    """One request that was answered; `started` and `duration_s` in seconds."""

    tenant_id: str
    method: str
    route: str
    path: str
    query: str
    status: int
    bytes_sent: int
    started: float
    duration_s: float
    client: str
    user_agent: str
    user_name: str
    trace_id: str


class AccessLog:
    """Takes `Access` from the event loop; a context manager that owns the publishing thread."""

    def __init__(self, archive: Archive, registry: CollectorRegistry) -> None:
        self._archive = archive
        self._queue: deque[Access] = deque()
        self._stop = Event()
        self._numbers = count(1)
        self._prefix = os.urandom(8).hex()
        self._logger = get_logger("wado-server")
        self._thread = Thread(target=self._run, name="access-log", daemon=True)
        self._requests = Counter(
            "wado_http_requests", "Requests.", ["method", "route", "status"], registry=registry
        )
        self._bytes = Counter("wado_http_sent_bytes", "Bytes sent.", ["route"], registry=registry)
        self._seconds = Histogram(
            "wado_http_request_seconds",
            "Time until the answer was handed over.",
            ["route"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._dropped = Counter(
            "wado_access_log_dropped", "Access log entries dropped.", registry=registry
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(5.0)

    def new_trace_id(self) -> str:
        """Make the identifier of a request: 32 hex digits, cheap to make."""
        return f"{self._prefix}{next(self._numbers):016x}"

    def add(self, access: Access) -> None:
        """Take an entry; never waits."""
        if len(self._queue) < _MAX_WAITING:
            self._queue.append(access)
        else:
            self._dropped.inc()

    def _run(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stop.wait(_INTERVAL_S)
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), _MAX_BATCH))]
                self._count(batch)
                if not self._publish(batch):
                    break

    def _count(self, batch: Sequence[Access]) -> None:
        by_route: dict[tuple[str, str, int], list[Access]] = defaultdict(list)
        for access in batch:
            by_route[access.method, access.route, access.status].append(access)
        for (method, route, status), accesses in by_route.items():
            self._requests.labels(method, route, str(status)).inc(len(accesses))
            self._bytes.labels(route).inc(sum(access.bytes_sent for access in accesses))
            seconds = self._seconds.labels(route)
            for access in accesses:
                seconds.observe(access.duration_s)

    def _publish(self, batch: Sequence[Access]) -> bool:
        """Publish; False (and the batch is dropped) if the log is down."""
        try:
            self._archive.log.publish(_messages(batch))
        except WadoError as e:
            self._dropped.inc(len(batch))
            self._logger.warning("access log not written", entries=len(batch), reason=str(e))
            return False
        return True


def _messages(batch: Sequence[Access]) -> Iterator[Message]:
    """Put the records of a tenant into few messages, one to a line: appending each costs most."""
    by_tenant: dict[str, list[bytes]] = defaultdict(list)
    for access in batch:
        by_tenant[access.tenant_id].append(_record(access).to_json())
    for tenant_id, lines in by_tenant.items():
        for start in range(0, len(lines), _LINES_OF_A_MESSAGE):
            body = b"\n".join(lines[start : start + _LINES_OF_A_MESSAGE])
            yield Message(Topic.WEBAPI_ACCESS, tenant_id, body)


def _record(access: Access) -> WadoAccessLog:
    at = datetime.fromtimestamp(access.started, UTC).isoformat(timespec="microseconds")
    return WadoAccessLog(
        tenant_id=access.tenant_id,
        requested_at=at,
        trace_id=access.trace_id,
        method=access.method,
        path=access.path,
        query=access.query,
        status=access.status,
        bytes_sent=access.bytes_sent,
        duration_ms=round(access.duration_s * 1000, 3),
        user_name=access.user_name,
        remote_address=access.client,
        user_agent=access.user_agent,
    )
