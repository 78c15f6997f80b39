"""The receiver behind proxies and with TLS: who sends is known, and cannot be made up."""

import socket
import ssl
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from threading import Event
from typing import Any

import orjson
import pytest

import synthetic
from dimse import RawPeer, receiver
from nginx_site import certificate, trusting
from wado.dicom.pdu import PDUType
from wado.errors import InvalidRequest
from wado.ports import Archive
from wado.records import Topic
from wado.services.association import Peer
from wado.services.storescp import app
from wado.settings import Settings, StorescpSettings

V1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 51234 104\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n" + struct.pack(
    "!BBH4s4sHH", 0x21, 0x11, 12, ip_address("192.0.2.8").packed, bytes(4), 51234, 104
)
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"
BEHIND_PROXIES = {"proxy_protocol_from": ["127.0.0.0/8"]}


@pytest.fixture(autouse=True)
def _peers_may_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine it is we who are slow: only the tests of a limit have a short one."""
    monkeypatch.setattr(app, "_PROXY_HEADER_S", 200.0)
    monkeypatch.setattr(app, "_HANDSHAKE_S", 200.0)


@contextmanager
def listening(archive: Archive, settings: Settings, **more: object) -> Iterator[Peer]:
    values = settings.storescp.model_dump() | more
    with receiver(archive, StorescpSettings.model_validate(values)) as peer:
        yield peer


def senders(archive: Archive) -> list[str]:
    """Addresses of those who sent what was announced."""
    stop = Event()
    found: list[str] = []
    for batch in archive.log.read(Topic.STORAGE, "test", stop):
        found += [orjson.loads(message.body)["source_address"] for message in batch.messages]
        batch.commit()
        stop.set()
    return found


@pytest.mark.parametrize(
    ("header", "sender"),
    [
        (V1, "192.0.2.7"),
        (V2, "192.0.2.8"),
        (LOCAL, "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ],
)
def test_the_sender_that_a_proxy_names_is_recorded(archive, settings, header, sender):
    with listening(archive, settings, **BEHIND_PROXIES) as peer, RawPeer(peer) as raw:
        raw.send(header + raw.request())  # in one go: what is behind the header is not lost
        assert raw.receive()[0] == PDUType.ASSOCIATE_AC
        assert raw.store(synthetic.ct()).status == 0
        raw.release()
    assert senders(archive) == [sender]


def test_a_proxy_that_names_nobody_is_refused(archive, settings):
    with listening(archive, settings, **BEHIND_PROXIES) as peer:
        for beginning in (b"", b"PROXY TCP4 192.0.2.999 192.0.2.1 1 104\r\n", b"PROXY TCP5 "):
            with RawPeer(peer) as raw:
                raw.send(beginning + raw.request())
                assert raw.receive() == (0, b"")
        with RawPeer(peer) as raw:
            raw.send(V1)
            raw.associate()
            raw.release()


def test_who_is_no_proxy_names_nobody(archive, settings):
    with listening(archive, settings, proxy_protocol_from=["10.0.0.0/8"]) as peer:
        for header in (V1, V2):
            with RawPeer(peer) as raw:
                raw.send(header + raw.request())
                assert raw.receive()[0] in (PDUType.ABORT, 0)
        with RawPeer(peer) as raw:
            raw.associate()
            assert raw.store(synthetic.ct()).status == 0
            raw.release()
    assert senders(archive) == ["127.0.0.1"]


def test_a_header_that_does_not_come_to_its_end_is_given_up(archive, settings, monkeypatch):
    monkeypatch.setattr(app, "_PROXY_HEADER_S", 0.3)
    with listening(archive, settings, **BEHIND_PROXIES) as peer, RawPeer(peer) as raw:
        raw.send(V2[:-1])
        assert raw.receive() == (0, b"")


def test_many_that_say_nothing_do_not_keep_others_out(archive, settings):
    with listening(archive, settings, max_associations=4, **BEHIND_PROXIES) as peer:
        silent = [socket.create_connection((peer.host, peer.port)) for _ in range(60)]
        try:
            with RawPeer(peer) as raw:
                raw.send(V1)
                raw.associate()
                raw.release()
        finally:
            for connection in silent:
                connection.close()


def test_a_receiver_stops_while_a_proxy_says_nothing(archive, settings):
    with listening(archive, settings, **BEHIND_PROXIES) as peer, RawPeer(peer) as raw:
        raw.send(V1[:10])


# ------------------------------------------------------------------ TLS


def tls_settings(folder: Path, name: str = "storescp.example.org") -> dict[str, str]:
    made = certificate(folder, name)
    return {f"tls_{key}": value for key, value in made.items()}


def encrypted(raw: RawPeer, context: ssl.SSLContext, name: str = "storescp.example.org") -> None:
    raw.socket = context.wrap_socket(raw.socket, server_hostname=name)


def _associates(peer: Peer, context: ssl.SSLContext) -> bool:
    """Whether the peer takes us; with TLS 1.3 a refusal comes behind the handshake."""
    with RawPeer(peer) as raw, suppress(ssl.SSLError, ConnectionError):
        encrypted(raw, context)
        raw.send(raw.request())
        return raw.receive()[0] == PDUType.ASSOCIATE_AC
    return False


@pytest.mark.parametrize("header", [b"", V1])
def test_tls_begins_behind_the_proxy_header(archive, settings, tmp_path, header):
    tls = tls_settings(tmp_path)
    proxies: Mapping[str, Any] = BEHIND_PROXIES if header else {}
    with listening(archive, settings, **tls, **proxies) as peer, RawPeer(peer) as raw:
        raw.send(header)
        encrypted(raw, trusting(tls["tls_certificate"]))
        raw.associate()
        assert raw.store(synthetic.ct()).status == 0
        raw.release()
    assert senders(archive) == ["192.0.2.7" if header else "127.0.0.1"]


def test_where_tls_is_asked_for_nothing_goes_without(archive, settings, tmp_path):
    with listening(archive, settings, **tls_settings(tmp_path)) as peer, RawPeer(peer) as raw:
        raw.send(raw.request())
        assert raw.receive()[0] not in set(PDUType)


def test_peers_need_a_certificate_of_the_named_authority(archive, settings, tmp_path):
    tls = tls_settings(tmp_path)
    (tmp_path / "peers").mkdir()
    known = certificate(tmp_path / "peers", "ct.example.org")
    (tmp_path / "others").mkdir()
    other = certificate(tmp_path / "others", "other.example.org")
    with listening(archive, settings, **tls, tls_client_ca=known["certificate"]) as peer:
        for shown in (None, other):
            context = trusting(tls["tls_certificate"])
            if shown is not None:
                context.load_cert_chain(shown["certificate"], shown["certificate_key"])
            assert not _associates(peer, context)
        context = trusting(tls["tls_certificate"])
        context.load_cert_chain(known["certificate"], known["certificate_key"])
        assert _associates(peer, context)


def test_a_certificate_that_cannot_be_read_is_said(archive, settings, tmp_path):
    values = settings.storescp.model_dump() | {"tls_certificate": str(tmp_path / "absent.pem")}
    chosen = StorescpSettings.model_validate(values)
    # In a thread: the browser tests leave a running loop in the thread of the tests.
    with ThreadPoolExecutor(1) as pool, pytest.raises(InvalidRequest, match="No such file"):
        pool.submit(app.run, archive, chosen, Event(), default_tenant="default").result()
