"""From a call to its answer: method, handler, thread, and the one place for errors."""

import asyncio
import re
from collections.abc import AsyncIterable, Callable
from functools import lru_cache, partial

from wado.errors import NotFound, WadoError
from wado.services.server import capabilities, pages
from wado.services.server.addresses import HeaderLookup
from wado.services.server.calls import (
    ALLOW_ORIGIN,
    CROSS_ORIGIN,
    PREFLIGHT,
    Answer,
    Call,
    json_answer,
    tenant_of,
)
from wado.services.server.charsets import check_charset, gives_text
from wado.services.server.exchange import ProtocolClosed
from wado.services.server.representations import check_accept
from wado.services.server.routes import VIEWER, Handler, Resource, Route
from wado.services.server.service import Service
from wado.telemetry import get_logger

_log = get_logger("wado-server")
_ANY_ORIGIN = ("*",)
_RETRY_AFTER = ("retry-after", "5")
_ADDRESS = re.compile(r"\w+://\S+|[\w.-]+:\d{2,5}\b|\b\d+\.\d+\.\d+\.\d+\b|/[\w./-]{3,}")
"""Where services and files are: for the log, not for clients."""
_ALLOWED_HEADERS = (
    "Authorization, Accept, Accept-Charset, Cache-Control, Content-Location, Content-Type, "
    "If-Match, If-Modified-Since, If-None-Match, If-Range, If-Unmodified-Since, Pragma, Range, "
    "X-Requested-With, "
)


def tenant(service: Service, headers: HeaderLookup) -> str:
    """Tenant of a request, where authentication is off: from a header, or the default.

    Raises
    ------
    InvalidRequest
        The header names no tenant id.
    """
    return tenant_of(headers.get(service.settings.tenant_header) or service.default_tenant)


async def handle(
    service: Service, call: Call, resource: Resource, body: AsyncIterable[bytes], trace_id: str
) -> Answer:
    """Answer a call; whatever happens becomes an answer."""
    return cross_origin(service, call, await _handled(service, call, resource, body, trace_id))


async def _handled(
    service: Service, call: Call, resource: Resource, body: AsyncIterable[bytes], trace_id: str
) -> Answer:
    try:
        route = resource.routes.get("GET" if call.method == "HEAD" else call.method)
        if route is None or (route.method == "DELETE" and not service.settings.allow_delete):
            return _other_method(service, call, resource)
        call.tenant_id = tenant(service, call.headers)
        if route.section and route.method == "GET":
            check_accept(call, strict=service.settings.strict_accept)
        if gives_text(route.produces):
            check_charset(call)
        if route.receiver is not None:
            return await route.receiver(service, call, body)
        assert route.handler is not None
        if is_warm(service, call, route):
            return await _completed(service, call, route.handler(service, call))
        return await in_thread(service, route.handler, call)
    except ProtocolClosed:  # nobody is there to be answered
        raise
    except Exception as e:  # noqa: BLE001 - the one place where errors become answers
        return error_answer(e, trace_id, path=call.path)


async def in_thread(service: Service, handler: Handler, call: Call) -> Answer:
    """Run a handler where waiting harms nobody."""
    loop = asyncio.get_running_loop()
    answer = await loop.run_in_executor(
        service.threads, _if_wanted, call, partial(handler, service, call)
    )
    return await _completed(service, call, answer)


async def _completed(service: Service, call: Call, answer: Answer) -> Answer:
    """Wait for an answer that is worked out; apart from searches, which it must not hold up."""
    if answer.later is None:
        return answer
    loop = asyncio.get_running_loop()
    answer = await loop.run_in_executor(service.pixel_threads, _if_wanted, call, answer.later)
    answer.slow = True
    return answer


def _if_wanted(call: Call, make: Callable[[], Answer]) -> Answer:
    """Make an answer when its turn comes, unless the client went away while it waited."""
    if call.is_gone():
        raise ProtocolClosed
    return make()


def is_warm(service: Service, call: Call, route: Route) -> bool:
    """Whether a handler finds in memory what it needs, so that it may run on the event loop.

    A journal that this process has read costs one `stat` and the lines that were added since.
    """
    if route.waits:
        return False
    return "series" not in call.params or service.journals.knows(call.series)


def cross_origin(service: Service, call: Call, answer: Answer) -> Answer:
    """Let pages of the configured origins read the answer, and no others."""
    if service.settings.cors_origins == _ANY_ORIGIN:
        return answer
    origin = call.headers.get("origin")
    headers = [(name, value) for name, value in answer.headers if name != ALLOW_ORIGIN]
    if len(headers) < len(answer.headers):
        headers.append(("vary", "origin"))
        if origin and origin in service.settings.cors_origins:
            headers.append((ALLOW_ORIGIN, origin))
    answer.headers = headers
    return answer


def _other_method(service: Service, call: Call, resource: Resource) -> Answer:
    """Answer a method that the resource has no route for; all have OPTIONS (PS3.18 §8.9)."""
    allow = ("allow", _allow(resource, deletes=service.settings.allow_delete))
    if call.method == "OPTIONS" and call.headers.get("access-control-request-method"):
        allowed = _ALLOWED_HEADERS + service.settings.tenant_header
        return Answer(204, [*PREFLIGHT, allow, ("access-control-allow-headers", allowed)])
    if resource.path == VIEWER.path and pages.is_of_api(call.path):
        raise NotFound("no such resource")
    if call.method == "OPTIONS":
        answer = capabilities.describe(call, resource)
    else:
        answer = _refusal(405, f"{call.method[:20]} is not for this resource", "")
    answer.headers.append(allow)
    return answer


@lru_cache(maxsize=256)
def _allow_of(methods: frozenset[str]) -> str:
    return ", ".join(sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())))


def _allow(resource: Resource, *, deletes: bool) -> str:
    methods = frozenset(resource.routes)
    return _allow_of(methods if deletes else methods - {"DELETE"})


def error_answer(e: Exception, trace_id: str, *, path: str = "") -> Answer:
    """Turn an error into an answer; the text of unknown ones stays in the log."""
    if isinstance(e, WadoError):
        reason = str(e) or e.__class__.__name__
        if e.http == 503:
            _log.warning("not now", path=path, trace_id=trace_id, reason=reason)
            reason = _ADDRESS.sub("…", reason)
        answer = _refusal(e.http, reason, trace_id)
        if e.http == 503:
            answer.headers.append(_RETRY_AFTER)
        return answer
    _log.error("unexpected error", path=path, trace_id=trace_id, exc_info=e)
    return _refusal(500, "unexpected error; the log has it under the trace_id", trace_id)


def _refusal(status: int, reason: str, trace_id: str) -> Answer:
    answer = json_answer({"status": status, "reason": reason, "trace_id": trace_id}, status=status)
    answer.headers.append(("cache-control", "no-store"))
    assert CROSS_ORIGIN[0] in answer.headers
    return answer
