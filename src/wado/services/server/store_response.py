"""The Store Instances Response Module (PS3.18 §10.5.3, PS3.3 §C.12.1.1), as JSON or XML."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from wado.dicom.media_types import DICOM_JSON, DICOM_XML, JSON, Offer, select
from wado.dicom.uids import InstanceRef, StudyRef
from wado.dicom.xml_model import to_xml
from wado.errors import NotAcceptable, TooLarge, WadoError
from wado.services.server.calls import Answer, Call, dicom_json_answer, warning
from wado.services.server.representations import acceptable_to

COERCED = 0xB000
"""Coercion of data elements (PS3.18 Table I.2-1)."""

_MAX_WARNINGS = 10
_MAX_FAILURES = 10_000
"""Parts that fail before the request as a whole does: each is remembered and answered."""
_WHOLE_ANSWER = frozenset({400, 413, 415, 503})
"""If nothing was stored and all failed so, the answer as a whole says so."""
_OFFERS = (Offer(DICOM_JSON), Offer(JSON), Offer(DICOM_XML))
_RETRY_AFTER = ("retry-after", "10")


@dataclass(frozen=True, slots=True)
class Failure:
    """A part that is not stored, and why; the UIDs are empty as far as it did not tell them."""

    sop_class_uid: str
    sop_instance_uid: str
    error: WadoError


@dataclass(frozen=True, slots=True)
class Done:
    """An instance that is safe; `warning_reason` is 0 if it is just as it was sent.

    `received_at` (ISO 8601, UTC) is given if it was not visible before.
    """

    ref: InstanceRef
    sop_class_uid: str
    warning_reason: int = 0
    received_at: str = ""


@dataclass(slots=True)
class Results:
    """What became of the parts of a request."""

    stored: list[Done] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    warnings: dict[str, None] = field(default_factory=dict)

    def fail(self, failure: Failure) -> None:
        """Note a part that is not stored.

        Raises
        ------
        TooLarge
            There were too many before it.
        """
        if len(self.failed) >= _MAX_FAILURES:
            raise TooLarge(f"over {_MAX_FAILURES} parts of the request can't be stored")
        self.failed.append(failure)

    def warn(self, text: str) -> None:
        """Note what the sender should know, though it stopped nothing."""
        if len(self.warnings) < _MAX_WARNINGS:
            self.warnings[text] = None


def chosen_media_type(call: Call) -> str:
    """Choose the form of the answer.

    Raises
    ------
    NotAcceptable
        The client takes none that there is.
    """
    offer = select(acceptable_to(call), _OFFERS)
    if offer is None:
        raise NotAcceptable(f"the answer can be had as {DICOM_JSON} and as {DICOM_XML}")
    return offer.media_type


def response(call: Call, results: Results, study: StudyRef | None, media_type: str) -> Answer:
    """Make the answer; `study` is that of the path, if it names one."""
    module: dict[str, Any] = {}
    refs = {done.ref.study for done in results.stored}
    at = study or (refs.pop() if len(refs) == 1 else None)
    base_url = call.base_url
    if at is not None:
        module["00081190"] = _element("UR", f"{base_url}/{at.path}")
    known = [failure for failure in results.failed if failure.sop_instance_uid]
    other = [failure for failure in results.failed if not failure.sop_instance_uid]
    for tag, items in (
        ("00081198", [_failed_item(failure) for failure in known]),
        ("00081199", [_stored_item(base_url, done) for done in results.stored]),
        # Other Failures: parts that could not even be identified.
        ("0008119A", [_reason_item(failure) for failure in other]),
    ):
        if items:
            module[tag] = {"vr": "SQ", "Value": items}
    body: Any = to_xml(module) if media_type == DICOM_XML else module
    answer = dicom_json_answer(body, status=_status(results), media_type=media_type)
    answer.headers += [warning(text) for text in _texts(results)]
    if answer.status == 503:
        answer.headers.append(_RETRY_AFTER)
    return answer


def _texts(results: Results) -> Sequence[str]:
    reasons = dict.fromkeys(str(failure.error) for failure in results.failed)
    return list(reasons | results.warnings)[:_MAX_WARNINGS]


def _status(results: Results) -> int:
    """Count the status from the instances (PS3.18 Table 10.5.3-1).

    All stored as sent: 200; some failed, or were changed: 202; none stored: 409, or the reason
    that all have in common.
    """
    if not results.failed:
        return 202 if any(done.warning_reason for done in results.stored) else 200
    if results.stored:
        return 202
    statuses = {failure.error.http for failure in results.failed}
    return statuses.pop() if len(statuses) == 1 and statuses <= _WHOLE_ANSWER else 409


def _element(vr: str, value: str | int) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]} if value != "" else {"vr": vr}


def _stored_item(base_url: str, done: Done) -> dict[str, Any]:
    item = {
        "00081150": _element("UI", done.sop_class_uid),
        "00081155": _element("UI", done.ref.sop_instance_uid),
        "00081190": _element("UR", f"{base_url}/{done.ref.path}"),
    }
    if done.warning_reason:
        item["00081196"] = _element("US", done.warning_reason)
    return item


def _failed_item(failure: Failure) -> dict[str, Any]:
    return {
        "00081150": _element("UI", failure.sop_class_uid),
        "00081155": _element("UI", failure.sop_instance_uid),
        **_reason_item(failure),
    }


def _reason_item(failure: Failure) -> dict[str, Any]:
    return {"00081197": _element("US", failure.error.dimse)}
