"""The message log in SQLite files, for one machine.

``reception.sqlite`` holds the two topics that an acknowledgement waits for, so that both cost
one commit; ``records.sqlite`` holds the others; ``groups.sqlite`` what the groups have read.
Each partition of a topic is a table whose rowid is the offset plus one.
"""

import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path
from threading import Event
from typing import Any
from zlib import crc32

from wado import vitals
from wado.adapters.message_log.groups import Groups, PartitionLock
from wado.adapters.sqlite_file import SqliteFile, make_folder
from wado.ports import Batch, DeadLetter, Delivered, Message
from wado.records import Topic

RECEPTION_TOPICS = frozenset({Topic.STORAGE, Topic.LOG})
SHORTEST_WAIT_S = 0.005
LONGEST_WAIT_S = 0.03
TRIM_CHUNK = 500
TRIM_PAUSE_S = 0.005

_CREATE = """CREATE TABLE IF NOT EXISTS "{table}" (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, body BLOB, published_at REAL NOT NULL)"""
_APPEND = 'INSERT INTO "{table}"(key, body, published_at) VALUES (?, ?, ?)'
_SELECT = """SELECT id, key, body FROM "{table}"
    WHERE id > ? AND id <= ? AND body IS NOT NULL ORDER BY id LIMIT ?"""
_BOUNDS = 'SELECT (SELECT min(id) FROM "{table}"), (SELECT max(id) FROM "{table}")'
_OLDEST = 'SELECT id, published_at FROM "{table}" WHERE id <= ? ORDER BY id LIMIT ?'
_FORGET = 'DELETE FROM "{table}" WHERE id <= ?'
_LEAVE_OUT = """INSERT OR IGNORE INTO "{table}" VALUES (?, '', NULL, 0)"""
_NO_END = 1 << 62

_Row = tuple[str, bytes, float]


