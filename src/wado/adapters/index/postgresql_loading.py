"""Very many states at once into PostgreSQL: one transaction, indexes made afterwards."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from wado.adapters.index import postgresql_writes as writes
from wado.adapters.index.postgresql_schema import TENANT_TABLES
from wado.adapters.index.postgresql_session import BoundedConnection, Sessions
from wado.records import DicomStateMeta

_BEGIN = f"""BEGIN; SET LOCAL lock_timeout = '10s'; SET LOCAL work_mem = '64MB';
    SET LOCAL maintenance_work_mem = '256MB'; SET LOCAL enable_seqscan = off;
    SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL jit = off;
    SET LOCAL plan_cache_mode = force_custom_plan;
    LOCK TABLE {", ".join(TENANT_TABLES)} IN SHARE ROW EXCLUSIVE MODE"""
_TENANT = "SELECT set_config('wado.tenant_id', %s, true)"
_IS_EMPTY_AND_OURS = """SELECT NOT EXISTS (SELECT FROM study) AND bool_and(
    pg_has_role(relowner, 'MEMBER')) FROM pg_class WHERE oid = ANY(%s::regclass[])"""
_INDEXES = """SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
    WHERE indrelid = ANY(%s::regclass[]) AND NOT indisunique"""
_FIRST, _FASTER, _MOST = 100, 10, 20_000
_LARGE = ["patient", "study", "series", "study_modality"]


@contextmanager
def loading(sessions: Sessions) -> Iterator[Callable[[Sequence[DicomStateMeta]], None]]:
    """Put states in one transaction; other writers wait, and readers, too, if indexes are made.

    Only the owner of the tables can do without indexes meanwhile.
    """
    with closing(sessions.connect(is_bounded=False)) as connection:
        connection.execute(_BEGIN)
        connection.execute(_TENANT, ["*"])
        row = connection.execute(_IS_EMPTY_AND_OURS, [_LARGE]).fetchone()
        is_ours = row is not None and bool(row[0])
        made = connection.execute(_INDEXES, [_LARGE]).fetchall() if is_ours else []
        for name, _ in made:
            connection.execute(f"DROP INDEX {name}")

        yield _Loader(sessions, connection)
        for _, definition in made:
            connection.execute(definition)
        connection.execute("COMMIT")
        if is_ours:
            connection.execute(f"ANALYZE {', '.join(_LARGE)}")


class _Loader:
    """Puts states in pieces that grow: plans follow from the size that the tables have."""

    def __init__(self, sessions: Sessions, connection: BoundedConnection) -> None:
        self._sessions = sessions
        self._connection = connection
        self._most = _FIRST

    def __call__(self, states: Sequence[DicomStateMeta]) -> None:
        start = 0
        with self._sessions.border():
            while start < len(states):
                self._put(states[start : start + self._most])
                start += self._most
                self._most = min(_MOST, self._most * _FASTER)

    def _put(self, states: Sequence[DicomStateMeta]) -> None:
        for changes in writes.prepared(states):
            self._connection.execute(_TENANT, [changes.tenant_id])
            writes.put(self._connection, changes, described=True)
