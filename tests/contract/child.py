"""Children of a test that run to their end, or die by SIGKILL where the test wants it.

They are forks of a process with threads (of libraries, of xdist): a lock that one of those held is
held in the child for ever. What becomes of a child that fails or hangs is told in the failure: its
exception, or where each of its threads is.
"""

import faulthandler
import multiprocessing
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

Reached = Callable[[], None]
_FORK = multiprocessing.get_context("fork")
_TIMEOUT_S = 120.0
_REACH_S = 120.0
_DUMP_S = 30.0
_SHOWN = 10_000


class _Child:
    """A forked process, with a file that takes what it has to say when it fails."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        self.process = _FORK.Process(target=self._run, args=(work,))
        # Who is asked where it is before it can say so would die of it: the signal waits.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _run(self, work: Callable[[], None]) -> None:
        faulthandler.enable(self._said)
        faulthandler.register(signal.SIGUSR1, self._said, all_threads=True)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        try:
            work()
        except BaseException:  # noqa: BLE001 - told by the parent
            self._said.write(traceback.format_exc().encode(errors="replace"))
            self._said.flush()
            sys.exit(1)

    def complete(self, timeout_s: float) -> None:
        """Wait for its end; AssertionError when that is not a good one, or does not come."""
        self.process.join(timeout_s)
        assert not self.process.is_alive(), f"the child hangs:\n{self.stacks()}"
        assert self.process.exitcode == 0, f"exit code {self.process.exitcode}:\n{self.said()}"

    def stacks(self) -> str:
        """Where its threads are; by a handler in C, which needs no lock of Python."""
        os.kill(self.process.ident or 0, signal.SIGUSR1)
        deadline = time.monotonic() + _DUMP_S
        # It is written line by line: of the main thread, this one comes behind all of the work.
        while " in _run\n" not in self.said() and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.said()

    def said(self) -> str:
        """What it said of its end, or of where it is."""
        size = os.fstat(self._said.fileno()).st_size
        return os.pread(self._said.fileno(), _SHOWN, max(0, size - _SHOWN)).decode(errors="replace")

    def end(self) -> None:
        """Kill it, if it runs still."""
        self.process.kill()
        self.process.join()
        self._said.close()


@contextmanager
def running(work: Callable[[Reached], None], *, timeout_s: float = _REACH_S) -> Iterator[None]:
    """Run `work` in a child until it calls its argument, and go on while it hangs there.

    On exit the child is killed with SIGKILL. Fails if the child ends before it got there, or takes
    too long.
    """
    read_end, write_end = os.pipe()

    def reached() -> None:
        os.write(write_end, b"!")
        while True:
            signal.pause()

    child = _Child(lambda: work(reached))
    os.close(write_end)
    try:
        is_there, _, _ = select.select([read_end], [], [], timeout_s)
        assert is_there, f"the child hangs before it got there:\n{child.stacks()}"
        if not os.read(read_end, 1):
            child.complete(timeout_s)
            raise AssertionError("the child ended before it got there")
        yield
    finally:
        os.close(read_end)
        child.end()


def crash(work: Callable[[Reached], None]) -> None:
    """Run `work` in a child and kill it where it calls its argument."""
    with running(work):
        pass


def complete(
    work: Callable[[], None], *, processes: int = 1, timeout_s: float = _TIMEOUT_S
) -> None:
    """Run `work` in children, at the same time, to the end."""
    children = [_Child(work) for _ in range(processes)]
    try:
        for child in children:
            child.complete(timeout_s)
    finally:
        for child in children:
            child.end()
