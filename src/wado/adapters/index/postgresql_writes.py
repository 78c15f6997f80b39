"""How a batch of states is written to PostgreSQL: a few round trips, whatever the batch holds.

Rows travel as JSON and are merged by set statements. For each
tenant: its studies are locked in the order of their keys; series, studies, patients follow; then
what other tables repeat of the studies. So two consumers that write to one study wait for each
other and count right, and all take locks in the same order: they don't deadlock.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

import orjson
from psycopg import errors

from wado.adapters.index.postgresql_session import BoundedConnection
from wado.adapters.index.postgresql_staging import ARRIVING, FORGET, PATIENT_FIELDS, staged
from wado.adapters.index.postgresql_values import LONGEST_NAME, cut, storable
from wado.adapters.index.tables import NAMES, NUMBERS, SERIES_FIELDS, SORTED_BY, STUDY_FIELDS
from wado.dicom.names import fold
from wado.dicom.uids import SeriesRef
from wado.records import DicomStateMeta

MANY = 200
"""So many series travel quicker by COPY than as JSON."""
_PATIENT_KEY = ("issuer_of_patient_id", "patient_id")
_STUDY_COLUMNS = ("study_instance_uid", *STUDY_FIELDS, *(f"{name}_search" for name in NAMES))
_SERIES_COLUMNS = (
    "study_instance_uid",
    "series_instance_uid",
    *(*SERIES_FIELDS, *SORTED_BY),
)
_PATIENT_COLUMNS = (*_PATIENT_KEY, *PATIENT_FIELDS)
_COUNTS = (
    "number_of_study_related_series",
    "number_of_study_related_instances",
    "modalities_in_study",
)
_SERIES_VALUES = attrgetter("series_instance_uid", *SERIES_FIELDS, *SORTED_BY)
_STUDY_VALUES = attrgetter(*STUDY_FIELDS)
_PATIENT_VALUES = attrgetter(*PATIENT_FIELDS)
_NAMES = attrgetter(*NAMES)


def _listed(columns: Iterable[str], prefix: str = "") -> str:
    return ", ".join(f"{prefix}{column}" for column in columns)


def _given(columns: Sequence[str]) -> str:
    """Write the rows that come as JSON as a table."""
    typed = (f"{c} {'bigint' if c in NUMBERS else 'text'}" for c in columns)
    return f"json_to_recordset(%(rows)s::json) AS i({', '.join(typed)})"


_LOCK = """SELECT study_instance_uid, coalesce(issuer_of_patient_id, ''), coalesce(patient_id, ''),
    study_date, study_time, coalesce(modalities_in_study, ''), number_of_study_related_series
    FROM study WHERE tenant_id = %(tenant)s AND study_instance_uid = ANY(%(studies)s)
    ORDER BY study_instance_uid"""
_ARRIVED = "arriving AS i"
_ARRIVED_STUDIES = "(SELECT * FROM arriving WHERE arrival = 1) AS i"


def _put_series(rows: str) -> str:
    return f"""WITH changed AS (
    INSERT INTO series (tenant_id, {_listed(_SERIES_COLUMNS)})
    SELECT %(tenant)s, {_listed(_SERIES_COLUMNS)} FROM {rows}
    ORDER BY study_instance_uid COLLATE "C", series_instance_uid COLLATE "C"
    ON CONFLICT (tenant_id, study_instance_uid, series_instance_uid) DO UPDATE
    SET ({_listed(_SERIES_COLUMNS[2:])}) = ROW({_listed(_SERIES_COLUMNS[2:], "excluded.")})
    WHERE ({_listed(_SERIES_COLUMNS[2:], "series.")})
    IS DISTINCT FROM ({_listed(_SERIES_COLUMNS[2:], "excluded.")})
    RETURNING tenant_id, study_instance_uid, series_instance_uid
)"""  # noqa: S608 - names of our own, here and below


_AWAIT = """ INSERT INTO series_awaiting
    SELECT *, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM changed
    ORDER BY study_instance_uid, series_instance_uid
    ON CONFLICT (tenant_id, study_instance_uid, series_instance_uid) DO UPDATE
    SET version = greatest(series_awaiting.version + 1, excluded.version)"""
_AWAIT_NOT = """ DELETE FROM series_awaiting a USING changed c WHERE a.tenant_id = c.tenant_id
    AND a.study_instance_uid = c.study_instance_uid
    AND a.series_instance_uid = c.series_instance_uid"""
_COUNTED = """LATERAL (SELECT count(*) AS number_of_study_related_series,
    coalesce(sum(number_of_series_related_instances), 0)::bigint
    AS number_of_study_related_instances,
    string_agg(DISTINCT modality, '\\' ORDER BY modality) FILTER (WHERE modality <> '')
    AS modalities_in_study
    FROM series WHERE tenant_id = %(tenant)s
    AND study_instance_uid = i.study_instance_uid) AS n"""
_STUDY_COLUMNS_SET = f"{_listed(_STUDY_COLUMNS[1:])}, {_listed(_COUNTS)}"


def _put_studies(rows: str) -> str:
    return f"""INSERT INTO study (tenant_id, study_instance_uid, {_STUDY_COLUMNS_SET})
    SELECT %(tenant)s, {_listed(_STUDY_COLUMNS, "i.")}, {_listed(_COUNTS, "n.")}
    FROM {rows}, {_COUNTED}
    ORDER BY i.study_instance_uid COLLATE "C"
    ON CONFLICT (tenant_id, study_instance_uid) DO UPDATE
    SET ({_STUDY_COLUMNS_SET}) = ROW({_listed((*_STUDY_COLUMNS[1:], *_COUNTS), "excluded.")})
    WHERE ({_listed((*_STUDY_COLUMNS[1:], *_COUNTS), "study.")})
    IS DISTINCT FROM ({_listed((*_STUDY_COLUMNS[1:], *_COUNTS), "excluded.")})
    RETURNING study_instance_uid, xmax = 0"""  # noqa: S608 - xmax: 0 if it was inserted


_PUT_SERIES, _COPIED_SERIES = map(_put_series, (_given(_SERIES_COLUMNS), _ARRIVED))
_PUT_STUDIES, _COPIED_STUDIES = map(_put_studies, (_given(_STUDY_COLUMNS), _ARRIVED_STUDIES))
_PUT_PATIENTS = f"""INSERT INTO patient (tenant_id, {_listed(_PATIENT_COLUMNS)})
    SELECT %(tenant)s, {_listed(_PATIENT_COLUMNS)} FROM {_given(_PATIENT_COLUMNS)}
    ORDER BY issuer_of_patient_id COLLATE "C", patient_id COLLATE "C"
    ON CONFLICT (tenant_id, {_listed(_PATIENT_KEY)}) DO UPDATE
    SET ({_listed(PATIENT_FIELDS)}) = ROW({_listed(PATIENT_FIELDS, "excluded.")})
    WHERE ({_listed(PATIENT_FIELDS, "patient.")})
    IS DISTINCT FROM ({_listed(PATIENT_FIELDS, "excluded.")})"""  # noqa: S608
_REMOVED = """tenant_id = %(tenant)s AND (study_instance_uid, series_instance_uid) IN (
    SELECT * FROM unnest(%(of)s::text[], %(removed)s::text[]))"""
_REMOVE_SERIES = f"DELETE FROM series WHERE {_REMOVED}"  # noqa: S608
_REMOVE_AWAITING = f"DELETE FROM series_awaiting WHERE {_REMOVED}"  # noqa: S608
_COUNT_REST = f"""UPDATE study SET ({_listed(_COUNTS)}) = (
    SELECT {_listed(_COUNTS)} FROM (SELECT study.study_instance_uid) AS i, {_COUNTED})
    WHERE tenant_id = %(tenant)s AND study_instance_uid = ANY(%(studies)s)"""  # noqa: S608
_REMOVE_STUDIES = """DELETE FROM study
    WHERE tenant_id = %(tenant)s AND study_instance_uid = ANY(%(studies)s)
    AND NOT EXISTS (SELECT FROM series WHERE series.tenant_id = study.tenant_id
    AND series.study_instance_uid = study.study_instance_uid)"""
_ORPHANS = "(SELECT * FROM unnest(%(issuers)s::text[], %(patients)s::text[]))"
_LOCK_ORPHANS = f"""SELECT FROM patient WHERE tenant_id = %(tenant)s
    AND (issuer_of_patient_id, patient_id) IN {_ORPHANS}
    ORDER BY issuer_of_patient_id, patient_id FOR UPDATE"""
_REMOVE_ORPHANS = f"""DELETE FROM patient WHERE tenant_id = %(tenant)s
    AND (issuer_of_patient_id, patient_id) IN {_ORPHANS}
    AND NOT EXISTS (SELECT FROM study WHERE study.tenant_id = patient.tenant_id
        AND study.patient_id = patient.patient_id
        AND coalesce(study.issuer_of_patient_id, '') = patient.issuer_of_patient_id)
    AND NOT EXISTS (SELECT FROM study WHERE study.tenant_id = patient.tenant_id
        AND study.patient_id IS NULL AND patient.patient_id = ''
        AND coalesce(study.issuer_of_patient_id, '') = patient.issuer_of_patient_id)"""  # noqa: S608
_DATE_SERIES = """UPDATE series SET study_date = %(date)s, study_time = %(time)s
    WHERE tenant_id = %(tenant)s AND study_instance_uid = %(study)s
    AND (study_date, study_time) IS DISTINCT FROM (%(date)s, %(time)s)"""
_REMOVE_MODALITIES = """DELETE FROM study_modality
    WHERE tenant_id = %(tenant)s AND (study_instance_uid, modality) IN (
    SELECT * FROM unnest(%(studies)s::text[], %(modalities)s::text[]))"""
_PUT_MODALITIES = """INSERT INTO study_modality
    (tenant_id, study_instance_uid, modality, study_date, study_time)
    SELECT %(tenant)s, * FROM unnest(
    %(studies)s::text[], %(modalities)s::text[], %(dates)s::text[], %(times)s::text[])
    ON CONFLICT (tenant_id, study_instance_uid, modality) DO UPDATE
    SET study_date = excluded.study_date, study_time = excluded.study_time"""
_ADD_TO_COUNT = """INSERT INTO study_count AS c (tenant_id, study_date, studies, series)
    SELECT %(tenant)s, * FROM unnest(%(dates)s::text[], %(studies)s::bigint[], %(series)s::bigint[])
    ON CONFLICT (tenant_id, study_date)
    DO UPDATE SET studies = c.studies + excluded.studies, series = c.series + excluded.series"""
_MARK_DESCRIBED = """DELETE FROM series_awaiting WHERE tenant_id = %(tenant)s
    AND (study_instance_uid, series_instance_uid, version) IN (
    SELECT * FROM unnest(%(studies)s::text[], %(series)s::text[], %(versions)s::bigint[]))"""
_LOCK_SERIES = """SELECT FROM series WHERE tenant_id = %(tenant)s
    AND (study_instance_uid, series_instance_uid) IN (
    SELECT * FROM unnest(%(studies)s::text[], %(series)s::text[]))
    ORDER BY study_instance_uid, series_instance_uid FOR KEY SHARE"""
_AWAIT_AGAIN = """INSERT INTO series_awaiting
    SELECT tenant_id, study_instance_uid, series_instance_uid,
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM series
    WHERE tenant_id = %(tenant)s AND (study_instance_uid, series_instance_uid) IN (
    SELECT * FROM unnest(%(studies)s::text[], %(series)s::text[]))
    ORDER BY study_instance_uid, series_instance_uid
    ON CONFLICT (tenant_id, study_instance_uid, series_instance_uid) DO UPDATE
    SET version = greatest(series_awaiting.version + 1, excluded.version)"""
_LOCK_AWAITING = """SELECT FROM series_awaiting WHERE tenant_id = %(tenant)s
    AND (study_instance_uid, series_instance_uid) IN (
    SELECT * FROM unnest(%(studies)s::text[], %(series)s::text[]))
    ORDER BY study_instance_uid, series_instance_uid FOR UPDATE"""


class Collision(errors.SerializationFailure):
    """Somebody else made a study that we were about to make: begin again."""


@dataclass(slots=True)
class _Changes:
    """What a batch changes of one tenant."""

    tenant_id: str
    series: list[DicomStateMeta] = field(default_factory=list)
    studies: dict[str, DicomStateMeta] = field(default_factory=dict)
    removed: list[tuple[str, str]] = field(default_factory=list)

    @property
    def is_large(self) -> bool:
        """Whether COPY pays."""
        return len(self.series) >= MANY

    @property
    def touched(self) -> list[str]:
        """UIDs of all studies, in order."""
        return sorted({*self.studies, *(study for study, _ in self.removed)})


@dataclass(frozen=True, slots=True)
class _Study:
    """What other tables repeat of a study row."""

    patient: tuple[str, str]
    date: str | None
    time: str | None
    modalities: str
    series: int

    @property
    def rows(self) -> set[tuple[str, str | None, str | None]]:
        """Modality, date and time, as `study_modality` repeats them."""
        return {(m, self.date, self.time) for m in self.modalities.split("\\") if m}


def prepared(states: Sequence[DicomStateMeta]) -> list[_Changes]:
    """Sort states by tenant, each series once: the last state wins."""
    last: dict[SeriesRef, DicomStateMeta] = {}
    for state in states:
        last.pop(state.series, None)
        last[state.series] = state
    tenants: dict[str, _Changes] = {}
    for ref, state in last.items():
        of_tenant = tenants.setdefault(ref.tenant_id, _Changes(ref.tenant_id))
        if state.number_of_series_related_instances > 0:
            of_tenant.studies[ref.study_instance_uid] = state
        else:
            of_tenant.removed.append((ref.study_instance_uid, ref.series_instance_uid))
    for ref, state in last.items():
        if state.number_of_series_related_instances > 0:
            changes = tenants[ref.tenant_id]
            changes.series.append(_dated(state, changes.studies[ref.study_instance_uid]))
    return [tenants[tenant_id] for tenant_id in sorted(tenants)]


def put(
    connection: BoundedConnection,
    changes: _Changes,
    *,
    described: bool = False,
    by_copy: bool = False,
) -> None:
    """Write what changes of one tenant, inside a transaction; `described` ones don't wait.

    COPY is no part of a pipeline: the connection must be in none.

    Raises
    ------
    psycopg.errors.SerializationFailure, DeadlockDetected, UniqueViolation
        Somebody else wrote the same rows; the transaction can be tried again.
    """
    tenant, touched = changes.tenant_id, changes.touched
    keys = {"tenant": tenant, "studies": touched}
    run = connection.execute
    if by_copy:
        run(ARRIVING)
        is_last = (int(changes.studies[s.study_instance_uid] is s) for s in changes.series)
        staged(connection, changes.series, is_last)
    with connection.pipeline():
        known = run(f"{_LOCK} FOR UPDATE", keys, prepare=True)
        if changes.removed:
            _remove(connection, changes)
        written = _put_rows(connection, changes, described=described, by_copy=by_copy)
        if by_copy:
            run(FORGET)
        if changes.removed:
            run(_COUNT_REST, keys)
            run(_REMOVE_STUDIES, keys)
        present = run(_LOCK, keys, prepare=True)
        before, after = _studies(known.fetchall()), _studies(present.fetchall())
        made = {uid for uid, is_new in written.fetchall() if is_new} if written else set()
        if after.keys() - before.keys() - made:
            raise Collision("a study was made by another meanwhile")
    _repeat(connection, tenant, before, after)


def mark_described(
    connection: BoundedConnection, described: Iterable[tuple[SeriesRef, int]]
) -> None:
    """Take series that still have the version off the waiting list, inside a transaction."""
    by_tenant: dict[str, list[tuple[str, str, int]]] = defaultdict(list)
    for ref, version in described:
        row = (ref.study_instance_uid, ref.series_instance_uid, version)
        by_tenant[ref.tenant_id].append(row)
    for tenant_id, rows in sorted(by_tenant.items()):
        studies, series, versions = (list(column) for column in zip(*sorted(rows), strict=True))
        keys = {"tenant": tenant_id, "studies": studies, "series": series, "versions": versions}
        connection.execute(_LOCK_AWAITING, keys)
        connection.execute(_MARK_DESCRIBED, keys)


def await_description(connection: BoundedConnection, refs: Iterable[SeriesRef]) -> None:
    """Put series that are there on the waiting list again, inside a transaction.

    They are locked first: one that is removed meanwhile would wait for ever.
    """
    by_tenant: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for ref in refs:
        by_tenant[ref.tenant_id].add((ref.study_instance_uid, ref.series_instance_uid))
    for tenant_id, rows in sorted(by_tenant.items()):
        studies, series = (list(column) for column in zip(*sorted(rows), strict=True))
        keys = {"tenant": tenant_id, "studies": studies, "series": series}
        connection.execute(_LOCK_SERIES, keys)
        connection.execute(_AWAIT_AGAIN, keys)


def _put_rows(
    connection: BoundedConnection, changes: _Changes, *, described: bool, by_copy: bool
) -> Any:
    """Write series, studies and patients; the cursor of studies that were inserted or updated."""
    if not changes.series:
        return None
    run, tenant = connection.execute, {"tenant": changes.tenant_id}
    await_too = _AWAIT_NOT if described else _AWAIT
    if by_copy:
        run(_COPIED_SERIES + await_too, tenant)
        put_studies = run(_COPIED_STUDIES, tenant)
    else:
        series = _json(map(_series_row, changes.series))
        run(_PUT_SERIES + await_too, {**tenant, "rows": series}, prepare=True)
        studies = _json(_study_row(*item) for item in sorted(changes.studies.items()))
        put_studies = run(_PUT_STUDIES, {**tenant, "rows": studies}, prepare=True)
    patients = {_patient_of(s): s for s in changes.studies.values()}
    ordered = sorted(patients.items(), key=lambda item: item[0])
    listed = _json(_patient_row(*item) for item in ordered)
    run(_PUT_PATIENTS, {**tenant, "rows": listed}, prepare=True)
    return put_studies


def _remove(connection: BoundedConnection, changes: _Changes) -> None:
    of, removed = (list(column) for column in zip(*sorted(changes.removed), strict=True))
    keys = {"tenant": changes.tenant_id, "of": of, "removed": removed}
    connection.execute(_REMOVE_SERIES, keys)
    connection.execute(_REMOVE_AWAITING, keys)


def _repeat(
    connection: BoundedConnection,
    tenant: str,
    before: Mapping[str, _Study],
    after: Mapping[str, _Study],
) -> None:
    """Bring up to date what other tables say of studies."""
    changed = [k for k in sorted(before.keys() | after.keys()) if before.get(k) != after.get(k)]
    if not changed:
        return
    with connection.pipeline():
        for key in changed:
            old, new = before.get(key), after.get(key)
            if old and new and (old.date, old.time) != (new.date, new.time):
                dated = {"tenant": tenant, "study": key, "date": new.date, "time": new.time}
                connection.execute(_DATE_SERIES, dated)
        _repeat_modalities(connection, tenant, changed, before, after)
        orphans = {s.patient for s in before.values()} - {s.patient for s in after.values()}
        if orphans:
            issuers, patients = (list(column) for column in zip(*sorted(orphans), strict=True))
            keys = {"tenant": tenant, "issuers": issuers, "patients": patients}
            connection.execute(_LOCK_ORPHANS, keys)
            connection.execute(_REMOVE_ORPHANS, keys)
        _count(connection, tenant, before, after)


def _repeat_modalities(
    connection: BoundedConnection,
    tenant: str,
    changed: Sequence[str],
    before: Mapping[str, _Study],
    after: Mapping[str, _Study],
) -> None:
    had = {(k, *row) for k in changed if k in before for row in before[k].rows}
    has = {(k, *row) for k in changed if k in after for row in after[k].rows}
    gone = sorted({row[:2] for row in had} - {row[:2] for row in has})
    if gone:
        studies, modalities = (list(column) for column in zip(*gone, strict=True))
        keys = {"tenant": tenant, "studies": studies, "modalities": modalities}
        connection.execute(_REMOVE_MODALITIES, keys)
    added = sorted(has - had, key=lambda row: row[:2])
    if added:
        names = ("studies", "modalities", "dates", "times")
        columns = zip(names, map(list, zip(*added, strict=True)), strict=True)
        connection.execute(_PUT_MODALITIES, {"tenant": tenant, **dict(columns)}, prepare=True)


def _count(
    connection: BoundedConnection,
    tenant: str,
    before: Mapping[str, _Study],
    after: Mapping[str, _Study],
) -> None:
    """Add to the counts of dates; last, as all who write to a date wait for each other here."""
    studies, series = Counter[str](), Counter[str]()
    for sign, side in ((-1, before), (1, after)):
        for study in side.values():
            studies[study.date or ""] += sign
            series[study.date or ""] += sign * study.series
    dates = [date for date in sorted(studies) if studies[date] or series[date]]
    if dates:
        counts = {
            "tenant": tenant,
            "dates": dates,
            "studies": [studies[date] for date in dates],
            "series": [series[date] for date in dates],
        }
        connection.execute(_ADD_TO_COUNT, counts, prepare=True)


def _studies(rows: Iterable[tuple[Any, ...]]) -> dict[str, _Study]:
    return {row[0]: _Study((row[1], row[2]), *row[3:]) for row in rows}


def _dated(state: DicomStateMeta, of_study: DicomStateMeta) -> DicomStateMeta:
    """Give a series the date and time that the batch says last of its study."""
    date, time = of_study.study_date, of_study.study_time
    if (state.study_date, state.study_time) == (date, time):
        return state
    return replace(state, study_date=date, study_time=time)


def _series_row(state: DicomStateMeta) -> dict[str, Any]:
    values = (state.study_instance_uid, *_SERIES_VALUES(state))
    return dict(zip(_SERIES_COLUMNS, values, strict=True))


def _study_row(key: str, state: DicomStateMeta) -> dict[str, Any]:
    folded = (cut(fold(name), LONGEST_NAME) for name in _NAMES(state))
    values = (key, *_STUDY_VALUES(state), *folded)
    return dict(zip(_STUDY_COLUMNS, values, strict=True))


def _patient_row(key: tuple[str, str], state: DicomStateMeta) -> dict[str, Any]:
    return dict(zip(_PATIENT_COLUMNS, (*key, *_PATIENT_VALUES(state)), strict=True))


def _patient_of(state: DicomStateMeta) -> tuple[str, str]:
    return state.issuer_of_patient_id or "", state.patient_id or ""


def _json(made: Iterable[Mapping[str, Any]]) -> str:
    rows = list(made)
    data = orjson.dumps(rows)
    if b"\\u0000" in data:
        data = orjson.dumps(
            [{k: storable(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows]
        )
    return data.decode()
