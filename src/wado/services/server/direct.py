"""From a connection to a handler and back: prepared answers first, then routes; all are logged."""

from collections.abc import Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import Any
from urllib.parse import unquote

from wado.errors import NotFound, WadoError
from wado.services.server.access_log import Access, Target
from wado.services.server.addresses import Proxies, prefix_of, without_prefix
from wado.services.server.calls import Answer, Call
from wado.services.server.delivery import (
    WHOLE_BYTES,
    deliver,
    left_to_proxy,
    make_ready,
    whole,
    whole_at_once,
)
from wado.services.server.dispatch import cross_origin, error_answer, handle, in_thread
from wado.services.server.exchange import Exchange, ProtocolClosed, Scope
from wado.services.server.outflow import FileRange
from wado.services.server.prepared import LARGEST_KEPT_BYTES, Key, MemoryFile, Prepared
from wado.services.server.routes import ROOT, Resource, find
from wado.services.server.service import Service

_EMPTY_STATUSES = frozenset({204, 304})
_SMALL_BYTES = 16 << 10


@dataclass(slots=True)
class _At:
    """One request in hand; `key` is there if its answer might be kept."""

    service: Service
    exchange: Exchange
    call: Call
    resource: Resource
    key: Key | None
    trace_id: str

    @property
    def target(self) -> Target:
        """What was asked for, for the access log."""
        call = self.call
        return Target(
            call.tenant_id, call.method, self.resource.path, call.path, call.query, call.user_name
        )


