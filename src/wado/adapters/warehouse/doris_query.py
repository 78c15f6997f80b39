"""Queries of Doris over the MySQL protocol."""

import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from wado.errors import InvalidRequest, Unavailable

if TYPE_CHECKING:
    from pymysql.connections import Connection

_PARTS = re.compile(r"""'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|`[^`]*`|\?""", re.DOTALL)
"""What is quoted, or a question mark that is not."""

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?\+00:00\Z")
_QUERY = re.compile(r"\s*(?:select|with)\b", re.IGNORECASE)
_TINY = 1
_TINYINT_WIDTH = 4
_MISSING = ("unknown table", "unknown database", "does not exist", "unknown column")
_IDLE_S = 60.0


class Connections:
    """A few connections to the frontends (FE), opened when they are needed.

    Parameters
    ----------
    hosts
        Name and port of each FE; tried in turn.
    user, password
        The account.
    database
        Its name; None: none is chosen.
    connect_timeout_s
        How long to wait for a connection.
    query_timeout_s
        How long a statement may take.
    most
        Most connections at a time.
    """

    def __init__(
        self,
        hosts: Sequence[tuple[str, int]],
        *,
        user: str,
        password: str,
        database: str | None,
        connect_timeout_s: float,
        query_timeout_s: float,
        most: int,
    ) -> None:
        self._hosts = tuple(hosts)
        self._first = 0
        self._account = {"user": user, "password": password, "database": database}
        self._connect_timeout_s = connect_timeout_s
        self._query_timeout_s = query_timeout_s
        self._places = threading.BoundedSemaphore(most)
        self._idle: list[tuple[Connection, float]] = []
        self._pid = os.getpid()

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Run a query; ``?`` stands for a parameter.

        A parameter that is a time in ISO 8601 with ``+00:00`` is handed over as Doris writes
        times, so that it compares with columns of times.

        Raises
        ------
        InvalidRequest
            It is not a query.
        Unavailable
            Doris does not answer, or does not understand it.
        """
        if not _QUERY.match(sql):
            raise InvalidRequest("only SELECT reads, and this reads only")
        return self.run(sql, parameters)

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Run a statement that may be repeated; rows are as in the embedded warehouse."""
        values = tuple(_parameter(value) for value in parameters)
        text = with_placeholders(sql)
        with self._border(), self._place():
            while True:
                connection, is_new = self._take()
                try:
                    with connection.cursor() as cursor:
                        cursor.execute(text, values)
                        rows = _rows(cursor)
                except BaseException as e:
                    connection._force_close()  # noqa: SLF001 - in whatever state it is
                    if is_new or not _is_lost(e):
                        raise
                else:
                    self._idle.append((connection, time.monotonic()))
                    return rows

    def close(self) -> None:
        """Let go of the connections."""
        idle, self._idle = self._idle, []
        for connection, _ in idle:
            with suppress(Exception):
                connection.close()

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(timeout=self._query_timeout_s):
            raise Unavailable("Doris: all connections are in use")
        try:
            yield
        finally:
            self._places.release()

    def _take(self) -> "tuple[Connection, bool]":
        """Give a connection, and whether it is new; one of before a fork is its parent's."""
        if self._pid != os.getpid():
            self._idle, self._pid = [], os.getpid()
        with suppress(IndexError):
            connection, since = self._idle.pop()
            if time.monotonic() - since < _IDLE_S:
                return connection, False
            connection.close()
        return self._connect(), True

    def _connect(self) -> "Connection":
        import pymysql  # noqa: PLC0415  # only for processes that use the warehouse

        problem: Exception | None = None
        first, count = self._first, len(self._hosts)
        for number in range(first, first + count):
            host, port = self._hosts[number % count]
            try:
                connection = pymysql.connect(
                    host=host,
                    port=port,
                    charset="utf8mb4",
                    autocommit=True,
                    connect_timeout=self._connect_timeout_s,
                    read_timeout=self._query_timeout_s,
                    write_timeout=self._query_timeout_s,
                    init_command="SET time_zone = '+00:00'",
                    **self._account,
                )
            except pymysql.OperationalError as e:
                problem = e
            else:
                self._first = number % count
                return connection
        assert problem is not None, "there is an FE"
        raise problem

    @contextmanager
    def _border(self) -> Iterator[None]:
        import pymysql  # noqa: PLC0415  # only for processes that use the warehouse

        try:
            yield
        except (pymysql.Error, OSError) as e:
            reason = str(e.args[-1]) if e.args else type(e).__name__
            missing = any(text in reason.lower() for text in _MISSING)
            hint = "; run `wado init` if that was not done" if missing else ""
            raise Unavailable(f"Doris: {reason[:500]}{hint}") from e


def with_placeholders(sql: str) -> str:
    """Turn each ``?`` outside quotes into ``%s``, as the driver wants them."""

    def part(match: "re.Match[str]") -> str:
        return "%s" if match[0] == "?" else match[0]

    return _PARTS.sub(part, sql.replace("%", "%%"))


def _parameter(value: Any) -> Any:
    if isinstance(value, str) and _TIME.match(value):
        return value[:-6].replace("T", " ")
    return value


def _is_lost(e: BaseException) -> bool:
    """Whether an idle connection was closed by the other side; not: it was too slow."""
    import pymysql  # noqa: PLC0415  # loaded by now

    if isinstance(e, pymysql.InterfaceError):
        return True
    lost = isinstance(e, pymysql.OperationalError) and e.args[0] in (2006, 2013)
    return lost and "timed out" not in str(e)


def _rows(cursor: Any) -> list[dict[str, Any]]:
    if not cursor.description:
        return []
    names = [column[0] for column in cursor.description]
    # MySQL has no type for truth values: they are TINYINT, one digit wide, where others are four.
    truths = {c[0] for c in cursor.description if c[1] == _TINY and c[3] != _TINYINT_WIDTH}
    return [
        {
            name: _value(value, is_truth=name in truths)
            for name, value in zip(names, row, strict=True)
        }
        for row in cursor.fetchall()
    ]


def _value(value: Any, *, is_truth: bool) -> Any:
    if is_truth and value is not None:
        return bool(value)
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds") + "+00:00"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return int(value)
    return value
