"""Tables of the index, in SQLAlchemy Core: patient, study, series; never a row per instance.

Every key and index begins with the tenant, so that the tables can be sharded by it. A study row
repeats its patient and keeps its counts, so that a search reads one table. What the indexes hold
behind their key lets a search find and sort its page without touching the rows.
"""

import unicodedata
from dataclasses import fields
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, Table, Text, text

from wado.records import DicomStateMeta

metadata = MetaData()

# Compared byte by byte everywhere, so that prefixes and ranges can use an index.
_TEXT = Text().with_variant(Text(collation="C"), "postgresql")

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
    return [Column(name, Integer if name in NUMBERS else _TEXT) for name in names]


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
    Column("number_of_study_related_series", Integer, nullable=False, server_default=text("0")),
    Column("number_of_study_related_instances", Integer, nullable=False, server_default=text("0")),
    *(Column(f"{name}_search", _TEXT) for name in NAMES),
)

series = Table(
    "series",
    metadata,
    *(Column(name, _TEXT, primary_key=True) for name in _KEYS),
    *_columns(SERIES_FIELDS),
    Column("version", BigInteger, nullable=False),
    Column("awaits_description", Boolean, nullable=False),
)

# In SQLite NULL comes last in a descending index, and saying so is a syntax error.
_NEWEST_FIRST = (
    study.c.study_date.desc(),
    study.c.study_time.desc(),
    study.c.study_instance_uid,
)

Index(
    "study_newest",
    study.c.tenant_id,
    *_NEWEST_FIRST,
    study.c.modalities_in_study,
    study.c.patient_name_search,
)
SORTED_BY_DATE = {
    name: Index(f"study_{name}", study.c.tenant_id, study.c[column], *_NEWEST_FIRST)
    for name, column in (
        ("patient_id", "patient_id"),
        ("accession_number", "accession_number"),
        ("study_id", "study_id"),
        ("patient_birth_date", "patient_birth_date"),
        *((name, f"{name}_search") for name in NAMES),
    )
}
"""Keyword to the index that finds its values, newest study first."""

Index("series_uid", series.c.tenant_id, series.c.series_instance_uid)
Index(
    "series_awaiting",
    series.c.tenant_id,
    series.c.version,
    sqlite_where=text("awaits_description = 1"),
    postgresql_where=series.c.awaits_description,
)


def fold(name: str | None) -> str | None:
    """Write a person name so that case, diacritics and empty components do not matter.

    Component groups stay apart by ``=`` (PS3.5 §6.2.1.1). Only marks of European scripts are
    cut: in others they make another letter.
    """
    if not name:
        return name
    decomposed = unicodedata.normalize("NFKD", name.casefold())
    bare = "".join(c for c in decomposed if not "\u0300" <= c <= "\u036f")
    groups = unicodedata.normalize("NFC", bare).split("=")
    return "=".join(group.rstrip("^ ").strip() for group in groups).rstrip("=")
