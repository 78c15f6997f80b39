"""Processes: whether they run, and freezing them, as a hypervisor or a disk does for a while."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service import wait_until


def states_of(pid: int) -> set[str]:
    """States of the threads of a process, as in ``/proc``; none when it is no more."""
    states = set()
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            states.add(stat.read_text().rpartition(")")[2].split()[0])
        except OSError:  # a thread that ended
            continue
    return states


def runs(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    return not states_of(pid) <= {"Z", "X"}


def is_frozen(pid: int) -> bool:
    """Whether a process does nothing: it is stopped with all its threads, or has ended."""
    return states_of(pid) <= {"T", "Z", "X"}


def freeze(*pids: int) -> None:
    """Stop processes; on return they do nothing any more (a signal alone takes a moment)."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: all(map(is_frozen, pids)), timeout_s=60, reason="they are frozen")


def thaw(*pids: int) -> None:
    """Let processes go on."""
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """Freeze processes for a while."""
    try:
        freeze(*pids)
        yield
    finally:
        thaw(*pids)
