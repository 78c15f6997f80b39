"""The entry of granian (RSGI): DICOMweb is served here, all else by the Starlette application."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import perf_counter, time
from typing import Any
from urllib.parse import unquote

from wado.errors import NotFound
from wado.services.server.access_log import Access
from wado.services.server.bridge import HTTPProtocol, ProtocolClosed, Scope, bridged
from wado.services.server.calls import Answer, Call
from wado.services.server.delivery import WHOLE_BYTES, chunks, whole
from wado.services.server.dispatch import error_answer, handle, in_thread
from wado.services.server.routes import ROOT, Resource, find
from wado.services.server.service import Service

_EMPTY_STATUSES = frozenset({204, 304})


def rsgi_application(
    service: Service, asgi: Callable[..., Awaitable[None]]
) -> Callable[[Scope, HTTPProtocol], Awaitable[None]]:
    """Make the application that granian calls."""

    async def application(scope: Scope, protocol: HTTPProtocol) -> None:
        if scope.path.startswith(ROOT) and scope.proto == "http":
            await _serve(service, scope, protocol)
        else:
            await bridged(asgi, scope, protocol)

    return application


async def _serve(service: Service, scope: Scope, protocol: HTTPProtocol) -> None:
    started, clock = time(), perf_counter()
    trace_id = service.access_log.new_trace_id()
    path = scope.path
    resource, params = find(unquote(path) if "%" in path else path)
    call = Call(
        method=scope.method,
        path=path,
        query=scope.query_string,
        headers=scope.headers,
        tenant_id=service.default_tenant,
        scheme=scope.scheme,
        authority=scope.authority or scope.server,
        server=scope.server,
        client=scope.client.rpartition(":")[0],
        root=ROOT,
        params=params,
    )
    answer = await handle(service, call, resource, protocol, trace_id)
    sent = 0
    with suppress(ProtocolClosed):  # the client went away
        answer, sent = await _send(service, call, resource, answer, protocol, trace_id)
    service.access_log.add(
        Access(
            call.tenant_id,
            call.method,
            resource.path,
            path,
            call.query,
            answer.status,
            sent,
            started,
            perf_counter() - clock,
            call.client,
            call.headers.get("user-agent") or "",
            call.user_name,
            trace_id,
        )
    )


async def _send(
    service: Service,
    call: Call,
    resource: Resource,
    answer: Answer,
    protocol: HTTPProtocol,
    trace_id: str,
) -> tuple[Answer, int]:
    """Send an answer; what was sent, and how many bytes of body."""
    length = answer.body_length
    if answer.status in _EMPTY_STATUSES or call.method == "HEAD":
        headers = answer.headers
        if length is not None and answer.status not in _EMPTY_STATUSES:
            headers = [*headers, ("content-length", str(length))]
        protocol.response_empty(answer.status, headers)
        return answer, 0
    if length is not None and length <= WHOLE_BYTES:
        answer, data = await _whole_or_again(service, call, resource, answer, trace_id)
        # Takes any bytes-like object, though it is declared for bytes alone.
        protocol.response_bytes(answer.status, answer.headers, data)  # type: ignore[arg-type]
        return answer, len(data)
    return answer, await _stream(service, answer, length, protocol)


async def _whole_or_again(
    service: Service, call: Call, resource: Resource, answer: Answer, trace_id: str
) -> tuple[Answer, bytes | bytearray]:
    """Read the body; if a file was replaced meanwhile, ask the handler once more."""
    try:
        return answer, await whole(service, answer)
    except NotFound:
        route = resource.routes["GET"]
    try:
        assert route.handler is not None
        answer = await in_thread(service, route.handler, call)
        return answer, await whole(service, answer)
    except Exception as e:  # noqa: BLE001 - becomes an answer
        answer = error_answer(e, trace_id, path=call.path)
        return answer, await whole(service, answer)


async def _stream(
    service: Service, answer: Answer, length: int | None, protocol: HTTPProtocol
) -> int:
    headers = answer.headers
    if length is not None:
        headers = [*headers, ("content-length", str(length))]
    transport: Any = protocol.response_stream(answer.status, headers)
    sent = 0
    source = chunks(service, answer)
    try:
        async for data in source:
            await transport.send_bytes(data)
            sent += len(data)
    finally:
        await source.aclose()
    return sent
