"""How a process serves the web application: its socket, its limits, its end."""

import asyncio
import resource
import socket
import sys
from contextlib import suppress
from threading import Event

import uvloop

from wado.errors import OutOfResources
from wado.ports import Archive
from wado.services.server.direct import WebApplication
from wado.services.server.http1 import Server
from wado.services.server.pulse import STUCK_AFTER_S
from wado.services.server.service import Service, open_service
from wado.settings import ServerSettings

_POLL_S = 0.1
_MAX_CONNECTIONS = 8192
_HEAD_TIMEOUT_S = 15.0
"""How long a head may take, and a connection may be idle."""
_LINGER_S = 10.0
"""How long requests in hand may take when we stop: what hangs is left behind. `wado up` waits for
twice as long."""
_SWITCH_INTERVAL_S = 0.0005
"""Requests give up the interpreter at each read; a busy thread must hand it back soon."""


def run(
    archive: Archive,
    settings: ServerSettings,
    stop: Event,
    *,
    default_tenant: str = "default",
    stuck_after_s: float = STUCK_AFTER_S,
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
    opening = open_service(
        archive, settings, default_tenant=default_tenant, stuck_after_s=stuck_after_s
    )
    with (
        opening as service,
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
    """How many connections there may be: each may take two of the open files that we may have."""
    return min(_MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)


async def _serve(service: Service, stop: Event) -> None:
    settings = service.settings
    server = Server(
        WebApplication(service),
        head_timeout_s=_HEAD_TIMEOUT_S,
        stall_timeout_s=settings.stall_timeout_s,
        max_connections=_connections(),
    )
    ended = asyncio.Event()
    serving = asyncio.create_task(
        server.serve(settings.host, settings.port, ended, linger_s=_LINGER_S)
    )
    while not stop.is_set() and not serving.done():
        await asyncio.wait([serving], timeout=_POLL_S)
    ended.set()
    await serving
