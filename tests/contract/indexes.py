"""What the tests of `Index` have in common."""

from collections.abc import Callable
from typing import Any

import psycopg

from backing_postgresql import Database
from wado.adapters.index.postgresql_schema import TENANT_TABLES
from wado.ports import Index, Level, Match, Query, Row
from wado.records import DicomStateMeta

Open = Callable[[], Index]
PATIENCE_S = 60.0
"""For a PostgreSQL on a machine that is busy."""


def state(study: str = "1.2", series: str = "1", **attributes: Any) -> DicomStateMeta:
    values: dict[str, Any] = {
        "tenant_id": "t",
        "patient_id": "P1",
        "patient_name": "Doe^Jane",
        "study_date": "20240131",
        "study_time": "101530",
        "modality": "CT",
        "number_of_series_related_instances": 1,
    }
    return DicomStateMeta(
        study_instance_uid=study,
        series_instance_uid=f"{study}.{series}",
        **{**values, **attributes},
    )


def search(
    index: Index, *matches: Match, level: Level = Level.STUDY, tenant_id: str = "t", **how: Any
) -> list[Row]:
    return list(index.search(Query(tenant_id, level, matches, **how)))


def uids(rows: list[Row]) -> list[str]:
    return [row.get("series_instance_uid") or row["study_instance_uid"] for row in rows]


def found(index: Index, keyword: str, kind: Any, *values: str, **how: Any) -> list[str]:
    return sorted(uids(search(index, Match(keyword, kind, values), **how)))


def emptied(database: Database) -> Database:
    """Remove all rows, which is quicker than to make another database."""
    with psycopg.connect(database.superuser_url) as connection:
        for table in TENANT_TABLES:
            connection.execute(f"DELETE FROM {table}")
    return database
