"""Publishing to Kafka: idempotent, acknowledged by all replicas in sync, bounded in time."""

import time
from collections.abc import Sequence
from functools import partial
from threading import Event, Lock, Thread
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from wado.adapters.message_log.kafka_brokers import Brokers
from wado.adapters.message_log.kafka_cluster import (
    KNOWN_WITHIN_S,
    MAX_RECORD_BYTES,
    Cluster,
    Handle,
    missing,
    patiently,
    unavailable,
)
from wado.errors import TooLarge, Unavailable
from wado.telemetry import get_logger

_log = get_logger("kafka")
_LINGER_MS = 0.5
_QUEUED_MESSAGES = 100_000
_QUEUED_KIB = 64 << 10
_POLL_S = 0.2
_SILENCE_S = 1.0
"""After so long without any acknowledgement we ask whether enough brokers are there."""
_ANSWER_S = 1.2
_TOPICS_KEPT_S = 10.0
_FIRST_ANSWER_S = 2.5
_GRACE_S = 2.0
"""How much longer than its time-out the report of a message may take."""
_FULL_WAIT_S = 0.01
_CLOSE_S = 1.0

_NEVER_FITS = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
_NO_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})  # noqa: SLF001 - so the library names it


class Record(NamedTuple):
    """What goes to a topic of the cluster; a `body` of None removes its key when compacted."""

    topic: str
    key: str
    body: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class _Reports:
    """Counts the delivery reports of one call; they come in the publisher's own thread."""

    def __init__(self) -> None:
        self.all_came = Event()
        self.error: KafkaError | None = None
        self.topic = ""
        self._came = 0
        self._expected: int | None = None

    def take(self, error: KafkaError | None, message: Message) -> None:
        """Take the report of one message."""
        if error is not None and self.error is None:
            self.error, self.topic = error, message.topic() or ""
        self._came += 1
        self._look()

    def expect(self, count: int) -> None:
        """Say how many there will be."""
        self._expected = count
        self._look()

    def _look(self) -> None:
        if self._expected is not None and self._came >= self._expected:
            self.all_came.set()


