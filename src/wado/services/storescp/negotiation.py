"""What is answered to an A-ASSOCIATE-RQ (PS3.8 §7.1, PS3.7 Annex D, PS3.4 §B.3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from wado.dicom.pdu import (
    APPLICATION_CONTEXT,
    AnsweredContext,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    ContextResult,
    ProposedContext,
)
from wado.dicom.sop_classes import STORAGE_SOP_CLASSES
from wado.dicom.uids import validate_uid
from wado.dicom.user_information import ExtendedNegotiation, RoleSelection, UserInformation
from wado.errors import InvalidUID

VERIFICATION: Final = "1.2.840.10008.1.1"
STORAGE_SERVICE_CLASS: Final = "1.2.840.10008.4.2"
_UNCOMPRESSED: Final = frozenset(
    {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}
)
_STANDARD_ROOT: Final = "1.2.840.10008."
_STORAGE_ROOT: Final = "1.2.840.10008.5.1.4.1.1."
_SUB_RELATED_GENERAL: Final = b"\2\0\3\0\0\0"
"""Level 2 (full), signatures kept bit by bit, nothing coerced (PS3.4 Table B.3-2)."""

WRONG_APPLICATION_CONTEXT: Final = AssociateReject(1, 1, 2)
CALLING_NOT_RECOGNISED: Final = AssociateReject(1, 1, 3)
CALLED_NOT_RECOGNISED: Final = AssociateReject(1, 1, 7)
PROTOCOL_VERSION: Final = AssociateReject(1, 2, 2)
LOCAL_LIMIT: Final = AssociateReject(2, 3, 2)


@dataclass(frozen=True, slots=True)
class Policy:
    """With whom we associate, and for what.

    `called_ae_titles` None stands for any, an empty `calling_ae_titles` likewise.
    """

    called_ae_titles: frozenset[str] | None
    calling_ae_titles: frozenset[str]
    max_pdu_bytes: int
    unknown_sop_classes: bool
    implementation_class_uid: str
    implementation_version_name: str


@dataclass(frozen=True, slots=True)
class Agreed:
    """An accepted presentation context."""

    abstract_syntax: str
    transfer_syntax: str


def reason_to_reject(request: AssociateRequest, policy: Policy) -> AssociateReject | None:
    """Check who asks for whom, by which protocol; None when nothing speaks against it."""
    if not request.protocol_version & 1:  # only bit 0 counts (PS3.8 Table 9-11)
        return PROTOCOL_VERSION
    if request.application_context != APPLICATION_CONTEXT:
        return WRONG_APPLICATION_CONTEXT
    called = policy.called_ae_titles
    if called is not None and request.called_ae_title not in called:
        return CALLED_NOT_RECOGNISED
    calling = policy.calling_ae_titles
    if calling and request.calling_ae_title not in calling:
        return CALLING_NOT_RECOGNISED
    return None


def accept(request: AssociateRequest, policy: Policy) -> AssociateAccept:
    """Answer each presentation context and each user item that has an answer."""
    declared = {
        item.sop_class_uid
        for item in request.user.common_extended
        if item.service_class_uid == STORAGE_SERVICE_CLASS
    }
    contexts = tuple(_answer(context, policy, declared) for context in request.contexts)
    return AssociateAccept(
        called_ae_title=request.called_ae_title,
        calling_ae_title=request.calling_ae_title,
        contexts=contexts,
        user=_user_answer(request.user, policy),
    )


def agreed_contexts(request: AssociateRequest, answer: AssociateAccept) -> Mapping[int, Agreed]:
    """Join request and answer: the accepted contexts by their id."""
    abstract = {context.context_id: context.abstract_syntax for context in request.contexts}
    return {
        context.context_id: Agreed(abstract[context.context_id], context.transfer_syntax)
        for context in answer.contexts
        if context.result == ContextResult.ACCEPTANCE
    }


def _answer(context: ProposedContext, policy: Policy, declared: set[str]) -> AnsweredContext:
    proposed = context.transfer_syntaxes
    abstract = context.abstract_syntax
    # The transfer syntax of a refused context is not significant (PS3.8 Table 9-18).
    refused = proposed[0] if proposed else ""
    if abstract == VERIFICATION:
        chosen = next((uid for uid in proposed if uid in _UNCOMPRESSED), None)
    elif _is_stored(abstract, policy, declared):
        chosen = next(filter(_is_uid, proposed), None)
    else:
        result = ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED
        return AnsweredContext(context.context_id, result, refused)
    if chosen is None:
        result = ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED
        return AnsweredContext(context.context_id, result, refused)
    return AnsweredContext(context.context_id, ContextResult.ACCEPTANCE, chosen)


def _is_stored(abstract_syntax: str, policy: Policy, declared: set[str]) -> bool:
    if abstract_syntax in STORAGE_SOP_CLASSES:
        return True
    if not policy.unknown_sop_classes or not _is_uid(abstract_syntax):
        return False
    return (
        abstract_syntax in declared
        or abstract_syntax.startswith(_STORAGE_ROOT)
        or not abstract_syntax.startswith(_STANDARD_ROOT)
    )


def _is_uid(text: str) -> bool:
    try:
        return bool(validate_uid(text))
    except InvalidUID:
        return False


def _user_answer(user: UserInformation, policy: Policy) -> UserInformation:
    identity = user.user_identity
    wants_response = identity is not None and identity.positive_response_requested
    return UserInformation(
        max_pdu_bytes=policy.max_pdu_bytes,
        implementation_class_uid=policy.implementation_class_uid,
        implementation_version_name=policy.implementation_version_name,
        async_window=None if user.async_window is None else (1, 1),
        roles=tuple(RoleSelection(r.sop_class_uid, r.scu_role & 1, 0) for r in user.roles),
        extended=tuple(
            ExtendedNegotiation(item.sop_class_uid, _SUB_RELATED_GENERAL)
            for item in user.extended
            if item.sop_class_uid in STORAGE_SOP_CLASSES
        ),
        user_identity_response=b"" if wants_response else None,
    )
