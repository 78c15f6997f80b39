"""The warehouse in a DuckDB file, for one machine."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, get_args

import orjson

from wado.adapters.sqlite_file import make_folder
from wado.adapters.warehouse.session import PATIENCE_S, Session, definition
from wado.dicom.uids import SeriesRef
from wado.errors import InvalidMessage, InvalidRequest, Unavailable
from wado.records import Table

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_TABLES = frozenset(get_args(Table))
_COLUMNS = """SELECT column_name, data_type FROM information_schema.columns
    WHERE table_name = ? ORDER BY ordinal_position"""
_KEY = """SELECT constraint_column_names FROM duckdb_constraints()
    WHERE table_name = ? AND constraint_type = 'PRIMARY KEY'"""
_IS_LOADED = "SELECT 1 FROM load_label WHERE label = ?"
_SET_LOADED = "INSERT INTO load_label VALUES (?, ?)"
_FORGET_LABELS = "DELETE FROM load_label WHERE loaded_at < ?"
_FORGET_INTERVAL_S = 3600.0
LABEL_DAYS = 7
"""How long a label is known: a batch comes again until it is committed, and never after."""
_LOAD = """INSERT {or_replace} INTO {table} BY NAME
    SELECT * FROM read_json(?, format = 'newline_delimited', columns = {columns})"""
_DELETE = """DELETE FROM dicom_image_meta WHERE tenant_id = ? AND study_instance_uid = ?
    AND series_instance_uid = ? AND list_contains(?, sop_instance_uid)"""
_COUNT = "SELECT count(*) AS rows FROM {table}"


class DuckdbWarehouse:
    """A `wado.ports.Warehouse` in one file; several processes take turns at it.

    Parameters
    ----------
    path
        The database; it and its tables are made on first use.
    patience_s
        How long to wait for other processes before a call is `Unavailable`.

    Raises
    ------
    Unavailable
        The folder cannot be made.
    """

    def __init__(self, path: Path, *, patience_s: float = PATIENCE_S) -> None:
        make_folder(path.parent)
        self._path = path
        self._session = Session(path, patience_s=patience_s)
        self._layouts: dict[str, _Layout] = {}
        self._forget_at = 0.0

    def load(self, table: Table, rows: Sequence[bytes], label: str) -> bool:
        """Load rows (one JSON object each), all or none; False if the label was loaded before."""
        with self._border(), self._session.connection() as connection:
            if connection.execute(_IS_LOADED, [label]).fetchone():
                return False
            layout = self._layout(connection, table)
            wanted = layout.last_of_each_key(rows)
            with _transaction(connection, "BEGIN TRANSACTION"):
                connection.execute(_SET_LOADED, [label, datetime.now(UTC).isoformat()])
                if wanted:
                    self._insert(connection, layout, wanted)
            self._forget_labels(connection)
        return True

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Run a read-only query of our own making; ``?`` stands for a parameter."""
        with (
            self._border(),
            self._session.connection() as connection,
            _transaction(connection, "BEGIN TRANSACTION READ ONLY"),
        ):
            result = connection.execute(sql, list(parameters))
            names = [column[0] for column in result.description or ()]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def delete(self, series: SeriesRef, sop_instance_uids: Sequence[str], label: str = "") -> None:
        """Remove instances from `dicom_image_meta`; under a label, once."""
        key = (series.tenant_id, series.study_instance_uid, series.series_instance_uid)
        with (
            self._border(),
            self._session.connection() as connection,
            _transaction(connection, "BEGIN TRANSACTION"),
        ):
            if label and connection.execute(_IS_LOADED, [label]).fetchone():
                return
            if label:
                connection.execute(_SET_LOADED, [label, datetime.now(UTC).isoformat()])
            connection.execute(_DELETE, [*key, list(sop_instance_uids)])

    def clear(self, table: Table) -> None:
        """Remove all rows of a table, before a rebuild; labels stay."""
        script = definition(_checked(table))
        with (
            self._border(),
            self._session.connection() as connection,
            _transaction(connection, "BEGIN TRANSACTION"),
        ):
            connection.execute(f"DROP TABLE {table}")  # deleting a million rows takes minutes
            connection.execute(script)

    def count(self, table: Table, tenant_id: str | None = None) -> int:
        """Count the rows of a table (of one tenant, or of all)."""
        sql = _COUNT.format(table=_checked(table))
        if tenant_id is None:
            return int(self.query(sql)[0]["rows"])
        return int(self.query(sql + " WHERE tenant_id = ?", [tenant_id])[0]["rows"])

    def close(self) -> None:
        """Let go of the file."""
        with self._border():
            self._session.close()

    def _layout(self, connection: "DuckDBPyConnection", table: Table) -> "_Layout":
        if table not in self._layouts:
            columns = connection.execute(_COLUMNS, [_checked(table)]).fetchall()
            key = connection.execute(_KEY, [table]).fetchone()
            self._layouts[table] = _Layout(table, dict(columns), tuple(key[0]) if key else ())
        return self._layouts[table]

    def _forget_labels(self, connection: "DuckDBPyConnection") -> None:
        """Now and then forget labels so old that their batch can't come again."""
        now = time.monotonic()
        if now >= self._forget_at:
            self._forget_at = now + _FORGET_INTERVAL_S
            before = datetime.now(UTC) - timedelta(days=LABEL_DAYS)
            connection.execute(_FORGET_LABELS, [before.isoformat()])

    def _insert(
        self, connection: "DuckDBPyConnection", layout: "_Layout", rows: Sequence[bytes]
    ) -> None:
        """Load by way of a file: an INSERT per row costs five hundred times as much."""
        with TemporaryFile(dir=self._path.parent) as file:  # no name: nothing stays if we die
            file.write(b"\n".join(rows))
            file.flush()
            connection.execute(layout.load_statement, [f"/proc/self/fd/{file.fileno()}"])

    @contextmanager
    def _border(self) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            raise Unavailable(f"{self._path}: {e.strerror}") from e
        except Exception as e:
            import duckdb  # noqa: PLC0415  # loaded by now, if it is one of its errors

            if isinstance(
                e, duckdb.DataError | duckdb.IntegrityError | duckdb.InvalidInputException
            ):
                raise InvalidMessage(f"rows do not fit the table: {e}") from e
            if isinstance(e, duckdb.Error):
                raise Unavailable(f"{self._path}: {e}") from e
            raise


