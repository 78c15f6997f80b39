"""DIMSE on one association: command sets out of fragments, C-ECHO, C-STORE (PS3.7 §9.1).

A data set is never collected: each piece goes to the `Reception` as it comes. What can't be
stored is read to its end and then answered, so that the association can go on.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, Protocol

from wado.archive.store import Announced, Committer, Reception, Source, Stored
from wado.dicom.command import (
    Command,
    CommandField,
    Status,
    decode_command,
    encode_command_set,
    response_to,
)
from wado.dicom.pdu import COMMAND, LAST, AbortReason, encode_command
from wado.dicom.uids import validate_uid
from wado.errors import (
    CannotUnderstand,
    InvalidRequest,
    MalformedPDU,
    SOPClassNotSupported,
    WadoError,
)
from wado.ports import Archive
from wado.services.storescp.negotiation import VERIFICATION, Agreed
from wado.telemetry import get_logger

_MAX_COMMAND_BYTES: Final = 1 << 14
_log = get_logger("storescp")


class Link(Protocol):
    """The association below, as the messages see it."""

    def send(self, pdus: bytes) -> None:
        """Send PDUs to the peer, if it is still there."""
        ...

    def hold(self) -> None:
        """Take nothing from the peer for now."""
        ...

    def resume(self) -> None:
        """Go on; also called when an operation is over."""
        ...

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back on the thread of the association; may be called from any thread."""
        ...


@dataclass(frozen=True, slots=True)
class Sender:
    """Whose messages these are, and where they go."""

    archive: Archive
    committer: Committer
    tenant_id: str
    source: Source
    contexts: Mapping[int, Agreed]
    max_pdu_bytes: int


@dataclass(slots=True)
class Counts:
    """What was done on an association."""

    stored: int = 0
    refused: int = 0
    echoed: int = 0
    bytes_received: int = 0


@dataclass(slots=True)
class _Operation:
    """A request whose data set is on its way; with a failure, the data set is passed over."""

    context_id: int
    request: Command
    reception: Reception | None = None
    failure: WadoError | None = None
    status: int = Status.SUCCESS


