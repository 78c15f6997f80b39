"""Children of a test that die by SIGKILL where the test wants it."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Reached = Callable[[], None]
_FORK = multiprocessing.get_context("fork")


@contextmanager
def running(work: Callable[[Reached], None]) -> Iterator[None]:
    """Run `work` in a child until it calls its argument, and go on while it hangs there.

    On exit the child is killed with SIGKILL. Fails if the child ends before it got there.
    """
    read_end, write_end = os.pipe()

    def reached() -> None:
        os.write(write_end, b"!")
        while True:
            signal.pause()

    child = _FORK.Process(target=work, args=(reached,))
    child.start()
    os.close(write_end)
    try:
        assert os.read(read_end, 1) == b"!", "the child ended early"
        yield
    finally:
        os.close(read_end)
        child.kill()
        child.join()


def crash(work: Callable[[Reached], None]) -> None:
    """Run `work` in a child and kill it where it calls its argument."""
    with running(work):
        pass


def complete(work: Callable[[], None], *, processes: int = 1, timeout_s: float = 60) -> None:
    """Run `work` in children, at the same time, to the end."""
    children = [_FORK.Process(target=work) for _ in range(processes)]
    for child in children:
        child.start()
    for child in children:
        child.join(timeout_s)
        child.kill()
        assert child.exitcode == 0
