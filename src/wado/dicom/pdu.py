"""The PDUs of the DICOM upper layer: bytes <-> values (PS3.8 §9.3). Nothing is sent here.

An association PDU is read whole. A P-DATA-TF is not: its fragments are handed on as they come
(`wado.services.storescp.framing`), so only its writing is here.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from wado.dicom.user_information import (
    UserInformation,
    read_integers,
    read_items,
    read_text,
    read_user_information,
    write_item,
    write_uid_item,
    write_user_information,
)
from wado.errors import MalformedPDU

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
"""DICOM Application Context Name (PS3.7 §A.2.1): the only one there is."""

COMMAND = 0x01
"""Bit of the message control header: the fragment is of a command set (PS3.8 §E.2)."""
LAST = 0x02
"""Bit of the message control header: the fragment is the last of its command or data set."""

HEADER = struct.Struct(">BxI")
"""PDU type and length, at the start of each PDU."""
PDV_HEADER = struct.Struct(">IBB")
"""Length (that of what follows it), context id and message control header of a fragment."""
PDATA_HEADER = struct.Struct(">BxIIBB")
"""Both headers, for a P-DATA-TF with one fragment."""

_MIN_PDU_BYTES = 16
"""Smallest limit of a peer that is taken by its word; below, nothing could be said."""


class PDUType(IntEnum):
    """First byte of a PDU."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    P_DATA_TF = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


class AbortSource(IntEnum):
    """Who aborts (PS3.8 Table 9-26)."""

    SERVICE_USER = 0
    SERVICE_PROVIDER = 2


class AbortReason(IntEnum):
    """Why the service provider aborts (PS3.8 Table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNIZED_PDU_PARAMETER = 4
    UNEXPECTED_PDU_PARAMETER = 5
    INVALID_PDU_PARAMETER_VALUE = 6


class ContextResult(IntEnum):
    """Answer to a presentation context (PS3.8 Table 9-18)."""

    ACCEPTANCE = 0
    USER_REJECTION = 1
    NO_REASON = 2
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """A presentation context of an A-ASSOCIATE-RQ."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AnsweredContext:
    """A presentation context of an A-ASSOCIATE-AC."""

    context_id: int
    result: int
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    """A-ASSOCIATE-RQ (PS3.8 §9.3.2). AE titles are without padding."""

    called_ae_title: str
    calling_ae_title: str
    contexts: tuple[ProposedContext, ...]
    user: UserInformation
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = 1


@dataclass(frozen=True, slots=True)
class AssociateAccept:
    """A-ASSOCIATE-AC (PS3.8 §9.3.3)."""

    called_ae_title: str
    calling_ae_title: str
    contexts: tuple[AnsweredContext, ...]
    user: UserInformation


@dataclass(frozen=True, slots=True)
class AssociateReject:
    """A-ASSOCIATE-RJ (PS3.8 §9.3.4); `str` of it is a sentence."""

    result: int
    source: int
    reason: int

    @property
    def is_transient(self) -> bool:
        """Whether another try may succeed."""
        return self.result == 2

    def __str__(self) -> str:
        how = "for now" if self.is_transient else "permanently"
        text = _REJECT_REASONS.get((self.source, self.reason), "no reason given")
        return f"rejected {how}: {text} ({self.result}/{self.source}/{self.reason})"


_REJECT_REASONS = {
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognised",
    (1, 7): "called AE title not recognised",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}


@dataclass(frozen=True, slots=True)
class Abort:
    """A-ABORT (PS3.8 §9.3.8); `str` of it is a sentence."""

    source: int
    reason: int

    def __str__(self) -> str:
        who = "the peer" if self.source == AbortSource.SERVICE_USER else "the peer's upper layer"
        text = _ABORT_REASONS.get(self.reason, "unknown reason") if self.source else ""
        return f"aborted by {who}" + (f": {text}" if text else "")


_ABORT_REASONS = {reason.value: reason.name.lower().replace("_", " ") for reason in AbortReason}


# ------------------------------------------------------------------ reading


def _proposed(body: bytes) -> ProposedContext:
    if len(body) < 4:
        raise MalformedPDU("presentation context too short")
    if body[0] % 2 == 0:
        raise MalformedPDU(f"presentation context id {body[0]} is not odd")
    abstract_syntax, transfer_syntaxes = "", []
    for item_type, value in read_items(body[4:]):
        if item_type == 0x30:
            abstract_syntax = read_text(value)
        elif item_type == 0x40:
            transfer_syntaxes.append(read_text(value))
    return ProposedContext(body[0], abstract_syntax, tuple(transfer_syntaxes))


def _answered(body: bytes) -> AnsweredContext:
    if len(body) < 4:
        raise MalformedPDU("presentation context too short")
    syntaxes = [read_text(value) for item_type, value in read_items(body[4:]) if item_type == 0x40]
    return AnsweredContext(body[0], body[2], syntaxes[0] if syntaxes else "")


def _associate(body: bytes) -> dict[int, list[bytes]]:
    if len(body) < 68:
        raise MalformedPDU("A-ASSOCIATE PDU too short")
    found: dict[int, list[bytes]] = {0x10: [], 0x20: [], 0x21: [], 0x50: []}
    for item_type, value in read_items(body[68:]):
        found.setdefault(item_type, []).append(value)
    return found


