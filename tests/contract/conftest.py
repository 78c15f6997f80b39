"""Fixtures of the tests of `Index` and `MessageLog`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import backing_postgresql
from backing_postgresql import Database
from contract.indexes import PATIENCE_S, Open, emptied
from contract.message_logs import Open as OpenLog
from wado.adapters.index.postgresql import PostgresqlIndex
from wado.adapters.index.sqlite import SqliteIndex
from wado.adapters.message_log.sqlite import SqliteMessageLog
from wado.ports import Index, MessageLog

ADAPTERS = ["sqlite", "postgresql"]


@pytest.fixture(scope="session")
def server(run_folder: Path) -> backing_postgresql.Server:
    """The PostgreSQL of this run."""
    return backing_postgresql.server(run_folder)


@pytest.fixture(scope="module")
def module_database(server: backing_postgresql.Server) -> Iterator[Database]:
    database = server.database()
    yield database
    server.drop(database)


@pytest.fixture
def database(module_database: Database) -> Database:
    """A database with the tables of the index, and nothing in them."""
    return emptied(module_database)


@pytest.fixture(params=ADAPTERS)
def open_index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Open the index; each call as another process would."""
    opened: list[Index] = []
    make: Callable[[], Index]
    if request.param == "sqlite":
        path = tmp_path / "index" / "index.sqlite"

        def make() -> Index:
            return SqliteIndex(path, durable=True)
    else:
        url = request.getfixturevalue("database").url

        def make() -> Index:
            return PostgresqlIndex(url, timeout_s=PATIENCE_S)

    def open_it() -> Index:
        opened.append(make())
        return opened[-1]

    yield open_it
    for index in opened:
        index.close()


@pytest.fixture
def index(open_index: Open) -> Index:
    return open_index()


# ------------------------------------------------------------------ message logs


@pytest.fixture
def open_sqlite_log(tmp_path: Path) -> Iterator[OpenLog]:
    """Open the message log of one machine; each call as another process would."""
    opened: list[MessageLog] = []

    def open_it(**settings: Any) -> MessageLog:
        log = SqliteMessageLog(tmp_path / "log", **{"partitions": 1, "durable": True, **settings})
        opened.append(log)
        return log

    yield open_it
    for log in opened:
        log.close()


@pytest.fixture
def patient_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait longer for brokers that answer late: this machine may be busy."""
    from wado.adapters.message_log import (  # noqa: PLC0415 - their library is heavy
        kafka_admin,
        kafka_brokers,
        kafka_cluster,
        kafka_publisher,
        kafka_reader,
    )

    for module in (kafka_admin, kafka_brokers, kafka_cluster, kafka_publisher, kafka_reader):
        monkeypatch.setattr(module, "_ANSWER_S", 60.0)
    monkeypatch.setattr(kafka_publisher, "_FIRST_ANSWER_S", 60.0)


@pytest.fixture
def open_kafka_log(run_folder: Path, patient_kafka: None) -> Iterator[OpenLog]:
    """Open a new message log on the Kafka broker of this run; later calls open the same."""
    import backing_kafka  # noqa: PLC0415 - its library is heavy
    from wado.adapters.message_log.kafka import KafkaMessageLog  # noqa: PLC0415

    url = f"{backing_kafka.shared_kafka(run_folder)}/{backing_kafka.new_prefix()}"
    opened: list[MessageLog] = []

    def open_it(*, partitions: int = 1) -> MessageLog:
        cluster = backing_kafka.prepared(url, partitions=partitions, publish_timeout_s=60)
        log = KafkaMessageLog(cluster)
        opened.append(log)
        return log

    yield open_it
    for log in opened:
        log.close()
