"""The message log on Apache Kafka, for any number of machines (ADR 0014).

Durable is what all replicas in sync have acknowledged. Each group of the log is a consumer group;
the end of a batch is on record beside the group's offset before anyone sees it, so that a replay
is cut there again.
"""

from collections.abc import Collection, Iterable, Iterator
from functools import partial
from threading import Event

from wado.adapters.message_log.kafka_admin import Administration
from wado.adapters.message_log.kafka_cluster import MAX_MESSAGE_BYTES, Cluster, PerProcess
from wado.adapters.message_log.kafka_dead_letters import (
    dead_letters,
    letter_record,
    present,
    removal_record,
)
from wado.adapters.message_log.kafka_publisher import Publisher, Record
from wado.adapters.message_log.kafka_reader import KafkaReader
from wado.errors import TooLarge, Unavailable
from wado.ports import Batch, DeadLetter, Delivered, Message
from wado.records import Topic

_WAIT_S = 0.1


class KafkaMessageLog:
    """A `wado.ports.MessageLog` on a Kafka cluster; any number of processes may open it.

    Nothing is asked of the cluster before the first use. `wado init` makes the topics.

    Parameters
    ----------
    cluster
        Where it is, and how it is reached.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._publisher = PerProcess(
            partial(Publisher, cluster), is_usable=lambda publisher: publisher.is_usable
        )
        self._administration = PerProcess(
            partial(Administration, cluster), is_usable=lambda _administration: True
        )
        self._readers: set[KafkaReader] = set()

    def publish(self, messages: Iterable[Message]) -> None:
        """Append messages; all replicas in sync have them on return.

        They are in the log once, however often they were sent over the network. After a failure
        none, some or all of them may be; none is sent later.

        Raises
        ------
        Unavailable
            The brokers did not acknowledge all messages in time; at once if none answers.
        TooLarge
            A message is longer than the log takes; nothing was published.
        """
        records = [self._record(m) for m in messages]
        self._publisher.get().send(records)

    def read(
        self, topic: Topic, group: str, stop: Event, *, max_messages: int = 500
    ) -> Iterator[Batch]:
        """Yield batches until `stop` is set; waits for new messages.

        Raises
        ------
        Unavailable
            No broker answers, or the topic was never made; or this process was frozen for so long
            that others read in its place.
        """

        def reject(message: Delivered, reason: str) -> None:
            letter = letter_record(self._cluster, group, message, reason)
            self._publisher.get().send([letter])

        with KafkaReader(
            self._cluster, topic, group, max_messages=max_messages, reject=reject
        ) as reader:
            self._readers.add(reader)
            try:
                while not stop.is_set():
                    batch = reader.next(_WAIT_S)
                    if batch is not None and not stop.is_set():
                        yield batch
            finally:
                self._readers.discard(reader)

    def lag(self, topic: Topic, group: str) -> int:
        """How many messages the group has not committed yet."""
        return self._administration.get().lag(topic, group)

    def dead_letters(self, topic: Topic) -> Iterator[DeadLetter]:
        """Rejected messages of a topic, oldest first; only their keys are held in memory."""
        return dead_letters(self._cluster, topic)

    def replay(self, letters: Iterable[DeadLetter]) -> int:
        """Publish dead letters again and remove them from the dead-letter queue; how many.

        A crash in between leaves letters that were published: at least once.
        """
        found = present(self._cluster, letters)
        publisher = self._publisher.get()
        publisher.send(
            [
                Record(self._cluster.topic(m.topic), m.key, m.body)
                for m in (x.message for x in found)
            ]
        )
        publisher.send([removal_record(self._cluster, letter) for letter in found])
        return len(found)

    def trim(self, topic: Topic, groups: Collection[str], *, keep_s: float) -> int:
        """Forget messages that all of `groups` committed and that are older than `keep_s`.

        A partition that one of them has not begun to read, or whose offset there Kafka forgot, is
        left alone. Groups of others hold nothing.
        """
        return self._administration.get().trim(topic, groups, keep_s=keep_s)

    def close(self) -> None:
        """Let go of connections; readers leave their groups."""
        for reader in list(self._readers):
            reader.close()
        publisher = self._publisher.take()
        if publisher is not None:
            publisher.close()
        administration = self._administration.take()
        if administration is not None:
            administration.close()

    def _record(self, message: Message) -> Record:
        if not isinstance(message.body, bytes):
            raise Unavailable(f"a message for {message.topic} is not made of bytes")
        if len(message.body) > MAX_MESSAGE_BYTES:
            raise TooLarge(
                f"a message of {len(message.body)} bytes for {message.topic} is too large for "
                f"the log; it takes {MAX_MESSAGE_BYTES}"
            )
        return Record(self._cluster.topic(message.topic), message.key, message.body)
