"""Storage commitment (PS3.18 ch. 13, Annex J): whether instances are safe, by reading them anew.

A request and its result are the two lines of a journal of their own, so a transaction UID is taken
once and a result written once, whoever else tries. Between the two, the log says who works on it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from wado.archive.delete import in_groups
from wado.archive.describe import study_views
from wado.archive.digests import digest_of
from wado.archive.journal import Journals, SeriesView
from wado.archive.paths import commitment_path, instance_path
from wado.archive.reading import must_answer, reading
from wado.dicom.uids import InstanceRef, SeriesRef, StudyRef, validate_uid
from wado.errors import (
    DuplicateTransaction,
    Gone,
    InvalidRequest,
    NotFound,
    TooLarge,
    Unreadable,
    WadoError,
)
from wado.ports import Archive, Message
from wado.records import CommitmentMeta, Topic

SAFE = 0
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
CLASS_CONFLICT = 0x0119
"""Failure Reason (0008,1197), PS3.3 §C.14.1.1."""

_REQUESTED = "commitments/requested.journal"
"""All requests in the order of their time, so that old ones are found."""
_EXPIRED_FACTOR = 2
"""How many times as long as its result an expired request is remembered: 410 then, not 404."""
_MAX_UIDS = 500

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for: an instance, or (by Referenced Study Sequence) all of a series or study.

    `in_study` tells in which of the two sequences it was, and is answered.
    """

    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""

    @property
    def in_study(self) -> bool:
        """Whether it was asked for by its study."""
        return bool(self.study_instance_uid)


@dataclass(frozen=True, slots=True)
class Transaction:
    """A request, and its result (DICOM JSON) once there is one."""

    requested_at: str
    wanted: Sequence[Wanted]
    result: Json | None = None


# ------------------------------------------------------------------ the request


def read_request(payload: Json, *, max_references: int) -> list[Wanted]:
    """Read a Storage Commitment Request Module (PS3.18 §J.1) in the DICOM JSON Model.

    Raises
    ------
    InvalidRequest
        It asks for nothing, or an item lacks a UID.
    TooLarge
        It asks for more than `max_references` instances.
    """
    wanted = [
        Wanted(_uid(item, "00081150"), _uid(item, "00081155"))
        for item in _items(payload, "00081199")
    ]
    for study in _items(payload, "00081110"):
        wanted += _of_study(study)
    wanted = list(dict.fromkeys(wanted))
    if not wanted:
        raise InvalidRequest(
            "neither Referenced SOP Sequence (0008,1199) nor Referenced Study Sequence (0008,1110)"
            " has an item"
        )
    if len(wanted) > max_references:
        raise TooLarge(f"over {max_references} references in one request")
    return wanted


def _of_study(study: Json) -> Iterator[Wanted]:
    study_instance_uid = _uid(study, "0020000D")
    all_series = _items(study, "00081115")
    if not all_series:
        yield Wanted(study_instance_uid=study_instance_uid)
    for series in all_series:
        at = (study_instance_uid, _uid(series, "0020000E"))
        classes = _items(series, "00081112")
        if not classes:
            yield Wanted("", "", *at)
        for of_class in classes:
            sop_class_uid = _uid(of_class, "00081150")
            for item in _items(of_class, "0008114A"):
                yield Wanted(sop_class_uid, _uid(item, "00081155"), *at)


def _items(data_set: Json, tag: str) -> Sequence[Json]:
    element = data_set.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    if values is None:
        return ()
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise InvalidRequest(f"({tag[:4]},{tag[4:]}) is not a sequence")
    return values


def _uid(data_set: Json, tag: str) -> str:
    element = data_set.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    if not isinstance(values, list) or len(values) != 1 or not isinstance(values[0], str):
        raise InvalidRequest(f"an item has no ({tag[:4]},{tag[4:]})")
    return validate_uid(values[0])


def request_commitment(
    archive: Archive, meta: CommitmentMeta, wanted: Sequence[Wanted], *, keep_s: float
) -> Transaction:
    """Take a request, durably, and have it worked on; the same again is the same transaction.

    Raises
    ------
    DuplicateTransaction
        The transaction UID was used for another request.
    Gone
        It was used for this one, and the result is not kept any more.
    Unavailable
        Neither taken nor refused: the log can't be written now.
    """
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    path = commitment_path(meta.tenant_id, meta.transaction_uid)
    line = {"requested_at": now, "wanted": [_written(item) for item in wanted]}
    note = {"at": now, "tenant_id": meta.tenant_id, "transaction_uid": meta.transaction_uid}
    if archive.store.version(path) is None:
        archive.store.append({_REQUESTED: orjson.dumps(note) + b"\n"})
        archive.store.append({path: orjson.dumps(line) + b"\n"}, at=0)
    known = find_transaction(archive, meta.tenant_id, meta.transaction_uid, keep_s=keep_s)
    if list(known.wanted) != list(wanted):
        raise DuplicateTransaction("the transaction UID is in use for another request")
    if known.result is None:
        archive.log.publish([Message(Topic.COMMITMENT, meta.key, meta.to_json())])
    return known


