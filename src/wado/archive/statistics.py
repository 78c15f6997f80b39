"""What came of transcoding, counted in the warehouse by queries that DuckDB and Doris understand.

A row of `dicom_transcode_log` is an attempt. A failure counts while no later attempt at what was
asked for went well, whatever copy that made, and failures whose reasons differ only in numbers
count as one.
"""

import re
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from threading import Lock
from typing import Any

from wado.archive.health import Question
from wado.archive.health import waiting as messages_waiting
from wado.errors import Unavailable
from wado.ports import Archive, Warehouse
from wado.records import Topic

MOST_REASONS = 100
"""Most failures that are listed, the frequent ones first."""
_MOST_SHAPES = 1000
_MOST_QUESTIONS = 64
_LIMIT_S = 4.0
_KEEP_S = 5.0
_NUMBER = re.compile(r"(?<![\d.])(?<!JPEG )\d+(?:[.,]\d+)?(?!\.?\d)")
"""A number, and no UID."""
_SHAPE = reduce(lambda text, digit: f"REPLACE({text}, '{digit}', '#')", "0123456789", "reason")
"""The reason with its digits made alike; there is no other way that both warehouses know."""
_IN_ALL = """SELECT
    COUNT(CASE WHEN succeeded THEN 1 END) AS made,
    COUNT(CASE WHEN succeeded THEN NULL ELSE 1 END) AS failed
FROM dicom_transcode_log WHERE {which}"""
_CONVERSIONS = """SELECT transfer_syntax_uid, target_transfer_syntax_uid,
    COUNT(CASE WHEN succeeded THEN 1 END) AS made,
    COUNT(CASE WHEN succeeded THEN NULL ELSE 1 END) AS failed,
    COALESCE(SUM(CASE WHEN succeeded THEN number_of_frames END), 0) AS frames,
    COALESCE(SUM(CASE WHEN succeeded THEN file_size END), 0) AS bytes_before,
    COALESCE(SUM(CASE WHEN succeeded THEN derived_size END), 0) AS bytes_after,
    AVG(CASE WHEN succeeded THEN duration_ms END) AS mean_ms
FROM dicom_transcode_log WHERE {which}
GROUP BY transfer_syntax_uid, target_transfer_syntax_uid
ORDER BY made DESC, failed DESC, transfer_syntax_uid, target_transfer_syntax_uid"""
_FAILURES = """WITH failed AS (
    SELECT tenant_id, study_instance_uid, series_instance_uid, sop_instance_uid,
        transfer_syntax_uid, target_transfer_syntax_uid, MAX(transcoded_at) AS last_at,
        COALESCE(MAX_BY(reason, transcoded_at), 'no reason was given') AS reason
    FROM dicom_transcode_log WHERE {which} AND NOT succeeded
    GROUP BY tenant_id, study_instance_uid, series_instance_uid, sop_instance_uid,
        transfer_syntax_uid, target_transfer_syntax_uid
)
SELECT transfer_syntax_uid, target_transfer_syntax_uid, {shape} AS shape,
    MIN(reason) AS one_reason, MAX(reason) AS another, COUNT(*) AS copies, MAX(last_at) AS latest,
    MAX_BY(CONCAT(study_instance_uid, ' ', series_instance_uid, ' ', sop_instance_uid), last_at)
        AS example
FROM failed
WHERE NOT EXISTS (
    SELECT 1 FROM dicom_transcode_log AS later
    WHERE later.succeeded AND later.tenant_id = failed.tenant_id
        AND later.study_instance_uid = failed.study_instance_uid
        AND later.series_instance_uid = failed.series_instance_uid
        AND later.sop_instance_uid = failed.sop_instance_uid
        AND later.requested_transfer_syntax_uid = failed.target_transfer_syntax_uid
        AND later.transcoded_at > failed.last_at
)
GROUP BY transfer_syntax_uid, target_transfer_syntax_uid, shape
ORDER BY copies DESC, latest DESC
LIMIT {most}"""


@dataclass(frozen=True, slots=True)
class Attempts:
    """How many attempts at copies went well, and how many failed."""

    succeeded: int
    failed: int


@dataclass(frozen=True, slots=True)
class Conversion:
    """Attempts at copies from one transfer syntax into another.

    Frames, sizes in bytes and mean duration in milliseconds are of those that went well.
    """

    transfer_syntax_uid: str
    target_transfer_syntax_uid: str
    succeeded: int
    failed: int
    frames: int
    bytes_before: int
    bytes_after: int
    mean_ms: float | None


@dataclass(frozen=True, slots=True)
class Example:
    """One of the instances that something happened to, the last."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Copies that could not be made, for one reason; where its numbers differ, it has ``N``."""

    reason: str
    transfer_syntax_uid: str
    target_transfer_syntax_uid: str
    count: int
    last_at: str
    example: Example


@dataclass(frozen=True, slots=True)
class Transcoding:
    """What came of transcoding since a time; `waiting` (of all tenants) is None if not known."""

    waiting: int | None
    since: str
    conversions: Sequence[Conversion]
    failures: Sequence[Failure]


