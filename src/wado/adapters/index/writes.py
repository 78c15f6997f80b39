"""How a batch of states is written to SQLite: upserts on the driver's connection.

SQL text and plain tuples: SQLAlchemy's own INSERT costs several times as much per row.
"""

import sqlite3
import time
from collections.abc import Sequence
from operator import attrgetter

from wado.adapters.index.tables import NAMES, SERIES_FIELDS, STUDY_FIELDS, fold
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
    insert = _upsert("series", _SERIES_KEY, SERIES_FIELDS)
    return (
        insert.replace(") VALUES (", ", version, awaits_description) VALUES (")
        .replace("?) ON", "?, ?, 1) ON")
        .replace(
            " WHERE ",
            ", version = max(series.version + 1, excluded.version), awaits_description = 1 WHERE ",
        )
    )


_UPSERT = """INSERT INTO {table} ({columns}) VALUES ({places}) ON CONFLICT ({keys})
    DO UPDATE SET {settings} WHERE {changed}"""
_STUDY_KEY = ("tenant_id", "study_instance_uid")
_SERIES_KEY = (*_STUDY_KEY, "series_instance_uid")
_PATIENT_KEY = ("tenant_id", "issuer_of_patient_id", "patient_id")
_PATIENT_FIELDS = ("patient_name", "patient_birth_date", "patient_sex")

_SERIES_VALUES = attrgetter(*SERIES_FIELDS)
_STUDY_VALUES = attrgetter(*STUDY_FIELDS)
_PATIENT_VALUES = attrgetter(*_PATIENT_FIELDS)
_NAMES = attrgetter(*NAMES)

_PUT_SERIES = _upsert_series()
_PUT_STUDY = _upsert("study", _STUDY_KEY, (*STUDY_FIELDS, *(f"{name}_search" for name in NAMES)))
_PUT_PATIENT = _upsert("patient", _PATIENT_KEY, _PATIENT_FIELDS)
_MARK_DESCRIBED = """UPDATE series SET awaits_description = 0
    WHERE tenant_id = ? AND study_instance_uid = ? AND series_instance_uid = ? AND version = ?"""
_REMOVE_SERIES = """DELETE FROM series
    WHERE tenant_id = ? AND study_instance_uid = ? AND series_instance_uid = ?"""
_COUNT = """UPDATE study SET
    (number_of_study_related_series, number_of_study_related_instances) = (
        SELECT count(*), coalesce(sum(number_of_series_related_instances), 0) FROM series
        WHERE series.tenant_id = study.tenant_id
        AND series.study_instance_uid = study.study_instance_uid),
    modalities_in_study = (
        SELECT group_concat(modality, '\\') FROM (
            SELECT DISTINCT modality FROM series
            WHERE series.tenant_id = study.tenant_id
            AND series.study_instance_uid = study.study_instance_uid
            AND modality != '' ORDER BY modality))
    WHERE tenant_id = ? AND study_instance_uid = ?"""
_REMOVE_STUDY = """DELETE FROM study
    WHERE tenant_id = ? AND study_instance_uid = ? AND number_of_study_related_series = 0"""
_PATIENT_OF = """SELECT tenant_id, coalesce(issuer_of_patient_id, ''), coalesce(patient_id, '')
    FROM study WHERE tenant_id = ? AND study_instance_uid = ?"""
_REMOVE_PATIENT = """DELETE FROM patient
    WHERE tenant_id = ?1 AND issuer_of_patient_id = ?2 AND patient_id = ?3 AND NOT EXISTS (
        SELECT 1 FROM study WHERE study.tenant_id = ?1
        AND (study.patient_id = ?3 OR (?3 = '' AND study.patient_id IS NULL))
        AND coalesce(study.issuer_of_patient_id, '') = ?2)"""


def put(connection: sqlite3.Connection, states: Sequence[DicomStateMeta]) -> None:
    """Write states, inside a transaction of the caller."""
    last: dict[SeriesRef, DicomStateMeta] = {}
    for state in states:
        last.pop(state.series, None)  # the last state of a series wins, and stands last
        last[state.series] = state
    kept = [s for s in last.values() if s.number_of_series_related_instances > 0]
    removed = sorted(_key(ref) for ref in last.keys() - {s.series for s in kept})
    studies = sorted({(ref.tenant_id, ref.study_instance_uid) for ref in last})
    patients_before = _patients(connection, studies)
    connection.executemany(_REMOVE_SERIES, removed)
    _put_rows(connection, kept)
    connection.executemany(_COUNT, studies)
    if removed:
        connection.executemany(_REMOVE_STUDY, studies)
    orphans = patients_before - _patients(connection, studies)
    connection.executemany(_REMOVE_PATIENT, sorted(orphans))


def mark_described(
    connection: sqlite3.Connection, described: Sequence[tuple[SeriesRef, int]]
) -> None:
    """Clear the mark of series that still have the version, inside a transaction."""
    connection.executemany(
        _MARK_DESCRIBED, [(*_key(ref), version) for ref, version in sorted(described)]
    )


def _put_rows(connection: sqlite3.Connection, states: Sequence[DicomStateMeta]) -> None:
    """Upsert the series, studies and patients of states, each once and in the order of keys."""
    version = time.time_ns()
    connection.executemany(
        _PUT_SERIES, sorted((*_key(s.series), *_SERIES_VALUES(s), version) for s in states)
    )
    of_study = {_key(s.series)[:2]: s for s in states}
    connection.executemany(
        _PUT_STUDY,
        [(*k, *_STUDY_VALUES(s), *map(fold, _NAMES(s))) for k, s in sorted(of_study.items())],
    )
    of_patient = {_patient_key(s): s for s in of_study.values()}
    connection.executemany(
        _PUT_PATIENT, [(*k, *_PATIENT_VALUES(s)) for k, s in sorted(of_patient.items())]
    )


def _patients(
    connection: sqlite3.Connection, studies: Sequence[tuple[str, str]]
) -> set[tuple[str, str, str]]:
    """Keys of the patients of studies."""
    return {row for key in studies for row in connection.execute(_PATIENT_OF, key)}


def _key(ref: SeriesRef) -> tuple[str, str, str]:
    return ref.tenant_id, ref.study_instance_uid, ref.series_instance_uid


def _patient_key(state: DicomStateMeta) -> tuple[str, str, str]:
    return state.tenant_id, state.issuer_of_patient_id or "", state.patient_id or ""