@dataclass(slots=True)
class Messages:
    """The messages of one association."""

    sender: Sender
    link: Link
    counts: Counts = field(default_factory=Counts)
    _command: bytearray = field(default_factory=bytearray)
    _command_context: int = 0
    _operation: _Operation | None = None
    _committing: bool = False

    @property
    def is_idle(self) -> bool:
        """Whether no message is under way."""
        return not self._command and self._operation is None

    @property
    def is_committing(self) -> bool:
        """Whether the peer waits for us, not we for the peer."""
        return self._committing

    def take_fragment(self, context_id: int, control: int, piece: memoryview, left: int) -> None:
        """Take a piece of a fragment; `left` bytes of the fragment are still to come."""
        is_last = not left and bool(control & LAST)
        if control & COMMAND:
            self._take_command(context_id, piece, is_last=is_last)
            return
        operation = self._operation
        if operation is None or operation.context_id != context_id:
            raise MalformedPDU("a data set without its command", AbortReason.UNEXPECTED_PDU)
        self._write(operation, piece)
        if is_last:
            self._finish(operation)

    def lose(self) -> None:
        """Throw away what is half received: the association is over."""
        if self._operation and self._operation.reception and not self._committing:
            self._operation.reception.abort()
        self._operation = None
        self._command.clear()

    # -------------------------------------------------------------- commands

    def _take_command(self, context_id: int, piece: memoryview, *, is_last: bool) -> None:
        if self._operation is not None:
            raise MalformedPDU("a command in place of a data set", AbortReason.UNEXPECTED_PDU)
        if context_id not in self.sender.contexts:
            raise MalformedPDU(f"presentation context {context_id} was not accepted")
        if self._command and context_id != self._command_context:
            raise MalformedPDU("a command set in two presentation contexts")
        self._command_context = context_id
        self._command += piece
        if len(self._command) > _MAX_COMMAND_BYTES:
            raise MalformedPDU("command set too long")
        if is_last:
            command = decode_command(bytes(self._command))
            self._command.clear()
            self._begin(context_id, command)

    def _begin(self, context_id: int, command: Command) -> None:
        if command.command_field == CommandField.C_CANCEL_RQ:
            return  # nothing that we do can be cancelled; it has no response (PS3.7 §9.3.2.3)
        if command.is_response:
            raise MalformedPDU("a response to nothing", AbortReason.UNEXPECTED_PDU)
        operation = _Operation(context_id, command)
        agreed = self.sender.contexts[context_id]
        is_verification = agreed.abstract_syntax == VERIFICATION
        if command.command_field == CommandField.C_ECHO_RQ and is_verification:
            self.counts.echoed += 1
        elif command.command_field == CommandField.C_STORE_RQ and not is_verification:
            self._begin_store(operation, agreed)
        else:
            operation.status = Status.UNRECOGNIZED_OPERATION
            operation.failure = InvalidRequest(
                f"operation {command.command_field:04X}H is not supported in this context"
            )
        if command.has_data_set:
            self._operation = operation
        else:
            self._respond(operation)

    def _begin_store(self, operation: _Operation, agreed: Agreed) -> None:
        try:
            announced = _announced(operation.request, agreed)
            sender = self.sender
            operation.reception = Reception(
                sender.archive, sender.tenant_id, sender.source, announced=announced
            )
        except Exception as e:  # noqa: BLE001 - the peer gets an answer, whatever it is
            self._fail(operation, e)

    # -------------------------------------------------------------- data sets

    def _write(self, operation: _Operation, piece: memoryview) -> None:
        self.counts.bytes_received += len(piece)
        if operation.reception is None:
            return
        try:
            operation.reception.write(piece)
        except Exception as e:  # noqa: BLE001 - the peer gets an answer, whatever it is
            self._fail(operation, e)

    def _finish(self, operation: _Operation) -> None:
        if operation.reception is not None:
            try:
                operation.reception.finish()
                future = self.sender.committer.submit(operation.reception)
            except Exception as e:  # noqa: BLE001 - the peer gets an answer, whatever it is
                self._fail(operation, e)
            else:
                self._await(operation, future)
                return
        self._respond(operation)

    def _await(self, operation: _Operation, future: Future[Stored]) -> None:
        self._committing = True
        self.link.hold()

        def committed() -> None:
            self._committing = False
            error = future.exception()
            if error is not None:
                self._fail(operation, error)
            self._respond(operation)
            self.link.resume()

        future.add_done_callback(lambda _: self.link.call_soon(committed))

    def _fail(self, operation: _Operation, error: BaseException) -> None:
        if operation.reception is not None:
            operation.reception.abort()
            operation.reception = None
        if isinstance(error, WadoError):
            operation.failure = error
        else:  # its text may show what is nobody's business
            _log.error("instance not stored", **self._about(operation), exc_info=error)
            operation.failure = WadoError("processing failure")
        operation.status = operation.failure.dimse

    def _respond(self, operation: _Operation) -> None:
        self._operation = None
        comment = ""
        if operation.failure is not None:
            comment = str(operation.failure)
            self.counts.refused += 1
            status = f"{operation.status:04X}"
            _log.warning("refused", status=status, reason=comment, **self._about(operation))
        elif operation.request.command_field == CommandField.C_STORE_RQ:
            self.counts.stored += 1
        response = response_to(operation.request, operation.status, comment)
        command_set = encode_command_set(response)
        self.link.send(encode_command(operation.context_id, command_set, self.sender.max_pdu_bytes))

    def _about(self, operation: _Operation) -> dict[str, str | None]:
        source = self.sender.source
        return {
            "calling": source.ae_title,
            "address": source.address,
            "tenant": self.sender.tenant_id,
            "sop_instance_uid": operation.request.affected_sop_instance_uid,
        }


def _announced(request: Command, agreed: Agreed) -> Announced:
    """Check what the request says of the data set to come."""
    if not request.has_data_set:
        raise CannotUnderstand("C-STORE without a data set")
    sop_class_uid = validate_uid(request.affected_sop_class_uid or "")
    sop_instance_uid = validate_uid(request.affected_sop_instance_uid or "")
    if sop_class_uid != agreed.abstract_syntax:
        raise SOPClassNotSupported("SOP class differs from that of its presentation context")
    return Announced(sop_class_uid, sop_instance_uid, agreed.transfer_syntax)
