"""One association as acceptor: the state machine of PS3.8 §9.2, on an asyncio transport.

The peer's bytes are read into one buffer and handled there. Nothing is awaited: what takes time
(the commit of an instance) calls back, and meanwhile the peer is held.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, Protocol, cast

from wado.archive.store import Committer, Source
from wado.dicom.pdu import (
    RELEASE_RP,
    AbortReason,
    AbortSource,
    AssociateReject,
    AssociateRequest,
    PDUType,
    decode_associate_request,
    encode_abort,
    encode_associate_accept,
    encode_associate_reject,
)
from wado.errors import MalformedPDU
from wado.ports import Archive
from wado.services.storescp.framing import Framing
from wado.services.storescp.messages import Messages, Sender
from wado.services.storescp.negotiation import (
    LOCAL_LIMIT,
    Policy,
    accept,
    agreed_contexts,
    reason_to_reject,
)
from wado.telemetry import get_logger

_READ_BYTES: Final = 1 << 19
"""Room for the longest association PDU, and for what a socket buffer holds of an image."""
_WRITE_LIMIT: Final = 1 << 16
_log = get_logger("storescp")


class State(Enum):
    """States of an acceptor (PS3.8 Table 9-1 to 9-5) that last."""

    AWAITING_REQUEST = auto()  # Sta2
    ESTABLISHED = auto()  # Sta6
    AWAITING_CLOSE = auto()  # Sta13


_EXPECTED = {
    State.AWAITING_REQUEST: {PDUType.ASSOCIATE_RQ, PDUType.ABORT},
    State.ESTABLISHED: {PDUType.P_DATA_TF, PDUType.RELEASE_RQ, PDUType.ABORT},
    State.AWAITING_CLOSE: frozenset[PDUType](),
}


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for every association of a receiver; times in seconds."""

    archive: Archive
    committer: Committer
    policy: Policy
    tenants: Mapping[str, str]
    default_tenant: str
    artim_timeout_s: float
    idle_timeout_s: float


class Registry(Protocol):
    """The associations of this process."""

    def has_room(self) -> bool:
        """Whether one more may be accepted."""
        ...

    def add(self, association: "Association") -> None:
        """Take note of a connection."""
        ...

    def discard(self, association: "Association") -> None:
        """Forget a connection."""
        ...


