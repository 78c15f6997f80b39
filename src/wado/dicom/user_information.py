"""Items of association PDUs: bytes <-> values (PS3.8 §9.3.2, PS3.7 Annex D)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from wado.errors import MalformedPDU

_ITEM = struct.Struct(">BxH")


@dataclass(frozen=True, slots=True)
class RoleSelection:
    """SCP/SCU Role Selection (PS3.7 §D.3.3.4)."""

    sop_class_uid: str
    scu_role: int
    scp_role: int


@dataclass(frozen=True, slots=True)
class ExtendedNegotiation:
    """SOP Class Extended Negotiation (PS3.7 §D.3.3.5)."""

    sop_class_uid: str
    information: bytes


@dataclass(frozen=True, slots=True)
class CommonExtendedNegotiation:
    """SOP Class Common Extended Negotiation (PS3.7 §D.3.3.6)."""

    sop_class_uid: str
    service_class_uid: str


@dataclass(frozen=True, slots=True)
class UserIdentity:
    """User Identity of a request (PS3.7 §D.3.3.7); the fields are not shown in logs."""

    identity_type: int
    positive_response_requested: bool
    primary_field: bytes
    secondary_field: bytes = b""

    def __repr__(self) -> str:
        return f"UserIdentity(identity_type={self.identity_type})"


@dataclass(frozen=True, slots=True)
class UserInformation:
    """User Information of a request or an acceptance (PS3.8 §9.3.2.3, PS3.7 Annex D).

    `max_pdu_bytes` is the longest P-DATA-TF that the sender of this takes, without its first six
    bytes; 0 means no limit. `user_identity_response` stands in an acceptance only.
    """

    max_pdu_bytes: int = 0
    implementation_class_uid: str = ""
    implementation_version_name: str = ""
    async_window: tuple[int, int] | None = None
    roles: tuple[RoleSelection, ...] = ()
    extended: tuple[ExtendedNegotiation, ...] = ()
    common_extended: tuple[CommonExtendedNegotiation, ...] = ()
    user_identity: UserIdentity | None = None
    user_identity_response: bytes | None = None


# ------------------------------------------------------------------ reading


def read_items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Read the items, each as its type and body; raises MalformedPDU when one is cut."""
    position, end = 0, len(data)
    while position < end:
        if end - position < _ITEM.size:
            raise MalformedPDU("an item ends within its header")
        item_type, length = _ITEM.unpack_from(data, position)
        position += _ITEM.size
        if length > end - position:
            raise MalformedPDU(f"item {item_type:02X}H is longer than what holds it")
        yield item_type, data[position : position + length]
        position += length


def read_text(data: bytes) -> str:
    """Read a UID or name without its padding."""
    return data.decode("latin-1").strip("\0 ")


def _counted(data: bytes, position: int = 0) -> tuple[bytes, int]:
    """Read a field behind its length of two bytes; the field and where it ends."""
    if len(data) < position + 2:
        raise MalformedPDU("a sub-item ends early")
    end = position + 2 + int.from_bytes(data[position : position + 2], "big")
    if len(data) < end:
        raise MalformedPDU("a field is longer than its sub-item")
    return data[position + 2 : end], end


def read_integers(body: bytes, layout: str) -> tuple[int, ...]:
    """Read numbers as `struct` does; raises MalformedPDU when the bytes end early."""
    if len(body) < struct.calcsize(layout):
        raise MalformedPDU("user information sub-item too short")
    return struct.unpack_from(layout, body)


def _role(body: bytes) -> RoleSelection:
    uid, end = _counted(body)
    scu_role, scp_role = read_integers(body[end:], ">BB")
    return RoleSelection(read_text(uid), scu_role, scp_role)


def _extended(body: bytes) -> ExtendedNegotiation:
    uid, end = _counted(body)
    return ExtendedNegotiation(read_text(uid), body[end:])


def _common_extended(body: bytes) -> CommonExtendedNegotiation:
    sop_class, end = _counted(body)
    service_class, _ = _counted(body, end)
    return CommonExtendedNegotiation(read_text(sop_class), read_text(service_class))


def _user_identity(body: bytes) -> UserIdentity:
    identity_type, response = read_integers(body, ">BB")
    primary, end = _counted(body, 2)
    secondary, _ = _counted(body, end)
    return UserIdentity(identity_type, bool(response), primary, secondary)


def read_user_information(body: bytes) -> UserInformation:
    """Read the sub-items; unknown ones are passed over (PS3.8 §9.3.1)."""
    found: dict[int, list[bytes]] = {}
    for item_type, value in read_items(body):
        found.setdefault(item_type, []).append(value)

    def last(item_type: int) -> bytes | None:
        return found[item_type][-1] if item_type in found else None

    limit, window = last(0x51), last(0x53)
    identity, response = last(0x58), last(0x59)
    performed, invoked = (0, 0) if window is None else read_integers(window, ">HH")
    return UserInformation(
        max_pdu_bytes=0 if limit is None else read_integers(limit, ">I")[0],
        implementation_class_uid=read_text(last(0x52) or b""),
        implementation_version_name=read_text(last(0x55) or b""),
        async_window=None if window is None else (performed, invoked),
        roles=tuple(map(_role, found.get(0x54, ()))),
        extended=tuple(map(_extended, found.get(0x56, ()))),
        common_extended=tuple(map(_common_extended, found.get(0x57, ()))),
        user_identity=None if identity is None else _user_identity(identity),
        user_identity_response=None if response is None else _counted(response)[0],
    )


# ------------------------------------------------------------------ writing


def write_item(item_type: int, body: bytes) -> bytes:
    """Write an item."""
    return _ITEM.pack(item_type, len(body)) + body


def write_uid_item(item_type: int, uid: str) -> bytes:
    """Write an item that holds a UID or name."""
    return write_item(item_type, uid.encode("latin-1", "replace"))


def _count(field: bytes) -> bytes:
    return len(field).to_bytes(2, "big") + field


def _identity_items(user: UserInformation) -> bytes:
    items = b""
    if user.user_identity is not None:
        identity = user.user_identity
        flags = bytes((identity.identity_type, identity.positive_response_requested))
        fields = _count(identity.primary_field) + _count(identity.secondary_field)
        items += write_item(0x58, flags + fields)
    if user.user_identity_response is not None:
        items += write_item(0x59, _count(user.user_identity_response))
    return items


def write_user_information(user: UserInformation) -> bytes:
    """Write the User Information item."""
    items = [write_item(0x51, user.max_pdu_bytes.to_bytes(4, "big"))]
    items.append(write_uid_item(0x52, user.implementation_class_uid))
    if user.async_window is not None:
        items.append(write_item(0x53, struct.pack(">HH", *user.async_window)))
    for role in user.roles:
        uid = _count(role.sop_class_uid.encode("latin-1", "replace"))
        items.append(write_item(0x54, uid + bytes((role.scu_role, role.scp_role))))
    if user.implementation_version_name:
        items.append(write_uid_item(0x55, user.implementation_version_name))
    for extended in user.extended:
        uid = _count(extended.sop_class_uid.encode("latin-1", "replace"))
        items.append(write_item(0x56, uid + extended.information))
    for common in user.common_extended:
        uids = (common.sop_class_uid, common.service_class_uid)
        items.append(
            write_item(
                0x57, b"".join(_count(u.encode("latin-1", "replace")) for u in uids) + bytes(2)
            )
        )
    return write_item(0x50, b"".join(items) + _identity_items(user))
