"""The tables of information_schema that clients ask for."""

from typing import TYPE_CHECKING, Any

from backing.doris_stand_in.schema import SEQUENCE, DorisError

if TYPE_CHECKING:
    from backing.doris_stand_in.statements import Statements

_COLUMNS = {
    "schemata": "catalog_name, schema_name, default_character_set_name",
    "tables": "table_catalog, table_schema, table_name, table_type, engine, table_rows, "
    "create_time, table_comment",
    "columns": "table_catalog, table_schema, table_name, column_name, ordinal_position, "
    "column_default, is_nullable, data_type, character_maximum_length, column_type, column_key, "
    "column_comment",
    "partitions": "table_catalog, table_schema, table_name, partition_name, "
    "partition_ordinal_position",
}
_NUMBERS = frozenset(
    {"ordinal_position", "table_rows", "character_maximum_length", "partition_ordinal_position"}
)


def materialise(statements: "Statements", name: str) -> str:
    """Make a temporary table with what there is now, and give its name.

    Raises
    ------
    DorisError
        There is no such table.
    """
    if name not in _COLUMNS:
        text = f"Table [{name}] does not exist in database [information_schema]."
        raise DorisError(f"errCode = 2, detailMessage = {text}")
    titles = _COLUMNS[name].upper().split(", ")
    kinds = ("BIGINT" if t.lower() in _NUMBERS else "VARCHAR" for t in titles)
    columns = ", ".join(f"{t} {k}" for t, k in zip(titles, kinds, strict=True))
    connection = statements.store.connection
    connection.execute(f"CREATE OR REPLACE TEMP TABLE __is_{name} ({columns})")
    rows = _ROWS[name](statements)
    if rows:
        marks = ", ".join("?" * len(titles))
        connection.executemany(f"INSERT INTO __is_{name} VALUES ({marks})", rows)
    return f"__is_{name}"


def _schemata(statements: "Statements") -> list[list[Any]]:
    return [["internal", db, "utf8mb4"] for db in statements.store.databases()]


def _tables(statements: "Statements") -> list[list[Any]]:
    rows: list[list[Any]] = []
    store = statements.store
    for db in store.databases():
        for name in store.tables(db):
            table = store.table(db, name)
            assert table is not None
            count = store.rows(f'SELECT count(*) FROM "{db}"."{name}"')[0][0]
            rows.append(["internal", db, name, "BASE TABLE", "Doris", count, None, table.comment])
    return rows


def _columns(statements: "Statements") -> list[list[Any]]:
    rows: list[list[Any]] = []
    store = statements.store
    for db in store.databases():
        for name in store.tables(db):
            table = store.table(db, name)
            assert table is not None
            key = "UNI" if table.is_unique else "DUP"
            for number, c in enumerate((c for c in table.columns if c.name != SEQUENCE), 1):
                length = c.length if c.type in {"VARCHAR", "CHAR"} else None
                data_type = c.shown_type.partition("(")[0]
                where = ["internal", db, name, c.name, number, c.default]
                what = ["YES" if c.nullable else "NO", data_type, length, c.shown_type]
                rows.append([*where, *what, key if c.is_key else "", c.comment])
    return rows


def _partitions(statements: "Statements") -> list[list[Any]]:
    rows: list[list[Any]] = []
    store = statements.store
    for db in store.databases():
        for name in store.tables(db):
            table = store.table(db, name)
            assert table is not None
            names = [p.name for p in table.partitions]
            if not table.partition_columns:
                names = [name]
            rows += [["internal", db, name, p, n] for n, p in enumerate(names, 1)]
    return rows


_ROWS = {"schemata": _schemata, "tables": _tables, "columns": _columns, "partitions": _partitions}
