"""Our SCU against our receiver, and against peers that fail."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pydicom.uid import UID

import synthetic
from dimse import ANSWER_TIMEOUT_S, pdata, receiver
from wado.dicom.command import decode_command, encode_command_set, response_to
from wado.dicom.pdu import (
    RELEASE_RP,
    AnsweredContext,
    AssociateAccept,
    AssociateReject,
    decode_associate_request,
    encode_abort,
    encode_associate_accept,
    encode_associate_reject,
)
from wado.dicom.user_information import UserInformation
from wado.errors import AssociationRejected, Unavailable
from wado.ports import Archive
from wado.services import storescu
from wado.services.association import Association, Peer
from wado.services.storescu import Progress, echo, send
from wado.settings import Settings


@pytest.fixture
def scp(archive: Archive, settings: Settings) -> Iterator[Peer]:
    with receiver(archive, settings.storescp) as peer:
        yield peer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for n, ds in enumerate(synthetic.ct_series(40)):
        (folder / f"{n:02}.dcm").write_bytes(synthetic.part10(ds))
    return folder


def test_echo(scp):
    started = time.perf_counter()
    took_s = echo(scp)
    assert 0 < took_s < time.perf_counter() - started


def test_a_folder_is_sent_over_several_associations(scp, settings, folder):
    (folder / "note.txt").write_text("not an image")
    seen: list[Progress] = []
    summary = send([folder], scp, associations=4, progress=seen.append)
    assert (summary.files_sent, len(summary.skipped)) == (40, 1)
    assert not summary.failures
    assert not summary.warnings
    assert summary.bytes_sent == seen[-1].bytes_done == seen[-1].bytes_total
    assert seen[-1].files_done == seen[-1].files_total == 40
    assert [p.bytes_done for p in seen] == sorted(p.bytes_done for p in seen)
    stored = {path.name for path in settings.storage.root.glob("default/*/*/*.dcm")}
    assert len(stored) == 40


def test_sent_twice_changes_nothing(scp, folder):
    assert send([folder], scp).files_sent == 40
    again = send([folder], scp)
    assert again.files_sent == 40
    assert not again.failures


def test_a_large_file_is_sent_in_parts(scp, settings, tmp_path):
    ds = synthetic.ct(rows=1500, columns=1500)
    path = tmp_path / "large"
    path.write_bytes(synthetic.part10(ds))
    seen: list[Progress] = []
    assert send([path], scp, progress=seen.append).files_sent == 1
    assert len({p.bytes_done for p in seen}) > 3
    (stored,) = settings.storage.root.glob("default/*/*/*.dcm")
    assert stored.read_bytes().endswith(synthetic.data_set(ds))


def test_refusals_are_failures_with_their_reason(scp, tmp_path):
    unknown = synthetic.ct()
    unknown.SOPClassUID = "1.2.3.4.5"
    unknown.file_meta.MediaStorageSOPClassUID = UID("1.2.3.4.5")
    (tmp_path / "unknown").write_bytes(synthetic.part10(unknown))
    cut = synthetic.part10(synthetic.ct())[:-9]
    (tmp_path / "cut").write_bytes(cut)
    summary = send([tmp_path / "unknown", tmp_path / "cut"], scp)
    reasons = {f.path.name: f.reason for f in summary.failures}
    assert summary.files_sent == 0
    assert "1.2.3.4.5" in reasons["unknown"]
    assert "abstract syntax not supported" in reasons["unknown"]
    assert reasons["cut"].startswith("C000H cannot understand: ")


def test_nobody_there(folder, monkeypatch):
    monkeypatch.setattr(storescu, "_BACK_OFF_S", (3600.0,) * 5)  # who tried again would be seen
    with socket.socket() as silent:  # it has the port, so that nobody else takes it
        silent.bind(("127.0.0.1", 0))
        peer = Peer("WADO", "127.0.0.1", silent.getsockname()[1])
        with pytest.raises(Unavailable, match="no connection to WADO@127"):
            echo(peer)
        with pytest.raises(Unavailable, match="Connection refused"):
            send([folder], peer)


# ------------------------------------------------------------------ peers that fail

Behaviour = Callable[[socket.socket, int], None]


@contextmanager
def _peer(behave: Behaviour) -> Iterator[Peer]:
    """Accept connections one by one, each handled by `behave` with its number."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            number = 0
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(ANSWER_TIMEOUT_S)
                    behave(connection, number)
                number += 1

        thread = Thread(target=serve, daemon=True)
        thread.start()
        yield Peer("PEER", "127.0.0.1", listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(ANSWER_TIMEOUT_S)
        assert not thread.is_alive(), "the peer does not stop"


def _pdu(connection: socket.socket) -> tuple[int, bytes]:
    """Receive a PDU: type and body; type 0 when the other side has gone."""
    try:
        header = _exactly(connection, 6)
        pdu_type, length = struct.unpack(">BxI", header)
        return pdu_type, _exactly(connection, length)
    except ConnectionError:
        return 0, b""


def _exactly(connection: socket.socket, count: int) -> bytes:
    """Receive so many bytes; with a time limit, MSG_WAITALL would not wait for them."""
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionResetError
        data += piece
    return data


def _accept(connection: socket.socket) -> None:
    request = decode_associate_request(_pdu(connection)[1])
    contexts = tuple(
        AnsweredContext(c.context_id, 0, c.transfer_syntaxes[0]) for c in request.contexts
    )
    user = UserInformation(max_pdu_bytes=16384, implementation_class_uid="1.2")
    connection.sendall(encode_associate_accept(AssociateAccept("P", "S", contexts, user)))


def _abort_at_data(connection: socket.socket, _: int) -> None:
    _accept(connection)
    _pdu(connection)
    connection.sendall(encode_abort(2, 0))


def test_a_rejection_says_why():
    def reject(connection: socket.socket, _: int) -> None:
        _pdu(connection)
        connection.sendall(encode_associate_reject(AssociateReject(1, 1, 7)))

    with _peer(reject) as peer, pytest.raises(AssociationRejected, match="called AE title"):
        echo(peer)


def test_a_peer_without_verification():
    def refuse(connection: socket.socket, _: int) -> None:
        _pdu(connection)
        user = UserInformation(implementation_class_uid="1.2")
        contexts = (AnsweredContext(1, 3, ""),)
        connection.sendall(encode_associate_accept(AssociateAccept("P", "S", contexts, user)))
        _pdu(connection)
        _pdu(connection)

    with _peer(refuse) as peer, pytest.raises(AssociationRejected, match="Verification"):
        echo(peer)


def test_a_lost_association_is_tried_again(scp, folder):
    def lose_first(connection: socket.socket, number: int) -> None:
        if number < 2:
            _abort_at_data(connection, number)
            return
        with socket.create_connection((scp.host, scp.port)) as other:
            _pipe(connection, other)

    with _peer(lose_first) as peer:
        summary = send([folder], peer, associations=1)
    assert summary.files_sent == 40
    assert not summary.failures


def _pipe(one: socket.socket, two: socket.socket) -> None:
    def copy() -> None:
        while data := two.recv(1 << 16):
            one.sendall(data)

    thread = Thread(target=copy, daemon=True)
    thread.start()
    while data := one.recv(1 << 16):
        two.sendall(data)
    with suppress(OSError):  # the receiver may have closed already: it was released
        two.shutdown(socket.SHUT_WR)
    thread.join(ANSWER_TIMEOUT_S)


def test_a_file_on_which_every_association_is_lost_is_given_up(folder):
    with _peer(_abort_at_data) as peer:
        summary = send([folder / "00.dcm"], peer)
    (failure,) = summary.failures
    assert "aborted by the peer's upper layer" in failure.reason


def test_a_transient_rejection_is_tried_again(scp, folder):
    def reject_first(connection: socket.socket, number: int) -> None:
        if number == 0:
            _pdu(connection)
            connection.sendall(encode_associate_reject(AssociateReject(2, 3, 2)))
            return
        with socket.create_connection((scp.host, scp.port)) as other:
            _pipe(connection, other)

    with _peer(reject_first) as peer:
        assert send([folder], peer, associations=1).files_sent == 40


class _Impatient(Association):
    """It waits briefly for an answer, but as long as it takes for the association."""

    def __init__(self, *args: Any, timeout_s: float, **kwargs: Any) -> None:
        super().__init__(*args, timeout_s=ANSWER_TIMEOUT_S, **kwargs)
        self._socket.settimeout(timeout_s)


def test_an_answer_that_does_not_come_is_a_loss(folder, monkeypatch):
    def stall(connection: socket.socket, _: int) -> None:
        _accept(connection)
        while _pdu(connection)[0]:
            pass

    monkeypatch.setattr(storescu, "Association", _Impatient)
    with _peer(stall) as peer:
        summary = send([folder / "00.dcm"], peer, timeout_s=0.2)
    assert "no answer in time" in summary.failures[0].reason


def test_a_peer_that_does_not_answer_at_all_is_given_up(folder):
    def stall(connection: socket.socket, _: int) -> None:
        while _pdu(connection)[0]:
            pass

    with _peer(stall) as peer:
        for ask in (lambda: echo(peer, timeout_s=0.2), lambda: send([folder], peer, timeout_s=0.2)):
            with pytest.raises(Unavailable, match="no answer in time"):
                ask()


def test_a_warning_counts_as_sent(folder):
    def warn(connection: socket.socket, _: int) -> None:
        _accept(connection)
        command = decode_command(_pdu(connection)[1][6:])
        _pdu(connection)
        answer = encode_command_set(response_to(command, 0xB000, "coerced"))
        connection.sendall(pdata((1, 3, answer)))
        _pdu(connection)
        connection.sendall(RELEASE_RP)

    with _peer(warn) as peer:
        summary = send([folder / "00.dcm"], peer)
    assert summary.files_sent == 1
    assert summary.warnings[0].reason.endswith("coerced")
