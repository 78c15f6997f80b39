"""One request and its response (RFC 9110), as a web application sees them.

Bodies are held back both ways: what nobody reads yet is not taken from the client, and what the
client doesn't read is not sent.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from time import time
from typing import Any, Final, Protocol, Self

from wado.services.server.outflow import FileRange, Outflow, Part

HeaderList = Iterable[tuple[str, str]]

HIGH_WATER_BYTES: Final = 1 << 20
"""Of a body that nobody reads yet; then the connection is not read until half of it was taken."""
_EMPTY_STATUSES: Final = frozenset({204, 304})
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class ProtocolClosed(Exception):
    """The client went away."""


class Peers:
    """Addresses of a connection, as ``host:port``."""

    __slots__ = ("client", "server")

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self.client = _address(transport.get_extra_info("peername"))
        self.server = _address(transport.get_extra_info("sockname"))


def _address(name: Any) -> str:
    if not name:
        return ":0" if name is None else "unix:0"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{host}:{name[1]}"


class Scope:
    """The head of a request; header names are in lower case, repeated ones joined by commas."""

    __slots__ = (
        "client", "headers", "http_version", "method", "path", "query_string", "scheme", "server",
    )  # fmt: skip

    def __init__(
        self, method: str, target: str, http_version: str, headers: dict[str, str], peers: Peers
    ) -> None:
        self.method = method
        path, _, self.query_string = target.partition("?")
        if not path.startswith("/") and path != "*":  # the absolute form (RFC 9112 §3.2.2)
            path = "/" + path.partition("://")[2].partition("/")[2]
        self.path = path
        self.http_version = http_version
        self.headers = headers
        self.scheme = "http"
        self.client = peers.client
        self.server = peers.server


class Line(Protocol):
    """What an exchange needs of the connection that it came by."""

    @property
    def is_open(self) -> bool:
        """Whether the client is there and can be written to."""
        ...

    def check(self) -> None:
        """Raise `ProtocolClosed` if the client is gone."""
        ...

    def hold(self) -> None:
        """Stop reading."""
        ...

    def release(self) -> None:
        """Go on reading."""
        ...

    def write(self, data: bytes) -> None:
        """Send bytes that are small enough to wait in memory."""
        ...

    def write_both(self, head: bytes, body: bytes) -> None:
        """Send a head and a body, which is not copied if it is large."""
        ...

    async def outflow(self) -> Outflow:
        """Give the way past the transport, once that has sent what it held."""
        ...

    def outflow_now(self) -> Outflow | None:
        """Give the way past the transport, if that holds nothing."""
        ...

    def abort(self) -> None:
        """Cut the connection: what was sent is not whole."""
        ...


class Exchange:
    """One request and its response.

    Iterating over it gives the body of the request, piece by piece, as it comes. `began` and `note`
    are the application's.
    """

    __slots__ = (
        "_body", "_connection", "_ended", "_held_bytes", "_waiter", "began", "keep_alive",
        "note", "scope", "started",
    )  # fmt: skip

    def __init__(self, connection: Line, scope: Scope, *, keep_alive: bool) -> None:
        self._connection = connection
        self._body: deque[bytes] = deque()
        self._held_bytes = 0
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self.scope = scope
        self.keep_alive = keep_alive
        self.started = False
        self.began = 0.0
        self.note: Any = None

    # ---- the body of the request

    def feed(self, data: bytes) -> None:
        """Take a piece of the body, from the connection."""
        self._body.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > HIGH_WATER_BYTES:
            self._connection.hold()
        self._wake()

    def end(self) -> None:
        """Take the end of the body."""
        self._ended = True
        self._wake()

    @property
    def is_ended(self) -> bool:
        """Whether the body has come to its end."""
        return self._ended

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if not self._ended and self.scope.headers.get("expect", "").lower() == "100-continue":
            self._connection.write(_CONTINUE)
        while True:
            while self._body:
                data = self._body.popleft()
                self._held_bytes -= len(data)
                if self._held_bytes < HIGH_WATER_BYTES // 2:
                    self._connection.release()
                yield data
            if self._ended:
                return
            self._connection.check()
            self._connection.release()  # held, too, if this came behind another request
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def forget_body(self) -> None:
        """Let go of what nobody will read."""
        self._body.clear()
        self._held_bytes = 0

    def is_gone(self) -> bool:
        """Whether the client went away; may be asked in any thread."""
        return not self._connection.is_open

    def lose(self) -> None:
        """Learn that the connection is gone."""
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # ---- the response

    def response_bytes(self, status: int, headers: HeaderList, body: bytes) -> None:
        """Send a whole response; `body` stays out where the status or HEAD wants none."""
        head = self._head(status, headers, f"content-length: {len(body)}\r\n")
        is_empty = status in _EMPTY_STATUSES or self.scope.method == "HEAD"
        if is_empty:
            self._connection.write(head)
        else:
            self._connection.write_both(head, body)

    def response_empty(self, status: int, headers: HeaderList) -> None:
        """Send a response without a body; ``content-length`` may be one of the headers (HEAD)."""
        named = any(name == "content-length" for name, _ in headers)
        # The length of what GET would send need not be known to answer HEAD (RFC 9110 §9.3.2).
        unknown = status in _EMPTY_STATUSES or self.scope.method == "HEAD"
        length = "" if named or unknown else "content-length: 0\r\n"
        self._connection.write(self._head(status, headers, length))

    def response_parts(
        self, status: int, headers: HeaderList, length: int, parts: Sequence[Part]
    ) -> "Coroutine[Any, Any, None] | None":
        """Send a response of `length` bytes, at once as much as the socket takes.

        Returns
        -------
        rest
            Sends what is left; None if that is nothing. Raises as `Sender`.
        """
        self._connection.check()
        outflow = self._connection.outflow_now()
        assert outflow is not None, "asked by `can_send_now` before"
        head = self._head(status, headers, f"content-length: {length}\r\n")
        first = parts[0]
        together = (head + first, *parts[1:]) if isinstance(first, bytes) else (head, *parts)
        left = outflow.send_at_once(together)
        return outflow.send_parts(left) if left else None

    @property
    def can_send_now(self) -> bool:
        """Whether nothing that was sent before is still on its way."""
        return self._connection.outflow_now() is not None

    def response_stream(self, status: int, headers: HeaderList) -> "Sender":
        """Begin a response whose body comes in pieces.

        With a ``content-length`` among the headers it is sent as it is, else chunked, or, to a
        client of HTTP/1.0, up to the end of the connection.
        """
        chunked = False
        framing = ""
        if not any(name == "content-length" for name, _ in headers):
            chunked = self.scope.http_version != "1.0"
            framing = "transfer-encoding: chunked\r\n" if chunked else ""
            self.keep_alive = self.keep_alive and chunked
        return Sender(self._connection, self._head(status, headers, framing), chunked=chunked)

    @property
    def _is_short(self) -> bool:
        """Whether the rest of the body is likely in the buffers already.

        Who expects 100 (Continue) and hears of something else may leave it out.
        """
        length = self.scope.headers.get("content-length", "")
        is_held_back = "expect" in self.scope.headers
        return length.isdigit() and int(length) <= HIGH_WATER_BYTES and not is_held_back

    def _head(self, status: int, headers: HeaderList, framing: str) -> bytes:
        self._connection.check()
        if self.started:
            raise RuntimeError("the response was begun already")
        self.started = True
        if not self._ended and not self._is_short:
            self.keep_alive = False  # who is refused early may go on sending for long
        if not self.keep_alive:
            closing = "connection: close\r\n"
        else:  # said only to whom it is not a matter of course (RFC 9112 §9.3)
            is_old = self.scope.http_version == "1.0"
            closing = "connection: keep-alive\r\n" if is_old else ""
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
        text = f"{status_line(status)}{date_line(int(time()))}{lines}{framing}{closing}\r\n"
        return text.encode("latin-1")


@lru_cache(maxsize=128)
def status_line(status: int) -> str:
    """First line of a response."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n"