class Publisher:
    """One producer, for all threads of this process.

    Each message carries the number that its producer gave it, so that a message sent again after
    a lost answer is in the log once. One that was not acknowledged within the time-out is dropped
    from our queue, and none is sent later.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._timeout_s = cluster.publish_timeout_s
        timeout_ms = int(self._timeout_s * 1000)
        try:
            self._handle = Handle(
                Producer(
                    cluster.client(
                        acks="all",
                        enable__idempotence=True,
                        linger__ms=_LINGER_MS,
                        compression__type="lz4",
                        partitioner="murmur2_random",
                        message__timeout__ms=timeout_ms,
                        request__timeout__ms=min(timeout_ms, 5000),
                        message__max__bytes=MAX_RECORD_BYTES,
                        queue__buffering__max__messages=_QUEUED_MESSAGES,
                        queue__buffering__max__kbytes=_QUEUED_KIB,
                        error_cb=self._take_error,
                    )
                )
            )
        except KafkaException as e:
            raise unavailable("the settings of the producer", e) from e
        self._producer = self._handle.client
        self._fatal: KafkaError | None = None
        self._closing = False
        self._topics: frozenset[str] = frozenset()
        self._asking = Lock()
        self._is_known = self._has_answered = self._are_missed = False
        self._asked_s = 0.0
        self._success_s = 0.0
        self._brokers = Brokers(cluster)
        self._thread = Thread(target=self._serve, name="kafka-publisher", daemon=True)
        self._thread.start()

    @property
    def is_usable(self) -> bool:
        """False once the producer has met an error that it can't recover from."""
        return self._fatal is None and not self._closing and self._thread.is_alive()

    def send(self, records: Sequence[Record]) -> None:
        """Publish records; all are acknowledged on return.

        Raises
        ------
        Unavailable
            They were not, or it is not known; a topic was never made.
        TooLarge
            Kafka takes no message of that size.
        """
        if not records:
            return
        topics = {r.topic for r in records}
        self._check_topics(topics)
        deadline = time.monotonic() + self._timeout_s
        reports = _Reports()
        queued = 0
        try:
            for record in records:
                self._queue(record, reports, deadline)
                queued += 1
        finally:
            reports.expect(queued)
        self._wait(reports, topics, deadline + _GRACE_S)
        if reports.error is not None:
            self._fail(reports.error, reports.topic)
        self._success_s = time.monotonic()

    def close(self) -> None:
        """Let go of the connections."""
        if not self._handle.is_ours:
            return
        self._producer.flush(_CLOSE_S)
        self._closing = True
        self._thread.join()
        self._producer.close()

    def _queue(self, record: Record, reports: _Reports, deadline: float) -> None:
        while True:
            try:
                self._producer.produce(
                    record.topic,
                    record.body,
                    record.key.encode(),
                    on_delivery=reports.take,
                    headers=list(record.headers),
                )
            except BufferError as e:
                if time.monotonic() > deadline:
                    raise Unavailable("Kafka: too many messages wait to be published") from e
                time.sleep(_FULL_WAIT_S)
            except KafkaException as e:
                self._fail(e.args[0], record.topic)
            else:
                return

    def _wait(self, reports: _Reports, topics: set[str], deadline: float) -> None:
        """Wait for all reports; at the latest the producer itself gives the messages up."""
        while not reports.all_came.wait(_SILENCE_S):
            now = time.monotonic()
            if now > deadline:
                raise Unavailable("Kafka: no report of what was published; it may be in the log")
            if now - self._success_s > _SILENCE_S and not self._are_served(topics):
                # Nothing of ours shall be sent when they are back: the sender was told that it
                # failed, and repeats it.
                self._producer.purge(in_queue=True, in_flight=True, blocking=False)

    def _are_served(self, topics: set[str]) -> bool:
        """Ask the brokers whether enough of them are there."""
        suffice = self._brokers.suffice(topics)
        if not suffice and not self._are_missed:
            _log.warning("too few brokers answer", topics=sorted(topics))
        self._are_missed = not suffice
        return suffice

    def _fail(self, error: KafkaError, topic: str) -> None:
        if error.code() in _NEVER_FITS:
            raise TooLarge(f"Kafka: a message for {topic} is too large ({error.name()})")
        if error.code() in _NO_TOPIC:
            self._topics -= {topic}
            raise missing(topic)
        raise unavailable(f"publishing to {topic}", error)

    def _check_topics(self, wanted: set[str]) -> None:
        """Fail at once when too few brokers answered lately, or a topic was never made."""
        if not self._is_known:
            first = not self._asked_s
            if not self._anybody_answers(_FIRST_ANSWER_S if first else _ANSWER_S):
                raise Unavailable("Kafka: no broker answers")
        if not wanted <= self._topics:
            patiently("the list of topics", partial(self._look_for, wanted), for_s=KNOWN_WITHIN_S)
        if self._are_missed and (self._brokers.were_missed(wanted) or not self._are_served(wanted)):
            if time.monotonic() - self._asked_s > _TOPICS_KEPT_S:
                self._anybody_answers(_ANSWER_S)  # the replicas may be elsewhere by now
            raise Unavailable("Kafka: too few brokers answer")

    def _look_for(self, wanted: set[str]) -> None:
        if not self._anybody_answers(_FIRST_ANSWER_S):
            raise Unavailable("Kafka: no broker answers")
        for topic in sorted(wanted - self._topics):
            raise missing(topic)

    def _anybody_answers(self, timeout_s: float) -> bool:
        """Ask for the list of topics; who comes while another asks has its answer."""
        came_s = time.monotonic()
        with self._asking:
            if self._asked_s < came_s:
                try:
                    found = self._producer.list_topics(timeout=timeout_s)
                except KafkaException as e:
                    _log.warning("no broker answers", reason=str(e.args[0]))
                    self._has_answered = False
                else:
                    self._topics = frozenset(n for n, t in found.topics.items() if t.error is None)
                    self._brokers.learn(found)
                    self._has_answered = self._is_known = True
                self._asked_s = time.monotonic()
            return self._has_answered

    def _serve(self) -> None:
        """Have the delivery reports called."""
        while not self._closing:
            self._producer.poll(_POLL_S)

    def _take_error(self, error: KafkaError) -> None:
        if error.fatal():
            _log.error("the producer is spent", reason=error.str())
            self._fatal = error
