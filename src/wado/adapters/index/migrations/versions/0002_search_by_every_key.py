"""Search by every key: rows of one value in order, text within text, counts of each date."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

_SORTED_STUDIES = ("study_description", "study_time", "patient_sex")
_SORTED_SERIES = (
    "scheduled_procedure_step_id",
    "requested_procedure_id",
    "performed_procedure_step_start_date",
    "performed_procedure_step_start_time",
    "modality",
    "series_number",
    "series_date",
    "series_time",
)
_FILTERED_BY = (
    "modalities_in_study",
    "patient_name_search",
    "patient_id",
    "accession_number",
    "study_description",
)
_TEXTS = {
    "study": (
        "patient_name_search",
        "patient_id",
        "accession_number",
        "study_description",
        "referring_physician_name_search",
        "study_id",
    ),
    "series": (
        "series_description",
        "body_part_examined",
        "protocol_name",
        "station_name",
        "institution_name",
        "manufacturer",
        "manufacturer_model_name",
    ),
}
# Rows in all, then rows alike in the first column, the first two, … of a large archive.
_STATISTICS = (
    ("study", "study_study_description", "1000000 1000000 500 2 1 1"),
    ("study", "study_study_time", "1000000 1000000 100 1 1"),
    ("study", "study_patient_sex", "1000000 1000000 1000 100 2 1"),
    ("series", "series_scheduled_procedure_step_id", "4000000 4000000 4 4 4 4 1"),
    ("series", "series_requested_procedure_id", "4000000 4000000 4 4 4 4 1"),
    ("series", "series_performed_procedure_step_start_date", "4000000 4000000 800 600 8 4 1"),
    ("series", "series_performed_procedure_step_start_time", "4000000 4000000 100 8 4 4 1"),
    ("series", "series_modality", "4000000 4000000 200000 100 8 4 1"),
    ("series", "series_series_number", "4000000 4000000 200000 100 2 1 1"),
    ("series", "series_series_date", "4000000 4000000 800 600 8 4 1"),
    ("series", "series_series_time", "4000000 4000000 100 8 4 4 1"),
    ("study_modality", "sqlite_autoindex_study_modality_1", "1200000 1200000 2 1"),
    ("study_modality", "study_modality_newest", "1200000 1200000 100000 50 2 1"),
    ("study_count", "sqlite_autoindex_study_count_1", "5000 5000 1"),
)


def upgrade() -> None:
    """Add what the searches need, and fill it."""
    for name in ("study_date", "study_time"):
        op.add_column("series", sa.Column(name, _TEXT))
    _create_tables()
    _fill()
    _create_indexes()
    if op.get_bind().dialect.name == "sqlite":
        for table, names in _TEXTS.items():
            _create_text_search(table, names)
        _add_statistics()


def downgrade() -> None:
    """Drop what was added."""
    if op.get_bind().dialect.name == "sqlite":
        for table in _TEXTS:
            for event in ("insert", "delete", "update"):
                op.execute(f"DROP TRIGGER {table}_text_{event}")
            op.execute(f"DROP TABLE {table}_text")
    for name in _SORTED_SERIES:
        op.drop_index(f"series_{name}", "series")
    for name in _SORTED_STUDIES:
        op.drop_index(f"study_{name}", "study")
    op.drop_index("study_newest", "study")
    op.create_index(
        "study_newest",
        "study",
        ["tenant_id", *_newest_first("study_instance_uid"), *_FILTERED_BY[:2]],
    )
    op.drop_table("study_modality")
    op.drop_table("study_count")
    for name in ("study_date", "study_time"):
        op.drop_column("series", name)


def _create_tables() -> None:
    op.create_table(
        "study_modality",
        *(
            sa.Column(name, _TEXT, primary_key=True)
            for name in ("tenant_id", "study_instance_uid", "modality")
        ),
        sa.Column("study_date", _TEXT),
        sa.Column("study_time", _TEXT),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "study_count",
        *(sa.Column(name, _TEXT, primary_key=True) for name in ("tenant_id", "study_date")),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("studies", "series")),
        sqlite_with_rowid=False,
    )


def _fill() -> None:
    op.execute("""UPDATE series SET (study_date, study_time) = (
        SELECT study_date, study_time FROM study
        WHERE study.tenant_id = series.tenant_id
        AND study.study_instance_uid = series.study_instance_uid)""")
    op.execute("""INSERT INTO study_modality
        (tenant_id, study_instance_uid, modality, study_date, study_time)
        SELECT DISTINCT tenant_id, study_instance_uid, modality, study_date, study_time
        FROM series WHERE modality <> ''""")
    op.execute("""INSERT INTO study_count (tenant_id, study_date, studies, series)
        SELECT tenant_id, coalesce(study_date, ''), count(*), sum(number_of_study_related_series)
        FROM study GROUP BY 1, 2""")


def _create_indexes() -> None:
    op.drop_index("study_newest", "study")
    by_uid = _newest_first("study_instance_uid")
    op.create_index("study_newest", "study", ["tenant_id", *by_uid, *_FILTERED_BY])
    op.create_index("study_modality_newest", "study_modality", ["tenant_id", "modality", *by_uid])
    for name in _SORTED_STUDIES:
        columns = by_uid if name != "study_time" else (by_uid[0], by_uid[2])
        op.create_index(f"study_{name}", "study", ["tenant_id", name, *columns])
    for name in _SORTED_SERIES:
        present = sa.text(f"{name} IS NOT NULL")
        op.create_index(
            f"series_{name}",
            "series",
            ["tenant_id", name, *by_uid, "series_instance_uid"],
            sqlite_where=present,
            postgresql_where=present,
        )


def _newest_first(*keys: str) -> tuple[Any, ...]:
    # PostgreSQL puts NULL first in a descending index unless told; SQLite last, and can't be told.
    last = " NULLS LAST" if op.get_bind().dialect.name == "postgresql" else ""
    return (sa.text(f"study_date DESC{last}"), sa.text(f"study_time DESC{last}"), *keys)


def _create_text_search(table: str, names: tuple[str, ...]) -> None:
    """Index every three characters in a row of the text of a table, kept up by triggers."""
    texts, columns = f"{table}_text", ", ".join(names)
    new, old = (", ".join(f"{row}.{name}" for name in names) for row in ("new", "old"))
    changed = " OR ".join(f"new.{name} IS NOT old.{name}" for name in names)
    # Only names of this file get into the statements.
    put = f"INSERT INTO {texts} (rowid, {columns}) VALUES (new.rowid, {new});"  # noqa: S608
    remove = f"INSERT INTO {texts} ({texts}, rowid, {columns}) VALUES ('delete', old.rowid, {old});"  # noqa: S608
    op.execute(f"""CREATE VIRTUAL TABLE {texts} USING fts5({columns},
        content = '{table}', tokenize = 'trigram', detail = 'column')""")
    op.execute(f"INSERT INTO {texts} ({texts}) VALUES ('rebuild')")  # noqa: S608
    op.execute(f"CREATE TRIGGER {texts}_insert AFTER INSERT ON {table} BEGIN {put} END")
    op.execute(f"CREATE TRIGGER {texts}_delete AFTER DELETE ON {table} BEGIN {remove} END")
    op.execute(f"""CREATE TRIGGER {texts}_update AFTER UPDATE OF {columns} ON {table}
        WHEN {changed} BEGIN {remove} {put} END""")


def _add_statistics() -> None:
    """Tell the planner what to expect of the new tables and indexes (see 0001)."""
    figures = sa.table("sqlite_stat1", sa.column("tbl"), sa.column("idx"), sa.column("stat"))
    op.execute("DELETE FROM sqlite_stat1 WHERE idx = 'study_newest'")
    newest = ("study", "study_newest", "1000000 1000000 200 2 1 1 1 1 1 1 noskipscan")
    names = [c.name for c in figures.columns]
    rows = [dict(zip(names, row, strict=True)) for row in (newest, *_STATISTICS)]
    op.bulk_insert(figures, rows)
    op.execute("ANALYZE sqlite_schema")  # reads it
