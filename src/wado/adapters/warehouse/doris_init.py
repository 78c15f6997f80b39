"""Make database and tables in Doris, or check those that are there."""

import re
from contextlib import closing

from wado.adapters.warehouse.doris import DorisAddress
from wado.adapters.warehouse.doris_query import Connections
from wado.adapters.warehouse.doris_rows import Column, Layout, layouts
from wado.errors import InvalidRequest, Unavailable

_STATEMENT_TIMEOUT_S = 120.0
"""Making the tablets of a table takes a while."""

_LABELS = {"label_num_threshold": 50_000, "streaming_label_keep_max_second": 86_400}
"""What a FE should be set to, so that it knows a load that comes again hours later."""

_NAMES_BELOW = {
    "BIGINT": ("bigint",),
    "BOOLEAN": ("boolean", "tinyint(1)"),
    "DATETIME": ("datetime",),
    "DOUBLE": ("double",),
    "VARCHAR": ("varchar", "text", "string"),
}
"""How DESC names the types; those of text that have no length hold more than ours."""


def prepare(
    address: DorisAddress,
    password: str,
    *,
    connect_timeout_s: float,
    replicas: int,
    buckets: int,
    image_buckets: int,
) -> list[str]:
    """Make what is missing; lines that say what was done.

    Columns that a later version added, and that may be null, are added to tables that are there. An
    empty table whose key is that of an earlier version is made anew.

    Parameters
    ----------
    address, password
        Where Doris is, and an account that may make tables.
    connect_timeout_s
        How long to wait for a connection.
    replicas, buckets, image_buckets
        Of tables that are made.

    Raises
    ------
    Unavailable
        Doris does not answer, or refuses a statement.
    InvalidRequest
        A table is there that can't hold our rows.
    """
    numbers = {"replicas": replicas, "buckets": buckets, "image_buckets": image_buckets}
    connections = Connections(
        address.hosts,
        user=address.user,
        password=password,
        database=None,
        connect_timeout_s=connect_timeout_s,
        query_timeout_s=_STATEMENT_TIMEOUT_S,
        most=1,
    )
    with closing(connections):
        said = _database(connections, address.database)
        for layout in layouts():
            said += _table(connections, address.database, layout, numbers)
        said = said or [f"database {address.database} has all tables"]
        return said + _advice(connections)


def _database(connections: Connections, name: str) -> list[str]:
    there = {str(next(iter(row.values()))) for row in connections.run("SHOW DATABASES")}
    if name in there:
        return []
    connections.run(f"CREATE DATABASE IF NOT EXISTS `{name}`")
    return [f"made database {name}"]


def _table(
    connections: Connections, database: str, layout: Layout, numbers: dict[str, int]
) -> list[str]:
    name = f"`{database}`.`{layout.table}`"
    rows = connections.run(f"SHOW TABLES FROM `{database}`")
    if layout.table not in {str(next(iter(row.values()))) for row in rows}:
        connections.run(_in_database(layout.statement(**numbers), database))
        return [f"made table {layout.table}"]
    found = {row["Field"]: str(row["Type"]) for row in connections.run(f"DESC {name}")}
    if any(column.is_key and column.name not in found for column in layout.columns):
        return _made_anew(connections, database, layout, numbers)
    said = []
    for column in layout.columns:
        kind = found.get(column.name)
        if kind is None and not column.nullable:
            raise InvalidRequest(f"table {layout.table} in Doris has no column {column.name}")
        if kind is None:
            connections.run(f"ALTER TABLE {name} ADD COLUMN {column.definition}")
            said.append(f"added column {column.name} to table {layout.table}")
        elif not _suffices(column, kind):
            raise InvalidRequest(
                f"column {column.name} of table {layout.table} in Doris is {kind}: "
                f"our rows need {column.definition}"
            )
    return said


def _made_anew(
    connections: Connections, database: str, layout: Layout, numbers: dict[str, int]
) -> list[str]:
    """Give a table the key that it has now, if it has no rows."""
    name = f"`{database}`.`{layout.table}`"
    if connections.run(f"SELECT 1 FROM {name} LIMIT 1"):  # noqa: S608 - our names
        raise InvalidRequest(
            f"table {layout.table} in Doris has rows, and a key of an earlier version: "
            "docs/operations/upgrade.md says how they are kept"
        )
    connections.run(f"DROP TABLE {name}")
    connections.run(_in_database(layout.statement(**numbers), database))
    return [f"made table {layout.table} anew: it was empty, and had a key of an earlier version"]


def _advice(connections: Connections) -> list[str]:
    """Say that labels are forgotten too soon; nothing, if this account may not ask."""
    said = []
    for name, least in _LABELS.items():
        try:
            rows = connections.run("ADMIN SHOW FRONTEND CONFIG LIKE ?", [name])
        except Unavailable:
            return []
        values = [int(r["Value"]) for r in rows if re.fullmatch(r"-?\d+", str(r.get("Value")))]
        if values and 0 <= values[0] < least:
            said.append(
                f"advice: {name} of the FE is {values[0]}; with {least} or more, loads that come "
                "again late are known too (docs/operations/doris.md)"
            )
    return said


def _suffices(column: Column, kind: str) -> bool:
    kind = kind.lower()
    if not kind.startswith(_NAMES_BELOW[column.type]):
        return False
    digits = re.search(r"\((\d+)\)", kind)
    length = int(digits[1]) if digits else 0
    match column.type:
        case "VARCHAR":
            return not digits or length >= column.length
        case "DATETIME":
            return length >= column.length
        case _:
            return True


def _in_database(statement: str, database: str) -> str:
    """Leave out comments, and name the database."""
    text = "\n".join(line for line in statement.splitlines() if not line.startswith("--"))
    return text.replace("EXISTS `", f"EXISTS `{database}`.`", 1).rstrip().removesuffix(";")
