"""The PROXY protocol, versions 1 and 2: a proxy says first for whom it connects.

The header is read off the socket to its last byte and not further, so that the association (or a
TLS handshake) begins behind it.
"""

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

from wado.errors import InvalidRequest

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED_BYTES: Final = 16
"""Of version 2: signature, version and command, family, length."""
_MAX_V1_BYTES: Final = 107
_MAX_V2_BYTES: Final = 4096
"""With its addresses and extensions; proxies in use write some hundred bytes at most."""
_BEGINNINGS: Final = (_SIGNATURE, b"PROXY ")
_LOCAL, _PROXY = 0x20, 0x21
_ADDRESS_BYTES: Final = {0x11: 4, 0x21: 16}
"""Of an address of TCP over IPv4 and IPv6."""
_UNSPECIFIED: Final = 0x00
_PORT_BYTES: Final = 2
_EXTENSION_HEAD_BYTES: Final = 3


class Header(NamedTuple):
    """Who connects: empty if the proxy connects for itself, or does not know."""

    source: str
    length: int


def decode_header(data: bytes) -> Header | None:
    """Read the header at the beginning of what came; None if it is not whole yet.

    Raises
    ------
    InvalidRequest
        It is none, or breaks the protocol.
    """
    if not any(data.startswith(b) or b.startswith(data) for b in _BEGINNINGS):
        raise InvalidRequest("a PROXY header is missing")
    if data.startswith(_SIGNATURE[:1]):
        return _decode_v2(data)
    end = data.find(b"\r\n", 0, _MAX_V1_BYTES)
    if end >= 0:
        return Header(_source_v1(data[:end]), end + 2)
    if len(data) >= _MAX_V1_BYTES:
        raise InvalidRequest("the PROXY header is too long")
    return None


def _source_v1(line: bytes) -> str:
    """Read ``PROXY TCP4 <source> <destination> <source port> <destination port>``."""
    words = line.decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return ""
    if len(words) != 6 or words[1] not in {"TCP4", "TCP6"}:
        raise InvalidRequest("the PROXY header is malformed")
    kind = IPv4Address if words[1] == "TCP4" else IPv6Address
    source, _ = (_address(word, kind) for word in words[2:4])
    for port in words[4:]:
        is_number = port.isascii() and port.isdigit() and len(port) <= 5
        if not is_number or str(int(port)) != port or int(port) > 0xFFFF:
            raise InvalidRequest("the PROXY header has a malformed port")
    return source


def _address(word: str, kind: type[IPv4Address] | type[IPv6Address]) -> str:
    if "%" in word:
        raise InvalidRequest("the PROXY header has a scope, which only the proxy knows")
    try:
        return str(_unmapped(kind(word)))
    except ValueError as e:
        raise InvalidRequest("the PROXY header has a malformed address") from e


def _decode_v2(data: bytes) -> Header | None:
    if len(data) < _FIXED_BYTES:
        return None
    command, family = data[12], data[13]
    length = _FIXED_BYTES + int.from_bytes(data[14:16], "big")
    if command not in {_LOCAL, _PROXY}:
        raise InvalidRequest("the PROXY header has another version or command")
    if length > _MAX_V2_BYTES:
        raise InvalidRequest("the PROXY header is too long")
    if command == _PROXY and family not in {_UNSPECIFIED, *_ADDRESS_BYTES}:
        raise InvalidRequest("the PROXY header is not about TCP")
    if len(data) < length:
        return None
    if command == _LOCAL or family == _UNSPECIFIED:
        return Header("", length)
    return Header(_source_v2(data[_FIXED_BYTES:length], _ADDRESS_BYTES[family]), length)


def _source_v2(body: bytes, address_bytes: int) -> str:
    at = 2 * (address_bytes + _PORT_BYTES)
    if len(body) < at:
        raise InvalidRequest("the PROXY header is too short for its addresses")
    while at < len(body):  # extensions say nothing that we need, but are well formed
        head = body[at : at + _EXTENSION_HEAD_BYTES]
        at += _EXTENSION_HEAD_BYTES + int.from_bytes(head[1:], "big")
        if len(head) < _EXTENSION_HEAD_BYTES or at > len(body):
            raise InvalidRequest("the PROXY header has a malformed extension")
    return str(_unmapped(ip_address(body[:address_bytes])))


def _unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


async def receive_header(connection: socket.socket, *, timeout_s: float) -> Header | None:
    """Take the header off a connection, and nothing behind it; None if it was closed instead.

    Raises
    ------
    InvalidRequest
        What came is no such header.
    TimeoutError
        It was not whole in time.
    OSError
        The connection broke.
    """
    taken = b""
    async with asyncio.timeout(timeout_s):
        while True:
            seen = await _peek(connection)
            if not seen:
                return None
            header = decode_header(taken + seen)
            # What is not whole is all header: taken now, it does not wake us again.
            taken += connection.recv(header.length - len(taken) if header else len(seen))
            if header is not None:
                return header


async def _peek(connection: socket.socket) -> bytes:
    """Wait for bytes, and look at them; empty at the end."""
    loop = asyncio.get_running_loop()
    while True:
        readable = loop.create_future()
        loop.add_reader(connection, _set, readable)
        try:
            await readable
        finally:
            loop.remove_reader(connection)
        try:
            return connection.recv(_MAX_V2_BYTES, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            continue


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
