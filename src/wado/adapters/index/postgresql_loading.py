"""Very many states at once into PostgreSQL: one transaction, by COPY.

Into an empty index they go to a temporary table first, and from there, sorted, to all tables at
once; the owner of the tables does without their indexes meanwhile. (Row-level security takes no
COPY into a table that it guards.)
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count
from typing import Any

from wado.adapters.index import postgresql_writes as writes
from wado.adapters.index.postgresql_schema import TENANT_TABLES
from wado.adapters.index.postgresql_session import EVERY_TENANT, BoundedConnection, Sessions
from wado.adapters.index.postgresql_staging import ARRIVING, FILL, MAY_STAGE, staged
from wado.adapters.index.postgresql_values import short_enough
from wado.errors import Unavailable
from wado.records import DicomStateMeta

_BEGIN = f"""BEGIN; SET LOCAL lock_timeout = '10s'; SET LOCAL jit = off;
    LOCK TABLE {", ".join(TENANT_TABLES)} IN SHARE ROW EXCLUSIVE MODE"""
_FOR_MUCH = """SET LOCAL work_mem = '256MB'; SET LOCAL maintenance_work_mem = '512MB';
    SET LOCAL enable_nestloop = off"""
_FOR_PIECES = """SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off;
    SET LOCAL enable_mergejoin = off; SET LOCAL plan_cache_mode = force_custom_plan"""
_TENANT = "SELECT set_config('wado.tenant_id', %s, true)"
_IS_EMPTY = "SELECT NOT EXISTS (SELECT FROM study) AND NOT EXISTS (SELECT FROM series)"
_IS_OURS = """SELECT bool_and(pg_has_role(relowner, 'MEMBER'))
    FROM pg_class WHERE oid = ANY(%s::regclass[])"""
_INDEXES = """SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
    WHERE indrelid = ANY(%s::regclass[]) AND NOT indisunique"""
_FIRST, _FASTER, _MOST = 100, 10, 20_000
_LARGE = ["patient", "study", "series", "study_modality"]
_Put = Callable[[Sequence[DicomStateMeta]], None]


@contextmanager
def loading(sessions: Sessions) -> Iterator[_Put]:
    """Put states in one transaction; other writers wait, and readers, too, if indexes are made.

    Only the owner of the tables can do without indexes meanwhile.
    """
    with closing(sessions.connect(is_bounded=False)) as connection:
        connection.execute(_BEGIN)
        connection.execute(_TENANT, [EVERY_TENANT])
        may_stage = _says(connection, MAY_STAGE)
        if not (may_stage and _says(connection, _IS_EMPTY)):
            connection.execute(_FOR_PIECES)
            yield _Pieces(sessions, connection, may_stage=may_stage)
            connection.execute("COMMIT")
            return
        connection.execute(_FOR_MUCH)
        connection.execute(ARRIVING)
        yield _Stage(sessions, connection)
        is_ours = _says(connection, _IS_OURS, [_LARGE])
        with _without_indexes(connection) if is_ours else _as_it_is():
            for statement in FILL:
                connection.execute(statement)
        connection.execute("COMMIT")
        if is_ours:  # pages that nobody changes need no look at rows
            connection.execute(f"VACUUM (ANALYZE) {', '.join(_LARGE)}")


def _says(connection: BoundedConnection, question: str, values: Sequence[Any] = ()) -> bool:
    row = connection.execute(question, values).fetchone()
    return row is not None and bool(row[0])


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


@contextmanager
def _without_indexes(connection: BoundedConnection) -> Iterator[None]:
    """Drop indexes and make them again; an exception leaves that to a rollback."""
    made = connection.execute(_INDEXES, [_LARGE]).fetchall()
    for name, _ in made:
        connection.execute(f"DROP INDEX {name}")
    yield
    for _, definition in made:
        connection.execute(definition)


class _Stage:
    """Takes states in; what becomes of them is worked out when all are there."""

    def __init__(self, sessions: Sessions, connection: BoundedConnection) -> None:
        self._sessions = sessions
        self._connection = connection
        self._numbers = count()

    def __call__(self, states: Sequence[DicomStateMeta]) -> None:
        with self._sessions.border():
            try:
                staged(self._connection, map(short_enough, states), self._numbers)
            except (TypeError, ValueError) as e:
                raise Unavailable(f"{self._sessions.shown}: can't be written: {e}") from e


class _Pieces:
    """Puts states in pieces that grow: plans follow from the size that the tables have."""

    def __init__(
        self, sessions: Sessions, connection: BoundedConnection, *, may_stage: bool
    ) -> None:
        self._sessions = sessions
        self._connection = connection
        self._may_stage = may_stage
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
            by_copy = changes.is_large and self._may_stage
            writes.put(self._connection, changes, described=True, by_copy=by_copy)
