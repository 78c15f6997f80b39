"""A SQLite file that several threads and processes write to: one writer at a time, no sleeping.

SQLite waits for another writer by sleeping up to 100 ms between tries. Here a writer queues in
the kernel instead (``flock``), which wakes it at once and lets go when a process dies.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakSet

from wado.errors import Unavailable

BUSY_TIMEOUT_MS = 10_000
"""Only for foreign tools that write to the file: our own writers hold the lock."""

_SYNCHRONOUS = {True: "PRAGMA synchronous=FULL", False: "PRAGMA synchronous=NORMAL"}
JOURNAL_SIZE_LIMIT_BYTES = 16 << 20

_alive: "WeakSet[WriteLock | SqliteFile]" = WeakSet()
_inherited: list[sqlite3.Connection] = []
"""Connections of the parent process: using or closing them here would harm the parent's."""


def _after_fork() -> None:
    for thing in list(_alive):
        thing.after_fork()


os.register_at_fork(after_in_child=_after_fork)


def make_folder(path: Path) -> None:
    """Make a folder (and its parents) that survives a power cut.

    Raises
    ------
    Unavailable
        It cannot be made or written to.
    """
    try:
        missing = [p for p in (path, *path.parents) if not p.exists()]
        path.mkdir(parents=True, exist_ok=True)
        # Those that are there, too: who made them may have died before they were flushed.
        for folder in dict.fromkeys((*missing, path, path.parent)):
            flush_folder(folder.parent)
    except OSError as e:
        raise Unavailable(f"cannot make the folder {path}: {e.strerror}") from e


def flush_folder(path: Path) -> None:
    """Make durable the names of what is in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class WriteLock:
    """Mutual exclusion of threads and processes by a lock file; not re-entrant."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = Lock()
        self._descriptor = -1
        _alive.add(self)

    def __enter__(self) -> None:
        # flock belongs to the open file, which our threads share: hence the second lock.
        self._thread.acquire()
        try:
            if self._descriptor < 0:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        except OSError as e:
            self._thread.release()
            raise Unavailable(f"cannot lock {self._path}: {e.strerror}") from e

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._thread.release()

    def close(self) -> None:
        """Let go of the lock file."""
        with self._thread:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def after_fork(self) -> None:
        """In a child: forget the parent's lock, or the child would keep it when the parent dies."""
        self._thread = Lock()
        self.close()


class SqliteFile:
    """One database file in WAL mode: one writing and one reading connection per process.

    Parameters
    ----------
    path
        The database; made on first use.
    durable
        True: a commit is on the disk on return. False: it is with the operating system, and a
        power cut can take the last commits, but not harm the file.
    schema
        Statements that make the tables; harmless when they exist.

    Raises
    ------
    Unavailable
        The file cannot be made or written to.
    """

    def __init__(self, path: Path, *, durable: bool, schema: Sequence[str]) -> None:
        self.path = path
        self._durable = durable
        self._schema = schema
        self._write_lock = WriteLock(path.with_suffix(".lock"))
        self._read_lock = Lock()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        _alive.add(self)
        with self.write():
            pass  # make the tables, so that reading need not

    @contextmanager
    def write(self, *, durable: bool | None = None) -> Iterator[sqlite3.Connection]:
        """Run a transaction; all of it is kept, or (after an exception) nothing.

        `durable` overrides, for this transaction and all before it, what holds for the file.

        Raises
        ------
        Unavailable
            The file cannot be written to; nothing was kept.
        """
        with self._write_lock, self._border():
            if self._writer is None:
                self._writer = self._make()
            connection = self._writer
            if durable is not None:
                connection.execute(_SYNCHRONOUS[durable])
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself after some errors (disk full, I/O).
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            finally:
                if durable is not None:
                    connection.execute(_SYNCHRONOUS[self._durable])

    def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Read rows, as of one moment.

        Raises
        ------
        Unavailable
            The file cannot be read.
        """
        with self._read_lock, self._border():
            if self._reader is None:
                self._reader = self._open()
            return self._reader.execute(sql, parameters).fetchall()

    def change_mark(self) -> int:
        """Say a number that is another one after each commit of anyone; costs no read."""
        return int(self.fetch("PRAGMA data_version")[0][0])

    def close(self) -> None:
        """Close both connections; a later use opens them again."""
        with self._write_lock, self._read_lock, self._border():
            for connection in (self._reader, self._writer):
                if connection is not None:
                    connection.close()
            self._reader = self._writer = None
        self._write_lock.close()

    def after_fork(self) -> None:
        """In a child: set the parent's connections aside, unused and unclosed."""
        _inherited.extend(c for c in (self._reader, self._writer) if c is not None)
        self._reader = self._writer = None
        self._read_lock = Lock()

    def _make(self) -> sqlite3.Connection:
        connection = self._open()
        connection.execute("PRAGMA journal_mode=WAL")
        for statement in self._schema:
            connection.execute(statement)
        return connection

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=False
        )
        # WAL with NORMAL flushes at checkpoints only, yet a power cut never harms the file.
        connection.execute(_SYNCHRONOUS[self._durable])
        connection.execute(f"PRAGMA journal_size_limit={JOURNAL_SIZE_LIMIT_BYTES}")
        return connection

    @contextmanager
    def _border(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as e:
            raise Unavailable(f"{self.path.name}: {e}") from e
