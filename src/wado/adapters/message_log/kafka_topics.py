"""The topics on Kafka: made by `wado init`, and never changed behind the operator's back."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from wado.adapters.message_log.kafka_cluster import (
    DEFAULT_PARTITIONS,
    MAX_RECORD_BYTES,
    Cluster,
    unavailable,
)
from wado.errors import InvalidRequest
from wado.records import Topic
from wado.settings import LogSettings

_ANSWER_S = 20.0
_FOR_GOOD = "-1"


def prepare(cluster: Cluster, settings: LogSettings, topics: Iterable[Topic] = Topic) -> list[str]:
    """Make the topics that are missing; say where one that is there differs from the settings.

    Raises
    ------
    Unavailable
        The cluster does not answer.
    InvalidRequest
        It refuses the topics (too few brokers for the replicas, no right to make them).
    """
    options = cluster.client()
    client = AdminClient(options, logger=options.pop("logger"))
    try:
        found = client.list_topics(timeout=_ANSWER_S)
        wanted = {t.topic: t for t in _wanted(cluster, settings, topics)}
        there = {name: t for name, t in found.topics.items() if name in wanted}
        new = [topic for name, topic in wanted.items() if name not in there]
        made = _make(client, new)
        configs = _configs(client, list(there))
    except KafkaException as e:
        raise unavailable("making the topics", e) from e
    lines = [f"{len(made)} topics were made: {', '.join(made)}"] if made else []
    if there:
        lines.append(f"{len(there)} topics are there")
    for name, topic in there.items():
        lines += _differences(wanted[name], topic, configs[name])
    return lines


def _wanted(cluster: Cluster, settings: LogSettings, topics: Iterable[Topic]) -> Iterator[NewTopic]:
    replicas = settings.replication_factor
    safe = {"min.insync.replicas": str(min(settings.min_in_sync_replicas, replicas))}
    for topic in topics:
        yield NewTopic(
            cluster.topic(topic),
            num_partitions=settings.partitions or DEFAULT_PARTITIONS,
            replication_factor=replicas,
            config={
                **safe,
                "cleanup.policy": "delete",
                # What nobody has read is never forgotten; `trim` removes what all have.
                "retention.ms": _FOR_GOOD,
                "retention.bytes": _FOR_GOOD,
                "message.timestamp.type": "LogAppendTime",
                "max.message.bytes": str(MAX_RECORD_BYTES),
                "segment.bytes": str(128 << 20),
            },
        )
        yield NewTopic(
            cluster.dead_letters(topic),
            num_partitions=1,
            replication_factor=replicas,
            config={
                **safe,
                "cleanup.policy": "compact",
                "max.message.bytes": str(MAX_RECORD_BYTES),
                "segment.bytes": str(64 << 20),
            },
        )


def _make(client: AdminClient, topics: list[NewTopic]) -> list[str]:
    """Make topics; one that another makes at the same time is as good."""
    if not topics:
        return []
    made = []
    for name, future in client.create_topics(
        topics, request_timeout=_ANSWER_S, operation_timeout=_ANSWER_S
    ).items():
        try:
            future.result()
        except KafkaException as e:
            error = e.args[0]
            if error.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                continue
            if error.retriable() or error.code() < 0:  # below zero: of the library, not of Kafka
                raise
            raise InvalidRequest(f"Kafka does not make the topic {name}: {error.str()}") from e
        made.append(name)
    return made


def _configs(client: AdminClient, names: list[str]) -> dict[str, Mapping[str, Any]]:
    if not names:
        return {}
    asked = client.describe_configs(
        [ConfigResource(ResourceType.TOPIC, name) for name in names], request_timeout=_ANSWER_S
    )
    return {resource.name: future.result() for resource, future in asked.items()}


def _differences(wanted: NewTopic, found: Any, config: Mapping[str, Any]) -> Iterator[str]:
    """Say where a topic is not as the settings would make it; that may be by intention."""
    replicas = min((len(p.replicas) for p in found.partitions.values()), default=0)
    is_and_should: dict[str, tuple[Any, Any]] = {
        "partitions": (len(found.partitions), wanted.num_partitions),
        "replication factor": (replicas, wanted.replication_factor),
        **{
            name: (config[name].value if name in config else "unset", value)
            for name, value in (wanted.config or {}).items()
        },
    }
    for what, (now, should) in is_and_should.items():
        if str(now) != str(should):
            yield f"{wanted.topic}: {what} is {now}; the settings say {should}; left as it is"
