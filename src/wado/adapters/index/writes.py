"""How a batch of states is written to SQLite: upserts on the driver's connection.

SQL text and plain tuples: SQLAlchemy's own INSERT costs several times as much per row.
"""

import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from wado.adapters.index.tables import NAMES, SERIES_FIELDS, SORTED_BY, STUDY_FIELDS
from wado.dicom.names import fold
from wado.dicom.uids import SeriesRef
from wado.records import DicomStateMeta


def _upsert(table: str, keys: Sequence[str], values: Sequence[str]) -> str:
    """Write the statement that inserts a row, or updates it if a value differs."""
    columns = ", ".join((*keys, *values))
    settings = ", ".join(f"{v} = excluded.{v}" for v in values)
    changed = " OR ".join(f"{table}.{v} IS NOT excluded.{v}" for v in values)
    return _UPSERT.format(
        table=table,
        columns=columns,
        places=", ".join("?" * (len(keys) + len(values))),
        keys=", ".join(keys),
        settings=settings,
        changed=changed,
    )


def _upsert_series() -> str:
    """Like `_upsert`, and what differs awaits description under a higher version."""
    insert = _upsert("series", _SERIES_KEY, (*SERIES_FIELDS, *SORTED_BY))
    return (
        insert.replace(") VALUES (", ", version, awaits_description) VALUES (")
        .replace("?) ON", "?, ?, ?) ON")
        .replace(
            " WHERE ",
            ", version = max(series.version + 1, excluded.version), "
            "awaits_description = excluded.awaits_description WHERE ",
        )
    )


_GROWING = ("number_of_series_related_instances", "updated_at")
"""What changes with each instance of a series; no index holds it."""
_LASTING = tuple(name for name in (*SERIES_FIELDS, *SORTED_BY) if name not in _GROWING)
_UPSERT = """INSERT INTO {table} ({columns}) VALUES ({places}) ON CONFLICT ({keys})
    DO UPDATE SET {settings} WHERE {changed}"""
_STUDY_KEY = ("tenant_id", "study_instance_uid")
_SERIES_KEY = (*_STUDY_KEY, "series_instance_uid")
_PATIENT_KEY = ("tenant_id", "issuer_of_patient_id", "patient_id")
_PATIENT_FIELDS = ("patient_name", "patient_birth_date", "patient_sex")

_SERIES_VALUES = attrgetter(*SERIES_FIELDS, *SORTED_BY)
_LASTING_VALUES = attrgetter(*_LASTING)
_GROWING_VALUES = attrgetter(*_GROWING)
_STUDY_VALUES = attrgetter(*STUDY_FIELDS)
_PATIENT_VALUES = attrgetter(*_PATIENT_FIELDS)
_NAMES = attrgetter(*NAMES)

_PUT_SERIES = _upsert_series()
_LASTING_OF = f"""SELECT {", ".join(_LASTING)} FROM series
    WHERE tenant_id = ? AND study_instance_uid = ? AND series_instance_uid = ?"""  # noqa: S608
_GROW_SERIES = """UPDATE series SET number_of_series_related_instances = ?4, updated_at = ?5,
    version = max(version + 1, ?6), awaits_description = ?7
    WHERE tenant_id = ?1 AND study_instance_uid = ?2 AND series_instance_uid = ?3
    AND (number_of_series_related_instances IS NOT ?4 OR updated_at IS NOT ?5)"""
_PUT_STUDY = _upsert("study", _STUDY_KEY, (*STUDY_FIELDS, *(f"{name}_search" for name in NAMES)))
_PUT_PATIENT = _upsert("patient", _PATIENT_KEY, _PATIENT_FIELDS)
_MARK_DESCRIBED = """UPDATE series SET awaits_description = 0
    WHERE tenant_id = ? AND study_instance_uid = ? AND series_instance_uid = ? AND version = ?"""
_AWAIT = """UPDATE series SET awaits_description = 1, version = max(version + 1, ?4)
    WHERE tenant_id = ?1 AND study_instance_uid = ?2 AND series_instance_uid = ?3"""
_REMOVE_SERIES = """DELETE FROM series
    WHERE tenant_id = ? AND study_instance_uid = ? AND series_instance_uid = ?"""
