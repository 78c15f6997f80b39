"""Reading from Kafka: one member of a consumer group, which hands out one batch at a time.

A thread of its own talks to Kafka, so that work on a batch may take as long as it takes; the
library does not serve two threads well (a commit waits while another thread polls).
A partition of which a batch is in hand is given to another reader only when that batch is done.
"""

import time
from functools import partial
from threading import Condition, Thread
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from wado.adapters.message_log.kafka_cluster import (
    Cluster,
    Handle,
    check_topic,
    missing,
    patiently,
    unavailable,
)
from wado.adapters.message_log.kafka_partition import (
    CommitRequest,
    HeldPartition,
    KafkaBatch,
    Reject,
    reservation,
    reserved_end,
)
from wado.errors import Unavailable
from wado.ports import Delivered
from wado.records import Topic
from wado.telemetry import get_logger

_log = get_logger("kafka")
_POLL_S = 0.1
_WORK_POLL_S = 0.05
_GRACE_S = 4.0
_CLOSE_S = 3.0
_GATHER = 500
_ANSWER_S = 5.0
_BATCH_BYTES = 8 << 20
_FETCHED_BYTES = 32 << 20
_LEAST_FETCHED_BYTES = 1 << 20
_SETTLE_S = 0.3
_COMMIT_S = 8.0
_COMMIT_AGAIN_S = 0.05
_HEARD_OF = 0.7
"""Part of a session after which, at the latest, the last heartbeat may be a whole one ago."""

_IS_LOST = frozenset({
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError._ASSIGNMENT_LOST,  # noqa: SLF001 - errors of the library itself begin so
    KafkaError._DESTROY,  # noqa: SLF001
    KafkaError._STATE,  # noqa: SLF001
})  # fmt: skip
_NO_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})  # noqa: SLF001
_NO_RIGHT = frozenset({
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
})  # fmt: skip
_END = KafkaError._PARTITION_EOF  # noqa: SLF001