def decode_associate_request(body: bytes) -> AssociateRequest:
    """Read an A-ASSOCIATE-RQ.

    Parameters
    ----------
    body
        The PDU without its first six bytes.

    Raises
    ------
    MalformedPDU
        Lengths contradict each other, or presentation context ids are even or repeated.
    """
    items = _associate(body)
    contexts = tuple(map(_proposed, items[0x20]))
    if len({context.context_id for context in contexts}) < len(contexts):
        raise MalformedPDU("a presentation context id is used twice")
    return AssociateRequest(
        called_ae_title=read_text(body[4:20]),
        calling_ae_title=read_text(body[20:36]),
        contexts=contexts,
        user=read_user_information(b"".join(items[0x50])),
        application_context=read_text(items[0x10][0]) if items[0x10] else "",
        protocol_version=int.from_bytes(body[:2], "big"),
    )


def decode_associate_accept(body: bytes) -> AssociateAccept:
    """Read an A-ASSOCIATE-AC; raises MalformedPDU."""
    items = _associate(body)
    return AssociateAccept(
        called_ae_title=read_text(body[4:20]),
        calling_ae_title=read_text(body[20:36]),
        contexts=tuple(map(_answered, items[0x21])),
        user=read_user_information(b"".join(items[0x50])),
    )


def decode_associate_reject(body: bytes) -> AssociateReject:
    """Read an A-ASSOCIATE-RJ; raises MalformedPDU."""
    return AssociateReject(*read_integers(body, ">xBBB"))


@dataclass(frozen=True, slots=True)
class Fragment:
    """A presentation data value; `control` has the bits `COMMAND` and `LAST`."""

    context_id: int
    control: int
    data: bytes


def decode_fragments(body: bytes) -> Iterator[Fragment]:
    """Read a P-DATA-TF that is held whole; raises MalformedPDU."""
    position, end = 0, len(body)
    while position < end:
        if end - position < PDV_HEADER.size:
            raise MalformedPDU("P-DATA-TF ends within the header of a fragment")
        length, context_id, control = PDV_HEADER.unpack_from(body, position)
        following = position + 4 + length
        if length < 2 or following > end:
            raise MalformedPDU("fragment is longer than its P-DATA-TF")
        yield Fragment(context_id, control, body[position + PDV_HEADER.size : following])
        position = following


def decode_abort(body: bytes) -> Abort:
    """Read an A-ABORT; raises MalformedPDU."""
    return Abort(*read_integers(body, ">xxBB"))


# ------------------------------------------------------------------ writing


def _pdu(pdu_type: PDUType, body: bytes) -> bytes:
    return HEADER.pack(pdu_type, len(body)) + body


def _titles(called: str, calling: str) -> bytes:
    return b"".join(
        title.encode("latin-1", "replace").ljust(16)[:16] for title in (called, calling)
    )


def encode_associate_request(request: AssociateRequest) -> bytes:
    """Write an A-ASSOCIATE-RQ."""
    body = request.protocol_version.to_bytes(2, "big") + bytes(2)
    body += _titles(request.called_ae_title, request.calling_ae_title) + bytes(32)
    body += write_uid_item(0x10, request.application_context)
    for context in request.contexts:
        syntaxes = b"".join(write_uid_item(0x40, uid) for uid in context.transfer_syntaxes)
        head = bytes((context.context_id, 0, 0, 0)) + write_uid_item(0x30, context.abstract_syntax)
        body += write_item(0x20, head + syntaxes)
    return _pdu(PDUType.ASSOCIATE_RQ, body + write_user_information(request.user))


def encode_associate_accept(accept: AssociateAccept) -> bytes:
    """Write an A-ASSOCIATE-AC."""
    body = b"\0\1\0\0" + _titles(accept.called_ae_title, accept.calling_ae_title) + bytes(32)
    body += write_uid_item(0x10, APPLICATION_CONTEXT)
    for context in accept.contexts:
        syntax = write_item(0x40, context.transfer_syntax.encode("latin-1", "replace"))
        body += write_item(0x21, bytes((context.context_id, 0, context.result, 0)) + syntax)
    return _pdu(PDUType.ASSOCIATE_AC, body + write_user_information(accept.user))


def encode_associate_reject(reject: AssociateReject) -> bytes:
    """Write an A-ASSOCIATE-RJ."""
    return _pdu(PDUType.ASSOCIATE_RJ, bytes((0, reject.result, reject.source, reject.reason)))


def encode_abort(source: int, reason: int = AbortReason.NOT_SPECIFIED) -> bytes:
    """Write an A-ABORT. The reason is said only by the service provider (PS3.8 Table 9-26)."""
    said = reason if source == AbortSource.SERVICE_PROVIDER else 0
    return _pdu(PDUType.ABORT, bytes((0, 0, source, said)))


RELEASE_RQ = _pdu(PDUType.RELEASE_RQ, bytes(4))
"""A-RELEASE-RQ, which is always the same."""
RELEASE_RP = _pdu(PDUType.RELEASE_RP, bytes(4))
"""A-RELEASE-RP, which is always the same."""


def fragment_bytes(max_pdu_bytes: int, ours: int = 1 << 17) -> int:
    """How long a fragment may be for a peer's limit (0: none); even, as PS3.8 Annex E wants."""
    limit = min(max_pdu_bytes, ours) if max_pdu_bytes else ours
    return (max(limit, _MIN_PDU_BYTES) - PDV_HEADER.size) & ~1


def encode_command(context_id: int, command_set: bytes, max_pdu_bytes: int = 0) -> bytes:
    """Write a command set as P-DATA-TF PDUs, as many as the peer's limit asks for."""
    step = fragment_bytes(max_pdu_bytes)
    pdus = []
    for start in range(0, len(command_set), step):
        piece = command_set[start : start + step]
        control = COMMAND | (LAST if start + step >= len(command_set) else 0)
        length = len(piece) + 2
        pdus.append(PDATA_HEADER.pack(PDUType.P_DATA_TF, length + 4, length, context_id, control))
        pdus.append(piece)
    return b"".join(pdus)