class Association(asyncio.BufferedProtocol):
    """A connection from a peer, from its first byte to its end.

    `address` is the peer's where a proxy connects for it; else that of the connection is taken.
    """

    def __init__(self, rules: Rules, registry: Registry, address: str = "") -> None:
        self._rules = rules
        self._registry = registry
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._view = memoryview(bytearray(_READ_BYTES))
        self._filled = 0
        self._framing = Framing(self, rules.policy.max_pdu_bytes)
        self._transport: asyncio.Transport | None = None
        self._is_paused = False
        self._choked_at: float | None = None
        self._is_stopping = False
        self._messages: Messages | None = None
        self._about: dict[str, Any] = {}
        self._ending = "connection lost"
        self._opened = self._heard = self._entered = self._loop.time()
        self._began: float | None = None
        self._pdu_count = -1
        self.state = State.AWAITING_REQUEST

    # -------------------------------------------------------------- transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start ARTIM and wait for the request (AE-5)."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(_WRITE_LIMIT)
        connection: socket.socket = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):  # without it each response may wait 40 ms
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        name = transport.get_extra_info("peername")
        self._about = {"address": self._address or (str(name[0]) if name else "")}
        self._registry.add(self)

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Handle the bytes that came."""
        if self.state is State.AWAITING_CLOSE:
            return  # the peer has not seen yet that it is over (AA-6, AA-7)
        self._heard = self._loop.time()
        self._filled += nbytes
        if self._framing.held:
            self._pause()
        else:
            self._feed()

    def eof_received(self) -> bool:
        """Close too: half an association is none."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Throw away what is half received (AA-4, AA-5)."""
        self._framing.held = True
        self._registry.discard(self)
        if exc is not None and self.state is State.ESTABLISHED:
            self._ending = f"connection lost: {exc}"
        if self._messages is None:
            _log.debug("connection ended", reason=self._ending, **self._about)
            return
        self._messages.lose()
        counts = self._messages.counts
        _log.info(
            "association ended",
            **self._about,
            reason=self._ending,
            stored=counts.stored,
            refused=counts.refused,
            echoed=counts.echoed,
            bytes_received=counts.bytes_received,
            duration_s=round(self._loop.time() - self._opened, 3),
        )

    def pause_writing(self) -> None:
        """Take nothing from a peer that does not read our responses."""
        self._choked_at = self._loop.time()
        self._framing.held = True

    def resume_writing(self) -> None:
        """Go on with a peer that reads again."""
        self._choked_at = None
        self.resume()

    def _pause(self) -> None:
        if self._transport is not None and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def _feed(self) -> None:
        try:
            used = self._framing.feed(self._view[: self._filled])
        except MalformedPDU as e:
            self._break_off(str(e), e.reason)
            return
        except Exception as e:  # noqa: BLE001 - one association must not stop the others
            _log.error("association failed", **self._about, exc_info=e)
            self._break_off("internal error", AbortReason.NOT_SPECIFIED)
            return
        left = 0 if self.state is State.AWAITING_CLOSE else self._filled - used
        if left and used:
            self._view[:left] = self._view[used : self._filled]
        self._filled = left
        self._watch_pdu()

    def _watch_pdu(self) -> None:
        """Note when the PDU that is not whole yet began."""
        if not self._filled and not self._framing.is_inside:
            self._began = None
        elif self._began is None or self._pdu_count != self._framing.pdu_count:
            self._began = self._heard
            self._pdu_count = self._framing.pdu_count

    # -------------------------------------------------------------- upper layer

    def expect_pdu(self, pdu_type: PDUType) -> None:
        """Refuse what the state does not allow (AA-1, AA-8)."""
        if pdu_type not in _EXPECTED[self.state]:
            raise MalformedPDU(f"{pdu_type.name} is unexpected now", AbortReason.UNEXPECTED_PDU)

    def take_pdu(self, pdu_type: PDUType, body: bytes) -> None:
        """Handle a PDU that is not P-DATA-TF."""
        if pdu_type is PDUType.ASSOCIATE_RQ:
            self._associate(decode_associate_request(body))
        elif pdu_type is PDUType.RELEASE_RQ:
            self._leave("released", RELEASE_RP)
        else:
            self._leave("aborted by the peer", b"")
            self.close()

    def take_fragment(self, context_id: int, control: int, piece: memoryview, left: int) -> None:
        """Hand on a piece of a message."""
        assert self._messages is not None
        self._messages.take_fragment(context_id, control, piece, left)

    def _associate(self, request: AssociateRequest) -> None:
        self._about |= {"calling": request.calling_ae_title, "called": request.called_ae_title}
        rules = self._rules
        refusal = reason_to_reject(request, rules.policy)
        if refusal is None and (self._is_stopping or not self._registry.has_room()):
            refusal = LOCAL_LIMIT
        if refusal is not None:
            self._reject(refusal)
            return
        answer = accept(request, rules.policy)
        tenant_id = rules.tenants.get(request.called_ae_title, rules.default_tenant)
        self._about["tenant"] = tenant_id
        source = Source(request.calling_ae_title, self._about["address"], "dimse")
        sender = Sender(
            archive=rules.archive,
            committer=rules.committer,
            tenant_id=tenant_id,
            source=source,
            contexts=agreed_contexts(request, answer),
            max_pdu_bytes=request.user.max_pdu_bytes,
        )
        self._messages = Messages(sender, self)
        self._enter(State.ESTABLISHED)
        self.send(encode_associate_accept(answer))
        _log.debug("association accepted", **self._about, contexts=len(sender.contexts))

    def _reject(self, refusal: AssociateReject) -> None:
        _log.warning("association rejected", reason=str(refusal), **self._about)
        self._leave("rejected", encode_associate_reject(refusal))

    def _break_off(self, why: str, reason: int) -> None:
        """Abort, as service user before there is an association (AA-1), else AA-8."""
        _log.warning("association aborted", reason=why, **self._about)
        is_early = self.state is State.AWAITING_REQUEST
        source = AbortSource.SERVICE_USER if is_early else AbortSource.SERVICE_PROVIDER
        self._leave(f"aborted: {why}", encode_abort(source, reason))

    def _leave(self, ending: str, last_words: bytes) -> None:
        """Say the last PDU and wait for the peer to close, as long as ARTIM allows."""
        self._ending = ending
        if self._messages is not None:
            self._messages.lose()
        self.send(last_words)
        self._enter(State.AWAITING_CLOSE)
        self._framing.held = True
        self._filled = 0
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()

    def _enter(self, state: State) -> None:
        self.state = state
        self._entered = self._loop.time()

    # -------------------------------------------------------------- for the messages

    def send(self, pdus: bytes) -> None:
        """Send, unless it is over."""
        transport = self._transport
        is_over = self.state is State.AWAITING_CLOSE or transport is None
        if pdus and not is_over and transport is not None and not transport.is_closing():
            transport.write(pdus)

    def hold(self) -> None:
        """Take nothing from the peer for now."""
        self._framing.held = True

    def resume(self) -> None:
        """Go on with what came meanwhile."""
        if self.state is State.AWAITING_CLOSE or self._transport is None:
            return
        if self._transport.is_closing() or self._choked_at is not None:
            return
        if self._messages is not None and self._messages.is_committing:
            return
        self._heard = self._loop.time()
        self._began = None  # the time that we took is not the peer's
        if self._is_stopping:
            self.stop()
            return
        self._framing.held = False
        self._feed()
        if self._is_paused and not self._framing.held:
            self._is_paused = False
            self._transport.resume_reading()

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back on the thread of the loop; nobody is there any more once it is closed."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback)

    # -------------------------------------------------------------- for the receiver

    def check_time(self, now: float) -> None:
        """End what takes too long: ARTIM, a PDU that doesn't get whole, silence."""
        rules = self._rules
        if self.state is not State.ESTABLISHED:
            if now - self._entered > rules.artim_timeout_s:
                if self.state is State.AWAITING_REQUEST:
                    self._ending = "no whole request in time"
                    _log.warning("connection closed", reason=self._ending, **self._about)
                self.kill()  # AA-2
            return
        if self._messages is not None and self._messages.is_committing:
            return
        if self._choked_at is not None:
            if now - self._choked_at > rules.artim_timeout_s:
                self._ending = "the peer reads nothing"
                self.kill()
        elif self._began is not None and now - self._began > rules.artim_timeout_s:
            self._break_off("a PDU was not whole in time", AbortReason.NOT_SPECIFIED)
        elif now - self._heard > rules.idle_timeout_s:
            self._break_off("idle for too long", AbortReason.NOT_SPECIFIED)

    def stop(self) -> None:
        """Take no new message; end once the one in hand is answered."""
        self._is_stopping = True
        if self.state is State.AWAITING_REQUEST:
            self._ending = "stopped"
            self.close()
        elif self.state is State.ESTABLISHED:
            assert self._messages is not None
            if self._messages.is_idle:
                self._leave("stopped", encode_abort(AbortSource.SERVICE_PROVIDER))

    def close(self) -> None:
        """Close the connection; what is written is sent before."""
        if self._transport is not None:
            self._transport.close()

    def kill(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()
