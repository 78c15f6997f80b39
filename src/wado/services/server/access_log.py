"""The access log: what was asked and answered, published in batches by a thread of its own.

Requests only append to a queue, bounded in entries and in bytes; if the log can't keep up, entries
are dropped and counted, never waited for. Metrics are counted in the same thread, off the hot path.
"""

import os
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import count
from threading import Event, Thread
from time import perf_counter, time
from types import TracebackType
from typing import NamedTuple, Self

import orjson
from prometheus_client import CollectorRegistry, Counter, Histogram

from wado.errors import WadoError
from wado.ports import Archive, Message
from wado.records import Topic
from wado.telemetry import get_logger

_MAX_WAITING = 50_000
_MAX_WAITING_BYTES = 32 << 20
_ENTRY_BYTES = 700
"""Memory of an entry beside its texts, about."""
_MAX_BATCH = 1000
_LINES_OF_A_MESSAGE = 100
_INTERVAL_S = 0.25
_MAX_TEXT = 4096
"""Of longer paths, queries, names and user agents the beginnings are kept."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Target(NamedTuple):
    """What was asked for, by whom; `route` is the path template."""

    tenant_id: str
    method: str
    route: str
    path: str
    query: str
    user_name: str


class Access(NamedTuple):
    """One request that was answered; cheap to make, all else is worked out off the hot path.

    `started` and `ended` are of `time.perf_counter`; `client` is ``address:port``. Without a
    `trace_id` it is given one.
    """

    target: Target
    status: int
    bytes_sent: int
    started: float
    ended: float
    client: str
    user_agent: str
    trace_id: str = ""


class AccessLog:
    """Takes `Access` from the event loop; a context manager that owns the publishing thread."""

    def __init__(self, archive: Archive, registry: CollectorRegistry) -> None:
        self._archive = archive
        self._queue: deque[Access] = deque()
        self._bytes_in = self._bytes_out = 0
        """Each is counted by one thread alone; what waits is the difference."""
        self._is_full = False
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
        waiting = self._bytes_in - self._bytes_out
        if len(self._queue) >= _MAX_WAITING or waiting >= _MAX_WAITING_BYTES:
            self._dropped.inc()
            self._is_full = True
            return
        length = _text_length(access)
        if length > _MAX_TEXT:
            access = _shortened(access)
            length = _text_length(access)
        self._bytes_in += _ENTRY_BYTES + length
        self._queue.append(access)

    def _run(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stop.wait(_INTERVAL_S)
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), _MAX_BATCH))]
                self._count(batch)
                is_published = self._publish(batch)
                self._bytes_out += sum(_ENTRY_BYTES + _text_length(access) for access in batch)
                if not is_published:
                    break
            if self._is_full:
                self._is_full = False
                self._logger.warning("access log full", then="entries dropped, and counted")

    def _count(self, batch: Sequence[Access]) -> None:
        by_route: dict[tuple[str, str, int], list[Access]] = defaultdict(list)
        for access in batch:
            method = access.target.method
            known = method if method in _METHODS else "other"
            by_route[known, access.target.route, access.status].append(access)
        for (method, route, status), accesses in by_route.items():
            self._requests.labels(method, route, str(status)).inc(len(accesses))
            self._bytes.labels(route).inc(sum(access.bytes_sent for access in accesses))
            seconds = self._seconds.labels(route)
            for access in accesses:
                seconds.observe(access.ended - access.started)

    def _publish(self, batch: Sequence[Access]) -> bool:
        """Publish; False (and the batch is dropped) if the log is down."""
        try:
            self._archive.log.publish(self._messages(batch))
        except WadoError as e:
            self._dropped.inc(len(batch))
            self._logger.warning("access log not written", entries=len(batch), reason=str(e))
            return False
        return True

    def _messages(self, batch: Sequence[Access]) -> Iterator[Message]:
        """Put the records of a tenant into few messages, a line each: appending costs most."""
        epoch = time() - perf_counter()
        by_tenant: dict[str, list[bytes]] = defaultdict(list)
        for access in batch:
            trace_id = access.trace_id or self.new_trace_id()
            by_tenant[access.target.tenant_id].append(line_of(access, epoch, trace_id))
        for tenant_id, lines in by_tenant.items():
            for start in range(0, len(lines), _LINES_OF_A_MESSAGE):
                body = b"\n".join(lines[start : start + _LINES_OF_A_MESSAGE])
                yield Message(Topic.WEBAPI_ACCESS, tenant_id, body)


def line_of(access: Access, epoch: float, trace_id: str) -> bytes:
    """Write the `WadoAccessLog` of a request; `epoch` is when `perf_counter` was 0.

    The record itself is not made: that took most of the time that a request costs here.
    """
    target = access.target
    return orjson.dumps(
        {
            "tenant_id": target.tenant_id,
            "requested_at": datetime.fromtimestamp(epoch + access.started, UTC),
            "trace_id": trace_id,
            "method": target.method,
            "path": target.path,
            "query": target.query,
            "status": access.status,
            "bytes_sent": access.bytes_sent,
            "duration_ms": round((access.ended - access.started) * 1000, 3),
            "user_name": target.user_name,
            "remote_address": access.client.rpartition(":")[0],
            "user_agent": access.user_agent,
        }
    )


def _text_length(access: Access) -> int:
    """Characters of what clients say, which are nearly always as many bytes."""
    _, method, _, path, query, user_name = access.target
    return len(method) + len(path) + len(query) + len(user_name) + len(access.user_agent)


def _shortened(access: Access) -> Access:
    longest = _MAX_TEXT // 5
    target = access.target._replace(
        method=access.target.method[:longest],
        path=access.target.path[:longest],
        query=access.target.query[:longest],
        user_name=access.target.user_name[:longest],
    )
    return access._replace(target=target, user_agent=access.user_agent[:longest])
