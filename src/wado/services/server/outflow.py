"""Long bodies go straight to the socket: files without passing through our memory (sendfile).

What a client does not read yet stays where it is: nothing is queued.
"""

import asyncio
import os
import socket
from contextlib import suppress
from typing import Final

_MORE: Final = getattr(socket, "MSG_MORE", 0)
_NOWAIT: Final = getattr(os, "RWF_NOWAIT", 0)
_STEP_BYTES: Final = 1 << 20
"""Of a file in one system call; whether it lies in memory is looked up as often."""


class Outflow:
    """Sends through a duplicate of a connection's socket, beside its transport.

    The transport must have sent all that it held. Raises ConnectionError when the client is gone,
    TimeoutError when it takes nothing for `stall_timeout_s` seconds.
    """

    def __init__(self, fd: int, stall_timeout_s: float) -> None:
        self._socket = socket.socket(fileno=os.dup(fd))
        self._socket.settimeout(0)
        self._stall_timeout_s = stall_timeout_s
        self._is_closed = False
        self._in_thread = False
        self._writable: asyncio.Future[None] | None = None

    def close(self) -> None:
        """Let go of the socket; who waits learns that the client is gone."""
        self._is_closed = True
        if self._writable is not None and not self._writable.done():
            self._writable.set_exception(ConnectionResetError("the client went away"))
        elif not self._in_thread:  # else its number would be another client's in that thread
            self._socket.close()

    async def send(self, data: bytes | bytearray, *, more: bool = False) -> None:
        """Send all of `data`; with `more` it may wait for what follows, to go in one packet."""
        with memoryview(data) as view:
            start = 0
            while start < len(view):
                self._check()
                try:
                    start += self._socket.send(view[start:], _MORE if more else 0)
                except BlockingIOError:
                    await self._until_writable()

    async def send_file(self, fd: int, offset: int, length: int) -> None:
        """Send a range of a file.

        Raises
        ------
        EOFError
            The file ends before the range does.
        """
        end = offset + length
        while offset < end:
            self._check()
            count = min(end - offset, _STEP_BYTES)
            try:
                if _in_memory(fd, offset, count):
                    sent = os.sendfile(self._socket.fileno(), fd, offset, count)
                else:
                    sent = await self._send_in_thread(fd, offset, count)
            except BlockingIOError:
                await self._until_writable()
                continue
            if not sent:
                raise EOFError("the file ends early")
            offset += sent

    async def _send_in_thread(self, fd: int, offset: int, count: int) -> int:
        self._in_thread = True
        try:
            return await asyncio.to_thread(os.sendfile, self._socket.fileno(), fd, offset, count)
        finally:
            self._in_thread = False
            if self._is_closed:
                self._socket.close()

    def _check(self) -> None:
        if self._is_closed:
            raise ConnectionResetError("the client went away")

    async def _until_writable(self) -> None:
        loop = asyncio.get_running_loop()
        self._writable = loop.create_future()
        fd = self._socket.fileno()
        loop.add_writer(fd, _set, self._writable)
        try:
            async with asyncio.timeout(self._stall_timeout_s):
                await self._writable
        finally:
            loop.remove_writer(fd)
            self._writable = None
            if self._is_closed:
                self._socket.close()


def _in_memory(fd: int, offset: int, count: int) -> bool:
    """Whether the end of a range lies in memory, which says that likely all of it does."""
    with suppress(OSError):
        return bool(os.preadv(fd, [bytearray(1)], offset + count - 1, _NOWAIT))
    return False


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
