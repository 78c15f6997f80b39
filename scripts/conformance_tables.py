"""The tables of docs/conformance.md: made from routes, errors, SOP classes, keys and tests."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, fields
from http import HTTPStatus
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import conformance_report
from wado import errors
from wado.archive.transcode_rules import ELSEWHERE, is_video, targets
from wado.dicom.codec_table import can_encode, why_not_decoded
from wado.dicom.matching import KEYS, Level
from wado.dicom.sop_classes import STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES
from wado.records import DicomImageMeta
from wado.services.server.routes import DICOMWEB, Route
from wado.transcode_settings import TranscodeSettings

_NEVER_SENT = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.2"}


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def transactions() -> str:
    """Write each route that is part of PS3.18, or of its neighbourhood."""
    head = ("PS3.18", "transaction", "request", "media types of the answer", "status")
    return _table(head, map(_transaction, DICOMWEB))


def _transaction(route: Route) -> Sequence[str]:
    path = re.sub(r"\{(\w+)(:path)?\}", r"{\1}", route.path)
    return (
        f"§{route.section}" if route.section else "-",
        route.title,
        f"`{route.method} {path}`",
        ", ".join(f"`{name}`" for name in route.produces),
        ", ".join(map(str, route.statuses)),
    )


def statuses() -> str:
    """Write the error tree with its HTTP and DIMSE status, which Failure Reason is as well."""

    def rows() -> Iterator[Sequence[str]]:
        classes = [
            kind
            for kind in vars(errors).values()
            if isinstance(kind, type) and issubclass(kind, errors.WadoError)
        ]
        for kind in sorted(classes, key=lambda kind: (kind.http, kind.dimse, kind.__name__)):
            what = (kind.__doc__ or "").strip().splitlines()[0]
            phrase = HTTPStatus(kind.http).phrase
            yield (f"`{kind.__name__}`", f"{kind.http} {phrase}", f"{kind.dimse:04X}H", what)

    return _table(("error", "HTTP", "DIMSE status, Failure Reason (0008,1197)", "meaning"), rows())


def sop_classes() -> str:
    """Write every SOP class that is stored."""
    rows = ((name, f"`{uid}`") for uid, name in STORAGE_SOP_CLASSES.items())
    return _table(("SOP class", "UID"), rows)


def transfer_syntaxes() -> str:
    """Write what is received, sent, decoded and made of each transfer syntax."""

    def rows() -> Iterator[Sequence[str]]:
        for uid, syntax in TRANSFER_SYNTAXES.items():
            sent = "never" if uid in _NEVER_SENT else "as stored"
            if can_encode(uid) and uid not in _NEVER_SENT:
                sent = "as stored, or transcoded"
            reason = why_not_decoded(uid)
            decoded = f"no: {reason}" if reason else "yes"
            yield (syntax.name, f"`{uid}`", "yes", sent, decoded, _copy(uid))

    head = ("transfer syntax", "UID", "stored", "sent by DICOMweb", "decoded", "copy for viewers")
    return _table(head, rows())


def _copy(uid: str) -> str:
    """Say which copy is made of an image that arrives, by the settings as they come."""
    texts: dict[str, Any] = dict.fromkeys(
        (field.name for field in fields(DicomImageMeta) if field.default is MISSING), ""
    )
    image = DicomImageMeta(**{**texts, "file_size": 0, "transfer_syntax_uid": uid})
    found = targets(TranscodeSettings(), image, has_pixels=uid not in ELSEWHERE)
    if not found:
        return "not needed"
    ((target, _),) = found
    if target == uid:
        return "the same in MP4, if it is not"
    if is_video(uid):
        return "H.264"
    return "no: the reason is recorded" if why_not_decoded(uid) else "HTJ2K, or Explicit VR"


def keys() -> str:
    """Write the matching keys of studies and series; instances match by any attribute."""
    rows = (
        (f"({k.tag[:4]},{k.tag[4:]})", f"`{k.keyword}`", k.vr, str(k.level))
        for level in Level
        for k in KEYS
        if k.level is level
    )
    return _table(("tag", "attribute", "VR", "level"), rows)


def checklist() -> str:
    """Write each line of the checklist and the tests that show it."""
    shown = conformance_report.marked_tests()

    def rows() -> Iterator[Sequence[str]]:
        for line in conformance_report.lines():
            what = f"{line.text}: {line.declined}" if line.declined else line.text
            answer = "declined" if line.declined else "yes"
            tests = ", ".join(f"`{name.rpartition('::')[2]}`" for name in shown.get(line.id, []))
            yield (f"§{line.section}" if line.section else "-", line.need, what, answer, tests)

    return _table(("PS3.18", "need", "what", "offered", "shown by the tests"), rows())


TABLES: dict[str, Callable[[], str]] = {
    "transactions": transactions,
    "statuses": statuses,
    "sop classes": sop_classes,
    "transfer syntaxes": transfer_syntaxes,
    "keys": keys,
    "checklist": checklist,
}
