"""Kafka for tests: one broker for the whole run, which tests share by prefixes of their own."""

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from backing import kafka
from backing.program import Program
from backing_services import shared
from real import require
from wado.adapters.message_log.kafka_cluster import Cluster
from wado.adapters.message_log.kafka_topics import prepare
from wado.records import Topic
from wado.settings import LogSettings

SESSION_S = 2.0
"""Readers that die are missed soon."""


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
    return cluster