class _Layout:
    """Columns and key of a table."""

    def __init__(self, table: Table, columns: Mapping[str, str], key: tuple[str, ...]) -> None:
        self._key = key
        quoted = ", ".join(f"{name}: '{kind}'" for name, kind in columns.items())
        self.load_statement = _LOAD.format(
            table=table, columns=f"{{{quoted}}}", or_replace="OR REPLACE" if key else ""
        )

    def last_of_each_key(self, rows: Sequence[bytes]) -> Sequence[bytes]:
        """Check the rows; one statement may not touch a key twice, so the last row of each stays.

        Raises
        ------
        InvalidMessage
            A row is not a JSON object, or a value of its key is missing.
        """
        by_key: dict[Any, bytes] = {}
        for number, row in enumerate(rows):
            try:
                value = orjson.loads(row)
                key = tuple([value[name] for name in self._key]) if self._key else number
            except (ValueError, TypeError, KeyError, IndexError) as e:
                raise InvalidMessage(f"row {number} does not fit the table: {e}") from e
            if not isinstance(value, dict):
                raise InvalidMessage(f"row {number} is not a JSON object")
            by_key[key] = row
        return list(by_key.values())


@contextmanager
def _transaction(connection: "DuckDBPyConnection", begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _checked(table: Table) -> Table:
    if table not in _TABLES:
        raise InvalidRequest(f"no table of the warehouse: {table[:80]!r}")
    return table