class SqliteMessageLog:
    """A `wado.ports.MessageLog` in a folder; any number of processes may open it.

    Parameters
    ----------
    folder
        Where the files are; made if absent.
    partitions
        Partitions of each topic, 1 or more; counts when the log is made, and later openings
        find what is there.
    durable
        False: `publish` returns when the operating system has the messages.

    Raises
    ------
    Unavailable
        The folder cannot be made or written to.
    """

    def __init__(self, folder: Path, *, partitions: int = 1, durable: bool = True) -> None:
        make_folder(folder / "locks")
        self._locks = folder / "locks"
        self._groups = Groups(folder / "groups.sqlite", durable=durable, partitions=partitions)
        self._partitions = range(self._groups.partitions)
        self._files = {
            name: SqliteFile(
                folder / f"{name}.sqlite",
                durable=durable,
                schema=[_sql(_CREATE, topic, p) for topic in topics for p in self._partitions],
            )
            for name, topics in (
                ("reception", RECEPTION_TOPICS),
                ("records", frozenset(Topic) - RECEPTION_TOPICS),
            )
        }
        self._append = {
            (topic, p): _sql(_APPEND, topic, p) for topic in Topic for p in self._partitions
        }
        self._skip_lost_offsets()

    def publish(self, messages: Iterable[Message]) -> None:
        """Append messages; atomic and durable.

        Topics of both files in one call cost two commits; should the machine stop between them,
        those of ``reception.sqlite`` stay.

        Raises
        ------
        Unavailable
            The files cannot be written to (also: disk full); nothing was published.
        """
        now = time.time()
        rows: dict[str, dict[tuple[Topic, int], list[_Row]]] = {}
        count = len(self._partitions)
        for m in messages:
            partition = crc32(m.key.encode()) % count if count > 1 else 0
            table = rows.setdefault(_file(m.topic), {}).setdefault((m.topic, partition), [])
            table.append((m.key, m.body, now))
        with ExitStack() as transactions:
            # Always in this order, so that two publishers never wait for each other.
            for name in sorted(rows, reverse=True):
                connection = transactions.enter_context(self._files[name].write())
                for key, values in rows[name].items():
                    connection.executemany(self._append[key], values)

    def read(
        self, topic: Topic, group: str, stop: Event, *, max_messages: int = 500
    ) -> Iterator[Batch]:
        """Yield batches until `stop` is set; waits for new messages."""
        self._groups.join(group, topic, self._partitions)
        with ExitStack() as locks:
            held = [
                locks.enter_context(PartitionLock(self._locks, group, topic, p))
                for p in self._partitions
            ]
            file = self._files[_file(topic)]
            wait_s, read_up_to = 0.0, -1
            while not stop.wait(wait_s):
                wait_s = min(wait_s * 1.5 + SHORTEST_WAIT_S, LONGEST_WAIT_S)
                mark = file.change_mark()
                if mark == read_up_to:
                    continue
                read_up_to = mark
                for lock in held:
                    with lock.attempt() as got:
                        batch = got and self._next(topic, group, lock.partition, max_messages)
                        if batch and not stop.is_set():
                            wait_s = 0.0
                            yield batch
                    if batch or not got:  # there may be more, or another reader may die
                        read_up_to = -1

    def lag(self, topic: Topic, group: str) -> int:
        """How many messages the group has not committed yet."""
        committed = {p: progress.committed for p, progress in self._groups.progress(topic, group)}
        lag = 0
        for partition in self._partitions:
            first, end = self._bounds(topic, partition)
            lag += max(0, end - max(first, committed.get(partition, 0)))
        return lag

    def dead_letters(self, topic: Topic) -> Iterator[DeadLetter]:
        """Rejected messages of a topic, oldest first."""
        return self._groups.dead_letters(topic)

    def replay(self, letters: Iterable[DeadLetter]) -> int:
        """Publish dead letters again and remove them from the dead-letter queue; how many.

        A crash in between leaves letters that were published: at least once.
        """
        present = [letter for letter in letters if self._groups.is_dead(letter)]
        self.publish(Message(d.message.topic, d.message.key, d.message.body) for d in present)
        self._groups.bury(present)
        return len(present)

    def trim(self, topic: Topic, groups: Collection[str], *, keep_s: float) -> int:
        """Forget messages that all of `groups` committed and that are older than `keep_s`.

        The last message of a partition stays, so that offsets go on from there; a topic that one
        of them has not read yet is left alone. Groups of others hold nothing.
        """
        until = time.time() - keep_s
        return sum(
            self._trim(topic, p, min(self._committed(topic, p, group) for group in groups), until)
            for p in self._partitions
        )

    def close(self) -> None:
        """Let go of files and connections."""
        for file in self._files.values():
            file.close()
        self._groups.close()

    def _next(self, topic: Topic, group: str, partition: int, limit: int) -> "_Batch | None":
        """Cut the next batch; its end is on record before anyone sees it."""
        progress = self._groups.progress_of(group, topic, partition)
        start, reserved = progress
        end = reserved if reserved > start else _NO_END
        rows = self._fetch(_SELECT, topic, partition, start, end, limit if end == _NO_END else -1)
        if not rows and end != _NO_END:  # a power cut took what was handed out
            self._groups.commit(group, topic, partition, end)
            return self._next(topic, group, partition, limit)
        if not rows:
            return None
        if end == _NO_END:
            self._groups.reserve(group, topic, partition, rows[-1][0])
        messages = [Delivered(topic, partition, i - 1, key, body) for i, key, body in rows]
        return _Batch(self._groups, group, messages)

    def _fetch(self, sql: str, topic: Topic, partition: int, *parameters: int) -> list[Any]:
        return self._files[_file(topic)].fetch(_sql(sql, topic, partition), parameters)

    def _committed(self, topic: Topic, partition: int, group: str) -> int:
        return self._groups.progress_of(group, topic, partition).committed

    def _bounds(self, topic: Topic, partition: int) -> tuple[int, int]:
        """First offset that is kept, and the offset behind the last."""
        first, last = self._fetch(_BOUNDS, topic, partition)[0]
        return (first - 1, last) if last is not None else (0, 0)

    def _trim(self, topic: Topic, partition: int, committed: int, until: float) -> int:
        last = min(committed, self._bounds(topic, partition)[1] - 1)
        trimmed = 0
        while True:
            oldest = self._fetch(_OLDEST, topic, partition, last, TRIM_CHUNK)
            old = list(takewhile(lambda row: row[1] <= until, oldest))
            if not old:
                return trimmed
            with self._files[_file(topic)].write() as connection:
                forget = connection.execute(_sql(_FORGET, topic, partition), (old[-1][0],))
                trimmed += forget.rowcount
            vitals.goes_on()
            time.sleep(TRIM_PAUSE_S)  # let publishers in

    def _skip_lost_offsets(self) -> None:
        """Never give an offset to a second message.

        Without `durable` a power cut can take messages that a group had read already. Their
        offsets are left out (an empty row stands at the last), since a label made of them may
        be loaded in the warehouse.
        """
        for topic in Topic:
            for partition, progress in self._groups.progress(topic):
                known = max(progress)
                if known > self._bounds(topic, partition)[1]:
                    with self._files[_file(topic)].write() as connection:
                        connection.execute(_sql(_LEAVE_OUT, topic, partition), (known,))


class _Batch:
    """Consecutive messages of one partition."""

    def __init__(self, groups: Groups, group: str, messages: list[Delivered]) -> None:
        self._groups = groups
        self._group = group
        self.messages = messages

    @property
    def label(self) -> str:
        """Topic, partition and the offsets of the first and the last message."""
        first, last = self.messages[0], self.messages[-1]
        return f"{first.topic}-{first.partition}-{first.offset}-{last.offset}"

    def commit(self) -> None:
        """Move the group's offset behind the batch; outlives the process."""
        last = self.messages[-1]
        self._groups.commit(self._group, last.topic, last.partition, last.offset + 1)

    def is_ours(self) -> bool:
        """It is: the lock of a process that is frozen stays with it."""
        return True

    def reject(self, message: Delivered, reason: str) -> None:
        """Copy a message that can never be processed to the dead letters; durable on return."""
        self._groups.reject(self._group, message, reason)


def _file(topic: Topic) -> str:
    return "reception" if topic in RECEPTION_TOPICS else "records"


def _sql(template: str, topic: Topic, partition: int) -> str:
    """Put the table of a partition in; its name holds no value from outside."""
    return template.format(table=f"{topic}_{partition}")