def find_transaction(
    archive: Archive, tenant_id: str, transaction_uid: str, *, keep_s: float
) -> Transaction:
    """Read what is known of a transaction.

    Raises
    ------
    NotFound
        There is none with this UID.
    Gone
        Its result is not kept any more.
    """
    transaction = _read(archive, tenant_id, transaction_uid)
    if transaction is None:
        raise NotFound("no such storage commitment transaction")
    if _age_s(transaction.requested_at) > keep_s:
        raise Gone("the result of this storage commitment is not kept any more")
    return transaction


def _written(item: Wanted) -> list[str]:
    return [
        item.sop_class_uid,
        item.sop_instance_uid,
        item.study_instance_uid,
        item.series_instance_uid,
    ]


def _read(archive: Archive, tenant_id: str, transaction_uid: str) -> Transaction | None:
    path = commitment_path(tenant_id, transaction_uid)
    if archive.store.version(path) is None:
        return None
    with reading(path), archive.store.open(path) as file:
        lines = [line for line in file if line.endswith(b"\n")]
    if not lines:
        return None
    request = orjson.loads(lines[0])
    wanted = [Wanted(*values) for values in request["wanted"]]
    result = orjson.loads(lines[1])["result"] if len(lines) > 1 else None
    return Transaction(request["requested_at"], wanted, result)