class WebApplication:
    """What the web server serves: every resource of the route table."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._prefix = prefix_of(service.settings.root_path, service.settings.public_url)
        self._proxies = Proxies(service.settings.trusted_proxies)

    def now(self, scope: Scope, exchange: Exchange) -> bool | Coroutine[Any, Any, None]:
        """Answer from memory or an open file, if the same was asked before and still holds."""
        exchange.began = perf_counter()
        scope.client = self._proxies.client_of(scope.client, scope.headers)
        if scope.method != "GET":
            return False
        key = self._service.prepared.key(scope)
        exchange.note = key
        found = self._service.prepared.get(key)
        if found is None:
            return False
        answer, body = found.answer, found.body
        if body is None:
            if found.memory is not None:
                return self._memory_now(scope, exchange, found, found.memory)
            if found.length > WHOLE_BYTES:
                return self._file_now(scope, exchange, found)
            body = whole_at_once(self._service, answer)
            if body is None:
                return False
        exchange.response_bytes(answer.status, answer.headers, body)
        self._log_again(scope, exchange, found, len(body) + answer.left_bytes)
        return True

    def _memory_now(
        self, scope: Scope, exchange: Exchange, found: Prepared, memory: MemoryFile
    ) -> bool | Coroutine[Any, Any, None]:
        """Send what is kept under a file descriptor, at once as far as the socket takes it."""
        if not exchange.can_send_now:
            return False
        answer = found.answer
        part = FileRange(memory.fd, 0, memory.length, in_memory=True)
        rest = exchange.response_parts(answer.status, answer.headers, memory.length, [part])
        if rest is not None:
            return self._send_rest(scope, exchange, found, rest, ExitStack())
        self._log_again(scope, exchange, found, memory.length)
        return True

    def _file_now(
        self, scope: Scope, exchange: Exchange, found: Prepared
    ) -> bool | Coroutine[Any, Any, None]:
        """Send what is one range of an open file, at once as far as the socket takes it."""
        file, answer = found.only_file, found.answer
        if file is None or not self._service.files.is_open(file) or not exchange.can_send_now:
            return False
        with ExitStack() as held:
            fd = held.enter_context(self._service.files.lent(file))
            if fd is None:
                return False
            parts = [
                piece if isinstance(piece, bytes) else FileRange(fd, file.offset, file.length)
                for piece in answer.pieces
            ]
            rest = exchange.response_parts(answer.status, answer.headers, found.length, parts)
            if rest is not None:
                return self._send_rest(scope, exchange, found, rest, held.pop_all())
        self._log_again(scope, exchange, found, found.length)
        return True

    async def _send_rest(
        self,
        scope: Scope,
        exchange: Exchange,
        found: Prepared,
        rest: Coroutine[Any, Any, None],
        held: ExitStack,
    ) -> None:
        with held:  # and `found` holds what is kept in memory
            await rest
        self._log_again(scope, exchange, found, found.length)

    async def serve(self, scope: Scope, exchange: Exchange) -> None:
        """Answer a request; raises `ProtocolClosed` or what `http1.Sender` raises."""
        key: Key | None = exchange.note
        found = self._service.prepared.get(key) if key is not None else None
        if found is not None and await self._serve_again(scope, exchange, found):
            return
        path = without_prefix(scope.path, self._prefix) if self._prefix else scope.path
        if not path:  # its pages name what they need relative to their folder
            exchange.response_empty(308, [("location", f"{self._prefix}/")])
            return
        at = self._at(scope, exchange, path, key)
        answer = await handle(self._service, at.call, at.resource, exchange, at.trace_id)
        sent = 0
        try:
            answer, sent = await _send(at, answer)
        finally:
            self._service.access_log.add(
                Access(
                    at.target, answer.status, sent, exchange.began, perf_counter(), scope.client,
                    scope.headers.get("user-agent") or "", at.trace_id,
                )
            )  # fmt: skip

    async def _serve_again(self, scope: Scope, exchange: Exchange, found: Prepared) -> bool:
        """Give an answer once more; False if a file of it is gone."""
        answer, memory = found.answer, found.memory
        if memory is not None:
            headers = [*answer.headers, ("content-length", str(memory.length))]
            async with exchange.response_stream(answer.status, headers) as sender:
                await sender.send_file(FileRange(memory.fd, 0, memory.length, in_memory=True))
            self._log_again(scope, exchange, found, memory.length)
            return True
        try:
            sent = await _send_ready(self._service, exchange, found.answer)
        except NotFound:  # replaced since
            assert exchange.note is not None
            self._service.prepared.forget(exchange.note)
            return False
        self._log_again(scope, exchange, found, sent)
        return True

    def _log_again(self, scope: Scope, exchange: Exchange, found: Prepared, sent: int) -> None:
        agent = scope.headers.get("user-agent") or ""
        self._service.access_log.add(
            Access(
                found.target, found.answer.status, sent, exchange.began, perf_counter(),
                scope.client, agent,
            )
        )  # fmt: skip

    def _at(self, scope: Scope, exchange: Exchange, path: str, key: Key | None) -> _At:
        service = self._service
        resource, params = find(unquote(path) if "%" in path else path)
        call = Call(
            method=scope.method,
            path=path,
            query=scope.query_string,
            headers=scope.headers if key is None else service.prepared.shown(key),
            tenant_id=service.default_tenant,
            scheme=scope.scheme,
            authority=scope.server,
            server=scope.server,
            client=scope.client.rpartition(":")[0],
            root=ROOT,
            prefix=scope.path.removesuffix(path),
            public_url=service.settings.public_url.rstrip("/"),
            params=params,
            is_gone=exchange.is_gone,
        )
        trace_id = service.access_log.new_trace_id()
        return _At(service, exchange, call, resource, key, trace_id)


async def _send(at: _At, answer: Answer) -> tuple[Answer, int]:
    """Send an answer; what was sent, and how many bytes of body."""
    answer = left_to_proxy(at.service, at.call, answer)
    length = answer.body_length
    if answer.status in _EMPTY_STATUSES or at.call.method == "HEAD":
        headers = answer.headers
        if length is not None and answer.status not in _EMPTY_STATUSES:
            headers = [*headers, ("content-length", str(length))]
        at.exchange.response_empty(answer.status, headers)
        return answer, 0
    if _fits(answer, length):
        answer, body = await _whole_or_again(at, answer)
        at.exchange.response_bytes(answer.status, answer.headers, body)
        _keep(at, answer, body if _in_memory(answer, body) else None)
        return answer, len(body) + answer.left_bytes
    try:
        sent = await _send_ready(at.service, at.exchange, answer)
    except NotFound:
        answer = await _asked_again(at)
        try:
            sent = await _send_ready(at.service, at.exchange, answer)
        except NotFound as e:  # the handler did not see that it is gone
            answer = cross_origin(at.service, at.call, error_answer(e, at.trace_id))
            sent = await _send_ready(at.service, at.exchange, answer)
    _keep(at, answer, None)
    return answer, sent


def _fits(answer: Answer, length: int | None) -> bool:
    """Whether an answer goes out whole: it is small, or it is to be kept in memory."""
    if length is None or answer.stream is not None:
        return False
    in_memory = answer.basis is not None and answer.basis.in_memory
    return length <= (LARGEST_KEPT_BYTES if in_memory else WHOLE_BYTES)


def _in_memory(answer: Answer, body: bytes) -> bool:
    """Whether to keep a body: small ones cost more to read again than the memory they take."""
    return len(body) <= _SMALL_BYTES or (answer.basis is not None and answer.basis.in_memory)


def _keep(at: _At, answer: Answer, body: bytes | None) -> None:
    if at.key is not None and answer.stream is None:
        at.service.prepared.keep(at.key, answer, at.target, body)


async def _send_ready(service: Service, exchange: Exchange, answer: Answer) -> int:
    """Send an answer with a body; NotFound, before anything was sent, if a file is gone."""
    length = answer.body_length
    if length is not None and length <= WHOLE_BYTES:
        body = await whole(service, answer)
        exchange.response_bytes(answer.status, answer.headers, body)
        return len(body)
    await make_ready(service, answer)
    headers = answer.headers
    if length is not None:
        headers = [*headers, ("content-length", str(length))]
    async with exchange.response_stream(answer.status, headers) as sender:
        return await deliver(service, answer, sender)


async def _whole_or_again(at: _At, answer: Answer) -> tuple[Answer, bytes]:
    """Read the body; if a file was replaced meanwhile, ask the handler once more."""
    try:
        return answer, await whole(at.service, answer)
    except NotFound:
        answer = await _asked_again(at)
        return answer, await whole(at.service, answer)
    except WadoError as e:  # it had to be worked out, and can't be
        answer = error_answer(e, at.trace_id, path=at.call.path)
        answer = cross_origin(at.service, at.call, answer)
        return answer, await whole(at.service, answer)


async def _asked_again(at: _At) -> Answer:
    """Ask the handler anew: a file was replaced since it looked."""
    route = at.resource.routes["GET"]
    assert route.handler is not None
    at.call.again = True
    try:
        answer = await in_thread(at.service, route.handler, at.call)
    except ProtocolClosed:  # the answer had begun, and was broken off
        raise
    except Exception as e:  # noqa: BLE001 - becomes an answer
        return error_answer(e, at.trace_id, path=at.call.path)
    return cross_origin(at.service, at.call, answer)