class TranscodingStatistics:
    """Counts for those who ask often and don't wait long: each question is asked once at a time.

    Parameters
    ----------
    archive
        Its log and warehouse are asked.
    limit_s
        How long to wait for an answer; one that comes later is there for who asks again.
    """

    def __init__(self, archive: Archive, *, limit_s: float = _LIMIT_S) -> None:
        self._archive = archive
        self._limit_s = limit_s
        self._questions: OrderedDict[tuple[str, str], Question] = OrderedDict()
        self._lock = Lock()

    def of(self, tenant_id: str, since: str) -> Transcoding:
        """Count what came of transcoding for a tenant since a time (ISO 8601, UTC).

        Raises
        ------
        Unavailable
            The warehouse does not answer, or not yet.
        """
        with self._lock:
            question = self._questions.pop((tenant_id, since), None)
            if question is None:
                question = Question(partial(self._ask, tenant_id, since), keep_s=_KEEP_S)
            self._questions[tenant_id, since] = question
            if len(self._questions) > _MOST_QUESTIONS:
                self._questions.popitem(last=False)
        question.begin()
        found = question.found(time.monotonic() + self._limit_s)
        if not found.answered:
            raise Unavailable(f"the warehouse can't be asked: {found.reason}")
        counted: Transcoding = found.value
        return counted

    def _ask(self, tenant_id: str, since: str) -> Transcoding:
        warehouse = self._archive.warehouse
        return Transcoding(
            waiting(self._archive),
            since,
            conversions(warehouse, since=since, tenant_id=tenant_id),
            failures(warehouse, since=since, tenant_id=tenant_id),
        )


def waiting(archive: Archive) -> int | None:
    """Count the copies that are still to be made; None if the log can't tell now."""
    try:
        return messages_waiting(archive, Topic.TRANSCODE)
    except Unavailable:
        return None


def attempts(warehouse: Warehouse, *, since: str = "", tenant_id: str | None = None) -> Attempts:
    """Count attempts since a time (ISO 8601, UTC), of a tenant or of all.

    Raises
    ------
    Unavailable
        The warehouse does not answer.
    """
    which, parameters = _which(since, tenant_id)
    (row,) = warehouse.query(_IN_ALL.format(which=which), parameters)
    return Attempts(int(row["made"]), int(row["failed"]))


def conversions(
    warehouse: Warehouse, *, since: str = "", tenant_id: str | None = None
) -> list[Conversion]:
    """Sum up attempts by transfer syntax, the most frequent first; else as `attempts`."""
    which, parameters = _which(since, tenant_id)
    rows = warehouse.query(_CONVERSIONS.format(which=which), parameters)
    return [
        Conversion(
            row["transfer_syntax_uid"],
            row["target_transfer_syntax_uid"],
            int(row["made"]),
            int(row["failed"]),
            int(row["frames"]),
            int(row["bytes_before"]),
            int(row["bytes_after"]),
            None if row["mean_ms"] is None else float(row["mean_ms"]),
        )
        for row in rows
    ]


def failures(
    warehouse: Warehouse,
    *,
    since: str = "",
    tenant_id: str | None = None,
    most: int = MOST_REASONS,
) -> list[Failure]:
    """Count copies that could not be made, the most frequent reason first; else as `attempts`."""
    which, parameters = _which(since, tenant_id)
    sql = _FAILURES.format(which=which, shape=_SHAPE, most=_MOST_SHAPES)
    return _merged(warehouse.query(sql, parameters))[:most]


def _which(since: str, tenant_id: str | None) -> tuple[str, list[Any]]:
    """Say which rows are meant, and give the parameters."""
    conditions, parameters = ["1 = 1"], []
    if tenant_id is not None:
        conditions.append("tenant_id = ?")
        parameters.append(tenant_id)
    if since:
        conditions.append("transcoded_at >= ?")
        parameters.append(since)
    return " AND ".join(conditions), parameters


def without_numbers(reason: str) -> str:
    """Make reasons alike that differ in numbers only: of frames, of bytes; UIDs stay."""
    return _NUMBER.sub("N", reason)


def _merged(rows: Iterable[dict[str, Any]]) -> list[Failure]:
    """Make one of reasons whose numbers have more or fewer digits."""
    found: dict[Sequence[str], Failure] = {}
    for row in rows:
        alike = without_numbers(row["one_reason"])
        failure = Failure(
            alike if row["one_reason"] != row["another"] else row["one_reason"],
            row["transfer_syntax_uid"],
            row["target_transfer_syntax_uid"],
            int(row["copies"]),
            row["latest"],
            Example(*row["example"].split(" ")),
        )
        key = (alike, failure.transfer_syntax_uid, failure.target_transfer_syntax_uid)
        found[key] = _together(found[key], failure, alike) if key in found else failure
    return sorted(found.values(), key=lambda f: f.count, reverse=True)


def _together(one: Failure, other: Failure, alike: str) -> Failure:
    last = max(one, other, key=lambda failure: failure.last_at)
    return replace(last, reason=alike, count=one.count + other.count)
