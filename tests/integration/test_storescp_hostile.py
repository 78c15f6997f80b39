"""Peers that are slow, silent, broken or many: they are refused, and delay nobody."""

import random
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Event
from typing import Any

import pytest

import synthetic
from dimse import (
    ANSWER_TIMEOUT_S,
    CT_ID,
    ECHO_ID,
    RawPeer,
    echo_request,
    pdata,
    receiver,
    store_request,
)
from service import wait_until
from wado.dicom.pdu import COMMAND, LAST, RELEASE_RQ, AbortReason, PDUType, encode_abort
from wado.ports import Archive
from wado.services.association import Peer
from wado.services.storescp import app
from wado.services.storescp.association import Rules
from wado.settings import Settings, StorescpSettings

WHOLE_COMMAND = COMMAND | LAST
PATIENT_S = 4 * ANSWER_TIMEOUT_S
"""ARTIM of a receiver that must not be impatient with us: a busy machine makes us slow."""
ARTIM_S = 0.4
Hurry = Callable[[], None]


def _changed(settings: Settings, **changes: Any) -> StorescpSettings:
    return settings.storescp.model_copy(update={"artim_timeout_s": PATIENT_S, **changes})


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> Hurry:
    """Make ARTIM short, once all that is to happen before it has happened."""
    known: list[Rules] = []
    rules_of = app._rules

    def noted(*args: Any) -> Rules:
        known.append(rules_of(*args))
        return known[-1]

    monkeypatch.setattr(app, "_rules", noted)

    def hurry() -> None:
        wait_until(lambda: bool(known), timeout_s=ANSWER_TIMEOUT_S, reason="the receiver runs")
        for rules in known:
            object.__setattr__(rules, "artim_timeout_s", ARTIM_S)

    return hurry


@pytest.fixture
def scp(archive: Archive, settings: Settings, hurry: Hurry) -> Iterator[Peer]:
    with receiver(archive, _changed(settings)) as peer:
        yield peer


def _left_over(settings: Settings) -> list[Any]:
    return sorted(settings.storage.root.rglob("*.part"))


def _is_well(scp: Peer) -> bool:
    with RawPeer(scp) as peer:
        peer.associate()
        return peer.echo().status == 0


def _wait_for_a_part(settings: Settings) -> None:
    """Wait until the receiver has begun to write what we send."""
    wait_until(
        lambda: bool(_left_over(settings)),
        timeout_s=ANSWER_TIMEOUT_S,
        reason="a partial file is there",
    )


def _wait_for_no_part(settings: Settings) -> None:
    wait_until(
        lambda: not _left_over(settings),
        timeout_s=ANSWER_TIMEOUT_S,
        reason="partial file removed",
    )