_COUNT = """UPDATE study SET
    (number_of_study_related_series, number_of_study_related_instances) = (
        SELECT count(*), coalesce(sum(number_of_series_related_instances), 0) FROM series
        WHERE series.tenant_id = study.tenant_id
        AND series.study_instance_uid = study.study_instance_uid)
    WHERE tenant_id = ? AND study_instance_uid = ?"""
_MODALITIES = """UPDATE study SET modalities_in_study = now.modalities FROM (
    SELECT group_concat(modality, '\\') AS modalities FROM (
        SELECT DISTINCT modality FROM series WHERE tenant_id = ?1
        AND study_instance_uid = ?2 AND modality != '' ORDER BY modality)) AS now
    WHERE tenant_id = ?1 AND study_instance_uid = ?2
    AND modalities_in_study IS NOT now.modalities"""
_REMOVE_STUDY = """DELETE FROM study
    WHERE tenant_id = ? AND study_instance_uid = ? AND number_of_study_related_series = 0"""
_STUDY_OF = """SELECT coalesce(issuer_of_patient_id, ''), coalesce(patient_id, ''),
    study_date, study_time, coalesce(modalities_in_study, ''), number_of_study_related_series
    FROM study WHERE tenant_id = ? AND study_instance_uid = ?"""
_DATE_SERIES = """UPDATE series SET study_date = ?3, study_time = ?4
    WHERE tenant_id = ?1 AND study_instance_uid = ?2
    AND (study_date IS NOT ?3 OR study_time IS NOT ?4)"""
_PUT_MODALITY = """INSERT INTO study_modality
    (tenant_id, study_instance_uid, modality, study_date, study_time) VALUES (?, ?, ?, ?, ?)"""
_REMOVE_MODALITY = """DELETE FROM study_modality
    WHERE tenant_id = ? AND study_instance_uid = ? AND modality = ?"""
_ADD_TO_COUNT = """INSERT INTO study_count (tenant_id, study_date, studies, series)
    VALUES (?, ?, ?, ?) ON CONFLICT (tenant_id, study_date)
    DO UPDATE SET studies = studies + excluded.studies, series = series + excluded.series"""
_REMOVE_PATIENT = """DELETE FROM patient
    WHERE tenant_id = ?1 AND issuer_of_patient_id = ?2 AND patient_id = ?3 AND NOT EXISTS (
        SELECT 1 FROM study WHERE study.tenant_id = ?1
        AND (study.patient_id = ?3 OR (?3 = '' AND study.patient_id IS NULL))
        AND coalesce(study.issuer_of_patient_id, '') = ?2)"""


_StudyKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Study:
    """What other tables repeat of a study row."""

    tenant_id: str
    study_instance_uid: str
    issuer_of_patient_id: str
    patient_id: str
    study_date: str | None
    study_time: str | None
    modalities: str
    series: int

    @property
    def patient(self) -> tuple[str, str, str]:
        """Key of the patient."""
        return self.tenant_id, self.issuer_of_patient_id, self.patient_id

    def modality_rows(self) -> Iterator[tuple[str | None, ...]]:
        """Rows of `study_modality`."""
        for modality in filter(None, self.modalities.split("\\")):
            key = (self.tenant_id, self.study_instance_uid)
            yield (*key, modality, self.study_date, self.study_time)


def put(
    connection: sqlite3.Connection, states: Sequence[DicomStateMeta], *, described: bool = False
) -> None:
    """Write states, inside a transaction of the caller; `described` ones don't wait for it."""
    last: dict[SeriesRef, DicomStateMeta] = {}
    for state in states:
        last.pop(state.series, None)  # the last state of a series wins, and stands last
        last[state.series] = state
    kept = [s for s in last.values() if s.number_of_series_related_instances > 0]
    removed = sorted(_key(ref) for ref in last.keys() - {s.series for s in kept})
    studies = sorted({(ref.tenant_id, ref.study_instance_uid) for ref in last})
    before = _studies(connection, studies)
    connection.executemany(_REMOVE_SERIES, removed)
    _put_rows(connection, kept, described=described)
    connection.executemany(_COUNT, studies)
    connection.executemany(_MODALITIES, studies)
    if removed:
        connection.executemany(_REMOVE_STUDY, studies)
    _repeat(connection, before, _studies(connection, studies))


