"""A partition that a reader of Kafka holds, and the batches that are cut from it."""

import time
from collections import deque
from collections.abc import Callable
from itertools import takewhile

from wado.errors import Unavailable
from wado.ports import Delivered
from wado.telemetry import get_logger

_log = get_logger("kafka")
_RESERVED = "reserved:"
_CUT_OFF_S = 30.0
"""A new leader may not yet admit all that it has; after so long it does not have it."""

_OVERHEAD_BYTES = 400

Reject = Callable[[Delivered, str], None]


def reservation(end: int) -> str:
    """Write the end of a batch as it stands beside a committed offset."""
    return f"{_RESERVED}{end}"


def reserved_end(metadata: str | None) -> int:
    """Read the end of the batch that was handed out last, or 0."""
    text = (metadata or "").removeprefix(_RESERVED)
    return int(text) if metadata != text and text.isdecimal() else 0


class HeldPartition:
    """What a reader knows of one partition from its assignment until it is taken away.

    Parameters
    ----------
    partition
        Its number.
    start
        Offset that the group committed.
    reserved
        End of the batch from `start` that was handed out once, or 0.
    """

    __slots__ = (
        "_assigned_s", "_waiting", "is_leaving", "is_lost", "is_paused", "is_settled", "partition",
        "reserved", "seen_to", "size", "start", "turn",
    )  # fmt: skip

    def __init__(self, partition: int, start: int, reserved: int) -> None:
        self.partition = partition
        self.start = start
        self.reserved = reserved if reserved > start else 0
        self.seen_to = start
        self.size = 0
        self.turn = 0
        self.is_settled = self.is_paused = self.is_leaving = self.is_lost = False
        self._waiting: deque[Delivered] = deque()
        self._assigned_s = time.monotonic()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def age_s(self) -> float:
        """Seconds since it was assigned to us."""
        return time.monotonic() - self._assigned_s

    def add(self, message: Delivered) -> None:
        """Take a message that was fetched."""
        if message.offset >= self.seen_to:
            self._waiting.append(message)
            self.size += _size(message)
            self.seen_to = message.offset + 1
        self.is_settled = True

    def reach(self, end: int) -> None:
        """Learn that nothing is missing before an offset."""
        self.seen_to = max(self.seen_to, end)
        self.is_settled = True

    def is_full(self, size: int) -> bool:
        """Whether no more should be fetched now; a batch handed out once must come whole."""
        return self.reserved <= self.seen_to and self.size >= size

    @property
    def is_ready(self) -> bool:
        """Whether a batch can be cut."""
        if self.reserved > self.seen_to and not self._is_cut_off():
            return False
        return bool(self._waiting) and not self.is_leaving

    def cut(self, messages: int, size: int) -> list[Delivered]:
        """Take the next batch, at its old end if it was handed out once; it may be empty then."""
        if self.reserved:
            end = self.reserved
            found = list(takewhile(lambda m: m.offset < end, self._waiting))
            if not found:  # all of it was removed from the log
                self.start, self.reserved = max(self.start, end), 0
        else:
            found = self._new_batch(messages, size)
        for message in found:
            self._waiting.popleft()
            self.size -= _size(message)
        return found

    def has(self, messages: int, size: int) -> bool:
        """Whether a batch of that many messages, or of that size, could be cut."""
        return len(self._waiting) >= messages or self.size >= size

    def next_end(self, messages: int, size: int) -> int:
        """End of the batch that would be cut next, were none handed out."""
        return self._new_batch(messages, size)[-1].offset + 1

    def _new_batch(self, messages: int, size: int) -> list[Delivered]:
        found: list[Delivered] = []
        for message in self._waiting:
            if len(found) >= messages or (found and size < len(message.body)):
                break
            found.append(message)
            size -= len(message.body)
        return found

    def _is_cut_off(self) -> bool:
        if not self.is_settled or self.age_s < _CUT_OFF_S:
            return False
        _log.error(
            "Kafka lost what was handed out", partition=self.partition, reserved=self.reserved
        )
        return True


def _size(message: Delivered) -> int:
    """Bytes of memory that a message takes, about."""
    return len(message.body) + _OVERHEAD_BYTES


class CommitRequest:
    """A commit that the caller of a reader waits for."""

    __slots__ = ("end", "failure", "held", "is_done")

    def __init__(self, held: HeldPartition, end: int) -> None:
        self.held = held
        self.end = end
        self.failure: Unavailable | None = None
        self.is_done = False


class KafkaBatch:
    """Consecutive messages of one partition, on loan from a reader."""

    def __init__(
        self,
        messages: list[Delivered],
        topic: str,
        commit: Callable[[int], None],
        is_ours: Callable[[], bool],
        reject: Reject,
    ) -> None:
        self.messages = messages
        self._name = topic
        self._commit = commit
        self._is_ours = is_ours
        self._reject = reject

    @property
    def label(self) -> str:
        """Topic on the cluster, partition, and the offsets of the first and the last message."""
        first, last = self.messages[0], self.messages[-1]
        return f"{self._name}-{first.partition}-{first.offset}-{last.offset}"

    def commit(self) -> None:
        """Move the group's offset behind the batch.

        Raises
        ------
        Unavailable
            Another reader has the partition by now, or Kafka does not answer.
        """
        self._commit(self.messages[-1].offset + 1)

    def is_ours(self) -> bool:
        """Whether the group can still count us in, as far as this process knows."""
        return self._is_ours()

    def reject(self, message: Delivered, reason: str) -> None:
        """Copy a message that can never be processed to the dead letters; durable on return."""
        self._reject(message, reason)