def _age_s(time: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()


# ------------------------------------------------------------------ the work


def work_on(
    archive: Archive, journals: Journals, meta: CommitmentMeta, settle: Callable[[], object]
) -> bool:
    """Find the result of a request and write it down; False if there is nothing to do.

    `settle` waits until what was stored a moment ago can be found.

    Raises
    ------
    Unavailable
        A service does not answer; the message comes again.
    Unreadable
        The disk does not give the request.
    """
    transaction = _read(archive, meta.tenant_id, meta.transaction_uid)
    if transaction is None or transaction.result is not None:
        return False
    path = commitment_path(meta.tenant_id, meta.transaction_uid)
    version = archive.store.version(path)
    result = _Work(archive, journals, meta.tenant_id, settle).result(transaction.wanted)
    line = {
        "finished_at": datetime.now(UTC).isoformat(timespec="microseconds"),
        "result": result,
    }
    at = version[1] if version else 0
    return archive.store.append({path: orjson.dumps(line) + b"\n"}, at=at)


@dataclass(frozen=True, slots=True)
class _Work:
    archive: Archive
    journals: Journals
    tenant_id: str
    settle: Callable[[], object]

    def result(self, wanted: Sequence[Wanted]) -> Json:
        alone = [item for item in wanted if not item.in_study]
        places = self._places([item.sop_instance_uid for item in alone])
        good: list[Json] = []
        bad: list[Json] = []
        for item in alone:
            reason = self._best(item, places.get(item.sop_instance_uid, ()))
            reference = _reference(item.sop_class_uid, item.sop_instance_uid)
            if reason == SAFE:
                good.append(reference)
            else:
                bad.append({**reference, **_reason(reason)})
        safe, failed = _Studies(), _Studies()
        for item in wanted:
            if item.in_study:
                self._in_study(item, safe, failed)
        module = {
            "00081110": safe.items(),
            "00081198": bad,
            "00081199": good,
            "0008119B": failed.items(),
        }
        return {tag: {"vr": "SQ", "Value": items} for tag, items in module.items() if items}

    def _places(self, sop_instance_uids: Sequence[str]) -> Mapping[str, Sequence[SeriesRef]]:
        """Find the series of instances: the warehouse knows them by their UID alone."""
        found = self._known_places(sop_instance_uids)
        missing = [uid for uid in sop_instance_uids if uid not in found]
        if missing:
            self.settle()
            found |= self._known_places(missing)
        return found

    def _known_places(self, sop_instance_uids: Sequence[str]) -> dict[str, list[SeriesRef]]:
        found: dict[str, list[SeriesRef]] = defaultdict(list)
        for uids in in_groups(sop_instance_uids, _MAX_UIDS):
            places = ", ".join("?" * len(uids))
            rows = self.archive.warehouse.query(
                "select sop_instance_uid, study_instance_uid, series_instance_uid"  # noqa: S608
                f" from dicom_image_meta where tenant_id = ? and sop_instance_uid in ({places})",
                (self.tenant_id, *uids),
            )
            for row in rows:
                ref = SeriesRef(
                    self.tenant_id, row["study_instance_uid"], row["series_instance_uid"]
                )
                found[row["sop_instance_uid"]].append(ref)
        return dict(found)

    def _best(self, item: Wanted, places: Iterable[SeriesRef]) -> int:
        """Say how safe an instance is; of several by its UID, one that is safe is enough."""
        reasons: list[int] = []
        for ref in places:
            try:
                reasons.append(self._verdict(self.journals.view(ref), item))
            except Unreadable:
                must_answer(self.archive.store)
                reasons.append(PROCESSING_FAILURE)
        return min(reasons, default=NO_SUCH_INSTANCE)

    def _verdict(self, view: SeriesView | None, item: Wanted) -> int:
        entry = view.entries.get(item.sop_instance_uid) if view else None
        if view is None or entry is None:
            return NO_SUCH_INSTANCE
        if item.sop_class_uid not in ("", entry.sop_class_uid):
            return CLASS_CONFLICT
        at = view.ref
        ref = InstanceRef(
            at.tenant_id, at.study_instance_uid, at.series_instance_uid, item.sop_instance_uid
        )
        try:
            digest = digest_of(self.archive.store, instance_path(ref))
        except NotFound:
            return NO_SUCH_INSTANCE
        except (WadoError, OSError):  # such as a damaged disk: not safe, and not for lack of it
            return PROCESSING_FAILURE
        return SAFE if digest == entry.digest else PROCESSING_FAILURE

    def _in_study(self, item: Wanted, safe: "_Studies", failed: "_Studies") -> None:
        try:
            views = self._views(item)
        except Unreadable:
            must_answer(self.archive.store)
            failed.add(item, PROCESSING_FAILURE)
            return
        if not any(views):
            failed.add(item, NO_SUCH_INSTANCE)
        for view in views:
            at = view.ref if view else None
            uids = [item.sop_instance_uid] if item.sop_instance_uid else []
            for uid in uids or [
                entry.sop_instance_uid for entry in (view.ordered() if view else [])
            ]:
                entry = view.entries.get(uid) if view else None
                name = item.sop_class_uid or (entry.sop_class_uid if entry else "")
                series = at.series_instance_uid if at else item.series_instance_uid
                one = Wanted(name, uid, item.study_instance_uid, series)
                reason = self._verdict(view, one)
                (safe if reason == SAFE else failed).add(one, reason)

    def _views(self, item: Wanted) -> Sequence[SeriesView]:
        study = StudyRef(self.tenant_id, item.study_instance_uid)
        if not item.series_instance_uid:
            return study_views(self.archive, self.journals, study)
        view = self.journals.view(
            SeriesRef(self.tenant_id, item.study_instance_uid, item.series_instance_uid)
        )
        return [view] if view else []


@dataclass(slots=True)
class _Studies:
    """Instances by study, series and class, as Annex J nests them."""

    found: dict[str, dict[str, dict[str, list[Json]]]] = field(default_factory=dict)
    reasons: dict[tuple[str, ...], int] = field(default_factory=dict)

    def add(self, item: Wanted, reason: int) -> None:
        of_study = self.found.setdefault(item.study_instance_uid, {})
        if not item.series_instance_uid:
            self.reasons[item.study_instance_uid,] = reason
            return
        of_series = of_study.setdefault(item.series_instance_uid, {})
        if not item.sop_instance_uid:
            self.reasons[item.study_instance_uid, item.series_instance_uid] = reason
            return
        one = {"00081155": _element("UI", item.sop_instance_uid)}
        of_series.setdefault(item.sop_class_uid, []).append(
            {**one, **_reason(reason)} if reason else one
        )

    def items(self) -> list[Json]:
        return [
            {
                "0020000D": _element("UI", study),
                "00081115": {
                    "vr": "SQ",
                    "Value": [
                        self._series(study, series, classes) for series, classes in found.items()
                    ],
                },
                **self._reason_of(study),
            }
            for study, found in self.found.items()
        ]

    def _series(self, study: str, series: str, classes: Mapping[str, list[Json]]) -> Json:
        instances = [
            {
                "00081150": _element("UI", sop_class_uid),
                "0008114A": {"vr": "SQ", "Value": items},
            }
            for sop_class_uid, items in classes.items()
        ]
        return {
            "0020000E": _element("UI", series),
            "00081112": {"vr": "SQ", "Value": instances},
            **self._reason_of(study, series),
        }

    def _reason_of(self, *key: str) -> Json:
        reason = self.reasons.get(key)
        return _reason(reason) if reason else {}


def _element(vr: str, value: str | int) -> Json:
    return {"vr": vr, "Value": [value]}


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Json:
    return {
        "00081150": _element("UI", sop_class_uid),
        "00081155": _element("UI", sop_instance_uid),
    }


def _reason(reason: int) -> Json:
    return {"00081197": _element("US", reason)}


# ------------------------------------------------------------------ forgetting


def forget_commitments(archive: Archive, *, keep_s: float) -> int:
    """Remove the requests that are so old that nobody may ask for them; how many.

    Raises
    ------
    Unreadable
        The disk does not give the list of them.
    """
    version = archive.store.version(_REQUESTED)
    if version is None:
        return 0
    with reading(_REQUESTED), archive.store.open(_REQUESTED) as file:
        notes = [line for line in file if line.endswith(b"\n")]
    old: list[Json] = []
    for line in notes:  # in the order of their time
        note = orjson.loads(line)
        if _age_s(note["at"]) <= keep_s * _EXPIRED_FACTOR:
            break
        old.append(note)
    if not old:
        return 0
    paths = [commitment_path(note["tenant_id"], note["transaction_uid"]) for note in old]
    archive.store.delete(paths)
    archive.store.put_document(_REQUESTED, notes[len(old) :], at=version[1])
    return len(old)
