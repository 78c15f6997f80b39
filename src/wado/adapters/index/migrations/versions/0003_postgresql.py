"""What only PostgreSQL needs: a waiting list, text search, tenants apart, room for updates.

A row that grows with each image is updated in place ("HOT") only if no index holds what changes,
so the series that await description have a table of their own.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TEXT = sa.Text(collation="C")
_TENANT_TABLES = (
    "patient",
    "study",
    "series",
    "series_awaiting",
    "study_modality",
    "study_count",
)
_NUMBERS = {
    "study": ("number_of_study_related_series", "number_of_study_related_instances"),
    "series": ("series_number", "number_of_series_related_instances"),
    "study_count": ("studies", "series"),
}
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
_UPDATED = ("study", "series", "series_awaiting", "study_count")
# Few dead rows are cleaned up early; and pages that searches find unchanged need no look at rows.
_CARE = """autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02,
    autovacuum_analyze_scale_factor = 0.02"""
_QUEUE_CARE = """autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 5000"""
# Said as a subquery it is worked out once for a statement, not once for each row.
_OWN_ROWS = """tenant_id = (SELECT current_setting('wado.tenant_id', true))
    OR (SELECT current_setting('wado.tenant_id', true)) = '*'"""
# LIKE is not "leakproof": row-level security keeps it from an index. So this looks as the owner,
# and says itself whose rows may be seen. (The tenant is compared, not looked up: with few tenants,
# an index of them finds nearly all rows.)
_FIND_TEXT = """
CREATE FUNCTION wado_find_text(
    tenant text, of_table text, of_column text, pieces text[], most integer
) RETURNS SETOF text LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path FROM CURRENT SET enable_seqscan = off SET jit = off AS $$
DECLARE
    patterns text := '';
    piece text;
BEGIN
    IF coalesce(current_setting('wado.tenant_id', true), '') NOT IN (tenant, '*') THEN
        RETURN;
    END IF;
    FOREACH piece IN ARRAY pieces LOOP
        patterns := patterns || format(' AND %I LIKE %L ESCAPE ''!''', of_column, piece);
    END LOOP;
    RETURN QUERY EXECUTE format(
        'SELECT %I FROM %I WHERE tenant_id || '''' = $1%s LIMIT $2',
        of_table || '_instance_uid', of_table, patterns
    ) USING tenant, most;
END $$
"""


def upgrade() -> None:
    """Add it; nothing where the database is another one."""
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    _widen_numbers()
    _create_waiting_list()
    op.create_table(
        "index_generation",
        sa.Column("is_current", sa.Boolean, sa.CheckConstraint("is_current"), primary_key=True),
        sa.Column("generation", sa.Text, nullable=False),
        prefixes=["UNLOGGED"],  # empty after a crash, which is how one is noticed
    )
    for table, names in _TEXTS.items():
        columns = ", ".join(f"{name} gin_trgm_ops" for name in names)
        op.execute(
            f"CREATE INDEX {table}_texts ON {table} USING gin ({columns})"
            " WITH (gin_pending_list_limit = 512)"
        )
    op.execute(_FIND_TEXT)
    op.execute("REVOKE EXECUTE ON FUNCTION wado_find_text FROM PUBLIC")
    _leave_room()
    for table in _TENANT_TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY own_tenant ON {table} USING ({_OWN_ROWS})")


def downgrade() -> None:
    """Take it away again; the extension stays."""
    if op.get_bind().dialect.name != "postgresql":
        return
    for table in _TENANT_TABLES:
        op.execute(f"DROP POLICY own_tenant ON {table}")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    op.execute("DROP FUNCTION wado_find_text")
    for table in _TEXTS:
        op.drop_index(f"{table}_texts", table)
    op.drop_table("index_generation")
    op.add_column("series", sa.Column("version", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column(
        "series",
        sa.Column("awaits_description", sa.Boolean, nullable=False, server_default="false"),
    )
    op.execute("""UPDATE series s SET version = a.version, awaits_description = true
        FROM series_awaiting a WHERE a.tenant_id = s.tenant_id
        AND a.study_instance_uid = s.study_instance_uid
        AND a.series_instance_uid = s.series_instance_uid""")
    for name in ("version", "awaits_description"):
        op.alter_column("series", name, server_default=None)
    op.drop_table("series_awaiting")
    op.create_index(
        "series_awaiting",
        "series",
        ["tenant_id", "version"],
        postgresql_where=sa.text("awaits_description"),
    )


def _widen_numbers() -> None:
    """What devices send as an integer may be longer than 32 bits."""
    for table, names in _NUMBERS.items():
        for name in names:
            op.alter_column(table, name, type_=sa.BigInteger)


def _create_waiting_list() -> None:
    keys = ("tenant_id", "study_instance_uid", "series_instance_uid")
    op.drop_index("series_awaiting", "series")
    op.create_table(
        "series_awaiting",
        *(sa.Column(name, _TEXT, primary_key=True) for name in keys),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
    op.execute("""INSERT INTO series_awaiting
        SELECT tenant_id, study_instance_uid, series_instance_uid, version
        FROM series WHERE awaits_description""")
    op.create_index("series_awaiting_oldest", "series_awaiting", ["version"])  # of all tenants
    for name in ("version", "awaits_description"):
        op.drop_column("series", name)


def _leave_room() -> None:
    for table in _UPDATED:
        op.execute(f"ALTER TABLE {table} SET (fillfactor = 85)")
    for table in ("patient", "study", "series", "study_modality"):
        op.execute(f"ALTER TABLE {table} SET ({_CARE})")
    for table in ("series_awaiting", "study_count"):
        op.execute(f"ALTER TABLE {table} SET ({_QUEUE_CARE})")
