"""PostgreSQL for tests: one server for the run, a database of its own for each test."""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

import real
from backing import postgresql
from backing.program import Program
from backing_services import shared
from wado.adapters.index.postgresql_schema import prepare

_TEMPLATE = "wado_template"
_FAST: dict[str, Any] = {"autovacuum_naptime": "10s", "max_connections": "300"}
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Database:
    """URLs of one database: for services, for the owner of its tables, for the superuser."""

    url: str
    owner_url: str
    superuser_url: str


@dataclass(frozen=True, slots=True)
class Server:
    """The shared server."""

    folder: Path
    port: int

    def database(self, *, is_migrated: bool = True) -> Database:
        """Make a new database; with tables and rights, as `wado init` leaves them."""
        name = f"wado_{os.getpid()}_{next(_numbers)}"
        postgresql.prepare(self.url("postgres"), name, template=_TEMPLATE if is_migrated else None)
        return self.named(name)

    def named(self, name: str) -> Database:
        """URLs of a database."""
        return Database(
            url=postgresql.url_of(self.folder, self.port, database=name),
            owner_url=postgresql.url_of(
                self.folder, self.port, user=postgresql.OWNER, database=name
            ),
            superuser_url=self.url(name),
        )

    def url(self, database: str) -> str:
        """URL of the superuser."""
        return postgresql.url_of(
            self.folder, self.port, user=postgresql.SUPERUSER, database=database
        )

    def drop(self, database: Database) -> None:
        """Remove a database and end its connections."""
        name = database.url.rpartition("/")[2]
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )


def server(run_folder: Path) -> Server:
    """Start the server of this run, or find it; with a migrated database as template."""
    real.require("postgresql")
    values = shared(run_folder, "postgresql", _start)
    found = Server(Path(values["folder"]), values["port"])
    shared(run_folder, "postgresql-template", lambda _: _make_template(found))
    return found


def _start(folder: Path) -> tuple[Sequence[Program], dict[str, Any]]:
    program, url = postgresql.server(folder, **_FAST)
    port = int(psycopg.conninfo.conninfo_to_dict(url)["port"] or 0)
    return [program], {"folder": str(folder), "port": port}


def _make_template(found: Server) -> tuple[Sequence[Program], dict[str, Any]]:
    postgresql.prepare(found.url("postgres"), _TEMPLATE)
    database = found.named(_TEMPLATE)
    prepare(database.url, database.owner_url, timeout_s=60)
    return [], {}
