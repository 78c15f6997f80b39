"""DIMSE command sets: bytes <-> values, Implicit VR Little Endian (PS3.7 §6.3, Annex E)."""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from wado.errors import MalformedPDU

NO_DATA_SET: Final = 0x0101
"""Command Data Set Type (0000,0800) of a message without data set."""
RESPONSE: Final = 0x8000
"""Bit of Command Field that makes a response."""
MAX_COMMENT_LENGTH: Final = 64
"""Error Comment (0000,0902) is an LO."""

_ELEMENT = struct.Struct("<HHI")
_GROUP_LENGTH = struct.Struct("<HHII")
_US = struct.Struct("<HHIH")


class CommandField(IntEnum):
    """What a command asks for (PS3.7 Table E.1-1)."""

    C_STORE_RQ = 0x0001
    C_STORE_RSP = 0x8001
    C_ECHO_RQ = 0x0030
    C_ECHO_RSP = 0x8030
    C_CANCEL_RQ = 0x0FFF


class Status(IntEnum):
    """Statuses that no error class stands for (PS3.7 Annex C)."""

    SUCCESS = 0x0000
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    UNRECOGNIZED_OPERATION = 0x0211


@dataclass(frozen=True, slots=True)
class Command:
    """The elements of a command set that we use; None stands for an absent one."""

    command_field: int
    message_id: int | None = None
    message_id_being_responded_to: int | None = None
    command_data_set_type: int = NO_DATA_SET
    affected_sop_class_uid: str | None = None
    affected_sop_instance_uid: str | None = None
    priority: int | None = None
    status: int | None = None
    error_comment: str | None = None
    move_originator_application_entity_title: str | None = None
    move_originator_message_id: int | None = None

    @property
    def has_data_set(self) -> bool:
        """Whether a data set follows."""
        return self.command_data_set_type != NO_DATA_SET

    @property
    def is_response(self) -> bool:
        """Whether it answers another command."""
        return bool(self.command_field & RESPONSE)


_ELEMENTS: Final[dict[int, tuple[str, str]]] = {
    0x0002: ("affected_sop_class_uid", "UI"),
    0x0100: ("command_field", "US"),
    0x0110: ("message_id", "US"),
    0x0120: ("message_id_being_responded_to", "US"),
    0x0700: ("priority", "US"),
    0x0800: ("command_data_set_type", "US"),
    0x0900: ("status", "US"),
    0x0902: ("error_comment", "LO"),
    0x1000: ("affected_sop_instance_uid", "UI"),
    0x1030: ("move_originator_application_entity_title", "AE"),
    0x1031: ("move_originator_message_id", "US"),
}
"""Element number in group 0000, in ascending order: name and VR (PS3.7 Annex E)."""

_PADDING = {"UI": b"\0", "LO": b" ", "AE": b" "}


def _value(vr: str, data: bytes) -> int | str:
    if vr != "US":
        return data.decode("latin-1").strip("\0 ")
    if len(data) != 2:
        raise MalformedPDU("a number in the command set is not two bytes long")
    return int.from_bytes(data, "little")


def decode_command(data: bytes) -> Command:
    """Read a command set; elements that we do not know are passed over.

    Raises
    ------
    MalformedPDU
        Not a command set: lengths do not fit, another group, or no Command Field.
    """
    values: dict[str, Any] = {}
    position, end = 0, len(data)
    while position < end:
        if end - position < 8:
            raise MalformedPDU("command set ends within an element")
        group, element, length = _ELEMENT.unpack_from(data, position)
        position += 8
        if group != 0 or length > end - position:
            raise MalformedPDU("not a command set in Implicit VR Little Endian")
        known = _ELEMENTS.get(element)
        if known is not None:
            values[known[0]] = _value(known[1], data[position : position + length])
        position += length
    if "command_field" not in values:
        raise MalformedPDU("command set without Command Field (0000,0100)")
    return Command(**values)


def _element(element: int, vr: str, value: int | str) -> bytes:
    if isinstance(value, int):
        return _US.pack(0, element, 2, value)
    data = value.encode("latin-1", "replace")
    if len(data) % 2:
        data += _PADDING[vr]
    return _ELEMENT.pack(0, element, len(data)) + data


def encode_command_set(command: Command) -> bytes:
    """Write a command set, group length and all."""
    elements = b"".join(
        _element(element, vr, value)
        for element, (name, vr) in _ELEMENTS.items()
        if (value := getattr(command, name)) is not None
    )
    return _GROUP_LENGTH.pack(0, 0, 4, len(elements)) + elements


def comment_of(text: str) -> str:
    """Make an Error Comment: printable ASCII without backslash, at most 64 characters."""
    plain = "".join(c if " " <= c <= "~" and c != "\\" else "?" for c in text)
    return plain if len(plain) <= MAX_COMMENT_LENGTH else plain[: MAX_COMMENT_LENGTH - 3] + "..."


def response_to(request: Command, status: int = Status.SUCCESS, comment: str = "") -> Command:
    """Make the response to a C-ECHO-RQ, a C-STORE-RQ or a command that we do not know."""
    return Command(
        command_field=request.command_field | RESPONSE,
        message_id_being_responded_to=request.message_id or 0,
        affected_sop_class_uid=request.affected_sop_class_uid,
        affected_sop_instance_uid=request.affected_sop_instance_uid,
        status=status,
        error_comment=comment_of(comment) if comment else None,
    )
