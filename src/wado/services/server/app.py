"""The Starlette application, and how a process serves it by granian."""

import asyncio
import resource
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from threading import Event
from time import perf_counter

import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route as StarletteRoute

from wado.errors import OutOfResources
from wado.ports import Archive
from wado.services.server.access_log import Access, Target
from wado.services.server.calls import Answer, Call
from wado.services.server.delivery import WHOLE_BYTES, chunks, whole
from wado.services.server.direct import rsgi_application
from wado.services.server.dispatch import handle
from wado.services.server.routes import RESOURCES, ROOT, Resource
from wado.services.server.service import Service, open_service
from wado.settings import ServerSettings

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_POLL_S = 0.1
_FILE_THREADS = 128
"""Threads in which granian reads pipes and files; one would let one slow pipe stop the others."""
_MAX_CONNECTIONS = 8192
_HEADER_TIMEOUT_MS = 15_000
"""How long a head may take, and a connection may be idle."""
_SWITCH_INTERVAL_S = 0.0005
"""Requests give up the interpreter at each read; a busy thread must hand it back soon."""


def application(service: Service) -> Starlette:
    """Make the application: every resource of the route table, as ASGI."""
    return Starlette(
        routes=[
            StarletteRoute(resource.path, _endpoint(service, resource), methods=_METHODS)
            for resource in RESOURCES
        ]
    )


def _endpoint(service: Service, resource: Resource) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        started = perf_counter()
        trace_id = service.access_log.new_trace_id()
        call = _call(service, request)
        answer = await handle(service, call, resource, request.stream(), trace_id)
        response, sent = await _response(service, call, answer)
        service.access_log.add(
            Access(
                Target(
                    call.tenant_id,
                    call.method,
                    resource.path,
                    call.path,
                    call.query,
                    call.user_name,
                ),
                answer.status,
                sent,
                started,
                perf_counter(),
                f"{call.client}:",
                call.headers.get("user-agent") or "",
                trace_id,
            )
        )
        return response

    return endpoint


def _call(service: Service, request: Request) -> Call:
    server = request.scope.get("server") or (service.settings.host, service.settings.port)
    return Call(
        method=request.method,
        path=request.scope["path"],
        query=request.scope["query_string"].decode("latin-1"),
        headers=request.headers,
        tenant_id=service.default_tenant,
        scheme=request.scope["scheme"],
        authority=f"{server[0]}:{server[1]}",
        server=f"{server[0]}:{server[1]}",
        client=request.client.host if request.client else "",
        root=ROOT,
        params=request.path_params,
    )


async def _response(service: Service, call: Call, answer: Answer) -> tuple[Response, int]:
    length = answer.body_length
    empty = answer.status in (204, 304) or call.method == "HEAD"
    if empty:
        response = Response(status_code=answer.status)
    elif length is not None and length <= WHOLE_BYTES:
        response = Response(await whole(service, answer), answer.status)
    else:
        response = StreamingResponse(_body(service, answer), answer.status)
    if empty and answer.status not in (204, 304) and length is not None:
        response.headers["content-length"] = str(length)
    response.raw_headers.extend(
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers
    )
    return response, 0 if empty else length or 0


async def _body(service: Service, answer: Answer) -> AsyncIterator[bytes]:
    async for data in chunks(service, answer):
        yield bytes(data)


def run(
    archive: Archive, settings: ServerSettings, stop: Event, *, default_tenant: str = "default"
) -> None:
    """Serve until `stop` is set, in this process and thread.

    Requests in hand are finished. Several processes may serve the same port: the socket is opened
    so that the kernel deals out connections among them.

    Raises
    ------
    OutOfResources
        The port can't be had.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    check_port(settings)
    _raise_file_limit()
    with (
        open_service(archive, settings, default_tenant=default_tenant) as service,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_serve(service, stop))


def _raise_file_limit() -> None:
    """Allow as many open files as the system lets us: connections, uploads, files kept open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def check_port(settings: ServerSettings, *, alone: bool = False) -> None:
    """Try whether the port can be had; with `alone`, nor may others of ours serve it.

    Raises
    ------
    OutOfResources
        It can't, with the reason.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if not alone:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as e:
            raise OutOfResources(
                f"HTTP can't listen at {settings.host}:{settings.port}: {e.strerror}"
            ) from e


def _connections() -> int:
    """How many connections there may be: half of the open files that the system lets us have."""
    return min(_MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)


async def _serve(service: Service, stop: Event) -> None:
    server = Server(
        rsgi_application(service, application(service)),
        address=service.settings.host,
        port=service.settings.port,
        interface=Interfaces.RSGI,
        websockets=False,
        log_enabled=False,
        log_level=LogLevels.warning,
        backlog=1024,
        backpressure=_connections(),
        # HTTP/2 is for proxies: telling it from HTTP/1 would wait for the first byte for ever.
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=_HEADER_TIMEOUT_MS),
        runtime_blocking_threads=_FILE_THREADS,
    )
    # The embedded server has no option for it: what hangs is left behind after so many seconds.
    server.workers_kill_timeout = 3
    serving = asyncio.create_task(server.serve())
    while not stop.is_set() and not serving.done():
        await asyncio.wait([serving], timeout=_POLL_S)
    if not serving.done():
        server.stop()  # type: ignore[no-untyped-call]  # granian does not annotate it
    with suppress(TimeoutError):  # clients that sleep are left behind
        await serving
