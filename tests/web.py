"""The web application at the other end of a socket, in this process; no port, no services."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any, TypeVar

from wado.services.server.http1 import Application, Connection, Server

if TYPE_CHECKING:
    from wado.services.server.service import Service

TIMEOUT_S = 60.0
T = TypeVar("T")


def run_alone(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in a thread of its own: the browser's tests keep a loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def talk(application: Application, client: Callable[[socket.socket], T], **limits: float) -> T:
    """Serve one connection; what `client` makes of its end, in a thread of its own."""

    async def served() -> T:
        ours, theirs = socket.socketpair()
        theirs.settimeout(TIMEOUT_S)
        settings = {"head_timeout_s": TIMEOUT_S, "stall_timeout_s": TIMEOUT_S, **limits}
        server = Server(application, max_connections=10, **settings)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_accepted_socket(lambda: Connection(server), ours)
        sweeping = loop.create_task(server._sweep())
        with theirs:
            result = await asyncio.to_thread(client, theirs)
        sweeping.cancel()
        if not transport.is_closing():  # one that closes by itself may be gone by now
            transport.abort()
        await asyncio.sleep(0)
        return result

    result: T = run_alone(served())
    return result


class Response:
    """An answer, read whole; header names in lower case."""

    def __init__(self, sock: socket.socket, method: str) -> None:
        raw = HTTPResponse(sock, method=method)
        raw.begin()
        self.status = raw.status
        self.headers = {name.lower(): value for name, value in raw.getheaders()}
        self.body = raw.read()


def fetch(service: "Service", method: str, path: str, **headers: str) -> Response:
    """Ask the web application of a service, without a body."""
    from wado.services.server.direct import WebApplication  # noqa: PLC0415  # slow

    given = {"host": "example:8080", **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    request = f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode()

    def client(sock: socket.socket) -> Response:
        sock.sendall(request)
        return Response(sock, method)

    return talk(WebApplication(service), client)
