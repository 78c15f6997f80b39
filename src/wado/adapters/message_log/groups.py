"""What the groups of the SQLite message log have read, rejected, and are reading now."""

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, NamedTuple, Self
from weakref import WeakSet

from wado.adapters.sqlite_file import SqliteFile
from wado.errors import InvalidRequest, Unavailable
from wado.ports import DeadLetter, Delivered
from wado.records import Topic

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS layout (partitions INTEGER NOT NULL)",
    """CREATE TABLE IF NOT EXISTS progress (
        reader TEXT, topic TEXT, partition INTEGER,
        committed INTEGER NOT NULL DEFAULT 0, reserved INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (reader, topic, partition)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS dead_letter (
        id INTEGER PRIMARY KEY, reader TEXT, topic TEXT, partition INTEGER, position INTEGER,
        key TEXT, body BLOB, reason TEXT, rejected_at TEXT,
        UNIQUE (reader, topic, partition, position))""",
)
_SET_LAYOUT = "INSERT INTO layout SELECT ? WHERE NOT EXISTS (SELECT 1 FROM layout)"
_JOIN = "INSERT OR IGNORE INTO progress(reader, topic, partition) VALUES (?, ?, ?)"
_PROGRESS = """SELECT partition, committed, reserved FROM progress
    WHERE topic = ? AND (reader = ? OR ? IS NULL)"""
_PROGRESS_OF = """SELECT committed, reserved FROM progress
    WHERE reader = ? AND topic = ? AND partition = ?"""
_RESERVE = "UPDATE progress SET reserved = ? WHERE reader = ? AND topic = ? AND partition = ?"
_COMMIT = """UPDATE progress SET committed = ?
    WHERE reader = ? AND topic = ? AND partition = ? AND committed < ?"""
_REJECT = """INSERT OR IGNORE INTO dead_letter
    (reader, topic, partition, position, key, body, reason, rejected_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
_DEAD_LETTERS = """SELECT id, reader, partition, position, key, body, reason, rejected_at
    FROM dead_letter WHERE topic = ? AND id > ? ORDER BY id LIMIT 200"""
_IS_DEAD = """SELECT 1 FROM dead_letter
    WHERE reader = ? AND topic = ? AND partition = ? AND position = ?"""
_BURY = """DELETE FROM dead_letter
    WHERE reader = ? AND topic = ? AND partition = ? AND position = ?"""
_GROUP = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


class Progress(NamedTuple):
    """Offsets behind the last message committed, and behind the last one handed out."""

    committed: int = 0
    reserved: int = 0


class Groups:
    """Offsets and dead letters of all groups, in one file."""

    def __init__(self, path: Path, *, durable: bool, partitions: int) -> None:
        # A power cut may take the last commits: then batches come again, which readers bear with.
        # Not flushing for them leaves the disk to those who wait for an acknowledgement.
        self._durable = durable
        self._file = SqliteFile(path, durable=False, schema=_SCHEMA)
        with self._file.write() as connection:
            connection.execute(_SET_LAYOUT, (partitions,))
        self.partitions: int = self._file.fetch("SELECT partitions FROM layout")[0][0]

    def join(self, group: str, topic: Topic, partitions: Iterable[int]) -> None:
        """Make a group known, so that nothing is trimmed that it has not read."""
        if not _GROUP.match(group):
            raise InvalidRequest(f"not the name of a group: {group[:80]!r}")
        if self.progress(topic, group):
            return
        with self._file.write() as connection:
            connection.executemany(_JOIN, [(group, topic, p) for p in partitions])

    def progress(self, topic: Topic, group: str | None = None) -> list[tuple[int, Progress]]:
        """Partition and progress of one group, or of all."""
        rows = self._file.fetch(_PROGRESS, (topic, group, group))
        return [(partition, Progress(*offsets)) for partition, *offsets in rows]

    def progress_of(self, group: str, topic: Topic, partition: int) -> Progress:
        """Progress in one partition."""
        rows = self._file.fetch(_PROGRESS_OF, (group, topic, partition))
        return Progress(*rows[0]) if rows else Progress()

    def reserve(self, group: str, topic: Topic, partition: int, end: int) -> None:
        """Put the end of a batch on record, so that it is cut there again."""
        with self._file.write() as connection:
            connection.execute(_RESERVE, (end, group, topic, partition))

    def commit(self, group: str, topic: Topic, partition: int, end: int) -> None:
        """Move a group forward; never back."""
        with self._file.write() as connection:
            connection.execute(_COMMIT, (end, group, topic, partition, end))

    def reject(self, group: str, message: Delivered, reason: str) -> None:
        """Keep a message as a dead letter, once."""
        with self._file.write(durable=self._durable) as connection:
            at = datetime.now(UTC).isoformat(timespec="microseconds")
            connection.execute(
                _REJECT, (*_identity(group, message), message.key, message.body, reason, at)
            )

    def dead_letters(self, topic: Topic) -> Iterator[DeadLetter]:
        """Dead letters of a topic, oldest first, a page at a time."""
        last = 0
        while rows := self._file.fetch(_DEAD_LETTERS, (topic, last)):
            for _, group, partition, offset, key, body, reason, at in rows:
                yield DeadLetter(Delivered(topic, partition, offset, key, body), group, reason, at)
            last = rows[-1][0]

    def is_dead(self, letter: DeadLetter) -> bool:
        """Whether a dead letter is still there."""
        return bool(self._file.fetch(_IS_DEAD, _identity(letter.group, letter.message)))

    def bury(self, letters: Iterable[DeadLetter]) -> None:
        """Remove dead letters."""
        with self._file.write() as connection:
            connection.executemany(
                _BURY, [_identity(letter.group, letter.message) for letter in letters]
            )

    def close(self) -> None:
        """Let go of the connections."""
        self._file.close()


class PartitionLock:
    """The right of one reader of a group to hold batches of a partition.

    The kernel takes it back when the process dies, so that another reader goes on at once.
    """

    _alive: ClassVar["WeakSet[PartitionLock]"] = WeakSet()

    def __init__(self, folder: Path, group: str, topic: Topic, partition: int) -> None:
        self.partition = partition
        self._path = folder / f"{group}.{topic}.{partition}"
        self._descriptor = -1

    def __enter__(self) -> Self:
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as e:
            raise Unavailable(f"cannot open the lock {self._path}: {e.strerror}") from e
        self._alive.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def attempt(self) -> Iterator[bool]:
        """Try to hold the lock; yields whether it is held."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            # A reader that was closed meanwhile has no descriptor and no lock.
            if self._descriptor >= 0:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @classmethod
    def after_fork(cls) -> None:
        """In a child: let go of the parent's locks, or they would outlive the parent."""
        for lock in list(cls._alive):
            lock.close()


def _identity(group: str, message: Delivered) -> tuple[str, str, int, int]:
    return group, message.topic, message.partition, message.offset


os.register_at_fork(after_in_child=PartitionLock.after_fork)