def _repeat(
    connection: sqlite3.Connection,
    before: Mapping[_StudyKey, _Study],
    after: Mapping[_StudyKey, _Study],
) -> None:
    """Bring up to date what other tables say of studies."""
    orphans = {s.patient for s in before.values()} - {s.patient for s in after.values()}
    connection.executemany(_REMOVE_PATIENT, sorted(orphans))
    connection.executemany(
        _DATE_SERIES, [(*key, s.study_date, s.study_time) for key, s in after.items()]
    )
    changed = [k for k in before.keys() | after.keys() if before.get(k) != after.get(k)]
    old, new = ([s[k] for k in changed if k in s] for s in (before, after))
    had, has = ({row for s in studies for row in s.modality_rows()} for studies in (old, new))
    connection.executemany(_REMOVE_MODALITY, sorted(row[:3] for row in had - has))
    added: list[tuple[Any, ...]] = list(has - had)
    added.sort(key=_of_key)
    connection.executemany(_PUT_MODALITY, added)
    studies, series = Counter[_StudyKey](), Counter[_StudyKey]()
    for sign, rows in ((-1, old), (1, new)):
        for s in rows:
            date = (s.tenant_id, s.study_date or "")
            studies[date] += sign
            series[date] += sign * s.series
    connection.executemany(
        _ADD_TO_COUNT,
        [(*d, studies[d], series[d]) for d in sorted(studies) if studies[d] or series[d]],
    )


def mark_described(
    connection: sqlite3.Connection, described: Sequence[tuple[SeriesRef, int]]
) -> None:
    """Clear the mark of series that still have the version, inside a transaction."""
    connection.executemany(
        _MARK_DESCRIBED, [(*_key(ref), version) for ref, version in sorted(described)]
    )


def await_description(connection: sqlite3.Connection, refs: Iterable[SeriesRef]) -> None:
    """Set the mark of series under a higher version, inside a transaction."""
    version = time.time_ns()
    connection.executemany(_AWAIT, [(*_key(ref), version) for ref in sorted(set(refs))])


def _put_rows(
    connection: sqlite3.Connection, states: Sequence[DicomStateMeta], *, described: bool
) -> None:
    """Upsert the series, studies and patients of states, each once and in the order of keys."""
    version = time.time_ns()
    ends = (version, not described)
    new: list[tuple[Any, ...]] = []
    grown: list[tuple[Any, ...]] = []
    for s in states:
        key = _key(s.series)
        known = connection.execute(_LASTING_OF, key).fetchone()
        if known == _LASTING_VALUES(s):  # then the indexes stay as they are
            grown.append((*key, *_GROWING_VALUES(s), *ends))
        else:
            new.append((*key, *_SERIES_VALUES(s), *ends))
    for statement, rows in ((_GROW_SERIES, grown), (_PUT_SERIES, new)):
        rows.sort(key=_of_key)
        connection.executemany(statement, rows)
    of_study = {_key(s.series)[:2]: s for s in states}
    connection.executemany(
        _PUT_STUDY,
        [(*k, *_STUDY_VALUES(s), *map(fold, _NAMES(s))) for k, s in sorted(of_study.items())],
    )
    of_patient = {_patient_key(s): s for s in of_study.values()}
    connection.executemany(
        _PUT_PATIENT, [(*k, *_PATIENT_VALUES(s)) for k, s in sorted(of_patient.items())]
    )


def _studies(connection: sqlite3.Connection, keys: Sequence[_StudyKey]) -> dict[_StudyKey, _Study]:
    """Read studies as they are now."""
    return {key: _Study(*key, *row) for key in keys for row in connection.execute(_STUDY_OF, key)}


def _of_key(row: tuple[Any, ...]) -> tuple[str, str, str]:
    """Sort rows by their key alone: what else they hold may be absent."""
    return row[0], row[1], row[2]


def _key(ref: SeriesRef) -> tuple[str, str, str]:
    return ref.tenant_id, ref.study_instance_uid, ref.series_instance_uid


def _patient_key(state: DicomStateMeta) -> tuple[str, str, str]:
    return state.tenant_id, state.issuer_of_patient_id or "", state.patient_id or ""
