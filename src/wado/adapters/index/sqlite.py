"""The index in a SQLite file, for one machine."""

import heapq
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakSet

from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError

from wado.adapters.index import statements, writes
from wado.adapters.index.loading import loading, rebuild_texts, texts_are_right
from wado.adapters.index.migrations import migrate
from wado.adapters.index.positions import Positions
from wado.adapters.index.search import search
from wado.adapters.index.tables import SERIES_FIELDS, STUDY_FIELDS
from wado.adapters.sqlite_file import (
    BUSY_TIMEOUT_MS,
    JOURNAL_SIZE_LIMIT_BYTES,
    WriteLock,
    flush_folder,
    make_folder,
)
from wado.dicom.uids import SeriesRef
from wado.errors import Unavailable
from wado.ports import Query, Row
from wado.records import DicomStateMeta

_PAGE = 1000
_MAPPED_BYTES = 16 << 30
"""So much of the file is read where the system keeps it; copying pages takes as long as a search.
It is memory that the system takes back when it needs it."""
_STATE_FIELDS = (
    "tenant_id",
    "study_instance_uid",
    "series_instance_uid",
    *STUDY_FIELDS,
    *SERIES_FIELDS,
)


class SqliteIndex:
    """A `wado.ports.Index` in one file; any number of processes may open it.

    Parameters
    ----------
    path
        The database; made, or brought up to date, when it is opened.
    durable
        False: a power cut can take the last transactions (but not harm the file).

    Raises
    ------
    Unavailable
        The file cannot be made, read or written to.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        make_folder(path.parent)
        self._path = path
        self._durable = durable
        self._write_lock = WriteLock(path.with_suffix(".lock"))
        self._engine = create_engine(
            f"sqlite:///{path}",
            connect_args={
                "timeout": BUSY_TIMEOUT_MS / 1000,
                "isolation_level": None,
                "check_same_thread": False,
            },
            pool_size=8,
            max_overflow=64,
        )
        self._positions = Positions()
        event.listen(self._engine, "connect", self._configure)
        _alive.add(self)
        with self._border(), self._write_lock, self._engine.connect() as connection:
            connection.execute(text("PRAGMA journal_mode=WAL"))
            # The driver begins no transaction by itself: who was killed amid the statements would
            # leave tables that the next can neither use nor make.
            connection.execute(text("BEGIN IMMEDIATE"))
            migrate(connection)
            connection.commit()
        with self._write() as writer:
            if not texts_are_right(writer):
                rebuild_texts(writer)
        if durable:  # the names of files that this may have made
            flush_folder(path.parent)

    def put(self, states: Sequence[DicomStateMeta], *, flush: bool = True) -> None:
        """Insert or update series, and their studies and patients, in one transaction."""
        if states:
            with self._write(flush=flush) as connection:
                writes.put(connection, states)

    def flush(self) -> None:
        """Make durable what was put: the write-ahead log holds it until a checkpoint."""
        if not self._durable:
            return
        with self._border():
            try:
                fd = os.open(f"{self._path}-wal", os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:  # all of it is in the database, which was flushed then
                return
            try:
                os.fdatasync(fd)
            except OSError as e:
                raise Unavailable(f"{self._path.name}: {e.strerror or e}") from e
            finally:
                os.close(fd)

    @contextmanager
    def loading(self) -> Iterator[Callable[[Sequence[DicomStateMeta]], None]]:
        """Put very many states in one transaction, while nobody else uses the index."""
        with self._write() as connection, loading(connection):
            yield partial(writes.put, connection, described=True)

    def search(self, query: Query) -> Sequence[Row]:
        """Study or series rows that match, newest study first, then by UID."""
        with self._border(), self._engine.connect() as connection:
            return search(connection, query, self._positions)

    def series(self, ref: SeriesRef) -> Row | None:
        """One series row with its study's attributes, or None."""
        rows = self._rows(statements.one_series(ref))
        return rows[0] if rows else None

    def all_series(self, tenant_id: str | None = None) -> Iterator[DicomStateMeta]:
        """Every series (of one tenant, or of all), ordered by key; read a page at a time."""
        after: tuple[str, str, str] | None = None
        while rows := self._rows(statements.series_after(after, tenant_id, limit=_PAGE)):
            for row in rows:
                yield DicomStateMeta(**{name: row[name] for name in _STATE_FIELDS})
            last = rows[-1]
            after = (last["tenant_id"], last["study_instance_uid"], last["series_instance_uid"])

    def awaiting_description(self, limit: int) -> Sequence[tuple[SeriesRef, int]]:
        """Series that changed since they were described, oldest change first, with a version."""
        with self._border(), self._engine.connect() as connection:
            waiting = [
                row
                for tenant_id in _tenants_awaiting(connection)
                for row in connection.execute(statements.awaiting(tenant_id, limit))
            ]
        oldest = heapq.nsmallest(limit, waiting, key=lambda row: row.version)
        return [
            (SeriesRef(r.tenant_id, r.study_instance_uid, r.series_instance_uid), r.version)
            for r in oldest
        ]

    def mark_described(self, described: Sequence[tuple[SeriesRef, int]]) -> None:
        """Take series off the waiting list, unless they changed since that version."""
        if described:
            with self._write() as connection:
                writes.mark_described(connection, described)

    def await_description(self, refs: Sequence[SeriesRef]) -> None:
        """Put series on the waiting list again, whose documents show no longer what there is."""
        if refs:
            with self._write() as connection:
                writes.await_description(connection, refs)

    def close(self) -> None:
        """Let go of the connections."""
        with self._border():
            self._engine.dispose()
        self._write_lock.close()

    def after_fork(self) -> None:
        """In a child: set the parent's connections aside, unused and unclosed."""
        self._engine.dispose(close=False)

    def _rows(self, statement: statements.Statement) -> list[dict[str, Any]]:
        with self._border(), self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]

    @contextmanager
    def _write(self, *, flush: bool = True) -> Iterator[sqlite3.Connection]:
        """Run a transaction on the driver's connection; the write lock keeps others waiting."""
        level = "FULL" if flush and self._durable else "NORMAL"
        with self._border(), self._write_lock:
            borrowed = self._engine.raw_connection()
            try:
                connection = borrowed.driver_connection
                assert isinstance(connection, sqlite3.Connection)
                connection.execute(f"PRAGMA synchronous={level}")
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            finally:
                borrowed.close()  # rolls back what was not committed

    def _configure(self, connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA journal_size_limit={JOURNAL_SIZE_LIMIT_BYTES}")
        connection.execute("PRAGMA cache_size=-16000")
        connection.execute(f"PRAGMA mmap_size={_MAPPED_BYTES}")
        # LIKE must not treat a and A alike: only names are matched without regard to case.
        connection.execute("PRAGMA case_sensitive_like=ON")

    @contextmanager
    def _border(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as e:
            cause = getattr(e, "orig", None) or e
            raise Unavailable(f"{self._path.name}: {cause}") from e


def _tenants_awaiting(connection: Connection) -> Iterator[str]:
    """Tenants with series that await description, each found by one look into the index."""
    tenant_id: str | None = ""
    while tenant_id is not None:
        tenant_id = connection.execute(statements.next_tenant_awaiting(tenant_id)).scalar()
        if tenant_id is not None:
            yield tenant_id


def _after_fork() -> None:
    for index in list(_alive):
        index.after_fork()


_alive: "WeakSet[SqliteIndex]" = WeakSet()
os.register_at_fork(after_in_child=_after_fork)
