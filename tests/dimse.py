"""A receiver in a thread, and a peer that says what it is told, byte by byte."""

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import Self

from pydicom.dataset import Dataset

import synthetic
from wado.dicom.command import Command, CommandField, decode_command, encode_command_set
from wado.dicom.pdu import (
    COMMAND,
    LAST,
    RELEASE_RQ,
    AssociateAccept,
    AssociateRequest,
    PDUType,
    ProposedContext,
    decode_associate_accept,
    decode_fragments,
    encode_associate_request,
)
from wado.dicom.user_information import UserInformation
from wado.ports import Archive
from wado.services.association import Peer
from wado.services.storescp import listen, run
from wado.settings import StorescpSettings

VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
CONTEXTS = ((VERIFICATION, IMPLICIT), (CT, EXPLICIT))
ECHO_ID, CT_ID = 1, 3
ANSWER_TIMEOUT_S = 60.0
"""Longer than any answer takes, however busy the machine is."""


@contextmanager
def receiver(
    archive: Archive, settings: StorescpSettings, *, stop: Event | None = None
) -> Iterator[Peer]:
    """Run a receiver in a thread, on a port of its own; stopped at the end, it must be gone."""
    stop = stop or Event()
    with listen(settings.model_copy(update={"port": 0})) as listener:
        thread = Thread(
            target=run,
            args=(archive, settings, stop),
            kwargs={"default_tenant": "default", "listener": listener},
        )
        thread.start()
        try:
            yield Peer("WADO", settings.host, listener.getsockname()[1])
        finally:
            stop.set()
            thread.join(ANSWER_TIMEOUT_S)
            assert not thread.is_alive(), "the receiver does not stop"


def pdata(*fragments: tuple[int, int, bytes]) -> bytes:
    """Write a P-DATA-TF of fragments: context id, message control header, bytes."""
    body = b"".join(
        struct.pack(">IBB", len(data) + 2, context_id, control) + data
        for context_id, control, data in fragments
    )
    return struct.pack(">BxI", 4, len(body)) + body


def store_request(ds: Dataset, message_id: int = 1, **changes: object) -> bytes:
    """Encode the command set of a C-STORE-RQ for a data set."""
    values: dict[str, object] = {
        "command_field": CommandField.C_STORE_RQ,
        "message_id": message_id,
        "command_data_set_type": 0,
        "affected_sop_class_uid": ds.SOPClassUID,
        "affected_sop_instance_uid": ds.SOPInstanceUID,
        "priority": 0,
    }
    return encode_command_set(Command(**{**values, **changes}))  # type: ignore[arg-type]  # any field


def echo_request(message_id: int = 1) -> bytes:
    """Encode the command set of a C-ECHO-RQ."""
    return encode_command_set(
        Command(CommandField.C_ECHO_RQ, message_id, affected_sop_class_uid=VERIFICATION)
    )


class RawPeer:
    """A connection that sends any bytes, and reads PDUs."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.socket = socket.create_connection((peer.host, peer.port), ANSWER_TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def request(
        self, contexts: Sequence[tuple[str, str]] = CONTEXTS, *, called: str = "", limit: int = 0
    ) -> bytes:
        """Write an A-ASSOCIATE-RQ with the contexts 1, 3, 5, …"""
        proposed = tuple(ProposedContext(2 * n + 1, c, (t,)) for n, (c, t) in enumerate(contexts))
        user = UserInformation(max_pdu_bytes=limit, implementation_class_uid="1.2.3")
        called = called or self._peer.ae_title
        return encode_associate_request(AssociateRequest(called, "TEST", proposed, user))

    def associate(
        self, contexts: Sequence[tuple[str, str]] = CONTEXTS, *, called: str = "", limit: int = 0
    ) -> AssociateAccept:
        """Associate; AssertionError if that is not accepted."""
        self.send(self.request(contexts, called=called, limit=limit))
        pdu_type, body = self.receive()
        assert pdu_type == PDUType.ASSOCIATE_AC, (pdu_type, body)
        return decode_associate_accept(body)

    def receive(self) -> tuple[int, bytes]:
        """Receive a PDU: type and body; type 0 when the connection is closed."""
        header = self._exactly(6)
        if len(header) < 6:
            return 0, b""
        pdu_type, length = struct.unpack(">BxI", header)
        return pdu_type, self._exactly(length)

    def response(self) -> Command:
        """Receive a response; AssertionError if something else comes."""
        data = b""
        while True:
            pdu_type, body = self.receive()
            assert pdu_type == PDUType.P_DATA_TF, (pdu_type, body)
            for fragment in decode_fragments(body):
                assert fragment.control & COMMAND
                data += fragment.data
                if fragment.control & LAST:
                    return decode_command(data)

    def store(self, ds: Dataset, context_id: int = CT_ID, **changes: object) -> Command:
        """C-STORE, in two PDUs; the response."""
        data = synthetic.data_set(ds)
        self.send(pdata((context_id, COMMAND | LAST, store_request(ds, **changes))))  # type: ignore[arg-type]  # any field
        self.send(pdata((context_id, LAST, data)))
        return self.response()

    def echo(self, message_id: int = 1) -> Command:
        """C-ECHO; the response."""
        self.send(pdata((ECHO_ID, COMMAND | LAST, echo_request(message_id))))
        return self.response()

    def release(self) -> None:
        """A-RELEASE; AssertionError if it is not answered."""
        self.send(RELEASE_RQ)
        assert self.receive()[0] == PDUType.RELEASE_RP

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                piece = self.socket.recv(count - len(data))
            except ConnectionResetError:
                return b""
            if not piece:
                return b""
            data += piece
        return data
