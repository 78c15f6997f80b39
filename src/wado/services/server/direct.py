"""The entry of granian (RSGI): DICOMweb is served here, all else by the Starlette application."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from time import perf_counter
from urllib.parse import unquote

from wado.errors import NotFound
from wado.services.server.access_log import Access, Target
from wado.services.server.bridge import HTTPProtocol, ProtocolClosed, Scope, bridged
from wado.services.server.calls import Answer, Call
from wado.services.server.delivery import CHUNK_BYTES, WHOLE_BYTES, chunks, whole
from wado.services.server.dispatch import error_answer, handle, in_thread
from wado.services.server.prepared import Key
from wado.services.server.routes import ROOT, Resource, find
from wado.services.server.service import Service

_EMPTY_STATUSES = frozenset({204, 304})


@dataclass(slots=True)
class _Exchange:
    """One request in hand; `key` is there if its answer might be kept."""

    service: Service
    protocol: HTTPProtocol
    call: Call
    resource: Resource
    key: Key | None
    trace_id: str


def rsgi_application(
    service: Service, asgi: Callable[..., Awaitable[None]]
) -> Callable[[Scope, HTTPProtocol], Awaitable[None]]:
    """Make the application that granian calls."""

    async def application(scope: Scope, protocol: HTTPProtocol) -> None:
        if not scope.path.startswith(ROOT) or scope.proto != "http":
            await bridged(asgi, scope, protocol)
            return
        started = perf_counter()
        key = service.prepared.key(scope) if scope.method == "GET" else None
        if key is None or not await _served_again(service, scope, protocol, key, started):
            await _serve(service, scope, protocol, key, started)

    return application


async def _served_again(
    service: Service, scope: Scope, protocol: HTTPProtocol, key: Key, started: float
) -> bool:
    """Give the answer that was prepared; False if there is none that holds."""
    found = service.prepared.get(key)
    if found is None:
        return False
    answer, body = found.answer, found.body
    if body is None:
        try:
            body = await whole(service, answer)
        except NotFound:  # a file was replaced since
            service.prepared.forget(key)
            return False
    with suppress(ProtocolClosed):  # the client went away
        protocol.response_bytes(answer.status, answer.headers, body)
    agent = scope.headers.get("user-agent") or ""
    service.access_log.add(
        Access(found.target, answer.status, len(body), started, perf_counter(), scope.client, agent)
    )
    return True


async def _serve(
    service: Service, scope: Scope, protocol: HTTPProtocol, key: Key | None, started: float
) -> None:
    path = scope.path
    resource, params = find(unquote(path) if "%" in path else path)
    call = Call(
        method=scope.method,
        path=path,
        query=scope.query_string,
        headers=scope.headers if key is None else service.prepared.shown(key),
        tenant_id=service.default_tenant,
        scheme=scope.scheme,
        authority=scope.authority or scope.server,
        server=scope.server,
        client=scope.client.rpartition(":")[0],
        root=ROOT,
        params=params,
    )
    trace_id = service.access_log.new_trace_id()
    at = _Exchange(service, protocol, call, resource, key, trace_id)
    answer = await handle(service, call, resource, protocol, trace_id)
    sent = 0
    with suppress(ProtocolClosed):  # the client went away
        answer, sent = await _send(at, answer)
    agent = scope.headers.get("user-agent") or ""
    service.access_log.add(
        Access(
            _target(at), answer.status, sent, started, perf_counter(), scope.client, agent, trace_id
        )
    )


def _target(at: _Exchange) -> Target:
    call = at.call
    return Target(
        call.tenant_id, call.method, at.resource.path, call.path, call.query, call.user_name
    )


async def _send(at: _Exchange, answer: Answer) -> tuple[Answer, int]:
    """Send an answer; what was sent, and how many bytes of body."""
    length = answer.body_length
    if answer.status in _EMPTY_STATUSES or at.call.method == "HEAD":
        headers = answer.headers
        if length is not None and answer.status not in _EMPTY_STATUSES:
            headers = [*headers, ("content-length", str(length))]
        at.protocol.response_empty(answer.status, headers)
        return answer, 0
    if length is None or length > WHOLE_BYTES:
        return answer, await _stream(at.service, answer, length, at.protocol)
    answer, data = await _whole_or_again(at, answer)
    if at.key is not None:
        at.service.prepared.keep(at.key, answer, _target(at), data)
    at.protocol.response_bytes(answer.status, answer.headers, data)
    return answer, len(data)


async def _whole_or_again(at: _Exchange, answer: Answer) -> tuple[Answer, bytes]:
    """Read the body; if a file was replaced meanwhile, ask the handler once more."""
    try:
        return answer, await whole(at.service, answer)
    except NotFound:
        route = at.resource.routes["GET"]
    try:
        assert route.handler is not None
        answer = await in_thread(at.service, route.handler, at.call)
        return answer, await whole(at.service, answer)
    except Exception as e:  # noqa: BLE001 - becomes an answer
        answer = error_answer(e, at.trace_id, path=at.call.path)
        return answer, await whole(at.service, answer)


async def _stream(
    service: Service, answer: Answer, length: int | None, protocol: HTTPProtocol
) -> int:
    """Send a long body, no faster than the client reads; how many bytes were taken."""
    headers = answer.headers
    if length is not None:
        headers = [*headers, ("content-length", str(length))]
    sent = 0
    async with aclosing(chunks(service, answer)) as source:
        first = await anext(source, bytearray())
        if len(first) < CHUNK_BYTES:  # of unknown length, and this is all
            protocol.response_bytes(answer.status, headers, bytes(first))
            return len(first)
        pipe = service.pipes.make()
        protocol.response_file(answer.status, headers, pipe.path)
        with suppress(BrokenPipeError, TimeoutError):  # the client went away, or sleeps
            async with pipe:
                await pipe.write(first)
                sent = len(first)
                async for data in source:
                    await pipe.write(data)
                    sent += len(data)
    return sent
