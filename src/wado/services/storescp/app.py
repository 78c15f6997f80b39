"""The DIMSE receiver: one process of it, or several on one port.

All workers accept from one listening socket. So that they carry about the same number of
associations, a worker lets a new connection wait a moment for each that it has already: one that
has fewer is there first. (SO_REUSEPORT would give four associations to one of two workers once in
eight times.)
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from threading import Event
from typing import Final

import uvloop

from wado.archive.store import Committer
from wado.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from wado.errors import Unavailable
from wado.ports import Archive
from wado.services.networks import is_within
from wado.services.storescp.association import Association, Rules, State
from wado.services.storescp.negotiation import Policy
from wado.services.storescp.proxy_protocol import receive_header
from wado.services.storescp.tls import tls_context
from wado.settings import StorescpSettings
from wado.telemetry import get_logger

_BACKLOG: Final = 512
_COURTESY_S: Final = 0.003
"""How long a connection waits for each association that a worker has."""
_MAX_COURTESY_S: Final = 0.012
_MIN_WAITING: Final = 32
"""Connections that may wait without an association, however few associations are allowed."""
_TICK_S: Final = 0.1
_DRAIN_S: Final = 4.0
"""How long the messages in hand may take when we stop."""
_FAREWELL_S: Final = 0.5
"""How long peers may take to close after our A-ABORT when we stop."""
_OUT_OF_DESCRIPTORS_S: Final = 0.2
_PROXY_HEADER_S: Final = 5.0
"""How long a proxy may take to say for whom it connects."""
_HANDSHAKE_S: Final = 10.0
_log = get_logger("storescp")


def listen(settings: StorescpSettings) -> socket.socket:
    """Bind and listen; the socket can be shared by any number of workers.

    Raises
    ------
    Unavailable
        The address is in use, is not ours, or its port is privileged.
    """
    address = (settings.host, settings.port)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as e:
        listener.close()
        reason = e.strerror or str(e)
        message = f"cannot listen at {settings.host}:{settings.port}: {reason}"
        raise Unavailable(message) from e
    listener.settimeout(0.0)
    return listener


def run(
    archive: Archive,
    settings: StorescpSettings,
    stop: Event,
    *,
    default_tenant: str,
    listener: socket.socket | None = None,
) -> None:
    """Receive until `stop` is set: one worker; blocks. Without `listener` it makes its own.

    When it stops: no new associations, each message in hand is finished and answered, then its
    association is aborted; after some seconds what still lasts is closed.
    """
    with contextlib.ExitStack() as stack:
        if listener is None:
            listener = stack.enter_context(listen(settings))
        listener.settimeout(0.0)
        committer = stack.enter_context(Committer(archive))
        rules = _rules(archive, settings, committer, default_tenant)
        # Made after the committer, so closed before it: what is submitted is still committed.
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        runner.run(Worker(rules, settings, listener).serve(stop))


def _rules(
    archive: Archive, settings: StorescpSettings, committer: Committer, default_tenant: str
) -> Rules:
    known = frozenset({settings.ae_title, *settings.tenants})
    policy = Policy(
        called_ae_titles=known if settings.require_called_ae_title else None,
        calling_ae_titles=frozenset(settings.allowed_calling_ae_titles),
        max_pdu_bytes=settings.max_pdu_bytes,
        unknown_sop_classes=not archive.refuse_unknown_sop_classes,
        implementation_class_uid=IMPLEMENTATION_CLASS_UID,
        implementation_version_name=IMPLEMENTATION_VERSION_NAME,
    )
    return Rules(
        archive=archive,
        committer=committer,
        policy=policy,
        tenants=settings.tenants,
        default_tenant=default_tenant,
        artim_timeout_s=settings.artim_timeout_s,
        idle_timeout_s=settings.idle_timeout_s,
    )


class Worker:
    """The associations of one process."""

    def __init__(self, rules: Rules, settings: StorescpSettings, listener: socket.socket) -> None:
        self._rules = rules
        self._limit = settings.max_associations
        self._proxies = settings.proxy_protocol_from
        self._listener = listener
        self._associations: dict[Association, None] = {}  # in order of arrival
        self._acceptor = _Acceptor(listener, self._connect, self._courtesy)
        self._is_alone = settings.workers == 1
        self._tls = tls_context(settings)
        self._opening: dict[asyncio.Task[None], None] = {}  # in order of arrival

    async def serve(self, stop: Event) -> None:
        """Accept and watch until `stop` is set; then drain."""
        loop = asyncio.get_running_loop()
        self._acceptor.start()
        address = self._listener.getsockname()
        _log.info("listening", host=address[0], port=address[1])
        while not stop.is_set():
            await asyncio.sleep(_TICK_S)
            now = loop.time()
            for association in tuple(self._associations):
                association.check_time(now)
        self._acceptor.stop()
        for task in self._opening:
            task.cancel()
        await self._drain()
        _log.info("stopped", host=address[0], port=address[1])

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        for association in tuple(self._associations):
            association.stop()
        await self._until(loop.time() + _DRAIN_S, self._has_messages)
        await self._until(loop.time() + _FAREWELL_S, lambda: bool(self._associations))
        for association in tuple(self._associations):
            association.kill()
        await asyncio.sleep(0)

    @staticmethod
    async def _until(deadline: float, lasts: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        while lasts() and loop.time() < deadline:  # noqa: ASYNC110 - a poll, only at the end
            await asyncio.sleep(0.01)

    def _has_messages(self) -> bool:
        return any(a.state is State.ESTABLISHED for a in self._associations)

    # -------------------------------------------------------------- registry

    def has_room(self) -> bool:
        """Whether one more association may be accepted."""
        return self._count(State.ESTABLISHED) < self._limit

    def add(self, association: Association) -> None:
        """Take note of a connection; the oldest that only waits gives way when there are many."""
        self._associations[association] = None
        waiting = [a for a in self._associations if a.state is not State.ESTABLISHED]
        if len(waiting) > max(self._limit, _MIN_WAITING):
            waiting[0].kill()

    def discard(self, association: Association) -> None:
        """Forget a connection."""
        self._associations.pop(association, None)

    def _count(self, state: State) -> int:
        return sum(association.state is state for association in self._associations)

    # -------------------------------------------------------------- connections

    def _courtesy(self) -> float:
        """How long to leave a new connection to the other workers."""
        if self._is_alone:
            return 0.0
        busy = len(self._associations) - self._count(State.AWAITING_CLOSE)
        return min(busy * _COURTESY_S, _MAX_COURTESY_S)

    def _connect(self, connection: socket.socket) -> None:
        """Begin an association, behind what comes first: PROXY header, TLS handshake.

        Of many that do not get on with that, the oldest gives way.
        """
        if len(self._opening) >= max(self._limit, _MIN_WAITING):
            next(iter(self._opening)).cancel()
        address = _peer_address(connection)
        opening = self._open(connection, address)
        task = asyncio.get_running_loop().create_task(opening, name=address)
        self._opening[task] = None
        task.add_done_callback(self._opened)

    async def _open(self, connection: socket.socket, address: str) -> None:
        loop = asyncio.get_running_loop()
        sender = ""
        with contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            if self._proxies and is_within(address, self._proxies):
                header = await receive_header(connection, timeout_s=_PROXY_HEADER_S)
                if header is None:  # a proxy that looks whether we are there
                    return
                sender = header.source
            stack.pop_all()
        await loop.connect_accepted_socket(
            lambda: Association(self._rules, self, sender),
            connection,
            ssl=self._tls,
            ssl_handshake_timeout=_HANDSHAKE_S if self._tls else None,
        )

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            reason = str(error) or type(error).__name__
            _log.warning("connection refused", address=task.get_name(), reason=reason)


def _peer_address(connection: socket.socket) -> str:
    try:
        return str(connection.getpeername()[0])
    except OSError:  # gone already
        return ""


class _Acceptor:
    """Takes connections one by one from a socket that other processes take from, too."""

    def __init__(
        self,
        listener: socket.socket,
        connect: Callable[[socket.socket], None],
        courtesy: Callable[[], float],
    ) -> None:
        self._listener = listener
        self._connect = connect
        self._courtesy = courtesy
        self._later: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Wait for connections."""
        self._later = None
        asyncio.get_running_loop().add_reader(self._listener, self._ready)

    def stop(self) -> None:
        """Take no more; those not taken stay for other workers."""
        asyncio.get_running_loop().remove_reader(self._listener)
        if self._later is not None:
            self._later.cancel()

    def _pause(self, seconds: float, then: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener)
        self._later = loop.call_later(seconds, then)

    def _ready(self) -> None:
        wait_s = self._courtesy()
        if wait_s:
            self._pause(wait_s, self._resume)
        else:
            self._accept()

    def _resume(self) -> None:
        self.start()
        self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was there first
        except OSError as e:  # mostly: too many open files
            _log.error("cannot accept", reason=str(e))
            self._pause(_OUT_OF_DESCRIPTORS_S, self.start)
            return
        connection.settimeout(0.0)
        self._connect(connection)
