"""Dead letters on Kafka: a compacted topic beside each topic, with a key for each letter.

The key is made of group, partition and offset, so that a message rejected twice is one letter, and
an empty message with the same key removes it.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from wado.adapters.message_log.kafka_cluster import Cluster, Handle, check_topic, unavailable
from wado.adapters.message_log.kafka_publisher import Record
from wado.errors import Unavailable
from wado.ports import DeadLetter, Delivered
from wado.records import Topic

_END = KafkaError._PARTITION_EOF  # noqa: SLF001 - so the library names it
_SILENCE_S = 10.0
_POLL_S = 0.2
_LONGEST_REASON = 10_000
_PARTITION = 0


def letter_record(cluster: Cluster, group: str, message: Delivered, reason: str) -> Record:
    """Write a dead letter: the body as it was, the rest as headers."""
    at = datetime.now(UTC).isoformat(timespec="microseconds")
    headers = {"key": message.key, "reason": reason[:_LONGEST_REASON], "rejected_at": at}
    return Record(
        cluster.dead_letters(message.topic),
        _identity(group, message),
        message.body,
        [(name, value.encode(errors="replace")) for name, value in headers.items()],
    )


def removal_record(cluster: Cluster, letter: DeadLetter) -> Record:
    """Write what removes a dead letter."""
    return Record(
        cluster.dead_letters(letter.message.topic), _identity(letter.group, letter.message), None
    )


def dead_letters(cluster: Cluster, topic: Topic) -> Iterator[DeadLetter]:
    """Give the letters of a topic, oldest first.

    The topic is read twice: first for the keys of those that were not removed, which are held in
    memory, then for the letters, one at a time.
    """
    living = _living(cluster, topic)
    if not living:
        return
    for message in _records(cluster, topic):
        key = message.key() or b""
        if living.get(key) == message.offset():
            yield _letter(topic, key.decode(), message)


def present(cluster: Cluster, letters: Iterable[DeadLetter]) -> list[DeadLetter]:
    """Give those letters that were not removed meanwhile."""
    found = list(letters)
    living = {topic: _living(cluster, topic) for topic in {x.message.topic for x in found}}
    return [x for x in found if _identity(x.group, x.message).encode() in living[x.message.topic]]


def _living(cluster: Cluster, topic: Topic) -> dict[bytes, int]:
    """Key of each letter that was not removed, with the offset where it stands first."""
    living: dict[bytes, int] = {}
    for message in _records(cluster, topic):
        key = message.key() or b""
        if message.value() is None:
            living.pop(key, None)
        else:
            living.setdefault(key, message.offset() or 0)
    return living


def _records(cluster: Cluster, topic: Topic) -> Iterator[Message]:
    """All that the topic holds now, one after the other."""
    name = cluster.dead_letters(topic)
    with _consumer(cluster, name) as consumer:
        consumer.assign([TopicPartition(name, _PARTITION, 0)])
        heard_s = time.monotonic()
        while True:
            message = consumer.poll(_POLL_S)
            if message is None:
                if time.monotonic() - heard_s > _SILENCE_S:
                    raise Unavailable(f"Kafka: reading {name}: no answer")
                continue
            heard_s = time.monotonic()
            error = message.error()
            if error is None:
                yield message
            elif error.code() == _END:
                return
            elif not error.retriable():
                raise unavailable(f"reading {name}", error)


@contextmanager
def _consumer(cluster: Cluster, name: str) -> Iterator[Consumer]:
    """Open a consumer that belongs to no group."""
    handle: Handle[Consumer] | None = None
    try:
        handle = Handle(
            Consumer(
                cluster.client(
                    group__id=cluster.group("wado-dead-letters"),
                    enable__auto__commit=False,
                    auto__offset__reset="earliest",
                    enable__partition__eof=True,
                    queued__max__messages__kbytes=4096,
                    fetch__max__bytes=8 << 20,
                )
            )
        )
        check_topic(handle.client, name)
        yield handle.client
    except KafkaException as e:
        raise unavailable(f"reading {name}", e) from e
    finally:
        if handle is not None and handle.is_ours:
            handle.client.close()


def _letter(topic: Topic, identity: str, message: Message) -> DeadLetter:
    group, partition, offset = identity.rsplit("/", 2)
    headers = dict(message.headers() or [])
    said = {name: _text(headers.get(name)) for name in ("key", "reason", "rejected_at")}
    body = message.value() or b""
    delivered = Delivered(topic, int(partition), int(offset), said["key"], body)
    return DeadLetter(delivered, group, said["reason"], said["rejected_at"])


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


def _identity(group: str, message: Delivered) -> str:
    return f"{group}/{message.partition}/{message.offset}"
