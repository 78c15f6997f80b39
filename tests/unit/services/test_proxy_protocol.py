"""PROXY headers: read to their last byte, refused when anything of them is wrong."""

import asyncio
import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wado.errors import InvalidRequest
from wado.services.storescp.proxy_protocol import Header, decode_header, receive_header
from web import run_alone

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PORTS = st.integers(0, 0xFFFF)
V1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 51234 104\r\n"


def v2(body: bytes, *, command: int = 0x21, family: int = 0x11, length: int | None = None) -> bytes:
    return (
        SIGNATURE
        + struct.pack("!BBH", command, family, len(body) if length is None else length)
        + body
    )


def addresses(source: str, destination: str) -> bytes:
    both = [ip_address(source).packed, ip_address(destination).packed]
    return b"".join(both) + struct.pack("!HH", 51234, 104)


V2 = v2(addresses("192.0.2.7", "192.0.2.1"))


@given(st.ip_addresses(), PORTS, PORTS, st.binary(max_size=50))
def test_version_1_names_the_sender(address: IPv4Address | IPv6Address, one, two, behind):
    kind = "TCP4" if isinstance(address, IPv4Address) else "TCP6"
    header = f"PROXY {kind} {address} {address} {one} {two}\r\n".encode()
    expected = getattr(address, "ipv4_mapped", None) or address
    assert decode_header(header + behind) == Header(str(expected), len(header))


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6), st.lists(st.binary(max_size=300), max_size=5))
def test_version_2_names_the_sender_and_skips_extensions(address, extensions):
    body = addresses(str(address), str(address))
    body += b"".join(struct.pack("!BH", 0xEE, len(e)) + e for e in extensions)
    header = v2(body, family=0x11 if address.version == 4 else 0x21)
    expected = getattr(address, "ipv4_mapped", None) or address
    assert decode_header(header + b"\x01\x00") == Header(str(expected), len(header))


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 ffff::1 65535 65535\r\n",
        v2(b"", command=0x20, family=0x00),
        v2(addresses("192.0.2.7", "192.0.2.1"), command=0x20),
        v2(b"whatever", command=0x20, family=0x31),
        v2(b"", family=0x00),
        v2(b"anything", family=0x00),
    ],
)
def test_a_proxy_may_speak_for_itself(header):
    assert decode_header(header) == Header("", len(header))


@given(st.sampled_from([V1, V2, v2(addresses("2001:db8::1", "::1"), family=0x21)]), st.data())
def test_what_is_not_whole_is_waited_for(header: bytes, data):
    end = data.draw(st.integers(0, len(header) - 1))
    assert decode_header(header[:end]) is None


@pytest.mark.parametrize(
    "header",
    [
        b"\x01\x00\x00\x00\x00\xcd",  # an A-ASSOCIATE-RQ
        b"GET / HTTP/1.1\r\n",
        b"proxy TCP4 192.0.2.7 192.0.2.1 51234 104\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 51234\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 51234 104 5\r\n",
        b"PROXY TCP4  192.0.2.7 192.0.2.1 51234 104\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 51234 104\t\r\n",
        b"PROXY TCP4 192.0.2.256 192.0.2.1 51234 104\r\n",
        b"PROXY TCP4 192.0.2.07 192.0.2.1 51234 104\r\n",
        b"PROXY TCP4 ::1 ::1 51234 104\r\n",
        b"PROXY TCP6 192.0.2.7 192.0.2.1 51234 104\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 51234 104\r\n",
        b"PROXY TCP4 192.0.2.7 localhost 51234 104\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 65536 104\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 -1 104\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 0104 104\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 \xb2 104\r\n",
        b"PROXY UDP4 192.0.2.7 192.0.2.1 51234 104\r\n",
        b"PROXY " + b"A" * 101,
        b"PROXY UNKNOWN " + b"A" * 92 + b"\r\n",
        v2(b"", command=0x11),
        v2(b"", command=0x22),
        v2(addresses("192.0.2.7", "192.0.2.1"), family=0x12),
        v2(b"\0" * 216, family=0x31),
        v2(addresses("192.0.2.7", "192.0.2.1")[:-1]),
        v2(addresses("192.0.2.7", "192.0.2.1"), family=0x21),
        v2(addresses("192.0.2.7", "192.0.2.1") + b"\x01"),
        v2(addresses("192.0.2.7", "192.0.2.1") + b"\x01\x00\x05abc"),
        v2(b"", length=4081),
    ],
)
def test_what_breaks_the_protocol_is_refused(header):
    with pytest.raises(InvalidRequest):
        decode_header(header)


@given(
    st.binary(max_size=300)
    | st.binary(max_size=120).map(lambda b: b"PROXY " + b)
    | st.binary(max_size=300).map(lambda b: SIGNATURE + b)
    | st.tuples(st.sampled_from([V1, V2]), st.integers(0, 27), st.binary(max_size=4)).map(
        lambda t: t[0][: t[1]] + t[2] + t[0][t[1] + len(t[2]) :]
    )
)
def test_whatever_comes_it_is_a_header_or_refused_or_not_whole(data: bytes):
    try:
        header = decode_header(data)
    except InvalidRequest:
        return
    if header is None:
        assert len(data) < (107 if data.startswith(b"PROXY ") else 4096)
        return
    assert 15 <= header.length <= len(data)
    assert not header.source or ip_address(header.source)
    assert decode_header(data[: header.length]) == header
    assert decode_header(data[: header.length - 1]) is None


@pytest.mark.parametrize("header", [V1, V2])
@pytest.mark.parametrize("step", [1, 5, 1000])
def test_nothing_behind_the_header_is_taken(header: bytes, step: int):
    behind = b"\x01\x00 the association"

    async def received() -> tuple[Header | None, bytes]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.settimeout(0)
            receiving = asyncio.create_task(receive_header(ours, timeout_s=60))
            whole = header + behind
            for start in range(0, len(whole), step):
                theirs.send(whole[start : start + step])
                await asyncio.sleep(0)
            return await receiving, ours.recv(1000)

    assert run_alone(received()) == (Header("192.0.2.7", len(header)), behind)


@pytest.mark.parametrize("sent", [b"", V1[:20], V2[:20]])
def test_a_header_that_does_not_come_is_given_up(sent: bytes):
    async def received() -> Header | None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.settimeout(0)
            theirs.send(sent)
            return await receive_header(ours, timeout_s=0.05)

    with pytest.raises(TimeoutError):
        run_alone(received())


def test_a_look_whether_we_are_there_is_no_fault():
    async def received() -> Header | None:
        ours, theirs = socket.socketpair()
        with ours:
            ours.settimeout(0)
            theirs.close()
            return await receive_header(ours, timeout_s=60)

    assert run_alone(received()) is None
