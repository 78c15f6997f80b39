"""Long bodies go straight to the socket: files without passing through our memory (sendfile).

What a client does not read yet stays where it is: nothing is queued.
"""

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

_MORE: Final = getattr(socket, "MSG_MORE", 0)
_NOWAIT: Final = getattr(os, "RWF_NOWAIT", 0)
_STEP_BYTES: Final = 1 << 20
"""Of a file in one system call; whether it lies in memory is looked up as often."""
_AT_ONCE_BYTES: Final = 4 << 20
"""Of files, before others have their turn: a quick reader takes as much as there is."""


class FileRange(NamedTuple):
    """A range of an open file; `in_memory` if no disk is behind it."""

    fd: int
    offset: int
    length: int
    in_memory: bool = False


Part = bytes | FileRange


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

    def send_at_once(self, parts: Sequence[Part]) -> list[Part]:
        """Send what goes without waiting, up to a limit; what is left.

        Raises
        ------
        EOFError
            A file ends before its range does.
        """
        self._check()
        left = list(parts)
        steps = _AT_ONCE_BYTES // _STEP_BYTES
        try:
            while left and steps:
                part, more = left[0], _MORE if len(left) > 1 else 0
                if isinstance(part, bytes):
                    sent, length = self._socket.send(part, more), len(part)
                    rest: Part = part[sent:]
                else:
                    fd, offset, length, in_memory = part
                    count, steps = min(length, _STEP_BYTES), steps - 1
                    if not (in_memory or _in_memory(fd, offset, count)):
                        break
                    sent = os.sendfile(self._socket.fileno(), fd, offset, count)
                    if not sent:
                        raise EOFError("the file ends early")
                    rest = FileRange(fd, offset + sent, length - sent, in_memory)
                if sent == length:
                    left.pop(0)
                else:
                    left[0] = rest
        except BlockingIOError:
            pass
        return left

    async def send_parts(self, parts: Sequence[Part]) -> None:
        """Send all of the parts; raises as `send` and `send_file`."""
        for number, part in enumerate(parts, 1):
            if isinstance(part, bytes):
                await self.send(part, more=number < len(parts))
            else:
                await self.send_file(part)

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

    async def send_file(self, file: FileRange) -> None:
        """Send a range of a file.

        Raises
        ------
        EOFError
            The file ends before the range does.
        """
        fd, offset, length, in_memory = file
        end = offset + length
        while offset < end:
            self._check()
            count = min(end - offset, _STEP_BYTES)
            try:
                if in_memory or _in_memory(fd, offset, count):
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
