"""Long bodies go out through a named pipe, which holds us back while a client reads slowly.

The stream that granian offers queues whatever it is given, without limit: a client that asks for
a study and reads nothing would have all of it put into our memory. A file granian reads piece by
piece, as the client takes them; so it is given a pipe by the name of a file.
"""

import asyncio
import errno
import fcntl
import os
from contextlib import suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

_PIPE_BYTES = 1 << 20
_OPENED_WITHIN_S = 15.0
_LOOK_S = 0.0005
_PERMISSIONS = 0o600


class Pipes:
    """Makes pipes; one per process, a context manager that owns their folder.

    The folder is a temporary one: the pipes in it are names without content, and gone as soon as
    both sides have opened them. It lies in `below`, or where the system has such folders.
    """

    def __init__(self, *, stall_timeout_s: float, below: Path | None = None) -> None:
        if below is not None:
            below.mkdir(parents=True, exist_ok=True)
        self._folder = TemporaryDirectory(prefix="server-", dir=below)
        self._numbers = count()
        self._stall_timeout_s = stall_timeout_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def make(self) -> "Outflow":
        """Make a pipe that nobody has opened yet."""
        path = os.path.join(self._folder.name, str(next(self._numbers)))
        os.mkfifo(path, _PERMISSIONS)
        return Outflow(path, self._stall_timeout_s)


class Outflow:
    """The writing side of a pipe; an async context manager that waits for the reading side.

    Raises BrokenPipeError (also from `write`) when the reader is gone, TimeoutError when it
    takes nothing for too long.
    """

    def __init__(self, path: str, stall_timeout_s: float) -> None:
        self.path = path
        self._stall_timeout_s = stall_timeout_s
        self._fd = -1

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(_OPENED_WITHIN_S):
                while not self._open():  # noqa: ASYNC110 - nothing tells that a pipe was opened
                    await asyncio.sleep(_LOOK_S)
        finally:
            os.unlink(self.path)
        with suppress(OSError):  # the system's limit for all pipes of a user: a short one will do
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        return self

    def _open(self) -> bool:
        try:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as e:
            if e.errno != errno.ENXIO:  # nobody reads yet
                raise
            return False
        return True

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        os.close(self._fd)

    async def write(self, data: bytes | bytearray) -> None:
        """Write all of it, as fast as it is read."""
        with memoryview(data) as view:
            start = 0
            while start < len(view):
                try:
                    start += os.write(self._fd, view[start:])
                except BlockingIOError:
                    await self._writable()

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        writable: asyncio.Future[None] = loop.create_future()
        loop.add_writer(self._fd, _set, writable)
        try:
            async with asyncio.timeout(self._stall_timeout_s):
                await writable
        finally:
            loop.remove_writer(self._fd)


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
