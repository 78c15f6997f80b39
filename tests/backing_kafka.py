"""Kafka for tests: one broker for the whole run, which tests share by prefixes of their own."""

import logging
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient

from backing import kafka
from backing.program import Program
from backing_services import shared
from real import require
from service import wait_until
from wado.adapters.message_log.kafka_cluster import Cluster
from wado.adapters.message_log.kafka_topics import prepare
from wado.records import Topic
from wado.settings import LogSettings

SESSION_S = 5.0
"""Readers that die are missed soon; one that gets no time of a busy machine is not."""


def shared_kafka(run_folder: Path) -> str:
    """Give the URL of the broker of this run; it is started if this is its first user."""
    require("java")
    require("mvn")

    def start(folder: Path) -> tuple[list[Program], dict[str, Any]]:
        programs = kafka.brokers(folder)
        return programs, {"url": kafka.url(programs)}

    return str(shared(run_folder, "kafka", start)["url"])


def new_prefix() -> str:
    """Make a prefix that nobody used."""
    return f"t{uuid.uuid4().hex[:10]}"


def settings(url: str, **more: Any) -> LogSettings:
    """Settings for one broker, and for little patience."""
    values = {"replication_factor": 1, "min_in_sync_replicas": 1, "session_timeout_s": SESSION_S}
    return LogSettings(url=url, **{**values, **more})


def prepared(url: str, topics: Iterable[Topic] = Topic, **more: Any) -> Cluster:
    """Make topics where they are missing, and describe the cluster."""
    wanted = settings(url, **more)
    cluster = Cluster.of(url, wanted)
    prepare(cluster, wanted, topics)
    wait_until_known(cluster, topics)
    return cluster


def wait_until_known(cluster: Cluster, topics: Iterable[Topic]) -> None:
    """Wait for the brokers to say that the topics are there: they learn of them a moment later."""
    quiet = logging.Logger("kafka")  # noqa: LOG001 - no part of the tree of loggers
    quiet.addHandler(logging.NullHandler())
    client = AdminClient({"bootstrap.servers": cluster.servers, **cluster.options}, logger=quiet)
    names = {cluster.topic(t) for t in topics} | {cluster.dead_letters(t) for t in topics}

    def are_known() -> bool:
        found = client.list_topics(timeout=30).topics
        return all(name in found and found[name].partitions for name in names)

    wait_until(are_known, timeout_s=60, reason="the topics are known")
