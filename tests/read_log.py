"""Waits until the services of an archive have done what its log tells them."""

from collections.abc import Iterable

from service import RunningArchive, wait_until
from wado.archive.health import COUNTED, waiting
from wado.bootstrap import open_archive
from wado.errors import Unavailable
from wado.records import Topic
from wado.settings import load_settings


def wait_read(
    archive: RunningArchive, topics: Iterable[Topic] = COUNTED, *, timeout_s: float = 200.0
) -> None:
    """Wait until nothing of these topics is to be read any more.

    `wado check` waits as long as the log moves; on a busy machine it may stand still for longer.
    """
    topics = tuple(topics)
    with open_archive(load_settings(storage={"root": archive.root})) as opened:

        def is_read() -> bool:
            try:
                return not any(waiting(opened, topic) for topic in topics)
            except Unavailable:
                return False

        wait_until(is_read, timeout_s=timeout_s, reason="the log is read")
