"""A bridge from RSGI to ASGI: what is not served directly goes to the Starlette application."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

# What granian gives an application under these names, it does not declare as exported.
from granian.rsgi import HTTPProtocol, ProtocolClosed, Scope  # type: ignore[attr-defined]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]


async def bridged(asgi: Asgi, scope: Scope, protocol: HTTPProtocol) -> None:
    """Serve one request by an ASGI application; bodies stream both ways with back-pressure."""
    sender = _Sender(protocol)
    try:
        await asgi(asgi_scope(scope), _receiver(protocol), sender)
    except ProtocolClosed:
        return  # the client went away
    if not sender.started:
        protocol.response_empty(500, [])


def asgi_scope(scope: Scope) -> dict[str, Any]:
    """Translate the head of a request."""
    host, _, port = scope.client.rpartition(":")
    server, _, server_port = scope.server.rpartition(":")
    headers = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in scope.headers.items()]
    if scope.authority and not any(name == b"host" for name, _ in headers):
        headers.append((b"host", scope.authority.encode("latin-1")))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": scope.http_version,
        "method": scope.method,
        "scheme": scope.scheme,
        "path": unquote(scope.path),
        "raw_path": scope.path.encode("ascii", "replace"),
        "query_string": scope.query_string.encode("latin-1"),
        "root_path": "",
        "headers": headers,
        "client": (host, int(port)) if port.isdigit() else None,
        "server": (server, int(server_port)) if server_port.isdigit() else None,
    }


def _receiver(protocol: HTTPProtocol) -> Receive:
    body: Any = None
    ended = False

    async def receive() -> Message:
        nonlocal body, ended
        if ended:
            await protocol.client_disconnect()
            return {"type": "http.disconnect"}
        if body is None:
            body = aiter(protocol)
        try:
            data = await anext(body)
        except StopAsyncIteration:
            ended = True
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.request", "body": data, "more_body": True}

    return receive


class _Sender:
    """Gives an ASGI response to granian: in one go if it comes in one go."""

    def __init__(self, protocol: HTTPProtocol) -> None:
        self._protocol = protocol
        self._status = 500
        self._headers: list[tuple[str, str]] = []
        self._transport: Any = None
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = [
                (k.decode("latin-1"), v.decode("latin-1")) for k, v in message["headers"]
            ]
            return
        data: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        if self._transport is None and not more:
            self._protocol.response_bytes(self._status, self._headers, data)
        else:
            if self._transport is None:
                self._transport = self._protocol.response_stream(self._status, self._headers)
            if data:
                await self._transport.send_bytes(data)
        self.started = True


__all__ = ["HTTPProtocol", "ProtocolClosed", "Scope", "asgi_scope", "bridged"]
