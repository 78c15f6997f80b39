"""The Kafka cluster that the log is on: its address, names on it, and how clients are made."""

import ctypes
import gc
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, Generic, Self, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit
from weakref import WeakSet

from confluent_kafka import Consumer, KafkaError, KafkaException

from wado.errors import InvalidRequest, Unavailable
from wado.records import Topic
from wado.settings import LogSettings
from wado.telemetry import get_logger
from wado.urls import password_of, shown

MAX_MESSAGE_BYTES = 16 << 20
"""Longest body of a message: the record of a large deletion takes megabytes."""
MAX_RECORD_BYTES = MAX_MESSAGE_BYTES + (1 << 20)
"""A dead letter holds the message and what is to be said of it."""
DEFAULT_PARTITIONS = 12
KNOWN_WITHIN_S = 1.0
"""All brokers know a topic so soon after it was made."""

_log = get_logger("kafka")
_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_GROUP = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_REPEAT_S = 30.0
_ANSWER_S = 3.0
_PROTOCOLS = {
    "plaintext": "plaintext",
    "tls": "ssl",
    "sasl": "sasl_plaintext",
    "sasl_tls": "sasl_ssl",
}
_AGAIN_S = 0.05
_LONGEST_WORK_MS = 300_000
"""How long others wait, when readers come and go, for one that works on a batch."""
_PASSES = frozenset({
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError._WAIT_COORD,  # noqa: SLF001 - errors of the library itself begin so
    KafkaError._TRANSPORT,  # noqa: SLF001
})  # fmt: skip
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where Kafka is, what our topics and groups are called there, and how patient we are.

    Parameters
    ----------
    servers
        ``host:port,host:port``.
    prefix
        Begins the names of topics and groups, with a dash; archives that share a cluster need
        different ones. Empty: none.
    options
        Of librdkafka, for all clients: security, and what the operator adds.
    publish_timeout_s
        Seconds after which a message that no broker took is given up.
    session_timeout_s
        Seconds after which a reader that says nothing loses its partitions.
    min_in_sync_replicas
        How many replicas must be in sync for a message to be taken.
    """

    servers: str
    prefix: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    publish_timeout_s: float = 10.0
    session_timeout_s: float = 8.0
    min_in_sync_replicas: int = 1

    @classmethod
    def of(cls, url: str, settings: LogSettings) -> Self:
        """Read `log.url` (``kafka://[user:password@]host:port,…[/prefix]``) and its settings.

        Raises
        ------
        InvalidRequest
            The URL names no server, or a prefix that is none; the password can't be read.
        """
        parts = urlsplit(url)
        user, _, servers = parts.netloc.rpartition("@")
        prefix = parts.path.strip("/") or parse_qs(parts.query).get("prefix", [""])[0]
        if not servers:
            raise InvalidRequest(f"log.url = {shown(url)!r} names no server")
        if prefix and not _PREFIX.match(prefix):
            raise InvalidRequest(f"log.url = {shown(url)!r}: the prefix is not a plain name")
        return cls(
            servers=servers,
            prefix=prefix,
            options=_options(url, unquote(user.partition(":")[0]), settings),
            publish_timeout_s=settings.publish_timeout_s,
            session_timeout_s=settings.session_timeout_s,
            min_in_sync_replicas=settings.min_in_sync_replicas,
        )

    def topic(self, topic: Topic) -> str:
        """Name of a topic on the cluster; it begins the labels of batches, too."""
        return self._name(topic)

    def dead_letters(self, topic: Topic) -> str:
        """Name of the topic that takes what was rejected of a topic."""
        return self._name(f"{topic}_dlq")

    def group(self, group: str) -> str:
        """Name of a group on the cluster.

        Raises
        ------
        InvalidRequest
            Not a plain name.
        """
        if not _GROUP.match(group):
            raise InvalidRequest(f"not the name of a group: {group[:80]!r}")
        return self._name(group)

    def client(self, **more: Any) -> dict[str, Any]:
        """Give options for one client; those of the operator win."""
        return {
            "bootstrap.servers": self.servers,
            "client.id": "wado",
            "logger": _logger(),
            "reconnect.backoff.ms": 100,
            "reconnect.backoff.max.ms": 500,
            "socket.timeout.ms": 8000,
            "socket.connection.setup.timeout.ms": 3000,
            "socket.keepalive.enable": True,
            "topic.metadata.refresh.interval.ms": 60_000,
            **{name.replace("__", "."): value for name, value in more.items()},
            **self.options,
        }

    def reader(self, group: str, take_error: Callable[[KafkaError], None]) -> dict[str, Any]:
        """Give options for a member of a group: it fetches little ahead, and commits by itself."""
        session_ms = int(self.session_timeout_s * 1000)
        return self.client(
            group__id=group,
            enable__auto__commit=False,
            enable__auto__offset__store=False,
            auto__offset__reset="earliest",
            partition__assignment__strategy="cooperative-sticky",
            session__timeout__ms=session_ms,
            heartbeat__interval__ms=max(200, min(2000, session_ms // 4)),
            max__poll__interval__ms=max(_LONGEST_WORK_MS, session_ms),
            enable__partition__eof=True,
            queued__min__messages=2000,
            queued__max__messages__kbytes=4096,
            fetch__queue__backoff__ms=20,
            fetch__error__backoff__ms=100,
            fetch__max__bytes=8 << 20,
            error_cb=take_error,
        )

    def _name(self, name: str) -> str:
        return f"{self.prefix}-{name}" if self.prefix else name


def _options(url: str, user: str, settings: LogSettings) -> dict[str, Any]:
    """Give the options of librdkafka that the settings ask for."""
    options: dict[str, Any] = {"security.protocol": _PROTOCOLS[settings.security]}
    files: dict[str, Path | None] = {
        "ssl.ca.location": settings.ca_file,
        "ssl.certificate.location": settings.certificate_file,
        "ssl.key.location": settings.key_file,
    }
    options |= {name: str(path) for name, path in files.items() if path is not None}
    if settings.security.startswith("sasl"):
        options["sasl.mechanism"] = settings.sasl_mechanism
        password = password_of(url, settings.password_file, "log.password_file")
        if user and password is not None:
            options |= {"sasl.username": user, "sasl.password": password}
    return options | dict(settings.client_options)


def unavailable(what: str, e: KafkaException | KafkaError) -> Unavailable:
    """Say in our words what Kafka refused or did not answer."""
    error = e.args[0] if isinstance(e, KafkaException) else e
    if isinstance(error, KafkaError):
        return Unavailable(f"Kafka: {what}: {error.str()} ({error.name()})")
    return Unavailable(f"Kafka: {what}: {error}")


def patiently(what: str, work: Callable[[], _T], *, for_s: float = _ANSWER_S) -> _T:
    """Do what may fail while leaders change, or while a topic has just been made, again.

    Raises
    ------
    Unavailable
        It still fails after some seconds, or for another reason.
    """
    deadline = time.monotonic() + for_s
    while True:
        try:
            return work()
        except KafkaException as e:
            error = e.args[0]
            passes = isinstance(error, KafkaError) and error.code() in _PASSES
            if not passes or time.monotonic() > deadline:
                raise unavailable(what, e) from e
            time.sleep(_AGAIN_S)
        except TopicMissing:
            if time.monotonic() > deadline:
                raise
            time.sleep(_AGAIN_S)


class TopicMissing(Unavailable):
    """A topic was never made, or a moment ago: not every broker knows it at once."""


def missing(topic: str) -> TopicMissing:
    """Say that a topic was never made."""
    return TopicMissing(f"Kafka has no topic {topic}: run `wado init`")


def check_topic(consumer: Consumer, topic: str) -> None:
    """Look for a topic before it is read; to ask as a consumer makes none.

    Raises
    ------
    Unavailable
        No broker answers, or the topic was never made.
    """

    def look() -> None:
        found = consumer.list_topics(topic, timeout=_ANSWER_S).topics[topic]
        if found.error is not None:
            raise missing(topic)

    patiently(f"looking for {topic}", look, for_s=KNOWN_WITHIN_S)


class _OurLog(logging.Handler):
    """Gives what librdkafka says to our log; the same complaint once in a while only."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        facility, _, text = record.getMessage().partition(" ")
        now = time.monotonic()
        if now - self._said.get(facility, -_REPEAT_S) < _REPEAT_S:
            return
        self._said[facility] = now
        say = _log.warning if record.levelno >= logging.WARNING else _log.debug
        say("client", facility=facility, text=text)


def _logger() -> logging.Logger:
    """Make a logger of its own for a client: it says first what goes wrong first."""
    logger = logging.Logger("kafka")  # noqa: LOG001 - no part of the tree of loggers
    logger.addHandler(_OurLog())
    return logger


class Handle(Generic[_T]):
    """A client of librdkafka, which a forked child can neither use nor free.

    Its threads stay in the parent, so freeing it in the child would wait for ever.
    """

    _alive: ClassVar["WeakSet[Handle[Any]]"] = WeakSet()

    def __init__(self, client: _T) -> None:
        self.client = client
        self._pid = os.getpid()
        self._alive.add(self)

    @property
    def is_ours(self) -> bool:
        """Whether this process made it."""
        return self._pid == os.getpid()

    @classmethod
    def after_fork(cls) -> None:
        """In a child: keep the parent's clients for good, so that nothing frees them."""
        for handle in list(cls._alive):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(handle.client))


# What waits in the parent to be collected must not be freed in the child, by whatever runs there
# first: a frozen object is never collected.
os.register_at_fork(before=gc.freeze, after_in_parent=gc.unfreeze, after_in_child=Handle.after_fork)


class PerProcess(Generic[_T]):
    """Something made at its first use in each process, and made again when it is spent."""

    def __init__(self, make: Callable[[], _T], *, is_usable: Callable[[_T], bool]) -> None:
        self._make = make
        self._is_usable = is_usable
        self._lock = Lock()
        self._value: _T | None = None
        self._pid = 0

    def get(self) -> _T:
        """Give this process's."""
        with self._lock:
            if self._value is None or self._pid != os.getpid() or not self._is_usable(self._value):
                self._value = self._make()
                self._pid = os.getpid()
            return self._value

    def take(self) -> _T | None:
        """Give this process's, if it was made, and forget it."""
        with self._lock:
            value, self._value = self._value, None
            return value if self._pid == os.getpid() else None
