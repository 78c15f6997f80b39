"""What is answered to a request for an association."""

from dataclasses import replace

import pytest

from wado.dicom.pdu import AssociateRequest, ContextResult, ProposedContext
from wado.dicom.user_information import (
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    RoleSelection,
    UserIdentity,
    UserInformation,
)
from wado.services.storescp import negotiation
from wado.services.storescp.negotiation import (
    STORAGE_SERVICE_CLASS,
    VERIFICATION,
    Agreed,
    Policy,
    accept,
    agreed_contexts,
    reason_to_reject,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
MPPS = "1.2.840.10008.3.1.2.3.3"
FUTURE = "1.2.840.10008.5.1.4.1.1.999.7"
PRIVATE = "1.3.12.2.1107.5.9.1"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
JPEG = "1.2.840.10008.1.2.4.50"
POLICY = Policy(
    called_ae_titles=None,
    calling_ae_titles=frozenset(),
    max_pdu_bytes=131072,
    unknown_sop_classes=False,
    implementation_class_uid="1.2.3",
    implementation_version_name="TEST",
)


def _request(*contexts: tuple[str, tuple[str, ...]], **user: object) -> AssociateRequest:
    proposed = tuple(ProposedContext(2 * n + 1, *context) for n, context in enumerate(contexts))
    return AssociateRequest("WADO", "CT1", proposed, UserInformation(**user))  # type: ignore[arg-type]  # any field


def _results(request: AssociateRequest, policy: Policy = POLICY) -> list[tuple[int, str]]:
    return [(c.result, c.transfer_syntax) for c in accept(request, policy).contexts]


def test_each_context_has_its_own_answer():
    request = _request(
        (CT, (JPEG, EXPLICIT)),
        (VERIFICATION, (JPEG, IMPLICIT)),
        (VERIFICATION, (JPEG,)),
        (MPPS, (EXPLICIT,)),
        (CT, ()),
        (CT, ("no uid", PRIVATE)),
    )
    assert _results(request) == [
        (ContextResult.ACCEPTANCE, JPEG),
        (ContextResult.ACCEPTANCE, IMPLICIT),
        (ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED, JPEG),
        (ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED, EXPLICIT),
        (ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED, ""),
        (ContextResult.ACCEPTANCE, PRIVATE),
    ]
    assert agreed_contexts(request, accept(request, POLICY)) == {
        1: Agreed(CT, JPEG),
        3: Agreed(VERIFICATION, IMPLICIT),
        11: Agreed(CT, PRIVATE),
    }


@pytest.mark.parametrize(
    ("abstract_syntax", "allowed"),
    [(FUTURE, True), (PRIVATE, True), (MPPS, False), ("../../etc", False)],
)
def test_unknown_storage_classes_only_when_a_setting_allows_them(abstract_syntax, allowed):
    request = _request((abstract_syntax, (EXPLICIT,)))
    assert _results(request)[0][0] == ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED
    result = _results(request, replace(POLICY, unknown_sop_classes=True))[0][0]
    assert (result == ContextResult.ACCEPTANCE) == allowed


def test_a_class_declared_as_storage_is_one():
    declared = (CommonExtendedNegotiation("1.2.840.10008.9.9", STORAGE_SERVICE_CLASS),)
    request = _request(("1.2.840.10008.9.9", (EXPLICIT,)), common_extended=declared)
    policy = replace(POLICY, unknown_sop_classes=True)
    assert _results(request, policy)[0][0] == ContextResult.ACCEPTANCE


def test_user_items_are_answered():
    request = _request(
        (CT, (EXPLICIT,)),
        max_pdu_bytes=16384,
        async_window=(0, 8),
        roles=(RoleSelection(CT, 1, 1),),
        extended=(ExtendedNegotiation(CT, b"\2\0\3\0\1\0"), ExtendedNegotiation(MPPS, b"x")),
        user_identity=UserIdentity(1, positive_response_requested=True, primary_field=b"me"),
    )
    user = accept(request, POLICY).user
    assert user.max_pdu_bytes == 131072
    assert user.async_window == (1, 1)
    assert user.roles == (RoleSelection(CT, 1, 0),)
    assert user.extended == (ExtendedNegotiation(CT, b"\2\0\3\0\0\0"),)
    assert user.user_identity_response == b""


def test_what_was_not_asked_is_not_answered():
    user = accept(_request((CT, (EXPLICIT,))), POLICY).user
    assert user.async_window is None
    assert user.user_identity_response is None
    silent = _request(
        user_identity=UserIdentity(1, positive_response_requested=False, primary_field=b"me")
    )
    assert accept(silent, POLICY).user.user_identity_response is None


@pytest.mark.parametrize(
    ("change", "policy", "expected"),
    [
        ({}, {}, None),
        ({"protocol_version": 3}, {}, None),
        ({"protocol_version": 2}, {}, negotiation.PROTOCOL_VERSION),
        ({"application_context": "1.2"}, {}, negotiation.WRONG_APPLICATION_CONTEXT),
        ({}, {"called_ae_titles": frozenset({"OTHER"})}, negotiation.CALLED_NOT_RECOGNISED),
        ({}, {"called_ae_titles": frozenset({"WADO"})}, None),
        ({}, {"calling_ae_titles": frozenset({"MR1"})}, negotiation.CALLING_NOT_RECOGNISED),
        ({}, {"calling_ae_titles": frozenset({"CT1"})}, None),
    ],
)
def test_reasons_to_reject(change, policy, expected):
    request = replace(_request((CT, (EXPLICIT,))), **change)
    assert reason_to_reject(request, replace(POLICY, **policy)) == expected
