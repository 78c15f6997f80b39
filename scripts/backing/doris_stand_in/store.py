"""Databases, tables, rows and labels in one DuckDB file: what was answered survives SIGKILL."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from threading import RLock
from typing import Any

import duckdb
import orjson

from backing.doris_stand_in.schema import DorisError, Table

_META = """
CREATE SCHEMA IF NOT EXISTS __stand_in;
CREATE TABLE IF NOT EXISTS __stand_in.db (name VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS __stand_in.tbl (db VARCHAR, name VARCHAR, definition VARCHAR);
CREATE TABLE IF NOT EXISTS __stand_in.account (name VARCHAR NOT NULL, password VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS __stand_in.txn (
    id BIGINT, db VARCHAR, tbl VARCHAR, label VARCHAR, state VARCHAR, changed_at DOUBLE,
    message VARCHAR, loaded BIGINT, filtered BIGINT, url VARCHAR, merge VARCHAR, pending BLOB);
"""
_STAGE = """CREATE OR REPLACE TEMP TABLE stage AS
    SELECT *, row_number() OVER () AS __row FROM read_json(?, format = 'newline_delimited',
    columns = {columns}, maximum_object_size = 134217728)"""


_FORGET_INTERVAL_S = 1.0


@dataclass(slots=True)
class Txn:
    """A load that has begun; it is nothing until it is committed."""

    id: int
    db: str
    table: str
    label: str
    is_precommitted: bool = False


class LabelUsed(Exception):
    """A label that is in use or was used; `status` is the ExistingJobStatus."""

    def __init__(self, label: str, txn_id: int, status: str) -> None:
        super().__init__(f"Label [{label}] has already been used, relate to txn [{txn_id}]")
        self.status = status


class Store:
    """All that is kept. One lock: the stand-in serves tests, not loads.

    Parameters
    ----------
    folder
        Where the file is.
    label_keep_s
        How long a label of a finished load is known.
    label_num
        How many labels of a database are known, the last; -1 for all.
    """

    def __init__(self, folder: Path, *, label_keep_s: float, label_num: int = -1) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.lock = RLock()
        self.label_keep_s = label_keep_s
        self.label_num = label_num
        self._forget_at = 0.0
        self._running: dict[tuple[str, str], Txn] = {}
        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": 1,
            "memory_limit": "512MB",
        }
        self.connection = duckdb.connect(str(folder / "doris.duckdb"), config=config)
        self.connection.execute(_META)
        self.connection.execute("CREATE SCHEMA IF NOT EXISTS mysql")
        self.publish()
        row = self.connection.execute("SELECT max(id) FROM __stand_in.txn").fetchone()
        self._last_txn = int(row[0] or 1000) if row else 1000

    def close(self) -> None:
        """Let go of the file."""
        with self.lock:
            self.connection.close()

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """All that is done within becomes durable together, or not at all."""
        with self.lock:
            self.connection.execute("BEGIN TRANSACTION")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException as e:
                if isinstance(e, duckdb.FatalException | duckdb.InternalException):
                    print("ends, to be started again:", e, flush=True)
                    os._exit(70)  # DuckDB takes nothing more (a full disk does that)
                with suppress(duckdb.Error):
                    self.connection.execute("ROLLBACK")
                raise

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement of our own and give its rows."""
        with self.lock:
            return self.connection.execute(sql, list(parameters)).fetchall()

    # -------------------------------------------------------------- databases, tables, users

    def databases(self) -> list[str]:
        """Names of the databases."""
        return [name for (name,) in self.rows("SELECT name FROM __stand_in.db ORDER BY name")]

    def create_database(self, name: str) -> None:
        """Make a database that is not there yet."""
        with self.transaction() as c:
            c.execute("INSERT INTO __stand_in.db VALUES (?)", [name])
            c.execute(f'CREATE SCHEMA "{name}"')

    def drop_database(self, name: str) -> None:
        """Drop a database and all that is in it; its labels go too."""
        with self.transaction() as c:
            c.execute(f'DROP SCHEMA "{name}" CASCADE')
            c.execute("DELETE FROM __stand_in.db WHERE name = ?", [name])
            c.execute("DELETE FROM __stand_in.tbl WHERE db = ?", [name])
            c.execute("DELETE FROM __stand_in.txn WHERE db = ?", [name])

    def tables(self, db: str) -> list[str]:
        """Names of the tables of a database."""
        sql = "SELECT name FROM __stand_in.tbl WHERE db = ? ORDER BY name"
        return [name for (name,) in self.rows(sql, [db])]

    def table(self, db: str, name: str) -> Table | None:
        """Find a table by its exact name."""
        sql = "SELECT definition FROM __stand_in.tbl WHERE db = ? AND name = ?"
        found = self.rows(sql, [db, name])
        return Table.from_json(found[0][0]) if found else None

    def create_table(self, db: str, table: Table) -> None:
        """Make a table that is not there yet."""
        columns = ", ".join(f'"{c.name}" {c.type_below}' for c in table.columns)
        with self.transaction() as c:
            c.execute(f'CREATE TABLE "{db}"."{table.name}" ({columns})')
            sql = "INSERT INTO __stand_in.tbl VALUES (?, ?, ?)"
            c.execute(sql, [db, table.name, table.to_json()])

    def redefine_table(self, db: str, table: Table) -> None:
        """Change what is known of a table, but not its columns; within a transaction."""
        sql = "UPDATE __stand_in.tbl SET definition = ? WHERE db = ? AND name = ?"
        self.connection.execute(sql, [table.to_json(), db, table.name])

    def drop_table(self, db: str, name: str) -> None:
        """Drop a table."""
        with self.transaction() as c:
            c.execute(f'DROP TABLE "{db}"."{name}"')
            c.execute("DELETE FROM __stand_in.tbl WHERE db = ? AND name = ?", [db, name])

    def accounts(self) -> dict[str, str]:
        """Users and their passwords."""
        return dict(self.rows("SELECT name, password FROM __stand_in.account"))

    def set_account(self, name: str, password: str | None) -> None:
        """Add a user or change the password; None removes the user."""
        with self.transaction() as c:
            c.execute("DELETE FROM __stand_in.account WHERE name = ?", [name])
            if password is not None:
                c.execute("INSERT INTO __stand_in.account VALUES (?, ?)", [name, password])

    # -------------------------------------------------------------- loads

    def begin(self, db: str, table: str, label: str) -> Txn:
        """Begin a load under a label that is free.

        Raises
        ------
        LabelUsed
            Another load has, or had, this label.
        """
        with self.lock:
            running = self._running.get((db, label))
            if running is not None:
                raise LabelUsed(label, running.id, "RUNNING")
            self._forget_labels()
            sql = """SELECT id, state FROM __stand_in.txn
                WHERE db = ? AND label = ? AND state <> 'ABORTED'"""
            for txn_id, state in self.rows(sql, [db, label]):
                precommitted = state == "PRECOMMITTED"
                raise LabelUsed(label, txn_id, state if precommitted else "FINISHED")
            self._last_txn += 1
            txn = Txn(self._last_txn, db, table, label)
            self._running[db, label] = txn
            return txn

    def abort(self, txn: Txn, message: str, filtered: int = 0, url: str = "") -> None:
        """Give a load up; its label is free again."""
        with self.lock:
            if self._running.pop((txn.db, txn.label), None):
                with self.transaction() as c:
                    record = [txn.id, txn.db, txn.table, txn.label, "ABORTED", time.time()]
                    _record(c, [*record, message, 0, filtered, url, "", None])

    def commit(self, txn: Txn, table: Table, rows: bytes, counts: "Counts") -> None:
        """Make rows and label durable together. With `counts.precommit` the rows wait."""
        with self.lock:
            with self.transaction() as c:
                state = "COMMITTED" if counts.late else "VISIBLE"
                state = "PRECOMMITTED" if counts.precommit else state
                record = [txn.id, txn.db, txn.table, txn.label, state, time.time(), "OK"]
                record += [counts.loaded, counts.filtered, counts.url, counts.merge]
                waits = state != "VISIBLE"
                _record(c, [*record, rows if waits else None])
                if not waits:
                    self._check_same(txn.db, table)
                    self._publish(c)  # versions are seen in their order
                    self.put(txn.db, table, rows, counts.merge, counts.only)
                self._keep_partitions(txn.db, table)
            del self._running[txn.db, txn.label]

    def _check_same(self, db: str, table: Table) -> None:
        """Find out whether the table is still the one that the rows were fitted to."""
        now = self.table(db, table.name)
        if now is None or now.columns[: len(table.columns)] != table.columns:
            raise DorisError(f"errCode = 2, detailMessage = table {table.name} has changed")

    def _keep_partitions(self, db: str, table: Table) -> None:
        """Add the partitions that a load made to those that are there."""
        now = self.table(db, table.name)
        there = {p.name for p in now.partitions} if now else set()
        made = [p for p in table.partitions if p.name not in there]
        if now and made:
            now.partitions += made
            self.redefine_table(db, now)

    def publish(self) -> None:
        """Let loads be seen that are committed, but were not yet."""
        with self.transaction() as c:
            self._publish(c)

    def _publish(self, connection: duckdb.DuckDBPyConnection) -> None:
        sql = """SELECT id, db, tbl, merge, pending FROM __stand_in.txn
            WHERE state = 'COMMITTED' ORDER BY id"""
        for txn_id, db, name, merge, pending in connection.execute(sql).fetchall():
            if table := self.table(db, name):
                self.put(db, table, pending, merge)
            change = "UPDATE __stand_in.txn SET state = 'VISIBLE', pending = NULL WHERE id = ?"
            connection.execute(change, [txn_id])

    def finish(self, db: str, txn_id: int, *, commit: bool) -> None:
        """Commit or abort a load that was committed in its first phase.

        Raises
        ------
        DorisError
            There is no such load, or it is past that.
        """
        with self.transaction() as c:
            sql = """SELECT tbl, state, merge, pending FROM __stand_in.txn
                WHERE id = ? AND db = ?"""
            found = c.execute(sql, [txn_id, db]).fetchone()
            if found is None:
                raise DorisError(f"errCode = 2, detailMessage = transaction [{txn_id}] not found")
            name, state, merge, pending = found
            if state != "PRECOMMITTED":
                what = ", not pre-committed." if commit else ", could not abort."
                text = f"transaction [{txn_id}] is already {state.lower()}{what}"
                raise DorisError(f"errCode = 2, detailMessage = {text}")
            change = (
                "UPDATE __stand_in.txn SET state = ?, pending = NULL, changed_at = ? WHERE id = ?"
            )
            c.execute(change, ["VISIBLE" if commit else "ABORTED", time.time(), txn_id])
            if commit:
                table = self.table(db, name)
                if table is None:
                    raise DorisError(f"errCode = 7, detailMessage = unknown table, {name}")
                self.put(db, table, pending, merge)

    def put(
        self, db: str, table: Table, rows: bytes, merge: str = "APPEND", only: Sequence[str] = ()
    ) -> None:
        """Add rows, one JSON object a line, with checked values; within a transaction.

        With `only`, the other columns keep what they have in the table.

        Of a unique table the last row of a key stays: by the sequence column, else by order.
        """
        if not rows:
            return
        names = [c.name for c in table.columns]
        types = {c.name: c.type_below for c in table.columns} | {"__delete": "BOOLEAN"}
        quoted = ", ".join(f"'{name}': '{kind}'" for name, kind in types.items())
        columns = ", ".join(f'"{name}"' for name in names)
        with TemporaryFile() as file:
            file.write(rows)
            file.flush()
            staging = _STAGE.format(columns=f"{{{quoted}}}")
            self.connection.execute(staging, [f"/proc/self/fd/{file.fileno()}"])
        if only:
            self._fill_in(db, table, only)
        if table.is_unique:
            self._replace(db, table)
        keep = "" if merge == "APPEND" else "WHERE NOT coalesce(__delete, FALSE)"
        into = f'INSERT INTO "{db}"."{table.name}" ({columns})'
        self.connection.execute(f"{into} SELECT {columns} FROM stage {keep} ORDER BY __row")
        self.connection.execute("DROP TABLE stage")

    def _fill_in(self, db: str, table: Table, only: Sequence[str]) -> None:
        """Complete the rows of a partial update by those that are in the table.

        Raises
        ------
        DorisError
            A new row would be without a value that it must have.
        """
        same = " AND ".join(f't."{k}" IS NOT DISTINCT FROM s."{k}"' for k in table.keys)
        others = [c for c in table.columns if c.name.lower() not in only]
        taken = ", ".join(f'"{c.name}" = t."{c.name}"' for c in others)
        if taken:
            source = f'"{db}"."{table.name}" t'
            self.connection.execute(f"UPDATE stage s SET {taken} FROM {source} WHERE {same}")
        for column in others:
            sql = f'SELECT count(*) FROM stage WHERE "{column.name}" IS NULL'
            if not column.nullable and self.rows(sql)[0][0]:
                text = f"the unmentioned column `{column.name}` should have default value or be"
                raise DorisError(f"{text} nullable for newly inserted rows")

    def _replace(self, db: str, table: Table) -> None:
        """Leave one row of each key in the stage, and none of these keys in the table."""
        c = self.connection
        keys = ", ".join(f'"{k}"' for k in table.keys)
        same = " AND ".join(f't."{k}" IS NOT DISTINCT FROM s."{k}"' for k in table.keys)
        order = f'"{table.sequence}" NULLS FIRST, __row' if table.sequence else "__row"
        c.execute(f"""DELETE FROM stage WHERE __row NOT IN (SELECT __row FROM stage
            QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {order}) =
                count(*) OVER (PARTITION BY {keys}))""")
        if table.sequence:
            c.execute(f"""DELETE FROM stage s USING "{db}"."{table.name}" t WHERE {same}
                AND t."{table.sequence}" > s."{table.sequence}" """)
        c.execute(f'DELETE FROM "{db}"."{table.name}" t USING stage s WHERE {same}')

    def _forget_labels(self) -> None:
        """Now and then forget labels that are too old or too many."""
        if time.monotonic() < self._forget_at:
            return
        self._forget_at = time.monotonic() + _FORGET_INTERVAL_S
        old = "DELETE FROM __stand_in.txn WHERE changed_at < ? AND state <> 'PRECOMMITTED'"
        self.connection.execute(old, [time.time() - self.label_keep_s])
        if self.label_num > 0:
            many = """DELETE FROM __stand_in.txn WHERE id IN (SELECT id FROM __stand_in.txn
                WHERE state <> 'PRECOMMITTED'
                QUALIFY row_number() OVER (PARTITION BY db ORDER BY changed_at DESC) > ?)"""
            self.connection.execute(many, [self.label_num])

    def loads(self, db: str) -> list[dict[str, Any]]:
        """What is known of loads, running ones included."""
        with self.lock:
            sql = """SELECT id, label, tbl, state, message, loaded, filtered, url, changed_at
                FROM __stand_in.txn WHERE db = ? ORDER BY id"""
            names = ["id", "label", "tbl", "state", "message", "loaded", "filtered", "url", "at"]
            known = [dict(zip(names, row, strict=True)) for row in self.rows(sql, [db])]
            for txn in self._running.values():
                if txn.db == db:
                    blank: dict[str, Any] = dict.fromkeys(names, "")
                    counts = {"loaded": 0, "filtered": 0, "at": time.time()}
                    what = {"id": txn.id, "label": txn.label, "tbl": txn.table}
                    known.append(blank | counts | what | {"state": "PREPARE"})
            return known


@dataclass(slots=True)
class Counts:
    """What a load came to, and how it is to be committed."""

    loaded: int
    filtered: int = 0
    url: str = ""
    merge: str = "APPEND"
    precommit: bool = False
    late: bool = False
    only: Sequence[str] = ()


def _record(connection: duckdb.DuckDBPyConnection, values: Sequence[Any]) -> None:
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO __stand_in.txn VALUES ({marks})", list(values))


def as_lines(rows: Sequence[dict[str, Any]]) -> bytes:
    """Rows in the form that `Store.put` takes."""
    return b"\n".join(orjson.dumps(row, default=str) for row in rows)
