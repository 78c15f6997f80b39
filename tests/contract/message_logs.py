"""What the tests of `MessageLog` do with any of them."""

import threading
from collections.abc import Callable
from threading import Event
from typing import Any

from wado.adapters.message_log.sqlite import SqliteMessageLog
from wado.ports import Batch, Message, MessageLog
from wado.records import Topic

Open = Callable[..., MessageLog]
GROUP = "readers"


def messages(*bodies: object, topic: Topic = Topic.STORAGE, key: str = "t/1.2") -> list[Message]:
    return [Message(topic, key, str(body).encode()) for body in bodies]


def take(log: MessageLog, count: int, topic: Topic = Topic.STORAGE, **how: Any) -> list[Batch]:
    """Read and commit batches until they hold `count` messages."""
    batches: list[Batch] = []
    stop = Event()
    for batch in log.read(topic, how.pop("group", GROUP), stop, **how):
        batches.append(batch)
        batch.commit()
        if sum(len(b.messages) for b in batches) >= count:
            stop.set()
    return batches


def first(log: MessageLog, topic: Topic = Topic.STORAGE, **how: Any) -> Batch:
    """Read a batch and leave it uncommitted."""
    reading = log.read(topic, how.pop("group", GROUP), Event(), **how)
    try:
        return next(reading)
    finally:
        reading.close()  # type: ignore[attr-defined]  # it is a generator


def nothing_comes(log: MessageLog, topic: Topic = Topic.STORAGE, group: str = GROUP) -> bool:
    """Whether a reader that waits for a while gets nothing; a member of a group has to join."""
    stop = Event()
    timer = threading.Timer(0.2 if isinstance(log, SqliteMessageLog) else 1.0, stop.set)
    timer.start()
    found = list(log.read(topic, group, stop))
    timer.join()
    return not found


def bodies(batches: list[Batch]) -> list[bytes]:
    return [m.body for b in batches for m in b.messages]


def bounds(batch: Batch) -> str:
    """Label without what an archive that shares a cluster puts before it."""
    name, *numbers = batch.label.rsplit("-", 3)
    return "-".join([name.rpartition("-")[2], *numbers])
