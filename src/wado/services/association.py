"""An association as requestor, on a blocking socket (PS3.8 §9, PS3.7 §9.1)."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from wado.dicom.command import Command, CommandField, decode_command, encode_command_set
from wado.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from wado.dicom.pdu import (
    COMMAND,
    HEADER,
    LAST,
    PDATA_HEADER,
    RELEASE_RQ,
    AbortSource,
    AssociateRequest,
    ContextResult,
    PDUType,
    ProposedContext,
    decode_abort,
    decode_associate_accept,
    decode_associate_reject,
    decode_fragments,
    encode_abort,
    encode_associate_request,
    encode_command,
    fragment_bytes,
)
from wado.dicom.user_information import UserInformation
from wado.errors import AssociationRejected, InvalidRequest, MalformedPDU, Unavailable

VERIFICATION: Final = "1.2.840.10008.1.1"
IMPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
MAX_CONTEXTS: Final = 128
"""Presentation context ids are the odd numbers of one byte."""
MAX_AE_TITLE_LENGTH: Final = 16
_MAX_PDU_BYTES: Final = 1 << 17
_MAX_RECEIVED_BYTES: Final = 1 << 20
_BATCH_BYTES: Final = 1 << 20
"""How much of a data set is in memory at a time."""

Pair = tuple[str, str]
"""SOP class and transfer syntax."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A DICOM application: ``AET@HOST:PORT``."""

    ae_title: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Peer":
        """Read ``AET@HOST:PORT``.

        Raises
        ------
        InvalidRequest
            It has another form.
        """
        ae_title, _, address = text.partition("@")
        host, _, port = address.rpartition(":")
        is_number = port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16
        if not (0 < len(ae_title) <= MAX_AE_TITLE_LENGTH and host and is_number):
            raise InvalidRequest(f"not AET@HOST:PORT: {text!r}")
        return cls(ae_title, host.strip("[]"), int(port))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.ae_title}@{host}:{self.port}"


def _read(descriptor: int, buffer: memoryview) -> int:
    try:
        count = os.readv(descriptor, [buffer])
    except OSError as e:
        raise Unavailable(f"the file cannot be read: {e.strerror}") from e
    if not count:
        raise Unavailable("the file became shorter while it was sent")
    return count


