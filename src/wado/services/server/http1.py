"""HTTP/1.1 connections (RFC 9112): requests are parsed by llhttp, answered one after the other.

`Application.now` is tried first: an answer that lies in memory costs no task.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from time import monotonic, time
from typing import Any, Final, Protocol, cast

import httptools

from wado.services.server.exchange import (
    Exchange,
    Peers,
    ProtocolClosed,
    Scope,
    date_line,
    status_line,
)
from wado.services.server.outflow import Outflow

_MAX_TARGET_BYTES: Final = 64 << 10
_MAX_HEAD_BYTES: Final = 320 << 10
_MAX_HEADERS: Final = 500
_MAX_UNREAD_BYTES: Final = 16 << 20
"""Of a body that was refused: read to its end up to here, so that the client sees the answer."""
_SMALL_BYTES: Final = 16 << 10
_SWEEP_S: Final = 1.0
_OF_UPGRADE: Final = frozenset({"connection", "upgrade", "http2-settings"})
_TOO_LONG: Final = "the headers are too long, or too many"


class Application(Protocol):
    """What a server serves."""

    def now(self, scope: Scope, exchange: "Exchange") -> bool | Coroutine[Any, Any, None]:
        """Answer at once, without waiting; False if that can't be.

        An answer that was begun at once, but not ended, is ended by the coroutine.
        """
        ...

    def serve(self, scope: Scope, exchange: "Exchange") -> Coroutine[Any, Any, None]:
        """Answer; raises `ProtocolClosed` when the client went away."""
        ...


class Connection(asyncio.Protocol):
    """A client; its requests are answered one after the other."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._peers: Peers | None = None
        self._target = b""
        self._headers: dict[str, str] = {}
        self._again = b""
        self._head_bytes = 0
        self._reading: Exchange | None = None
        self._answering: Exchange | None = None
        self._waiting: deque[Exchange] = deque()
        self._unread_bytes = 0
        self._outflow: Outflow | None = None
        self._drained: asyncio.Future[None] | None = None
        self._is_held = False
        self._left_bytes = 0
        self.deadline = 0.0

    # ---- the transport

    @property
    def is_open(self) -> bool:
        """Whether the client is there and can be written to."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_idle(self) -> bool:
        """Whether no request is in hand."""
        return self._answering is None and self._reading is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = cast("asyncio.Transport", transport)
        self._peers = Peers(transport)
        self._await_head()
        if not self._server.admit(self):
            self._refuse(503, "too many connections")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the name is given
        """Let go of all that hangs on it."""
        self._transport = None
        self._server.forget(self)
        if self._outflow is not None:
            self._outflow.close()
        self.resume_writing()
        for exchange in (self._reading, self._answering, *self._waiting):
            if exchange is not None:
                exchange.lose()
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as e:
            again, self._again = self._again, b""
            if again:
                self._parser = httptools.HttpRequestParser(self)
                self.data_received(again + data[e.args[0] :])
            else:
                self.hold()  # answered in HTTP/1.1, then closed: no other protocol is spoken here
        except _Refused as e:
            self._refuse(e.status, str(e))
        except httptools.HttpParserCallbackError as e:
            refused = e.__context__
            if not isinstance(refused, _Refused):
                raise
            self._refuse(refused.status, str(refused))
        except httptools.HttpParserError:
            self._refuse(400, "not a request of HTTP/1.1")
        else:  # the parser gathers a header, also one behind a body, until it is whole
            if self._head_bytes > _MAX_HEAD_BYTES:
                self._refuse(431, _TOO_LONG)

    def pause_writing(self) -> None:
        """Note that the client reads too slowly."""
        self._drained = asyncio.get_running_loop().create_future()
        self.deadline = monotonic() + self._server.stall_timeout_s

    def resume_writing(self) -> None:
        """Note that the client has read."""
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None
        self._left_bytes = 0
        if self._answering is not None:
            self.deadline = 0.0
        elif self._waiting:
            self._server.soon(self._begin_next)

    def is_overdue(self, now: float) -> bool:
        """Whether the client had its time; who takes some of its answer gets more."""
        if not self.deadline or self.deadline >= now or self._transport is None:
            return False
        left_bytes = self._transport.get_write_buffer_size()
        if left_bytes == self._left_bytes:
            return True
        self._left_bytes = left_bytes
        self.deadline = now + self._server.stall_timeout_s
        return False

    def hold(self) -> None:
        """Stop reading."""
        if self._transport is not None and self.is_open and not self._is_held:
            self._is_held = True
            self._transport.pause_reading()

    def release(self) -> None:
        """Go on reading."""
        if self._transport is not None and self.is_open and self._is_held:
            self._is_held = False
            self._transport.resume_reading()

    def check(self) -> None:
        """Raise `ProtocolClosed` if the client is gone."""
        if not self.is_open:
            raise ProtocolClosed

    def write(self, data: bytes) -> None:
        """Send bytes that are small enough to wait in memory."""
        if self._transport is not None:
            self._transport.write(data)

    def write_both(self, head: bytes, body: bytes) -> None:
        """Send a head and a body, which is not copied if it is large."""
        if self._transport is not None:
            if len(body) <= _SMALL_BYTES:
                self._transport.write(head + body)
            else:
                self._transport.writelines((head, body))

    async def outflow(self) -> Outflow:
        """Give the way past the transport, once that has sent what it held."""
        self.check()
        assert self._transport is not None
        while self._transport.get_write_buffer_size():
            self._transport.set_write_buffer_limits(0)
            if self._drained is None:
                break
            await self._drained
            self.check()
        self._transport.set_write_buffer_limits()
        return self._opened(self._transport)

    def outflow_now(self) -> Outflow | None:
        """Give the way past the transport, if that holds nothing."""
        if self._transport is None or self._transport.get_write_buffer_size():
            return None
        return self._opened(self._transport)

    def _opened(self, transport: asyncio.Transport) -> Outflow:
        if self._outflow is None:
            fd = transport.get_extra_info("socket").fileno()
            self._outflow = Outflow(fd, self._server.stall_timeout_s)
        return self._outflow

    def abort(self) -> None:
        """Cut the connection: what was sent is not whole."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close once all was sent."""
        if self._transport is not None:
            self._transport.close()

    # ---- what the parser finds

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._target = b""
        self._headers = {}

    def on_url(self, data: bytes) -> None:
        """Take a piece of its address."""
        self._target += data
        if len(self._target) > _MAX_TARGET_BYTES:
            raise _Refused(414, "the address is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one of its headers; those behind the body say nothing here (RFC 9110 §6.5.1)."""
        if self._reading is not None:
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        known = self._headers.get(key)
        self._headers[key] = text if known is None else f"{known}, {text}"
        if known is not None and key == "host":
            raise _Refused(400, "there are several Host headers")
        if self._head_bytes > _MAX_HEAD_BYTES or len(self._headers) > _MAX_HEADERS:
            raise _Refused(431, _TOO_LONG)

    def on_headers_complete(self) -> None:
        """Begin the exchange; a request with a body is answered while that comes."""
        parser, headers = self._parser, self._headers
        version = parser.get_http_version()
        if "host" not in headers and version == "1.1":
            raise _Refused(400, "the Host header is missing")
        self._head_bytes = 0
        offers = parser.should_upgrade() and parser.get_method() != b"CONNECT"
        if offers and self._has_body(headers):
            self._again = self._without_upgrade(version)
            return
        assert self._peers is not None
        scope = Scope(
            parser.get_method().decode("latin-1"),
            self._target.decode("latin-1"),
            version,
            headers,
            self._peers,
        )
        keep_alive = parser.should_keep_alive() and not parser.should_upgrade()
        exchange = Exchange(self, scope, keep_alive=keep_alive)
        self._reading = exchange
        if not self._has_body(headers):
            return  # answered at the end of the message, which follows at once
        self._begin(exchange)

    @staticmethod
    def _has_body(headers: dict[str, str]) -> bool:
        return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers

    def _without_upgrade(self, version: str) -> bytes:
        """Write a head anew that asks for another protocol (RFC 9110 §7.8).

        The parser would take the body that follows it for something of that protocol.
        """
        lines = [f"{n}: {v}\r\n" for n, v in self._headers.items() if n not in _OF_UPGRADE]
        start = f"{self._parser.get_method().decode()} {self._target.decode('latin-1')}"
        head = f"{start} HTTP/{version}\r\n{''.join(lines)}connection: close\r\n\r\n"
        return head.encode("latin-1")

    def on_body(self, data: bytes) -> None:
        """Take a piece of its body."""
        self._head_bytes = 0
        exchange = self._reading
        assert exchange is not None
        if exchange.started:  # refused, or answered without it
            self._unread_bytes += len(data)
            if self._unread_bytes > _MAX_UNREAD_BYTES:
                self.abort()
        else:
            exchange.feed(data)

    def on_message_complete(self) -> None:
        """End the request; one without a body is answered now."""
        exchange = self._reading
        if exchange is None:  # its body is still to come, behind a head without Upgrade
            return
        self._reading = None
        exchange.end()
        if not self._has_body(exchange.scope.headers):
            self._begin(exchange)
        elif self._answering is None:  # its answer was given before its end
            self._after(exchange)

    # ---- answering

    def _begin(self, exchange: Exchange) -> None:
        """Answer an exchange, or let it wait: for its turn, or for the client to read."""
        if self._answering is not None or self._drained is not None or self._waiting:
            self._waiting.append(exchange)
            self.hold()
        else:
            self._start(exchange)

    def _begin_next(self) -> None:
        if self._answering is None and self._drained is None and self._waiting and self.is_open:
            self._start(self._waiting.popleft())

    def _start(self, exchange: Exchange) -> None:
        self._answering = exchange
        self.deadline = 0.0
        try:
            answered = self._server.application.now(exchange.scope, exchange)
        except (ProtocolClosed, ConnectionError, EOFError):
            self.abort()
            answered = True
        except BaseException:
            self.abort()
            raise
        if answered is True:
            self._answered(exchange)
            return
        if answered is False:
            answered = self._server.application.serve(exchange.scope, exchange)
        self._server.start(self._answer(exchange, answered))

    async def _answer(self, exchange: Exchange, answering: Coroutine[Any, Any, None]) -> None:
        try:
            await answering
        except (ProtocolClosed, ConnectionError, TimeoutError, EOFError):
            self.abort()
        except BaseException:
            self.abort()
            raise
        finally:
            if not exchange.started and self.is_open:
                exchange.keep_alive = False
                exchange.response_empty(500, ())
            self._answered(exchange)

    def _answered(self, exchange: Exchange) -> None:
        self._answering = None
        exchange.forget_body()
        if exchange.is_ended:
            self._after(exchange)
            return
        self.release()  # the rest of its body is passed over, up to a limit
        self.deadline = monotonic() + self._server.head_timeout_s

    def _after(self, exchange: Exchange) -> None:
        """Go on behind an exchange whose request and response are both whole."""
        self._unread_bytes = 0
        if not exchange.keep_alive or self._server.is_stopping:
            self.close()
        elif self._waiting:  # not from here: each would nest in the one before it
            self._server.soon(self._begin_next)
        else:
            self.release()
            if self._reading is None:
                self._await_head()

    def _await_head(self) -> None:
        self.deadline = monotonic() + self._server.head_timeout_s

    def _refuse(self, status: int, reason: str) -> None:
        """Answer what is no request, or has a body that breaks the rules, and close."""
        exchange = self._answering or self._reading
        if not self.is_open or (exchange is not None and exchange.started):
            self.abort()
            return
        body = f'{{"status":{status},"reason":"{reason}"}}'.encode()
        head = (
            f"{status_line(status)}{date_line(int(time()))}content-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.write(head.encode() + body)
        self.close()
        if exchange is not None:
            exchange.started = True
            exchange.lose()


class _Refused(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Server:
    """Listens, and keeps the connections.

    Parameters
    ----------
    application
        What to serve.
    head_timeout_s
        How long a head may take, and a connection may be idle, in seconds.
    stall_timeout_s
        How long a client may take nothing of its answer, in seconds.
    max_connections
        More are answered with 503 and closed.
    """

    def __init__(
        self,
        application: Application,
        *,
        head_timeout_s: float,
        stall_timeout_s: float,
        max_connections: int,
    ) -> None:
        self.application = application
        self.head_timeout_s = head_timeout_s
        self.stall_timeout_s = stall_timeout_s
        self.is_stopping = False
        self._max_connections = max_connections
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, host: str, port: int, stop: asyncio.Event, *, linger_s: float) -> None:
        """Serve until `stop` is set; then finish what is in hand, for at most `linger_s`.

        Several processes may listen at the same port: the kernel deals out connections.
        """
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(
            lambda: Connection(self),
            host,
            port,
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            reuse_port=True,
            backlog=1024,
        )
        sweeping = loop.create_task(self._sweep())
        await stop.wait()
        self.is_stopping = True
        listener.close()
        for connection in [c for c in self._connections if c.is_idle]:
            connection.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=linger_s)
        sweeping.cancel()
        for connection in list(self._connections):
            connection.abort()
        with suppress(TimeoutError):
            await asyncio.wait_for(listener.wait_closed(), 1.0)

    def admit(self, connection: Connection) -> bool:
        """Take a connection; False if there are too many."""
        self._connections.add(connection)
        return len(self._connections) <= self._max_connections

    def forget(self, connection: Connection) -> None:
        """Let go of a connection that is closed."""
        self._connections.discard(connection)

    def start(self, answering: Coroutine[Any, Any, None]) -> None:
        """Answer a request in a task of its own."""
        task = asyncio.get_running_loop().create_task(answering)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    def soon(step: Callable[[], None]) -> None:
        """Take a step as soon as those are done that wait for theirs."""
        asyncio.get_running_loop().call_soon(step)

    async def _sweep(self) -> None:
        """Close connections whose time is over."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = monotonic()
            for connection in list(self._connections):
                if connection.is_overdue(now):
                    connection.abort()
