"""HTTP/1.1 as far as the two HTTP services need it, with full say over ``100 Continue``."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

_HEAD_LIMIT = 256 * 1024
_DRAIN_BYTES = 64 * 1024 * 1024
_DRAIN_S = 2.0
_REASONS = {200: "OK", 307: "Temporary Redirect", 400: "Bad Request", 404: "Not Found"}


class Gone(Exception):
    """The client went away, or sends what is no HTTP."""


@dataclass(slots=True)
class Response:
    """An answer; `cut` sends only half of its body and drops the connection."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False

    @classmethod
    def of_json(cls, value: Any, status: int = 200) -> "Response":
        """Answer with a JSON object."""
        headers = {"Content-Type": "application/json"}
        return cls(status, json.dumps(value).encode(), headers)


@dataclass(slots=True)
class Request:
    """The head of a request; the body is read on demand."""

    method: str
    target: str
    headers: Mapping[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    body_was_read: bool = False

    @property
    def path(self) -> list[str]:
        """Parts of the path, decoded."""
        return [unquote(part) for part in urlsplit(self.target).path.split("/")[1:]]

    @property
    def query(self) -> str:
        """What follows the question mark."""
        return urlsplit(self.target).query

    @property
    def is_chunked(self) -> bool:
        """Whether the length of the body is not known beforehand."""
        return "chunked" in self.headers.get("transfer-encoding", "")

    @property
    def has_body(self) -> bool:
        """Whether a body is announced."""
        return self.is_chunked or int(self.headers.get("content-length") or 0) > 0

    async def body(self) -> bytes:
        """Read the body; a client that waits for ``100 Continue`` gets it now.

        Raises
        ------
        Gone
            The client went away before the end.
        """
        if self.headers.get("expect", "").lower() == "100-continue":
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await self.writer.drain()
        try:
            body = await self._read()
        except (asyncio.IncompleteReadError, ConnectionError, ValueError) as e:
            raise Gone from e
        self.body_was_read = True
        return body

    async def _read(self) -> bytes:
        if not self.is_chunked:
            return await self.reader.readexactly(int(self.headers.get("content-length") or 0))
        chunks = []
        while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
            chunks.append(await self.reader.readexactly(size))
            await self.reader.readexactly(2)
        while await self.reader.readuntil(b"\r\n") != b"\r\n":  # trailers
            pass
        return b"".join(chunks)


Handler = Callable[[Request], Awaitable[Response]]


async def serve(port: int, handler: Handler) -> asyncio.Server:
    """Listen at a port of 127.0.0.1 and answer requests until the server is closed."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(Gone, ConnectionError):
            while await _exchange(reader, writer, handler):
                pass
        writer.close()

    return await asyncio.start_server(connection, "127.0.0.1", port, limit=_HEAD_LIMIT)


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler
) -> bool:
    """Serve one request; False when the connection cannot be used again."""
    request = await _head(reader, writer)
    if request is None:
        return False
    response = await handler(request)
    unread = request.has_body and not request.body_was_read
    again = not (unread or response.cut or request.headers.get("connection") == "close")
    head = [f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Error')}"]
    head += [f"{name}: {value}" for name, value in response.headers.items()]
    head += [f"Content-Length: {len(response.body)}"]
    head += [] if again else ["Connection: close"]
    body = response.body[: len(response.body) // 2] if response.cut else response.body
    writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
    await writer.drain()
    if response.cut:
        raise Gone
    if unread:
        await _drain(reader)
    return again


async def _head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    words = first.split(" ")
    if len(words) != 3:
        raise Gone
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Request(words[0], words[1], headers, reader, writer)


async def _drain(reader: asyncio.StreamReader) -> None:
    """Throw away what a client sends though nobody asked for it, so that it reads the answer."""
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(_DRAIN_S):
            left = _DRAIN_BYTES
            while left > 0 and (data := await reader.read(65536)):
                left -= len(data)
