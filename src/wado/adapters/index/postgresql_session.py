"""Connections to PostgreSQL: pooled, bounded in time, with a tenant for each transaction.

Everything that a transaction needs is set in it and ends with it, so that a pooler between us and
the server (pgbouncer in transaction mode) may give each transaction another connection.
"""

import os
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from weakref import WeakSet

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from wado.errors import OutOfResources, Unavailable
from wado.urls import shown

EVERY_TENANT = "*"
"""In place of a tenant: a transaction that works for all of them."""
_APPLICATION = "wado"
_KEEPALIVES = {
    "keepalives_idle": 30,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# Where to begin is our choice (see `finders`): the planner has to follow, not to guess.
_SET = """SELECT set_config('wado.tenant_id', %s, true), set_config('statement_timeout', %s, true),
    set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true), set_config('enable_material', 'off', true),
    set_config('jit', 'off', true), set_config('max_parallel_workers_per_gather', '0', true)"""
_NEVER = 1 << 30
_FULL = (errors.DiskFull, errors.OutOfMemory, errors.ConfigurationLimitExceeded)
_UNMADE = (errors.UndefinedTable, errors.UndefinedColumn, errors.UndefinedFunction)
_DENIED = (errors.InsufficientPrivilege,)
RUN_INIT = "run `wado init`"
_T = TypeVar("_T")


class _Cut(Unavailable):
    """The connection was closed, by the server or on the way."""


class NoAnswer(psycopg.OperationalError):
    """The server is there, but does not answer."""


class BoundedConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection on which no answer is waited for longer than `answer_within_s`."""

    answer_within_s: float | None = None
    _puts = 0
    _along: tuple[tuple[str, Sequence[Any]], ...] = ()
    _ends_with_next = False

    def send_along(self, statement: str, values: Sequence[Any] = ()) -> None:
        """Send a statement together with the next one: there and back once for both."""
        self._along += ((statement, values),)

    def commit_along(self) -> None:
        """Commit together with the next statement."""
        self._ends_with_next = True

    def take_along(self) -> tuple[tuple[tuple[str, Sequence[Any]], ...], bool]:
        """Take what is to be sent before the next statement, and whether it is the last one."""
        taken = self._along, self._ends_with_next
        self._along, self._ends_with_next = (), False
        return taken

    def end(self, how: str) -> None:
        """Commit or roll back, unless nothing was begun or it has ended."""
        self.take_along()
        if self.info.transaction_status != TransactionStatus.IDLE:
            self.execute(how, prepare=False)

    def puts_are_round(self) -> bool:
        """Count a put; whether it is the 8th, 64th, 512th, or any 4096th."""
        self._puts += 1
        return self._puts in {8, 64, 512} or self._puts % 4096 == 0

    def wait(
        self, gen: Generator[Any, Any, Any], interval: float = 0.1, timeout: float | None = None
    ) -> Any:
        """Wait for an answer; a connection that gives none in time is closed."""
        try:
            return super().wait(gen, interval, timeout or self.answer_within_s)
        except errors._WaitTimeout as e:  # noqa: SLF001 - psycopg has no other name for it
            if timeout is not None:
                raise
            self.pgconn.finish()
            raise NoAnswer(f"no answer in {self.answer_within_s:g} s") from e


class _Cursor(psycopg.Cursor[Any]):
    """A cursor that takes along what its connection has to send."""

    def execute(self, query: Any, params: Any = None, **how: Any) -> "_Cursor":
        connection = self.connection
        assert isinstance(connection, BoundedConnection)
        along, ends = connection.take_along()
        if not along and not ends:
            return super().execute(query, params, **how)
        with connection.pipeline():
            for statement, values in along:
                connection.execute(statement, values, prepare=True)
            super().execute(query, params, **how)
            if ends:
                connection.execute("COMMIT", prepare=True)
        return self


class Sessions:
    """The pool of connections of one index in this process.

    Parameters
    ----------
    url
        ``postgresql://user:password@host:port/database``; hosts may be several, and libpq's
        parameters may follow (``?sslmode=verify-full``).
    timeout_s
        How long a connection, an answer, or a free connection of the pool is waited for.
    connections
        How many connections there are at most.
    is_bounded
        False: answers are waited for as long as it takes.
    """

    def __init__(
        self, url: str, *, timeout_s: float, connections: int, is_bounded: bool = True
    ) -> None:
        self.shown = shown(url).partition("?")[0]
        self.timeout_s = timeout_s
        self._is_bounded = is_bounded
        self._parameters: dict[str, Any] = {
            "target_session_attrs": "read-write",
            **_KEEPALIVES,
            **conninfo_to_dict(url),
            "connect_timeout": max(2, round(timeout_s)),
            "application_name": _APPLICATION,
        }
        self._engine: Engine = create_engine(
            "postgresql+psycopg://",
            creator=self.connect,
            isolation_level="AUTOCOMMIT",
            use_native_hstore=False,
            poolclass=QueuePool,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=timeout_s,
            pool_use_lifo=True,
        )
        self._set_aside: list[Any] = []
        _alive.add(self)

    def connect(self, *, is_bounded: bool = True) -> BoundedConnection:
        """Open a connection that is not of the pool."""
        is_bounded = is_bounded and self._is_bounded
        # A server that is busy for long takes nothing in meanwhile.
        more = {} if is_bounded else {"tcp_user_timeout": 0}
        try:
            connection = BoundedConnection.connect(
                **{**self._parameters, **more},
                autocommit=True,
                prepare_threshold=_NEVER,
                cursor_factory=_Cursor,
            )
        except psycopg.OperationalError as e:
            # They hold a socket that timed out, and a server that stops would wait for its end.
            traceback.clear_frames(e.__traceback__)
            raise
        if is_bounded:
            connection.answer_within_s = self.timeout_s + 1
        return connection

    def read(self, tenant_id: str, work: Callable[[Connection], _T]) -> _T:
        """Run searches of a tenant (or `EVERY_TENANT`); again, if the connection had been cut."""
        try:
            with self.reading(tenant_id) as connection:
                return work(connection)
        except _Cut:
            self.renew()
        with self.reading(tenant_id) as connection:
            return work(connection)

    @contextmanager
    def reading(self, tenant_id: str) -> Iterator[Connection]:
        """Read in one transaction, which begins with the first statement."""
        with self.border(), self.begun("") as connection:
            session = driver(connection)
            session.send_along("BEGIN READ ONLY")
            session.send_along(_SET, [tenant_id, str(round(self.timeout_s * 1000))])
            try:
                yield connection
                session.end("COMMIT")
            except (SQLAlchemyError, psycopg.Error) as e:
                if session.closed and not isinstance(getattr(e, "orig", e), NoAnswer):
                    raise _Cut(str(self.translated(getattr(e, "orig", e)))) from e
                raise

    @contextmanager
    def borrowed(self) -> Iterator[BoundedConnection]:
        """Borrow a driver's connection; who borrows it begins and ends its transactions.

        The driver's errors come as they are (see `border`).
        """
        with self.begun("") as connection:
            yield driver(connection)

    def renew(self) -> None:
        """Close the connections that nobody uses: they were cut, as one was."""
        self._engine.dispose()

    @contextmanager
    def begun(self, begin: str) -> Iterator[Connection]:
        """Take a connection and begin; one that was cut meanwhile is replaced by a new one."""
        with self._engine.connect() as connection:
            if begin:
                try:
                    driver(connection).execute(begin.encode(), prepare=False)
                except psycopg.OperationalError as e:
                    if isinstance(e, NoAnswer) or not driver(connection).closed:
                        raise
                    connection.invalidate()
                    self.renew()
                    driver(connection).execute(begin.encode(), prepare=False)
            try:
                yield connection
            except BaseException:
                self._end(connection)
                raise

    def _end(self, connection: Connection) -> None:
        """Roll back, or throw the connection away if it can't be done."""
        with suppress(psycopg.Error, SQLAlchemyError):
            borrowed = driver(connection)
            if not borrowed.closed:
                borrowed.end("ROLLBACK")
                return
        with suppress(psycopg.Error, SQLAlchemyError):
            connection.invalidate()

    @contextmanager
    def border(self) -> Iterator[None]:
        """Turn errors of the driver into ours."""
        try:
            yield
        except (SQLAlchemyError, psycopg.Error) as e:
            cause = getattr(e, "orig", None) or e
            raise self.translated(cause) from e

    def translated(self, cause: BaseException) -> Unavailable | OutOfResources:
        """Say what an error of the driver means; passwords are never part of it."""
        text = " ".join(str(cause).split())
        if isinstance(cause, _FULL):
            return OutOfResources(f"{self.shown}: {text}")
        if isinstance(cause, (*_UNMADE, *_DENIED)):
            return Unavailable(f"{self.shown}: {text}; {RUN_INIT}")
        if isinstance(cause, PoolTimeout):
            text = f"all connections are in use for {self.timeout_s:g} s"
        return Unavailable(f"{self.shown}: {text}")

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self._engine.dispose()

    def after_fork(self) -> None:
        """In a child: set the parent's connections aside, unused and unclosed."""
        self._set_aside.append(self._engine.pool)
        self._engine.dispose(close=False)


def driver(connection: Connection) -> BoundedConnection:
    """Give the driver's connection below one of SQLAlchemy."""
    borrowed = connection.connection.driver_connection
    assert isinstance(borrowed, BoundedConnection)
    return borrowed


def _after_fork() -> None:
    for sessions in list(_alive):
        sessions.after_fork()


_alive: "WeakSet[Sessions]" = WeakSet()
os.register_at_fork(after_in_child=_after_fork)
