"""Cutting: the same PDUs and bytes come out, however the bytes come in."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wado.dicom.pdu import AbortReason, PDUType
from wado.errors import MalformedPDU
from wado.services.storescp.framing import MAX_ASSOCIATE_BYTES, Framing

LIMIT = 4096


@dataclass
class Recorder:
    """Notes what is found, fragments joined."""

    found: list[tuple[object, ...]] = field(default_factory=list)
    piece: bytes = b""
    hold_after: int = -1
    framing: Framing | None = None

    def expect_pdu(self, pdu_type: PDUType) -> None:
        pass

    def take_pdu(self, pdu_type: PDUType, body: bytes) -> None:
        self.found.append((pdu_type, body))

    def take_fragment(self, context_id: int, control: int, piece: memoryview, left: int) -> None:
        self.piece += piece
        if not left:
            self.found.append((context_id, control, self.piece))
            self.piece = b""
            if len(self.found) == self.hold_after and self.framing:
                self.framing.held = True


def _pdu(pdu_type: int, body: bytes) -> bytes:
    return bytes([pdu_type, 0]) + len(body).to_bytes(4, "big") + body


def _pdata(*fragments: tuple[int, int, bytes]) -> bytes:
    return _pdu(
        4, b"".join((len(d) + 2).to_bytes(4, "big") + bytes([c, m]) + d for c, m, d in fragments)
    )


fragments = st.tuples(st.integers(1, 255), st.integers(0, 3), st.binary(max_size=50))
pdus = st.lists(
    st.one_of(
        st.lists(fragments, min_size=1, max_size=4).map(lambda f: (_pdata(*f), f)),
        st.tuples(st.sampled_from([PDUType.RELEASE_RQ, PDUType.ABORT]), st.binary(max_size=9)).map(
            lambda p: (_pdu(*p), [p])
        ),
    ),
    min_size=1,
    max_size=6,
)


def _feed(framing: Framing, data: bytes, cuts: list[int]) -> bytes:
    """Offer the data in parts, as a buffer would; what was not taken is offered again."""
    rest = b""
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        rest += data[start:end]
        rest = rest[framing.feed(memoryview(rest)) :]
    return rest


@given(pdus, st.data())
def test_the_parts_in_which_bytes_come_do_not_matter(pdus_, data):
    stream = b"".join(pdu for pdu, _ in pdus_)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    recorder = Recorder()
    framing = Framing(recorder, LIMIT)
    assert _feed(framing, stream, cuts) == b""
    assert recorder.found == [tuple(item) for _, items in pdus_ for item in items]
    assert not framing.is_inside


def test_byte_by_byte():
    stream = _pdata((1, 3, b"abcd"), (1, 2, b"")) + _pdu(5, bytes(4))
    recorder = Recorder()
    framing = Framing(recorder, LIMIT)
    assert _feed(framing, stream, list(range(1, len(stream)))) == b""
    assert recorder.found == [(1, 3, b"abcd"), (1, 2, b""), (PDUType.RELEASE_RQ, bytes(4))]


def test_held_it_stops_behind_the_piece_in_hand():
    stream = _pdata((1, 3, b"ab"), (1, 2, b"cd")) + _pdu(5, bytes(4))
    recorder = Recorder(hold_after=2)
    framing = recorder.framing = Framing(recorder, LIMIT)
    rest = stream[framing.feed(memoryview(stream)) :]
    assert rest == _pdu(5, bytes(4))
    framing.held = False
    assert framing.feed(memoryview(rest)) == len(rest)
    assert len(recorder.found) == 3


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"G", AbortReason.UNRECOGNIZED_PDU),
        (b"\x08", AbortReason.UNRECOGNIZED_PDU),
        (_pdu(4, b""), AbortReason.INVALID_PDU_PARAMETER_VALUE),
        (_pdu(4, b"\0\0\0\1\1"), AbortReason.INVALID_PDU_PARAMETER_VALUE),
        (_pdu(4, b"\0\0\0\1\1\3"), AbortReason.INVALID_PDU_PARAMETER_VALUE),
        (_pdu(4, b"\0\0\0\x09\1\3ab"), AbortReason.INVALID_PDU_PARAMETER_VALUE),
        (b"\4\0\xff\xff\xff\xff", AbortReason.INVALID_PDU_PARAMETER_VALUE),
        (b"\1\0" + MAX_ASSOCIATE_BYTES.to_bytes(4, "big"), AbortReason.INVALID_PDU_PARAMETER_VALUE),
    ],
)
def test_what_breaks_the_rules_is_refused_as_soon_as_it_shows(data, reason):
    with pytest.raises(MalformedPDU) as caught:
        Framing(Recorder(), LIMIT).feed(memoryview(data))
    assert caught.value.reason == reason


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_and_nothing_worse(data):
    try:
        used = Framing(Recorder(), LIMIT).feed(memoryview(data))
        assert 0 <= used <= len(data)
    except MalformedPDU:
        pass