class Association:
    """An association that we requested; use it as a context manager, which releases it.

    Parameters
    ----------
    peer
        Whom to call.
    pairs
        What to propose, one presentation context for each, so that the peer decides on each.
    calling_ae_title
        Who we are.
    timeout_s
        Longest wait for a connection, for an answer, and for the peer to take bytes, in seconds.

    Raises
    ------
    Unavailable
        Nobody answers, or the association is aborted.
    AssociationRejected
        The peer rejected it.
    """

    def __init__(
        self, peer: Peer, pairs: Sequence[Pair], *, calling_ae_title: str, timeout_s: float = 60.0
    ) -> None:
        assert len(pairs) <= MAX_CONTEXTS
        self._peer = peer
        self._message_id = 0
        self._buffer = memoryview(bytearray(_BATCH_BYTES))
        self._ids = {pair: 2 * number + 1 for number, pair in enumerate(pairs)}
        try:
            self._socket = socket.create_connection((peer.host, peer.port), timeout_s)
        except OSError as e:
            raise Unavailable(f"no connection to {peer}: {e.strerror or e}") from e
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._associate(calling_ae_title)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        if kind is None:
            self.release()
        else:
            self.abort()

    # -------------------------------------------------------------- services

    def refusal(self, pair: Pair) -> ContextResult | None:
        """Why the peer does not take this pair; None if it does."""
        result = self._results.get(self._ids[pair], ContextResult.NO_REASON)
        return None if result is ContextResult.ACCEPTANCE else result

    def echo(self) -> float:
        """C-ECHO; the time to the answer in seconds.

        Raises
        ------
        Unavailable
            The association is lost, or the answer is not success.
        """
        context_id = self._ids[VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN]
        request = Command(
            CommandField.C_ECHO_RQ, self._next_id(), affected_sop_class_uid=VERIFICATION
        )
        begin = time.perf_counter()
        self._send([self._command_pdus(context_id, request)])
        status = self._receive_response(request).status
        if status:
            raise Unavailable(f"{self._peer} answers C-ECHO with status {status:04X}H")
        return time.perf_counter() - begin

    def store(
        self,
        pair: Pair,
        sop_instance_uid: str,
        data_set: int,
        size: int,
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> Command:
        """C-STORE a data set as it lies on disk.

        Parameters
        ----------
        pair
            SOP class and transfer syntax; accepted by the peer.
        sop_instance_uid
            Of the instance.
        data_set
            File descriptor, positioned at the data set.
        size
            Length of the data set in bytes.
        on_bytes
            Told how many bytes went out, each time that some did.

        Returns
        -------
        response
            The peer's C-STORE-RSP, with its status and comment.
        """
        context_id = self._ids[pair]
        request = Command(
            CommandField.C_STORE_RQ,
            self._next_id(),
            command_data_set_type=1,
            affected_sop_class_uid=pair[0],
            affected_sop_instance_uid=sop_instance_uid,
            priority=0,
        )
        pieces: list[bytes | memoryview] = [self._command_pdus(context_id, request)]
        left = size
        while left:
            count = _read(data_set, self._buffer[: min(left, len(self._buffer))])
            left -= count
            pieces += self._data_pdus(context_id, count, is_end=not left)
            self._send(pieces)
            on_bytes(count)
            pieces = []
        return self._receive_response(request)

    def release(self) -> None:
        """A-RELEASE, and close; a peer that does not answer is no problem any more."""
        with contextlib.suppress(OSError, Unavailable, MalformedPDU):
            self._send([RELEASE_RQ])
            self._receive_pdu()
        self._socket.close()

    def abort(self) -> None:
        """A-ABORT, and close."""
        with contextlib.suppress(OSError):
            self._socket.settimeout(1.0)
            self._socket.sendall(encode_abort(AbortSource.SERVICE_USER))
        self._socket.close()

    # -------------------------------------------------------------- upper layer

    def _associate(self, calling_ae_title: str) -> None:
        contexts = tuple(
            ProposedContext(context_id, sop_class, (transfer_syntax,))
            for (sop_class, transfer_syntax), context_id in self._ids.items()
        )
        user = UserInformation(
            max_pdu_bytes=_MAX_PDU_BYTES,
            implementation_class_uid=IMPLEMENTATION_CLASS_UID,
            implementation_version_name=IMPLEMENTATION_VERSION_NAME,
        )
        request = AssociateRequest(self._peer.ae_title, calling_ae_title, contexts, user)
        self._send([encode_associate_request(request)])
        pdu_type, body = self._receive_pdu()
        if pdu_type == PDUType.ASSOCIATE_RJ:
            reject = decode_associate_reject(body)
            text = f"association with {self._peer} {reject}"
            raise AssociationRejected(text, is_transient=reject.is_transient)
        if pdu_type != PDUType.ASSOCIATE_AC:
            raise self._lost(f"PDU type {pdu_type:02X}H in place of an answer")
        accepted = decode_associate_accept(body)
        self._limit = accepted.user.max_pdu_bytes
        self._step = fragment_bytes(self._limit, _MAX_PDU_BYTES)
        self._results = {
            context.context_id: ContextResult(min(context.result, 4))
            for context in accepted.contexts
        }

    def _next_id(self) -> int:
        self._message_id = self._message_id % 0xFFFF + 1
        return self._message_id

    def _command_pdus(self, context_id: int, command: Command) -> bytes:
        return encode_command(context_id, encode_command_set(command), self._limit)

    def _data_pdus(
        self, context_id: int, count: int, *, is_end: bool
    ) -> Iterable[bytes | memoryview]:
        for start in range(0, count, self._step):
            piece = self._buffer[start : min(start + self._step, count)]
            control = LAST if is_end and start + self._step >= count else 0
            length = len(piece) + 2
            yield PDATA_HEADER.pack(PDUType.P_DATA_TF, length + 4, length, context_id, control)
            yield piece

    def _send(self, pieces: list[bytes | memoryview]) -> None:
        """Send all; when the peer is gone, say what it said last."""
        try:
            while pieces:
                sent = self._socket.sendmsg(pieces[:512])
                done = 0
                while done < len(pieces) and sent >= len(pieces[done]):
                    sent -= len(pieces[done])
                    done += 1
                pieces = pieces[done:]
                if sent:
                    pieces[0] = memoryview(pieces[0])[sent:]
        except TimeoutError as e:
            raise self._lost("it takes no more bytes") from e
        except OSError as e:
            with contextlib.suppress(OSError):
                self._receive_pdu()  # raises Unavailable with the reason of an A-ABORT
            raise self._lost(e.strerror or str(e)) from e

    def _receive_response(self, request: Command) -> Command:
        command_set = b""
        while True:
            pdu_type, body = self._receive_pdu()
            if pdu_type != PDUType.P_DATA_TF:
                raise self._lost(f"PDU type {pdu_type:02X}H in place of a response")
            for fragment in decode_fragments(body):
                if not fragment.control & COMMAND:
                    raise self._lost("a data set in place of a response")
                command_set += fragment.data
                if fragment.control & LAST:
                    response = decode_command(command_set)
                    if response.message_id_being_responded_to != request.message_id:
                        raise self._lost("a response to another request")
                    return response

    def _receive_pdu(self) -> tuple[int, bytes]:
        """Receive a PDU; an A-ABORT raises Unavailable."""
        try:
            pdu_type, length = HEADER.unpack(self._receive(HEADER.size))
            if length > _MAX_RECEIVED_BYTES:
                raise self._lost(f"PDU of {length} bytes")
            body = self._receive(length)
        except TimeoutError as e:
            raise self._lost("no answer in time") from e
        except OSError as e:
            raise self._lost(e.strerror or str(e)) from e
        if pdu_type == PDUType.ABORT:
            raise self._lost(str(decode_abort(body)))
        return pdu_type, body

    def _receive(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            if not piece:
                raise self._lost("closed by the peer")
            data += piece
        return bytes(data)

    def _lost(self, why: str) -> Unavailable:
        return Unavailable(f"association with {self._peer} lost: {why}")
