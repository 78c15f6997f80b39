"""Turns at a DuckDB file, which lets in one process at a time, readers included.

The file is open only while it is used and shortly after, and is let go of when another process
asks for it. Two lock files keep order: ``.lock`` is held by the process that has the file open,
``.wanted`` is shared by those that wait.
"""

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock, Timer
from typing import TYPE_CHECKING
from weakref import WeakSet

from wado.errors import Unavailable

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

PATIENCE_S = 10.0
IDLE_S = 1.0
LOOK_S = 0.2
"""How often who has the file open and does not use it looks whether others wait."""

POLL_S = 0.01
AFTER_YOU_S = 3 * POLL_S
"""How long who let go because others wait does not ask again."""

MEMORY_LIMIT = "96MB"
_TABLES = Path(__file__).parent / "tables"
_MAY_BE_NULL = re.compile(r"^    (\w+) ([A-Z]+),?$", re.MULTILINE)
_COLUMNS = "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal"
_KEYED_LATER = {
    "dicom_transcode_log": {
        "request_id": "'earlier-' || row_number() OVER ()",
        "requested_at": "transcoded_at",
        "requested_transfer_syntax_uid": "target_transfer_syntax_uid",
        "attempt": "1",
    }
}
"""Tables that got a key, and what rows from before that have in its place."""

_alive: "WeakSet[Session]" = WeakSet()
_inherited: list[object] = []


class Session:
    """The connection of this process to the file, while it has one.

    Parameters
    ----------
    path
        The database; made on first use.
    patience_s
        How long to wait for other processes.
    """

    def __init__(self, path: Path, *, patience_s: float = PATIENCE_S) -> None:
        self._path = path
        self._patience_s = patience_s
        self._using = Lock()
        self._connection: DuckDBPyConnection | None = None
        self._lock = -1
        self._wanted = -1
        self._used_at = 0.0
        self._let_go_at = 0.0
        self._closer: Timer | None = None
        self._spoilt = False
        self._is_up_to_date = False
        _alive.add(self)

    @contextmanager
    def connection(self) -> Iterator["DuckDBPyConnection"]:
        """Use the file, one thread at a time.

        Raises
        ------
        Unavailable
            Another process keeps the file for too long, or it was open when this one was forked.
        """
        if self._spoilt:
            raise Unavailable(f"{self._path} was open when this process was forked")
        with self._using:
            if self._connection is None:
                self._connection = self._open()
            try:
                yield self._connection
            except BaseException:
                self._let_go()  # after some errors (disk full) DuckDB refuses a connection for good
                raise
            finally:
                self._used_at = time.monotonic()
                if self._is_wanted():
                    self._let_go()
                elif self._closer is None:
                    self._look_later()

    def close(self) -> None:
        """Let go of the file and of the lock files."""
        with self._using:
            if self._closer is not None:
                self._closer.cancel()
                self._closer = None
            self._let_go()
            for descriptor in (self._lock, self._wanted):
                if descriptor >= 0:
                    os.close(descriptor)
            self._lock = self._wanted = -1

    def after_fork(self) -> None:
        """In a child: set the parent's connection aside, unused and unclosed.

        DuckDB would hand out the parent's open file again, so this child has to do without.
        """
        if self._connection is not None:
            _inherited.append(self._connection)
            self._spoilt = True
        self._connection = None
        self._closer = None
        self._using = Lock()
        self.close()

    def _open(self) -> "DuckDBPyConnection":
        time.sleep(max(0.0, self._let_go_at + AFTER_YOU_S - time.monotonic()))
        deadline = time.monotonic() + self._patience_s
        self._open_locks()
        fcntl.flock(self._wanted, fcntl.LOCK_SH)
        try:
            while not self._try_lock():
                if time.monotonic() > deadline:
                    raise Unavailable(f"{self._path} is in use by another process")
                time.sleep(POLL_S)
        finally:
            fcntl.flock(self._wanted, fcntl.LOCK_UN)
        try:
            return self._connect(deadline)
        except BaseException:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            raise

    def _connect(self, deadline: float) -> "DuckDBPyConnection":
        import duckdb  # noqa: PLC0415  # slow: only for processes that use the warehouse

        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": 1,
            "memory_limit": MEMORY_LIMIT,
        }
        while True:
            try:
                connection = duckdb.connect(str(self._path), config=config)
                break
            except duckdb.Error as e:  # a program that is not ours may have it open
                if "lock" not in str(e) or time.monotonic() > deadline:
                    raise Unavailable(f"{self._path}: {e}") from e
                time.sleep(POLL_S)
        for script in sorted(_TABLES.glob("*.sql")):
            connection.execute(definition(script.stem))
        if not self._is_up_to_date:
            _add_keys(connection)
            _add_columns(connection)
            self._is_up_to_date = True
        return connection

    def _open_locks(self) -> None:
        try:
            if self._lock < 0:
                flags = os.O_RDWR | os.O_CREAT
                self._lock = os.open(self._path.with_suffix(".lock"), flags, 0o644)
                self._wanted = os.open(self._path.with_suffix(".wanted"), flags, 0o644)
        except OSError as e:
            raise Unavailable(f"cannot make a lock beside {self._path}: {e.strerror}") from e

    def _try_lock(self) -> bool:
        with suppress(BlockingIOError):
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def _is_wanted(self) -> bool:
        try:
            fcntl.flock(self._wanted, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._wanted, fcntl.LOCK_UN)
        return False

    def _let_go(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            try:
                connection.close()
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)
                self._let_go_at = time.monotonic()

    def _look_later(self) -> None:
        self._closer = Timer(LOOK_S, self._close_if_idle)
        self._closer.daemon = True
        self._closer.start()

    def _close_if_idle(self) -> None:
        with self._using:
            idle = time.monotonic() > self._used_at + IDLE_S
            if self._connection is None or idle or self._is_wanted():
                self._closer = None
                self._let_go()
            else:
                self._look_later()


def _add_keys(connection: "DuckDBPyConnection") -> None:
    """Make tables anew that were there before they had a key, with the rows that they have."""
    there = set(connection.execute(_COLUMNS).fetchall())
    for table, filled in _KEYED_LATER.items():
        if all((table, name) in there for name in filled):
            continue
        kept = [name for of, name in there if of == table and name not in filled]
        names = ", ".join((*kept, *filled))
        values = ", ".join(
            (
                *kept,
                *(f"coalesce({n}, {v})" if (table, n) in there else v for n, v in filled.items()),
            )
        )
        connection.execute("BEGIN TRANSACTION")
        connection.execute(f"ALTER TABLE {table} RENAME TO earlier")
        connection.execute(definition(table))
        connection.execute(f"INSERT INTO {table} ({names}) SELECT {values} FROM earlier")  # noqa: S608 - our names
        connection.execute("DROP TABLE earlier")
        connection.execute("COMMIT")


def _add_columns(connection: "DuckDBPyConnection") -> None:
    """Add columns that a later version brought, and that may be null, to tables that are there."""
    there = set(connection.execute(_COLUMNS).fetchall())
    for script in sorted(_TABLES.glob("*.sql")):
        for name, kind in _MAY_BE_NULL.findall(definition(script.stem)):
            if (script.stem, name) not in there:
                connection.execute(f"ALTER TABLE {script.stem} ADD COLUMN {name} {kind}")


def definition(table: str) -> str:
    """Statement that makes a table if it is not there."""
    return (_TABLES / f"{table}.sql").read_text(encoding="utf-8")


def _after_fork() -> None:
    for session in list(_alive):
        session.after_fork()


os.register_at_fork(after_in_child=_after_fork)
