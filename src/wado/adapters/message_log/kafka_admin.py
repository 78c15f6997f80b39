"""What the groups of Kafka have read, and what may be forgotten of the log."""

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from threading import Lock
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from wado.adapters.message_log.kafka_cluster import Cluster, Handle, missing, patiently, unavailable
from wado.errors import Unavailable
from wado.records import Topic

_ANSWER_S = 5.0
_FIRST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_END: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_PARTITIONS_KEPT_S = 30.0
_MAX_ASKERS = 8
_T = TypeVar("_T")
_Offsets = dict[int, int]


class Administration:
    """Asks the cluster about groups and offsets, and trims topics."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        options = cluster.client()
        logger = options.pop("logger")
        try:
            self._handle = Handle(AdminClient(options, logger=logger))
        except KafkaException as e:
            raise unavailable("the settings of the client", e) from e
        self._client = self._handle.client
        self._partitions: dict[str, tuple[float, list[TopicPartition]]] = {}
        self._askers: dict[str, Handle[Consumer]] = {}
        self._asking = Lock()

    def lag(self, topic: Topic, group: str) -> int:
        """How many messages a group has not committed yet."""
        name = self._cluster.topic(topic)
        return self._patiently(f"the offsets of {name}", name, lambda: self._lag(name, group))

    def trim(self, topic: Topic, groups: Collection[str], *, keep_s: float) -> int:
        """Forget what all of our `groups` have read in a topic, if it is old enough."""
        name = self._cluster.topic(topic)
        return self._patiently(f"trimming {name}", name, lambda: self._trim(name, groups, keep_s))

    def _patiently(self, what: str, name: str, work: Callable[[], int]) -> int:
        """Try again with a new list of topics: with the old one the library asks old leaders."""

        def attempt() -> int:
            try:
                return work()
            except KafkaException:
                self._partitions.pop(name, None)
                raise

        return patiently(what, attempt)

    def _lag(self, name: str, group: str) -> int:
        partitions = self._of(name)
        committed = self._committed(self._cluster.group(group), partitions)
        first = self._ask_offsets(partitions, _FIRST)
        end = self._ask_offsets(partitions, _END)
        firsts, ends = _offsets(first), _offsets(end)
        return sum(
            max(0, ends[p] - max(firsts[p], committed.get(p, 0)))
            for p in (tp.partition for tp in partitions)
        )

    def _trim(self, name: str, groups: Collection[str], keep_s: float) -> int:
        partitions = self._of(name)
        least = self._least_committed(partitions, groups)
        if keep_s:
            until_ms = int((time.time() - keep_s) * 1000)
            young = self._ask_offsets(partitions, OffsetSpec.for_timestamp(until_ms))
            for partition, offset in _offsets(young).items():
                if offset >= 0 and partition in least:  # -1: all of it is older
                    least[partition] = min(least[partition], offset)
        first = _offsets(self._ask_offsets(partitions, _FIRST))
        wanted = [
            TopicPartition(name, partition, offset)
            for partition, offset in least.items()
            if offset > first[partition]
        ]
        if not wanted:
            return 0
        forgotten = self._client.delete_records(wanted, request_timeout=_ANSWER_S)
        for future in forgotten.values():
            _result(future)
        return sum(tp.offset - first[tp.partition] for tp in wanted)

    def _of(self, name: str) -> list[TopicPartition]:
        """Partitions of a topic."""
        asked_s, partitions = self._partitions.get(name, (0.0, []))
        if partitions and time.monotonic() - asked_s < _PARTITIONS_KEPT_S:
            return partitions
        # All topics: to ask for one by name could make it.
        found = self._client.list_topics(timeout=_ANSWER_S).topics.get(name)
        if found is None or found.error is not None:
            raise missing(name)
        partitions = [TopicPartition(name, number) for number in sorted(found.partitions)]
        self._partitions[name] = time.monotonic(), partitions
        return partitions

    def _least_committed(
        self, partitions: list[TopicPartition], groups: Collection[str]
    ) -> _Offsets:
        """Least offset that any of our groups committed, by partition.

        Left out are partitions in which one of them has none: it begins to read, or Kafka forgot
        its offset, as nobody read for `offsets.retention.minutes`.
        """
        known = [self._committed(self._cluster.group(group), partitions) for group in groups]
        return {
            tp.partition: min(committed[tp.partition] for committed in known)
            for tp in partitions
            if all(tp.partition in committed for committed in known)
        }

    def _committed(self, group: str, partitions: list[TopicPartition]) -> _Offsets:
        """Offsets that a group committed.

        They are asked for as by a member of the group that reads nothing: librdkafka's way for
        administrators ends the process when the group's coordinator has moved to another broker
        (seen with 2.16: its answer is passed to a group that such a client does not have).
        """
        with self._asking:
            if group not in self._askers:
                while len(self._askers) >= _MAX_ASKERS:
                    self._askers.pop(next(iter(self._askers))).client.close()
                settings = self._cluster.client(group__id=group, enable__auto__commit=False)
                self._askers[group] = Handle(Consumer(settings))
            found = self._askers[group].client.committed(partitions, timeout=_ANSWER_S)
        for tp in found:
            if tp.error is not None:
                raise KafkaException(tp.error)
        return {tp.partition: tp.offset for tp in found if tp.offset >= 0}

    def close(self) -> None:
        """Let go of connections."""
        with self._asking:
            while self._askers:
                _, asker = self._askers.popitem()
                if asker.is_ours:
                    asker.client.close()

    def _ask_offsets(
        self, partitions: list[TopicPartition], which: OffsetSpec
    ) -> "Mapping[TopicPartition, Future[Any]]":
        return self._client.list_offsets(
            dict.fromkeys(partitions, which), request_timeout=_ANSWER_S
        )


def _offsets(asked: "Mapping[TopicPartition, Future[Any]]") -> _Offsets:
    return {tp.partition: _result(future).offset for tp, future in asked.items()}


def _result(future: "Future[_T]") -> _T:
    try:
        return future.result(_ANSWER_S + 1)
    except TooLate as e:
        raise Unavailable("Kafka does not answer") from e