def _half_a_store() -> bytes:
    ds = synthetic.ct()
    data = synthetic.data_set(ds)
    return pdata((CT_ID, WHOLE_COMMAND, store_request(ds)), (CT_ID, 0, data[: len(data) // 2]))


PDATA = pdata((ECHO_ID, WHOLE_COMMAND, echo_request()))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x08\0\0\0\0\0", AbortReason.UNRECOGNIZED_PDU),
        (b"GET / HTTP/1.1\r\n\r\n", AbortReason.UNRECOGNIZED_PDU),
        (b"\2\0\0\0\0\4abcd", AbortReason.UNEXPECTED_PDU),
        (b"\6\0\0\0\0\4\0\0\0\0", AbortReason.UNEXPECTED_PDU),
        (b"\4\0\xff\xff\xff\xff", AbortReason.INVALID_PDU_PARAMETER_VALUE),
        (pdata((7, WHOLE_COMMAND, echo_request())), AbortReason.INVALID_PDU_PARAMETER_VALUE),
        (pdata((CT_ID, LAST, b"no command")), AbortReason.UNEXPECTED_PDU),
        (pdata((CT_ID, WHOLE_COMMAND, b"nonsense")), AbortReason.INVALID_PDU_PARAMETER_VALUE),
        (pdata((CT_ID, COMMAND, bytes(20000))), AbortReason.INVALID_PDU_PARAMETER_VALUE),
        (_half_a_store() + PDATA, AbortReason.UNEXPECTED_PDU),
        (_half_a_store() + pdata((ECHO_ID, 0, b"x")), AbortReason.UNEXPECTED_PDU),
        (
            pdata((CT_ID, COMMAND, b"\0\0"), (ECHO_ID, COMMAND, b"\0\0")),
            AbortReason.INVALID_PDU_PARAMETER_VALUE,
        ),
    ],
)
def test_what_breaks_the_protocol_is_aborted_with_its_reason(scp, settings, data, reason):
    with RawPeer(scp) as peer:
        peer.associate()
        peer.send(data)
        assert peer.receive() == (PDUType.ABORT, bytes([0, 0, 2, reason]))
    assert _is_well(scp)
    assert not _left_over(settings)


@pytest.mark.parametrize("data", [b"\x99", b"GET / HTTP/1.1\r\n\r\n", PDATA, RELEASE_RQ])
def test_what_is_no_request_is_aborted_as_by_the_user(scp, data):
    with RawPeer(scp) as peer:
        peer.send(data)
        assert peer.receive() == (PDUType.ABORT, bytes(4))


def test_a_malformed_request_is_aborted(scp):
    with RawPeer(scp) as peer:
        peer.send(b"\1\0\0\0\0\x05hello")
        assert peer.receive() == (PDUType.ABORT, bytes(4))


def test_random_bytes_do_no_harm(scp):
    dice = random.Random(7)
    for n in range(40):
        with RawPeer(scp) as peer:
            if n % 2:
                peer.associate()
            data = dice.randbytes(dice.randrange(1, 400))
            peer.send((bytes([dice.choice((1, 4, 5)), 0]) if n % 4 > 1 else b"") + data)
    assert _is_well(scp)


def test_a_request_that_does_not_get_whole_ends_by_artim(scp, hurry):
    hurry()
    for begin in (b"", b"\1", b"\1\0\0\0\1\0abc"):
        with RawPeer(scp) as peer:
            with suppress(ConnectionError):  # we were so slow that it is over
                peer.send(begin)
            assert peer.receive()[0] == 0


def test_a_pdu_that_does_not_get_whole_is_aborted(scp, settings, hurry):
    with RawPeer(scp) as peer:
        peer.associate()
        peer.send(_half_a_store()[:-1])
        _wait_for_a_part(settings)
        hurry()
        assert peer.receive()[0] == PDUType.ABORT
    _wait_for_no_part(settings)


def test_bytes_that_trickle_do_not_keep_a_pdu_alive(scp, hurry):
    with RawPeer(scp) as peer:
        peer.associate()
        peer.send(struct.pack(">BxI", 4, 1 << 16))
        hurry()
        peer.socket.settimeout(0.05)
        end = time.monotonic() + ANSWER_TIMEOUT_S
        while time.monotonic() < end:
            with suppress(ConnectionError):  # what it said last can be read nevertheless
                peer.send(b"\0")
            try:
                if peer.socket.recv(10)[:1] == b"\7":
                    return
            except TimeoutError:
                continue
    pytest.fail("not aborted")


def test_an_association_may_be_slow_between_pdus(scp, hurry):
    with RawPeer(scp) as peer:
        peer.associate()
        hurry()
        with RawPeer(scp) as silent:
            assert silent.receive()[0] == 0, "ARTIM has run out since"
        assert peer.echo().status == 0


def test_an_idle_association_is_aborted(archive, settings):
    changed = _changed(settings, idle_timeout_s=0.3)
    with receiver(archive, changed) as scp, RawPeer(scp) as peer:
        peer.associate()
        assert peer.receive()[0] == PDUType.ABORT


def test_slow_and_silent_peers_delay_nobody(scp):
    crowd = [RawPeer(scp) for _ in range(30)]
    try:
        for n, peer in enumerate(crowd):
            peer.send(peer.request()[: n * 3])
        crowd[0].send(crowd[0].request())
        crowd[0].receive()
        crowd[0].send(_half_a_store())
        assert _is_well(scp), "they are given up only after PATIENT_S"
    finally:
        for peer in crowd:
            peer.socket.close()


def test_after_a_rejection_the_peer_may_close_within_artim(archive, settings, hurry):
    changed = _changed(settings, require_called_ae_title=True)
    with receiver(archive, changed) as scp, RawPeer(scp) as peer:
        peer.send(peer.request(called="OTHER"))
        assert peer.receive() == (PDUType.ASSOCIATE_RJ, bytes([0, 1, 1, 7]))
        peer.send(b"what is said now is not heard" * 1000)
        hurry()
        assert peer.receive()[0] == 0


@pytest.mark.parametrize("last", [encode_abort(0), b""], ids=["aborted", "connection closed"])
def test_a_peer_that_leaves_in_mid_data_set_leaves_nothing(scp, settings, last):
    with RawPeer(scp) as peer:
        peer.associate()
        peer.send(_half_a_store())
        _wait_for_a_part(settings)
        peer.send(last)
    _wait_for_no_part(settings)
    assert not list(settings.storage.root.glob("default/*/*/*.dcm"))


def test_release_in_mid_data_set_is_answered(scp, settings):
    with RawPeer(scp) as peer:
        peer.associate()
        peer.send(_half_a_store() + RELEASE_RQ)
        assert peer.receive()[0] == PDUType.RELEASE_RP
    assert not _left_over(settings)


def test_too_many_associations_are_rejected_for_now(archive, settings):
    changed = _changed(settings, max_associations=2)
    with (
        receiver(archive, changed) as scp,
        RawPeer(scp) as one,
        RawPeer(scp) as two,
        RawPeer(scp) as three,
        RawPeer(scp) as four,
    ):
        one.associate()
        two.associate()
        three.send(three.request())
        assert three.receive() == (PDUType.ASSOCIATE_RJ, bytes([0, 2, 3, 2]))
        one.release()
        four.associate()


def test_silent_connections_do_not_pile_up(archive, settings):
    with receiver(archive, _changed(settings, max_associations=4)) as scp:
        crowd = [RawPeer(scp) for _ in range(40)]
        try:
            assert crowd[0].receive()[0] == 0, "the oldest gives way"
            assert _is_well(scp)
        finally:
            for peer in crowd:
                peer.socket.close()


@pytest.mark.parametrize(
    ("changes", "called", "reason"),
    [
        ({"require_called_ae_title": True}, "OTHER", bytes([0, 1, 1, 7])),
        ({"allowed_calling_ae_titles": ("MR1",)}, "WADO", bytes([0, 1, 1, 3])),
    ],
)
def test_ae_titles_are_checked(archive, settings, changes, called, reason):
    with receiver(archive, _changed(settings, **changes)) as scp, RawPeer(scp) as peer:
        peer.send(peer.request(called=called))
        assert peer.receive() == (PDUType.ASSOCIATE_RJ, reason)


def _flood(peer: RawPeer, *, at_most_s: float) -> None:
    """Send requests until nothing is taken any more, for some time at most."""
    end = time.monotonic() + at_most_s
    while time.monotonic() < end:
        peer.send(PDATA * 2000)


def test_a_peer_that_reads_nothing_is_held_and_then_dropped(scp, hurry):
    with RawPeer(scp) as peer:
        peer.associate()
        peer.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            _flood(peer, at_most_s=ANSWER_TIMEOUT_S)
        assert _is_well(scp)
        hurry()
        peer.socket.settimeout(ANSWER_TIMEOUT_S)
        with pytest.raises(ConnectionError):
            _flood(peer, at_most_s=ANSWER_TIMEOUT_S)


def test_stopped_it_finishes_the_message_in_hand(archive, settings, monkeypatch):
    monkeypatch.setattr(app, "_DRAIN_S", PATIENT_S)
    ds = synthetic.ct()
    data = synthetic.data_set(ds)
    stop = Event()
    with (
        receiver(archive, settings.storescp, stop=stop) as scp,
        RawPeer(scp) as busy,
        RawPeer(scp) as idle,
    ):
        busy.associate()
        idle.associate()
        busy.send(pdata((CT_ID, WHOLE_COMMAND, store_request(ds)), (CT_ID, 0, data[:-100])))
        _wait_for_a_part(settings)
        stop.set()
        assert idle.receive()[0] == PDUType.ABORT
        busy.send(pdata((CT_ID, LAST, data[-100:])))
        assert busy.response().status == 0
        assert busy.receive()[0] == PDUType.ABORT


def test_stopped_it_does_not_wait_for_a_stalled_peer(archive, settings, monkeypatch):
    monkeypatch.setattr(app, "_DRAIN_S", 0.3)
    stop = Event()
    with receiver(archive, settings.storescp, stop=stop) as scp, RawPeer(scp) as peer:
        peer.associate()
        peer.send(_half_a_store())
        _wait_for_a_part(settings)
        stop.set()
        assert peer.receive()[0] == 0
    assert not _left_over(settings)
