"""PDUs: what is written is read back, layouts are those of PS3.8, nonsense is refused."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wado.dicom.pdu import (
    COMMAND,
    LAST,
    RELEASE_RP,
    RELEASE_RQ,
    Abort,
    AbortReason,
    AbortSource,
    AnsweredContext,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    Fragment,
    ProposedContext,
    decode_abort,
    decode_associate_accept,
    decode_associate_reject,
    decode_associate_request,
    decode_fragments,
    encode_abort,
    encode_associate_accept,
    encode_associate_reject,
    encode_associate_request,
    encode_command,
    fragment_bytes,
)
from wado.dicom.user_information import (
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    RoleSelection,
    UserIdentity,
    UserInformation,
    write_item,
)
from wado.errors import MalformedPDU

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"

uids = st.lists(st.integers(1, 99999), min_size=2, max_size=7).map(lambda n: ".".join(map(str, n)))
titles = st.text("ABZ09_", min_size=1, max_size=16)
bytes_ = st.binary(max_size=40)
limits = st.integers(0, 2**32 - 1)
shorts = st.integers(0, 65535)
users = st.builds(
    UserInformation,
    max_pdu_bytes=limits,
    implementation_class_uid=uids,
    implementation_version_name=titles,
    async_window=st.none() | st.tuples(shorts, shorts),
    roles=st.lists(
        st.builds(RoleSelection, uids, st.integers(0, 1), st.integers(0, 1)), max_size=3
    ).map(tuple),
    extended=st.lists(st.builds(ExtendedNegotiation, uids, bytes_), max_size=3).map(tuple),
    common_extended=st.lists(st.builds(CommonExtendedNegotiation, uids, uids), max_size=3).map(
        tuple
    ),
    user_identity=st.none()
    | st.builds(UserIdentity, st.integers(1, 5), st.booleans(), bytes_, bytes_),
)
requests = st.builds(
    AssociateRequest,
    titles,
    titles,
    st.lists(
        st.builds(
            ProposedContext,
            st.integers(0, 127).map(lambda n: 2 * n + 1),
            uids,
            st.lists(uids, max_size=4).map(tuple),
        ),
        max_size=5,
        unique_by=lambda context: context.context_id,
    ).map(tuple),
    users,
)


def _request(**user: object) -> AssociateRequest:
    contexts = (ProposedContext(1, CT, (EXPLICIT,)),)
    return AssociateRequest("WADO", "CT1", contexts, UserInformation(**user))  # type: ignore[arg-type]  # any field


@given(requests)
def test_a_request_is_read_back(request_):
    pdu = encode_associate_request(request_)
    assert pdu[0] == 1
    assert int.from_bytes(pdu[2:6], "big") == len(pdu) - 6
    assert decode_associate_request(pdu[6:]) == request_


@given(users, st.lists(st.builds(AnsweredContext, st.just(3), st.integers(0, 4), uids)).map(tuple))
def test_an_acceptance_is_read_back(user, contexts):
    accept = AssociateAccept("WADO", "CT1", contexts, user)
    assert decode_associate_accept(encode_associate_accept(accept)[6:]) == accept


def test_the_layout_of_a_request_is_that_of_the_standard():
    pdu = encode_associate_request(_request(max_pdu_bytes=16384, implementation_class_uid="1.2"))
    assert pdu[6:10] == b"\0\1\0\0"
    assert pdu[10:26] == b"WADO            "
    assert pdu[26:42] == b"CT1             "
    assert pdu[42:74] == bytes(32)
    context = b"\1\0\0\0" + b"\x30\0\0\x19" + CT.encode() + b"\x40\0\0\x13" + EXPLICIT.encode()
    user = b"\x51\0\0\4" + b"\0\0\x40\0" + b"\x52\0\0\3" + b"1.2"
    assert pdu[74:] == (
        b"\x10\0\0\x15" + b"1.2.840.10008.3.1.1.1"
        + b"\x20\0\0" + bytes([len(context)]) + context
        + b"\x50\0\0" + bytes([len(user)]) + user
    )  # fmt: skip


def test_unknown_items_and_user_items_are_passed_over():
    pdu = encode_associate_request(_request(max_pdu_bytes=7))
    user_start = pdu.index(b"\x51\0\0\4")
    sub_items = write_item(0x99, b"new") + pdu[user_start:]
    body = pdu[6 : user_start - 4] + write_item(0x77, b"?") + write_item(0x50, sub_items)
    assert decode_associate_request(body) == _request(max_pdu_bytes=7)


def test_uids_padded_with_nul_and_titles_with_spaces_are_cut():
    pdu = encode_associate_request(
        AssociateRequest(" A", "B", (ProposedContext(1, CT + "\0", (EXPLICIT + " ",)),), _user())
    )
    request = decode_associate_request(pdu[6:])
    assert request.called_ae_title == "A"
    assert request.contexts == (ProposedContext(1, CT, (EXPLICIT,)),)


def _user() -> UserInformation:
    return UserInformation()


@pytest.mark.parametrize("context_ids", [(2,), (1, 1)], ids=["even", "repeated"])
def test_wrong_context_ids_are_refused(context_ids):
    contexts = tuple(ProposedContext(n, CT, (EXPLICIT,)) for n in context_ids)
    pdu = encode_associate_request(AssociateRequest("A", "B", contexts, _user()))
    with pytest.raises(MalformedPDU, match="presentation context id"):
        decode_associate_request(pdu[6:])


@given(requests, st.data())
def test_a_cut_request_is_refused_or_shorter_but_never_fails_otherwise(request_, data):
    body = encode_associate_request(request_)[6:]
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    with contextlib.suppress(MalformedPDU):
        assert decode_associate_request(cut) != request_


@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_are_refused_and_nothing_worse(body, padded):
    if padded:
        body = bytes(68) + body
    for decode in (
        decode_associate_request,
        decode_associate_accept,
        decode_associate_reject,
        decode_abort,
        lambda data: list(decode_fragments(data)),
    ):
        with contextlib.suppress(MalformedPDU):
            decode(body)


@given(requests, st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8))
def test_a_damaged_request_is_read_or_refused(request_, damage):
    body = bytearray(encode_associate_request(request_)[6:])
    for position, value in damage:
        body[position % len(body)] = value
    with contextlib.suppress(MalformedPDU):
        decode_associate_request(bytes(body))


def test_rejections_and_aborts_are_sentences():
    reject = decode_associate_reject(encode_associate_reject(AssociateReject(2, 3, 2))[6:])
    assert reject.is_transient
    assert str(reject) == "rejected for now: local limit exceeded (2/3/2)"
    assert "called AE title" in str(AssociateReject(1, 1, 7))
    assert "no reason given" in str(AssociateReject(1, 1, 1))
    abort = encode_abort(AbortSource.SERVICE_PROVIDER, AbortReason.UNEXPECTED_PDU)
    assert str(decode_abort(abort[6:])) == "aborted by the peer's upper layer: unexpected pdu"
    assert str(Abort(0, 0)) == "aborted by the peer"


def test_a_service_user_gives_no_reason():
    assert encode_abort(AbortSource.SERVICE_USER, 6) == b"\7\0\0\0\0\4\0\0\0\0"


def test_release_pdus():
    assert RELEASE_RQ == b"\5\0\0\0\0\4\0\0\0\0"
    assert RELEASE_RP == b"\6\0\0\0\0\4\0\0\0\0"


@given(st.binary(min_size=1, max_size=400), st.integers(0, 200))
def test_a_command_is_split_to_the_limit_of_the_peer(command_set, limit):
    pdus = encode_command(5, command_set, limit)
    fragments: list[Fragment] = []
    while pdus:
        length = int.from_bytes(pdus[2:6], "big")
        assert pdus[0] == 4
        assert not limit or length <= max(limit, 16)
        fragments += decode_fragments(pdus[6 : 6 + length])
        pdus = pdus[6 + length :]
    assert b"".join(fragment.data for fragment in fragments) == command_set
    assert [f.control for f in fragments] == [COMMAND] * (len(fragments) - 1) + [COMMAND | LAST]
    assert {f.context_id for f in fragments} == {5}


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [(0, 131066), (16384, 16378), (16383, 16376), (1 << 30, 131066), (1, 10)],
)
def test_fragments_are_even_and_within_both_limits(theirs, expected):
    assert fragment_bytes(theirs) == expected


def test_several_fragments_in_one_pdu():
    body = b"\0\0\0\4\1\3ab" + b"\0\0\0\2\3\2"
    assert list(decode_fragments(body)) == [Fragment(1, 3, b"ab"), Fragment(3, 2, b"")]


def test_the_user_identity_is_not_shown():
    assert "secret" not in repr(
        UserIdentity(2, positive_response_requested=False, primary_field=b"secret")
    )
