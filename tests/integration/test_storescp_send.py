"""Our SCU against our receiver, and against peers that fail."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from pydicom.uid import UID

import synthetic
from dimse import pdata, receiver
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
from wado.services.association import Peer
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
    assert 0 < echo(scp) < 5


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


def test_nobody_there(free_port, folder):
    peer = Peer("WADO", "127.0.0.1", free_port)
    with pytest.raises(Unavailable, match="no connection to WADO@127"):
        echo(peer)
    started = time.monotonic()
    with pytest.raises(Unavailable, match="Connection refused"):
        send([folder], peer)
    assert time.monotonic() - started < 10


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
                    connection.settimeout(5)
                    behave(connection, number)
                number += 1

        thread = Thread(target=serve, daemon=True)
        thread.start()
        yield Peer("PEER", "127.0.0.1", listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def _pdu(connection: socket.socket) -> tuple[int, bytes]:
    header = connection.recv(6, socket.MSG_WAITALL)
    if len(header) < 6:
        return 0, b""
    pdu_type, length = struct.unpack(">BxI", header)
    return pdu_type, connection.recv(length, socket.MSG_WAITALL)


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
    two.shutdown(socket.SHUT_WR)
    thread.join(5)


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


def test_an_answer_that_does_not_come_is_a_loss(folder):
    def stall(connection: socket.socket, _: int) -> None:
        _accept(connection)
        while _pdu(connection)[0]:
            pass

    with _peer(stall) as peer:
        summary = send([folder / "00.dcm"], peer, timeout_s=0.2)
    assert "no answer in time" in summary.failures[0].reason


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
