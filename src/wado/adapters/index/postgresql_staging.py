"""A temporary table of states that arrive by COPY, and how all tables are filled from it at once.

It stands for one batch: the last state of a series wins, and the last one of a study says what
its study and patient are.
"""

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any

from wado.adapters.index.postgresql_session import BoundedConnection
from wado.adapters.index.postgresql_values import LONGEST_NAME, cut, storable
from wado.adapters.index.tables import NAMES, NUMBERS, SERIES_FIELDS, STUDY_FIELDS
from wado.dicom.names import fold
from wado.records import DicomStateMeta

_KEYS = ("tenant_id", "study_instance_uid", "series_instance_uid")
_STATE = (*_KEYS, *STUDY_FIELDS, *SERIES_FIELDS)
_SEARCH = tuple(f"{name}_search" for name in NAMES)
_STUDY = (*_KEYS[:2], *STUDY_FIELDS, *_SEARCH)
_VALUES, _NAMES = attrgetter(*_STATE), attrgetter(*NAMES)
PATIENT_FIELDS = ("patient_name", "patient_birth_date", "patient_sex")
"""Columns of a patient row beside its key."""


def _typed(column: str) -> str:
    # Compared byte by byte, as in the tables that are filled from it.
    kind = "bigint" if column in NUMBERS else 'text COLLATE "C"'
    return f"{column} {kind}"


def _listed(columns: Sequence[str], prefix: str = "") -> str:
    return ", ".join(f"{prefix}{column}" for column in columns)


_COLUMNS = (*_STATE, *_SEARCH)
ARRIVING = f"""CREATE TEMPORARY TABLE arriving (arrival bigint,
    {", ".join(map(_typed, _COLUMNS))}) ON COMMIT DROP"""
"""Makes the table, for one transaction."""
MAY_STAGE = "SELECT has_database_privilege(current_database(), 'TEMPORARY')"
"""Asks whether this role may make it."""
FORGET = "DROP TABLE arriving"
"""Takes it away again."""

_COPY = f"COPY arriving (arrival, {_listed(_COLUMNS)}) FROM STDIN"
_FORGET_EARLIER = """DELETE FROM arriving a USING (
    SELECT ctid, row_number() OVER (
        PARTITION BY tenant_id, study_instance_uid, series_instance_uid ORDER BY arrival DESC
    ) AS place FROM arriving) AS known
    WHERE a.ctid = known.ctid AND known.place > 1"""
_FORGET_REMOVED = "DELETE FROM arriving WHERE number_of_series_related_instances <= 0"
_LAST_OF_STUDY = f"""SELECT DISTINCT ON (tenant_id, study_instance_uid) arrival, {_listed(_STUDY)}
    FROM arriving ORDER BY tenant_id, study_instance_uid, arrival DESC"""  # noqa: S608 - our names
_FILL_STUDIES = f"""INSERT INTO study ({_listed(_STUDY)}, number_of_study_related_series,
        number_of_study_related_instances, modalities_in_study)
    SELECT {_listed(_STUDY, "l.")}, n.series, n.instances, n.modalities
    FROM ({_LAST_OF_STUDY}) AS l JOIN (
        SELECT tenant_id, study_instance_uid, count(*) AS series,
            sum(number_of_series_related_instances)::bigint AS instances,
            string_agg(DISTINCT modality, '\\' ORDER BY modality) FILTER (WHERE modality <> '')
            AS modalities
        FROM arriving GROUP BY tenant_id, study_instance_uid
    ) AS n USING (tenant_id, study_instance_uid)
    ORDER BY l.tenant_id, l.study_instance_uid"""  # noqa: S608
_FILL_SERIES = f"""INSERT INTO series ({_listed(_KEYS)}, {_listed(SERIES_FIELDS)},
        study_date, study_time)
    SELECT {_listed(_KEYS, "a.")}, {_listed(SERIES_FIELDS, "a.")}, s.study_date, s.study_time
    FROM arriving a JOIN study s USING (tenant_id, study_instance_uid)
    ORDER BY a.tenant_id, a.study_instance_uid, a.series_instance_uid"""  # noqa: S608
_PATIENT_KEY = "tenant_id, coalesce(issuer_of_patient_id, ''), coalesce(patient_id, '')"
_FILL_PATIENTS = f"""INSERT INTO patient (tenant_id, issuer_of_patient_id, patient_id,
        {_listed(PATIENT_FIELDS)})
    SELECT DISTINCT ON ({_PATIENT_KEY}) {_PATIENT_KEY}, {_listed(PATIENT_FIELDS)}
    FROM ({_LAST_OF_STUDY}) AS l ORDER BY {_PATIENT_KEY}, arrival DESC"""  # noqa: S608
_FILL_MODALITIES = """INSERT INTO study_modality
        (tenant_id, study_instance_uid, modality, study_date, study_time)
    SELECT tenant_id, study_instance_uid, modality, study_date, study_time
    FROM study, unnest(string_to_array(modalities_in_study, '\\')) AS modality
    WHERE modality <> '' ORDER BY tenant_id, study_instance_uid ON CONFLICT DO NOTHING"""
_FILL_COUNTS = """INSERT INTO study_count (tenant_id, study_date, studies, series)
    SELECT tenant_id, coalesce(study_date, ''), count(*), sum(number_of_study_related_series)
    FROM study GROUP BY 1, 2
    ON CONFLICT (tenant_id, study_date)
    DO UPDATE SET studies = excluded.studies, series = excluded.series"""

FILL = (
    "ANALYZE arriving",
    _FORGET_EARLIER,
    _FORGET_REMOVED,
    _FILL_STUDIES,
    _FILL_SERIES,
    _FILL_PATIENTS,
    _FILL_MODALITIES,
    _FILL_COUNTS,
)
"""Statements that fill the tables of an index in which there are no studies yet."""


def staged(
    connection: BoundedConnection, states: Iterable[DicomStateMeta], numbers: Iterator[int]
) -> None:
    """Copy states into the temporary table, each with a number."""
    with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        for state in states:
            copy.write_row((next(numbers), *_row(state)))


def _row(state: DicomStateMeta) -> tuple[Any, ...]:
    names = (cut(fold(name), LONGEST_NAME) for name in _NAMES(state))
    row = (*_VALUES(state), *names)
    if any("\0" in value for value in row if isinstance(value, str)):
        return tuple(storable(v) if isinstance(v, str) else v for v in row)
    return row