@lru_cache(maxsize=2)
def date_line(second: int) -> str:
    """Date header of a second since the epoch."""
    return f"date: {formatdate(second, usegmt=True)}\r\n"


class Sender:
    """The body of a response on its way out; an async context manager.

    Sending waits while the client reads slowly. Raises TimeoutError when it takes nothing for too
    long, ConnectionError when it is gone; the connection is cut then, so that no client takes a
    part for the whole.
    """

    def __init__(self, connection: Line, head: bytes, *, chunked: bool) -> None:
        self._connection = connection
        self._head = head
        self._chunked = chunked
        self._outflow: Outflow | None = None

    async def __aenter__(self) -> Self:
        self._outflow = await self._connection.outflow()
        await self._outflow.send(self._head, more=True)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._connection.abort()
        else:
            await self._open.send(b"0\r\n\r\n" if self._chunked else b"")

    @property
    def _open(self) -> Outflow:
        assert self._outflow is not None, "used outside its context"
        return self._outflow

    async def send(self, data: bytes | bytearray, *, more: bool = True) -> None:
        """Send bytes; `more` says that others follow soon."""
        if self._chunked and data:
            await self._open.send(b"%x\r\n" % len(data), more=True)
            await self._open.send(data, more=True)
            await self._open.send(b"\r\n", more=more)
        elif data:
            await self._open.send(data, more=more)

    async def send_file(self, file: FileRange) -> None:
        """Send a range of an open file; EOFError if it is shorter."""
        assert not self._chunked, "the length of files is known"
        await self._open.send_file(file)
