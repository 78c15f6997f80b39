"""From a call to its answer: method, handler, thread, and the one place for errors."""

import asyncio
from collections.abc import AsyncIterable
from functools import lru_cache

from wado.errors import WadoError
from wado.services.server.calls import (
    CROSS_ORIGIN,
    PREFLIGHT,
    Answer,
    Call,
    HeaderLookup,
    json_answer,
    tenant_of,
)
from wado.services.server.routes import Handler, Resource, Route
from wado.services.server.service import Service
from wado.telemetry import get_logger

_log = get_logger("wado-server")
_RETRY_AFTER = ("retry-after", "5")
_ALLOWED_HEADERS = "Authorization, Accept, Range, Content-Type, If-None-Match, "


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
    try:
        route = resource.routes.get("GET" if call.method == "HEAD" else call.method)
        if route is None:
            return _other_method(service, call, resource)
        call.tenant_id = tenant(service, call.headers)
        if route.receiver is not None:
            return await route.receiver(service, call, body)
        assert route.handler is not None
        if is_warm(service, call, route):
            return route.handler(service, call)
        return await in_thread(service, route.handler, call)
    except Exception as e:  # noqa: BLE001 - the one place where errors become answers
        return error_answer(e, trace_id, path=call.path)


async def in_thread(service: Service, handler: Handler, call: Call) -> Answer:
    """Run a handler where waiting harms nobody."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(service.threads, handler, service, call)


def is_warm(service: Service, call: Call, route: Route) -> bool:
    """Whether a handler finds in memory what it needs, so that it may run on the event loop.

    A journal that this process has read costs one `stat` and the lines that were added since.
    """
    if route.waits:
        return False
    return "series" not in call.params or service.journals.knows(call.series)


def _other_method(service: Service, call: Call, resource: Resource) -> Answer:
    allow = _allow(resource)
    if call.method != "OPTIONS":
        answer = _refusal(405, f"{call.method[:20]} is not for this resource", "")
        answer.headers.append(("allow", allow))
        return answer
    allowed = _ALLOWED_HEADERS + service.settings.tenant_header
    headers = [*PREFLIGHT, ("allow", allow), ("access-control-allow-headers", allowed)]
    return Answer(204, headers)


@lru_cache(maxsize=256)
def _allow_of(methods: frozenset[str]) -> str:
    return ", ".join(sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())))


def _allow(resource: Resource) -> str:
    return _allow_of(frozenset(resource.routes))


def error_answer(e: Exception, trace_id: str, *, path: str = "") -> Answer:
    """Turn an error into an answer; the text of unknown ones stays in the log."""
    if isinstance(e, WadoError):
        answer = _refusal(e.http, str(e) or e.__class__.__name__, trace_id)
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
