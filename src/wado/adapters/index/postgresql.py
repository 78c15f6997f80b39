"""The index in PostgreSQL, for many machines."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import count
from threading import Lock
from typing import Any

import psycopg
from psycopg import errors
from sqlalchemy import Connection

from wado.adapters.index import postgresql_writes as writes
from wado.adapters.index import statements
from wado.adapters.index.positions import Positions
from wado.adapters.index.postgresql_loading import loading
from wado.adapters.index.postgresql_schema import check_revision
from wado.adapters.index.postgresql_session import (
    EVERY_TENANT,
    BoundedConnection,
    NoAnswer,
    Sessions,
    driver,
)
from wado.adapters.index.postgresql_staging import MAY_STAGE
from wado.adapters.index.postgresql_texts import Trigrams
from wado.adapters.index.postgresql_values import shortened, storable
from wado.adapters.index.search import search
from wado.adapters.index.tables import SERIES_FIELDS, STUDY_FIELDS
from wado.dicom.matching import Match
from wado.dicom.uids import SeriesRef
from wado.errors import Unavailable
from wado.ports import Query, Row
from wado.records import DicomStateMeta

_PAGE = 1000
_ATTEMPTS = 8
_AGAIN = (errors.SerializationFailure, errors.DeadlockDetected, errors.UniqueViolation)
_AGAIN_AFTER_S = 0.01
_STATE_FIELDS = (
    "tenant_id",
    "study_instance_uid",
    "series_instance_uid",
    *STUDY_FIELDS,
    *SERIES_FIELDS,
)
_TEXTS = Trigrams()
_AWAITING = """SELECT tenant_id, study_instance_uid, series_instance_uid, version
    FROM series_awaiting ORDER BY version LIMIT %s"""
_GENERATION = "SELECT generation FROM index_generation"
_NEW_GENERATION = """INSERT INTO index_generation VALUES (true, gen_random_uuid()::text)
    ON CONFLICT (is_current) DO UPDATE SET is_current = true RETURNING generation"""
_FLUSH = "SELECT pg_logical_emit_message(true, 'wado', '')"
# A process that is frozen within its transaction must not hold the locks of its studies for long;
# PostgreSQL 15 sees to that only where the last statement was not part of a pipeline.
_SET = """SELECT set_config('wado.tenant_id', %s, true), set_config('statement_timeout', %s, true),
    set_config('idle_in_transaction_session_timeout', %s, true),
    set_config('synchronous_commit', %s, true), set_config('enable_seqscan', 'off', true),
    set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
    set_config('jit', 'off', true), set_config('plan_cache_mode', %s, true)"""
_FEW = 20
"""Up to so many series are written by plans that are kept; making new ones would take longer."""
_TENANT = "SELECT set_config('wado.tenant_id', %s, true)"


class PostgresqlIndex:
    """A `wado.ports.Index` in PostgreSQL; `wado init` makes its tables.

    What is put without flush is committed asynchronously. `flush` makes the server write out its
    log; that the server did not lose some of it in between is known by a row of an unlogged table,
    which a crash (or a failover) empties.

    Parameters
    ----------
    url
        ``postgresql://user:password@host:port/database``.
    durable
        False: a crash of the server can take the last transactions.
    timeout_s
        How long a connection or an answer is waited for.
    connections
        Most connections of this process.
    """

    def __init__(
        self, url: str, *, durable: bool = True, timeout_s: float = 4.0, connections: int = 8
    ) -> None:
        self._sessions = Sessions(url, timeout_s=timeout_s, connections=connections)
        self._durable = durable
        self._positions = Positions()
        self._checked = False
        self._may_stage = False
        self._lock = Lock()
        self._unflushed: set[str] = set()

    def put(self, states: Sequence[DicomStateMeta], *, flush: bool = True) -> None:
        """Insert or update series, and their studies and patients, in one transaction."""
        if not states:
            return
        try:
            self._put(states, flush=flush)
        except (TypeError, ValueError) as e:
            raise Unavailable(f"{self._sessions.shown}: can't be written: {e}") from e

    def flush(self) -> None:
        """Make durable what was put, or say that the server has lost it."""
        if not self._durable:
            return
        with self._lock:
            unflushed = set(self._unflushed)
        if not unflushed:
            return
        with self._sessions.border():
            known = self._retried(self._flushed)
        with self._lock:
            self._unflushed -= unflushed
        if unflushed != {known}:
            raise Unavailable(f"{self._sessions.shown} has crashed; the last puts may be lost")

    @contextmanager
    def loading(self) -> Iterator[Callable[[Sequence[DicomStateMeta]], None]]:
        """Put very many states in one transaction, while nobody else writes to the index."""
        self._check()
        with self._sessions.border(), loading(self._sessions) as put:
            yield put

    def search(self, query: Query) -> Sequence[Row]:
        """Study or series rows that match, newest study first, then by UID."""
        self._check()
        wanted = _askable(query)
        return self._sessions.read(
            query.tenant_id, lambda c: search(c, wanted, self._positions, _TEXTS)
        )

    def series(self, ref: SeriesRef) -> Row | None:
        """One series row with its study's attributes, or None."""
        rows = self._rows(ref.tenant_id, statements.one_series(ref))
        return rows[0] if rows else None

    def all_series(self, tenant_id: str | None = None) -> Iterator[DicomStateMeta]:
        """Every series (of one tenant, or of all), ordered by key; read a page at a time."""
        seen_by = EVERY_TENANT if tenant_id is None else tenant_id
        after: tuple[str, str, str] | None = None
        while rows := self._rows(seen_by, statements.series_after(after, tenant_id, limit=_PAGE)):
            for row in rows:
                yield DicomStateMeta(**{name: row[name] for name in _STATE_FIELDS})
            last = rows[-1]
            after = (last["tenant_id"], last["study_instance_uid"], last["series_instance_uid"])

    def awaiting_description(self, limit: int) -> Sequence[tuple[SeriesRef, int]]:
        """Series that changed since they were described, oldest change first, with a version."""
        self._check()
        rows = self._sessions.read(
            EVERY_TENANT, lambda c: _last(c).exec_driver_sql(_AWAITING, (limit,)).all()
        )
        return [(SeriesRef(*row[:3]), row[3]) for row in rows]

    def mark_described(self, described: Sequence[tuple[SeriesRef, int]]) -> None:
        """Take series off the waiting list, unless they changed since that version."""
        if not described:
            return
        self._check()

        def mark(connection: BoundedConnection) -> None:
            # Lost in a crash, they are described once more.
            self._begin(connection, EVERY_TENANT, durable=False)
            writes.mark_described(connection, described)
            connection.execute("COMMIT")

        with self._sessions.border():
            self._retried(mark)

    def await_description(self, refs: Sequence[SeriesRef]) -> None:
        """Put series on the waiting list again, whose documents show no longer what there is."""
        if not refs:
            return
        self._check()

        def put_back(connection: BoundedConnection) -> None:
            self._begin(connection, EVERY_TENANT, durable=self._durable)
            writes.await_description(connection, refs)
            connection.execute("COMMIT")

        with self._sessions.border():
            self._retried(put_back)

    def close(self) -> None:
        """Let go of the connections."""
        self._sessions.close()

    def _put(self, states: Sequence[DicomStateMeta], *, flush: bool) -> None:
        self._check()
        is_durable = flush and self._durable
        changes = writes.prepared(states)

        def write(connection: BoundedConnection) -> str | None:
            by_copy = self._may_stage and any(c.is_large for c in changes)
            with nullcontext() if by_copy else connection.pipeline():
                is_small = len(states) <= _FEW
                if is_small and connection.puts_are_round():
                    connection.execute("DISCARD PLANS")  # made when the tables were smaller
                self._begin(connection, changes[0].tenant_id, durable=is_durable, is_small=is_small)
                now = None if is_durable else connection.execute(_GENERATION, prepare=True)
                for number, of_tenant in enumerate(changes):
                    if number:
                        connection.execute(_TENANT, [of_tenant.tenant_id])
                    copied = by_copy and of_tenant.is_large
                    writes.put(connection, of_tenant, by_copy=copied)
                generation = _generation(connection, now) if now else None
                connection.execute("COMMIT", prepare=True)
            return generation

        with self._sessions.border():
            try:
                generation = self._retried(write)
            except errors.ProgramLimitExceeded:  # a value that is too long for an index
                changes = writes.prepared(list(map(shortened, states)))
                generation = self._retried(write)
        if generation and self._durable:
            with self._lock:
                self._unflushed.add(generation)

    def _flushed(self, connection: BoundedConnection) -> str | None:
        """Have the server write out its log, as a synchronous commit does; its generation."""
        with connection.pipeline():
            self._begin(connection, EVERY_TENANT, durable=True)
            now = connection.execute(_GENERATION, prepare=True)
            connection.execute(_FLUSH, prepare=True)
            connection.execute("COMMIT", prepare=True)
            row = now.fetchone()
        return row[0] if row else None

    def _begin(
        self,
        connection: BoundedConnection,
        tenant_id: str,
        *,
        durable: bool,
        is_small: bool = True,
    ) -> None:
        limit_ms = str(round(self._sessions.timeout_s * 1000))
        connection.execute("BEGIN", prepare=True)
        level = "on" if durable else "off"
        plans = "force_generic_plan" if is_small else "force_custom_plan"
        connection.execute(_SET, [tenant_id, limit_ms, limit_ms, level, plans], prepare=True)

    def _retried(self, work: Callable[[BoundedConnection], str | None]) -> str | None:
        """Run a transaction; again after a collision, or if the connection had been cut.

        If it was cut when it was committed, nobody knows the outcome; again is harmless.
        """
        was_cut = False
        for attempt in count():
            connection: BoundedConnection | None = None
            try:
                with self._sessions.borrowed() as connection:
                    return work(connection)
            except _AGAIN:
                if attempt >= _ATTEMPTS:
                    raise
                time.sleep(random.random() * _AGAIN_AFTER_S * (attempt + 1))  # noqa: S311
            except psycopg.OperationalError as e:
                if was_cut or isinstance(e, NoAnswer) or not (connection and connection.closed):
                    raise
                was_cut = True
                self._sessions.renew()
        raise AssertionError("never reached")

    def _rows(self, tenant_id: str, statement: statements.Statement) -> list[dict[str, Any]]:
        self._check()
        return self._sessions.read(
            tenant_id, lambda c: [dict(row) for row in _last(c).execute(statement).mappings()]
        )

    def _check(self) -> None:
        """Find out, once, whether the tables are those that this code knows."""
        if not self._checked:
            self._sessions.read(EVERY_TENANT, check_revision)
            may = self._sessions.read(EVERY_TENANT, lambda c: c.exec_driver_sql(MAY_STAGE).scalar())
            self._may_stage = bool(may)
            self._checked = True


def _last(connection: Connection) -> Connection:
    """Let the next statement be the last one of a transaction."""
    driver(connection).commit_along()
    return connection


def _generation(connection: BoundedConnection, now: "psycopg.Cursor[Any]") -> str:
    row = now.fetchone() or connection.execute(_NEW_GENERATION).fetchone()
    assert row is not None
    return str(row[0])


def _askable(query: Query) -> Query:
    """Ask for what PostgreSQL can hold."""
    if not any("\0" in value for match in query.matches for value in _values(match)):
        return query
    return replace(query, matches=tuple(map(_storable, query.matches)))


def _values(match: Match) -> Iterator[str]:
    yield from match.values
    for part in match.parts:
        yield from _values(part)


def _storable(match: Match) -> Match:
    return replace(
        match,
        values=tuple(map(storable, match.values)),
        parts=tuple(map(_storable, match.parts)),
    )