class KafkaReader:
    """One reader of one topic for one group.

    Parameters
    ----------
    cluster
        Where the log is.
    topic, group
        What is read, and for whom.
    max_messages
        Most messages of a batch.
    reject
        Keeps a message, with the reason, as a dead letter.

    Raises
    ------
    Unavailable
        No broker answers, or the topic was never made.
    """

    def __init__(
        self, cluster: Cluster, topic: Topic, group: str, *, max_messages: int, reject: Reject
    ) -> None:
        self._topic = topic
        self.reject = reject
        self._name = cluster.topic(topic)
        self._group = cluster.group(group)
        self._max_messages = max_messages
        self._session_s = cluster.session_timeout_s
        try:
            self._handle = Handle(Consumer(cluster.reader(self._group, self._take_error)))
        except KafkaException as e:
            raise unavailable("the settings of the consumer", e) from e
        self._consumer = self._handle.client
        self._changed = Condition()
        self._held: dict[int, HeldPartition] = {}
        self._gathered: list[Message] = []
        self._in_hand: tuple[HeldPartition, list[Delivered]] | None = None
        self._request: CommitRequest | None = None
        self._is_wanted = False
        self._turn = 0
        self._failure: Exception | None = None
        self._closing = False
        self._polled_s = time.monotonic()
        self._thread = Thread(target=self._serve, name=f"kafka-{group}", daemon=True)

    def __enter__(self) -> Self:
        try:
            check_topic(self._consumer, self._name)
            self._consumer.subscribe(
                [self._name], on_assign=self._assign, on_revoke=self._revoke, on_lost=self._lose
            )
        except BaseException:
            self._consumer.close()
            raise
        self._polled_s = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the group; what is in hand goes to another reader.

        When the brokers hang, that is left to the thread: it leaves once they answer.
        """
        if self._closing or not self._handle.is_ours:
            return
        with self._changed:
            self._closing = True
            self._lose_all()
            self._changed.notify_all()
        self._thread.join(_CLOSE_S)

    # -------------------------------------------------------------- for the caller

    def next(self, timeout_s: float) -> "KafkaBatch | None":
        """Give the batch that is in hand still, or the next; None if there is none in time.

        Raises
        ------
        Unavailable
            The group or the topic can't be read.
        """
        with self._changed:
            self._drop_in_hand()
            self._is_wanted = True
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._in_hand or self._failure or self._closing, timeout_s
            )
            self._is_wanted = False
            if self._failure is not None:
                raise self._failure
            if self._in_hand is None:
                return None
            held, messages = self._in_hand
            calls = partial(self.commit, held), partial(self._is_ours, held), self.reject
            return KafkaBatch(messages, self._name, *calls)

    def commit(self, held: HeldPartition, end: int) -> None:
        """Move the group behind a batch that is in hand.

        Raises
        ------
        Unavailable
            Another reader has the partition by now, or Kafka does not answer.
        """
        if held.start >= end and not held.is_lost:
            return
        request = CommitRequest(held, end)
        with self._changed:
            self._request = request
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: request.is_done or self._failure or self._closing, _COMMIT_S + _GRACE_S
            )
            if request.is_done and request.failure is None:
                return
            self._request = None
        raise request.failure or self._failure or Unavailable(f"Kafka: {self._name}: no answer")

    def _is_ours(self, held: HeldPartition) -> bool:
        return not held.is_lost and self._is_heard_of(_HEARD_OF)

    def _drop_in_hand(self) -> None:
        """Let go of a batch that is not to come again here: another reader waits for it."""
        if self._in_hand is not None and (self._in_hand[0].is_lost or self._in_hand[0].is_leaving):
            self._in_hand = None
            self._changed.notify_all()

    # -------------------------------------------------------------- the thread

    def _serve(self) -> None:
        try:
            while not self._closing:
                if not self._is_heard_of():
                    self._fail(Unavailable(f"this reader of {self._name} was frozen for too long"))
                    return
                self._polled_s = time.monotonic()
                self._gather()
                self._sort_in()
                self._hold_back()
                self._serve_request()
                self._hand_out()
                with self._changed:
                    is_idle = not self._is_wanted and self._request is None
                    if is_idle and not self._gathered and not self._closing:
                        self._changed.wait(_WORK_POLL_S)
        except KafkaException as e:
            self._fail(unavailable(f"reading {self._name}", e))
        except Exception as e:  # noqa: BLE001 - for the caller, who would wait for ever
            is_closed = isinstance(e, RuntimeError)
            self._fail(Unavailable(f"reading {self._name}: {e}") if is_closed else e)
        finally:
            self._consumer.close()

    def _gather(self) -> None:
        """Take what was fetched; rebalances are served in here, too.

        It waits for messages only while the caller does: else a commit would wait, too.
        """
        with self._changed:
            waits = self._is_wanted and self._in_hand is None and self._choose() is None
        self._gathered.clear()
        message = self._consumer.poll(_POLL_S if waits else 0)
        if message is not None:
            self._gathered.append(message)
            # All that is there in one call: each call lets go of the interpreter, and a caller
            # that works keeps it for milliseconds.
            self._gathered += self._consumer.consume(_GATHER, 0)

    def _serve_request(self) -> None:
        """Commit what the caller asks for, and the end of the batch that comes next with it."""
        with self._changed:
            request, self._request = self._request, None
            if request is None:
                return
            held = request.held
            following = self._choose()
            if following is not None and following is not held and following.reserved:
                following = None  # on record already
            if following is not None and not following.has(self._max_messages, _BATCH_BYTES):
                following = None  # it may grow until it is asked for
            end = following.next_end(self._max_messages, _BATCH_BYTES) if following else 0
        offsets = [self._offset(held, request.end, end if following is held else 0)]
        if following is not None and following is not held:
            offsets.append(self._offset(following, following.start, end))
        try:
            are_all_on_record = self._commit(held, offsets)
        except Unavailable as e:
            request.failure = e
        else:
            held.start, held.reserved = request.end, 0
            if following is not None and are_all_on_record:
                following.reserved = end
        with self._changed:
            if self._in_hand is not None and self._in_hand[0] is held and not request.failure:
                self._in_hand = None
            request.is_done = True
            self._changed.notify_all()

    def _hand_out(self) -> None:
        """Cut a batch for a caller that waits; its end is on record before anyone sees it."""
        with self._changed:
            held = self._choose() if self._is_wanted and self._in_hand is None else None
            messages = held.cut(self._max_messages, _BATCH_BYTES) if held is not None else []
        if held is None or not messages:
            return
        self._turn += 1
        held.turn = self._turn
        end = messages[-1].offset + 1
        if held.reserved != end:
            try:
                self._commit(held, [self._offset(held, held.start, end)])
            except Unavailable as e:
                if not held.is_lost:
                    self._fail(e)
                return
            held.reserved = end
        with self._changed:
            self._in_hand = held, messages
            self._changed.notify_all()

    def _choose(self) -> HeldPartition | None:
        """Choose the partition that waited longest; a new one has its chance to show what it has.

        None is emptied before each of the others was seen.
        """
        ready = [held for held in self._held.values() if held.is_ready]
        if not ready:
            return None
        chosen = min(ready, key=lambda held: (held.turn, -held.partition))
        if chosen.turn and any(
            not held.is_settled and held.age_s < _SETTLE_S for held in self._held.values()
        ):
            return None
        return chosen

    def _commit(self, held: HeldPartition, offsets: list[TopicPartition]) -> bool:
        """Commit for as long as the partition is ours; a group in motion is tried again.

        Returns
        -------
        are_all_on_record
            Whether the offsets of other partitions are on record, too.
        """
        deadline = time.monotonic() + _COMMIT_S
        while True:
            if held.is_lost or not self._is_heard_of():
                held.is_lost = True
                raise Unavailable(f"partition {held.partition} of {self._name} has another reader")
            try:
                found = self._consumer.commit(offsets=offsets, asynchronous=False)
                errors = {each.partition: each.error for each in found}
            except KafkaException as e:
                errors = {each.partition: e.args[0] for each in offsets}
            self._polled_s = time.monotonic()
            error = errors[held.partition]
            if error is None:
                return not any(errors.values())
            if error.code() in _IS_LOST:
                held.is_lost = True
            elif self._closing or time.monotonic() > deadline:
                raise unavailable(f"committing to {self._name}", error)
            else:
                time.sleep(_COMMIT_AGAIN_S)

    def _offset(self, held: HeldPartition, offset: int, reserved: int) -> TopicPartition:
        metadata = reservation(reserved) if reserved else ""
        return TopicPartition(self._name, held.partition, offset, metadata)

    def _is_heard_of(self, part: float = 1.0) -> bool:
        """Whether the group can still count us in: not if this process was frozen for long."""
        return time.monotonic() - self._polled_s < self._session_s * part

    def _sort_in(self) -> None:
        if not self._gathered:
            return
        with self._changed:
            for message in self._gathered:
                error = message.error()
                held = self._held.get(_number(message.partition()))
                if error is not None and error.code() != _END:
                    self._take_error(error)
                elif held is None:
                    continue
                elif error is not None:
                    held.reach(_number(message.offset()))
                else:
                    held.add(_delivered(self._topic, message))
            self._changed.notify_all()

    def _hold_back(self) -> None:
        """Fetch no more of partitions of which much waits; go on with those that were emptied.

        Only for callers that are slow: what the library had fetched already is fetched again, up
        to a second after it went on.
        """
        with self._changed:
            most = max(_LEAST_FETCHED_BYTES, _FETCHED_BYTES // max(1, len(self._held)))
            pause, resume = [], []
            for held in self._held.values():
                if held.is_paused and not held.is_full(most // 2):
                    resume.append(held)
                elif not held.is_paused and held.is_full(most):
                    pause.append(held)
        for partitions, act in ((pause, self._consumer.pause), (resume, self._consumer.resume)):
            if partitions:
                act([TopicPartition(self._name, held.partition) for held in partitions])
                for held in partitions:
                    held.is_paused = not held.is_paused

    def _assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Go on where the group is; one that begins makes itself known."""
        what = f"the offsets of {self._group} in {self._name}"
        try:
            committed = patiently(what, partial(self._committed, consumer, partitions))
            held = [patiently(what, partial(self._begin, consumer, found)) for found in committed]
        except Unavailable as e:
            self._fail(e)
            return
        self._forget_gathered(partitions)
        with self._changed:
            self._held |= {each.partition: each for each in held}
        begin = [TopicPartition(self._name, each.partition, each.start) for each in held]
        consumer.incremental_assign(begin)
        consumer.resume(begin)
        _log.debug("assigned", topic=self._name, partitions=[p.partition for p in begin])

    def _committed(
        self, consumer: Consumer, partitions: list[TopicPartition]
    ) -> list[TopicPartition]:
        found = consumer.committed(partitions, timeout=_ANSWER_S)
        self._polled_s = time.monotonic()
        for each in found:
            if each.error is not None:
                raise KafkaException(each.error)
        return found

    def _begin(self, consumer: Consumer, found: TopicPartition) -> HeldPartition:
        if found.offset >= 0:
            return HeldPartition(found.partition, found.offset, reserved_end(found.metadata))
        where = TopicPartition(self._name, found.partition)
        first, _ = consumer.get_watermark_offsets(where, timeout=_ANSWER_S)
        known = TopicPartition(self._name, found.partition, first)
        consumer.commit(offsets=[known], asynchronous=False)
        self._polled_s = time.monotonic()
        return HeldPartition(found.partition, first, 0)

    def _revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Give partitions up once nothing of them is in hand; the group leaves us that time."""
        leaving = self._leaving(partitions)
        while self._is_heard_of():
            self._polled_s = time.monotonic()
            with self._changed:
                in_hand = self._in_hand
                if self._closing or in_hand is None or in_hand[0] not in leaving:
                    break
                if in_hand[0].is_lost:
                    break
                if self._request is None:
                    self._changed.wait(_WORK_POLL_S)
            self._serve_request()
        self._drop(consumer, partitions)

    def _lose(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Learn that others have the partitions already."""
        _log.warning(
            "partitions were lost", topic=self._name, partitions=[p.partition for p in partitions]
        )
        self._drop(consumer, partitions)

    def _leaving(self, partitions: list[TopicPartition]) -> list[HeldPartition]:
        with self._changed:
            found = [self._held[p.partition] for p in partitions if p.partition in self._held]
            for held in found:
                held.is_leaving = True
            return found

    def _drop(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._forget_gathered(partitions)
        with self._changed:
            for each in partitions:
                held = self._held.pop(each.partition, None)
                if held is not None:
                    held.is_lost = True
            self._changed.notify_all()
        consumer.incremental_unassign(partitions)

    def _forget_gathered(self, partitions: list[TopicPartition]) -> None:
        """Drop what was fetched before: it is fetched again, from the offset of the group."""
        gone = {p.partition for p in partitions}
        self._gathered[:] = [m for m in self._gathered if m.partition() not in gone]

    def _lose_all(self) -> None:
        for held in self._held.values():
            held.is_lost = True

    def _fail(self, failure: Exception) -> None:
        with self._changed:
            self._failure = self._failure or failure
            self._lose_all()
            self._changed.notify_all()

    def _take_error(self, error: KafkaError) -> None:
        """Give up what waiting does not mend; the library itself goes on after all else."""
        if error.code() in _NO_TOPIC:
            self._fail(missing(self._name))
        elif error.fatal() or error.code() in _NO_RIGHT:
            self._fail(unavailable(f"reading {self._name}", error))
        else:
            _log.debug("reading", topic=self._name, reason=error.str())


def _number(value: int | None) -> int:
    return -1 if value is None else value


def _delivered(topic: Topic, message: Message) -> Delivered:
    return Delivered(
        topic,
        _number(message.partition()),
        _number(message.offset()),
        (message.key() or b"").decode(errors="replace"),
        message.value() or b"",
    )
