"""Tables of the index, in SQLAlchemy Core: patient, study, series; never a row per instance.

Every key and index begins with the tenant, so that the tables can be sharded by it. A study row
repeats its patient and keeps its counts, so that a search reads one table; a series row repeats
the date and time by which searches are sorted. What the indexes hold behind their key lets a
search find its page in order, without sorting and without touching the rows.
"""

from dataclasses import fields
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, Table, Text, text

from wado.records import DicomStateMeta

metadata = MetaData()

# Compared byte by byte everywhere, so that prefixes and ranges can use an index.
_TEXT = Text().with_variant(Text(collation="C"), "postgresql")
# SQLite's integers are of any length anyway.
_NUMBER = Integer().with_variant(BigInteger(), "postgresql")

PATIENT_FIELDS = (
    "patient_id",
    "issuer_of_patient_id",
    "patient_name",
    "patient_birth_date",
    "patient_sex",
)
STUDY_FIELDS = (
    *PATIENT_FIELDS,
    "study_date",
    "study_time",
    "study_id",
    "study_description",
    "accession_number",
    "referring_physician_name",
    "timezone_offset_from_utc",
)
"""Fields of `DicomStateMeta` that a study row holds."""

_KEYS = ("tenant_id", "study_instance_uid", "series_instance_uid")
SERIES_FIELDS = tuple(
    f.name for f in fields(DicomStateMeta) if f.name not in (*_KEYS, *STUDY_FIELDS)
)
"""Fields of `DicomStateMeta` that a series row holds beside its key."""

NAMES = ("patient_name", "referring_physician_name")
"""Person names of a study, which are searched without regard to case and diacritics."""

SORTED_BY = ("study_date", "study_time")
"""What rows are sorted by, latest first; series and modalities repeat it of their study."""

NUMBERS = frozenset(
    {
        "series_number",
        "number_of_series_related_instances",
        "number_of_study_related_series",
        "number_of_study_related_instances",
    }
)
"""Columns that hold whole numbers; all others are text."""


def _columns(names: tuple[str, ...]) -> list[Column[Any]]:
    return [Column(name, _NUMBER if name in NUMBERS else _TEXT) for name in names]


patient = Table(
    "patient",
    metadata,
    Column("tenant_id", _TEXT, primary_key=True),
    Column("issuer_of_patient_id", _TEXT, primary_key=True),
    Column("patient_id", _TEXT, primary_key=True),
    *_columns(("patient_name", "patient_birth_date", "patient_sex")),
    sqlite_with_rowid=False,
)

study = Table(
    "study",
    metadata,
    Column("tenant_id", _TEXT, primary_key=True),
    Column("study_instance_uid", _TEXT, primary_key=True),
    *_columns(STUDY_FIELDS),
    Column("modalities_in_study", _TEXT),
    Column("number_of_study_related_series", _NUMBER, nullable=False, server_default=text("0")),
    Column("number_of_study_related_instances", _NUMBER, nullable=False, server_default=text("0")),
    *(Column(f"{name}_search", _TEXT) for name in NAMES),
)

series = Table(
    "series",
    metadata,
    *(Column(name, _TEXT, primary_key=True) for name in _KEYS),
    *_columns(SERIES_FIELDS),
    *_columns(SORTED_BY),
    Column("version", BigInteger, nullable=False),
    Column("awaits_description", Boolean, nullable=False),
)

study_modality = Table(
    "study_modality",
    metadata,
    Column("tenant_id", _TEXT, primary_key=True),
    Column("study_instance_uid", _TEXT, primary_key=True),
    Column("modality", _TEXT, primary_key=True),
    *_columns(SORTED_BY),
    sqlite_with_rowid=False,
)
"""One row for each modality of a study: all studies of one, latest first, are a range."""

study_count = Table(
    "study_count",
    metadata,
    Column("tenant_id", _TEXT, primary_key=True),
    Column("study_date", _TEXT, primary_key=True),
    Column("studies", Integer, nullable=False),
    Column("series", Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""How many there are of each date (``""`` if absent): a late page needs no counting of rows."""


def _newest_first(table: Table, *keys: str, of: str = "") -> tuple[Any, ...]:
    """Columns to sort by; those of one value of `of` need not be sorted by it."""
    # In SQLite NULL comes last in a descending index, and saying so is a syntax error.
    dates = tuple(table.c[name].desc() for name in SORTED_BY if name != of)
    return (*dates, *(table.c[name] for name in keys))


WALKED = (
    "modalities_in_study",
    "patient_name_search",
    "patient_id",
    "accession_number",
    "study_description",
)
"""What work lists filter by."""

NEWEST = Index(
    "study_newest",
    study.c.tenant_id,
    *_newest_first(study, "study_instance_uid"),
    *(study.c[name] for name in WALKED),
)
"""Walked when much fits."""

SORTED_STUDIES = {
    keyword: Index(
        f"study_{keyword}",
        study.c.tenant_id,
        study.c[f"{keyword}_search" if keyword in NAMES else keyword],
        *_newest_first(study, "study_instance_uid", of=keyword),
    )
    for keyword in (
        "accession_number",
        "patient_id",
        "study_id",
        "patient_birth_date",
        "patient_name",
        "referring_physician_name",
        "study_description",
        "study_time",
        "patient_sex",
    )
}
"""Keyword to the index that holds the studies of a value in order."""

SORTED_SERIES = {
    keyword: Index(
        f"series_{keyword}",
        series.c.tenant_id,
        series.c[keyword],
        *_newest_first(series, "study_instance_uid", "series_instance_uid"),
        sqlite_where=series.c[keyword].is_not(None),
        postgresql_where=series.c[keyword].is_not(None),
    )
    for keyword in (
        "scheduled_procedure_step_id",
        "requested_procedure_id",
        "performed_procedure_step_start_date",
        "performed_procedure_step_start_time",
        "modality",
        "series_number",
        "series_date",
        "series_time",
    )
}
"""Keyword to the index that holds the series of a value in order; those without are not in it."""

Index(
    "study_modality_newest",
    study_modality.c.tenant_id,
    study_modality.c.modality,
    *_newest_first(study_modality, "study_instance_uid"),
)
Index("series_uid", series.c.tenant_id, series.c.series_instance_uid)
Index(
    "series_awaiting",
    series.c.tenant_id,
    series.c.version,
    sqlite_where=text("awaits_description = 1"),
    postgresql_where=series.c.awaits_description,
)
