"""Waits until the services of an archive have done all that its log tells them."""

from service import RunningArchive, wait_until
from wado.archive.health import GROUPS, waiting
from wado.bootstrap import open_archive
from wado.errors import Unavailable
from wado.settings import load_settings


def wait_read(archive: RunningArchive, *, timeout_s: float = 120.0) -> None:
    """Wait until nothing on the log is to be read any more.

    `wado check` waits as long as the log moves; a service that was killed or waits for another
    that was away does not move it for some seconds.
    """
    with open_archive(load_settings(storage={"root": archive.root})) as opened:

        def is_read() -> bool:
            try:
                return not any(waiting(opened, topic) for topic in GROUPS)
            except Unavailable:
                return False

        wait_until(is_read, timeout_s=timeout_s, reason="the log is read")
