"""A request and its response as granian gives them, without granian."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def run_alone(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in a thread of its own: the browser's tests keep a loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


class RequestHeaders(dict[str, str]):
    """Headers as granian gives them."""


class RsgiScope:
    """The head of a request as granian gives it."""

    proto, http_version, scheme, authority = "http", "1.1", "http", None
    server, client, query_string = "127.0.0.1:8080", "127.0.0.9:5000", "a=b"

    def __init__(self, method: str, path: str, **headers: str) -> None:
        self.method, self.path = method, path
        self.headers = RequestHeaders({"host": "example:8080", **headers})


class RsgiProtocol:
    """Takes one response; its request body comes in two pieces."""

    def __init__(self) -> None:
        self.status, self.body = 0, b""
        self.headers: dict[str, str] = {}

    async def __aiter__(self) -> Any:
        yield b"one "
        yield b"two"

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.headers, self.body = status, dict(headers), bytes(body)

    def response_empty(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.response_bytes(status, headers, b"")

    def response_stream(self, status: int, headers: list[tuple[str, str]]) -> "RsgiProtocol":
        self.response_bytes(status, headers, b"")
        return self

    async def send_bytes(self, data: bytes) -> None:
        self.body += data
