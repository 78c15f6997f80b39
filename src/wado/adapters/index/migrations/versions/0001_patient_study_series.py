"""Patient, study and series."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

_PATIENT = ("patient_name", "patient_birth_date", "patient_sex")
_STUDY = (
    "patient_id",
    "issuer_of_patient_id",
    *_PATIENT,
    "study_date",
    "study_time",
    "study_id",
    "study_description",
    "accession_number",
    "referring_physician_name",
    "timezone_offset_from_utc",
    "modalities_in_study",
)
_SERIES = (
    "series_description",
    "series_date",
    "series_time",
    "body_part_examined",
    "laterality",
    "protocol_name",
    "station_name",
    "institution_name",
    "manufacturer",
    "manufacturer_model_name",
    "performed_procedure_step_start_date",
    "performed_procedure_step_start_time",
    "scheduled_procedure_step_id",
    "requested_procedure_id",
)
_SORTED_BY_DATE = (
    ("patient_id", "patient_id"),
    ("accession_number", "accession_number"),
    ("study_id", "study_id"),
    ("patient_birth_date", "patient_birth_date"),
    ("patient_name", "patient_name_search"),
    ("referring_physician_name", "referring_physician_name_search"),
)
# Rows in all, then rows alike in the first column, the first two, … of a large archive.
_STATISTICS = (
    ("study", "sqlite_autoindex_study_1", "1000000 1000000 1"),
    ("study", "study_newest", "1000000 1000000 200 2 1 1 1 noskipscan"),
    ("study", "study_patient_id", "1000000 1000000 3 1 1 1"),
    ("study", "study_accession_number", "1000000 1000000 1 1 1 1"),
    ("study", "study_study_id", "1000000 1000000 10 1 1 1"),
    ("study", "study_patient_birth_date", "1000000 1000000 40 1 1 1"),
    ("study", "study_patient_name", "1000000 1000000 20 1 1 1"),
    ("study", "study_referring_physician_name", "1000000 1000000 1000 5 1 1"),
    ("series", "sqlite_autoindex_series_1", "4000000 4000000 4 1"),
    ("series", "series_uid", "4000000 4000000 1"),
    ("series", "series_awaiting", "1000 500 1"),
)


def upgrade() -> None:
    """Make the tables and their indexes."""
    op.create_table(
        "patient",
        *_keys("tenant_id", "issuer_of_patient_id", "patient_id"),
        *_texts(_PATIENT),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "study",
        *_keys("tenant_id", "study_instance_uid"),
        *_texts(_STUDY),
        _count("number_of_study_related_series"),
        _count("number_of_study_related_instances"),
        *_texts(("patient_name_search", "referring_physician_name_search")),
    )
    op.create_table(
        "series",
        *_keys("tenant_id", "study_instance_uid", "series_instance_uid"),
        *_texts(("modality",)),
        sa.Column("series_number", sa.Integer),
        *_texts(_SERIES),
        sa.Column("number_of_series_related_instances", sa.Integer),
        *_texts(("updated_at",)),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("awaits_description", sa.Boolean, nullable=False),
    )
    _create_indexes()
    if op.get_bind().dialect.name == "sqlite":
        _fix_statistics()


def downgrade() -> None:
    """Drop everything."""
    for table in ("series", "study", "patient"):
        op.drop_table(table)


def _create_indexes() -> None:
    # PostgreSQL puts NULL first in a descending index unless told; SQLite last, and can't be told.
    last = " NULLS LAST" if op.get_bind().dialect.name == "postgresql" else ""
    newest_first = (
        sa.text(f"study_date DESC{last}"),
        sa.text(f"study_time DESC{last}"),
        "study_instance_uid",
    )
    op.create_index(
        "study_newest",
        "study",
        ["tenant_id", *newest_first, "modalities_in_study", "patient_name_search"],
    )
    for name, column in _SORTED_BY_DATE:
        op.create_index(f"study_{name}", "study", ["tenant_id", column, *newest_first])
    op.create_index("series_uid", "series", ["tenant_id", "series_instance_uid"])
    op.create_index(
        "series_awaiting",
        "series",
        ["tenant_id", "version"],
        sqlite_where=sa.text("awaits_description = 1"),
        postgresql_where=sa.text("awaits_description"),
    )


def _fix_statistics() -> None:
    """Tell the planner what to expect, so that it finds by the key and not by the order.

    Without, it takes one tenant for a small part of all rows, and walks the studies by date even
    for a UID. ANALYZE may replace these figures by counted ones.
    """
    op.execute("ANALYZE")  # makes the table of statistics
    op.execute("DELETE FROM sqlite_stat1")
    figures = sa.table("sqlite_stat1", sa.column("tbl"), sa.column("idx"), sa.column("stat"))
    names = [c.name for c in figures.columns]
    op.bulk_insert(figures, [dict(zip(names, row, strict=True)) for row in _STATISTICS])
    op.execute("ANALYZE sqlite_schema")  # reads it


def _keys(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, _TEXT, primary_key=True) for name in names]


def _texts(names: tuple[str, ...]) -> list[sa.Column[str]]:
    return [sa.Column(name, _TEXT) for name in names]


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False, server_default=sa.text("0"))
