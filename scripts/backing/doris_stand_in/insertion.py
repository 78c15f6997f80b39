"""INSERT INTO … VALUES."""

from typing import TYPE_CHECKING, Any

from sqlglot import exp

from backing.doris_stand_in.partitions import place
from backing.doris_stand_in.schema import SEQUENCE, DorisError, Table
from backing.doris_stand_in.store import Counts, as_lines
from backing.doris_stand_in.values import Unfit, fit, zone

if TYPE_CHECKING:
    from backing.doris_stand_in.statements import Session, Statements


def insert(statements: "Statements", session: "Session", parsed: exp.Insert) -> None:
    """Insert rows as a load of their own, in strict mode.

    Raises
    ------
    DorisError
        A row does not fit; nothing is inserted.
    """
    from backing.doris_stand_in.statements import new_label  # noqa: PLC0415  # a circle

    target = parsed.this
    columns = []
    if isinstance(target, exp.Schema):
        columns = [c.name for c in target.expressions]
        target = target.this
    db = statements.known_database(target.db) if target.db else statements.current(session)
    table = statements.known_table(db, target.name)
    names = columns or [c.name for c in table.columns if c.name != SEQUENCE]
    for name in names:
        if table.column(name) is None:
            text = f"Unknown column '{name}' in 'table list'"
            raise DorisError(f"errCode = 2, detailMessage = {text}", 1054)
    rows = [_row(table, names, values, session) for values in _values(statements, parsed)]
    txn = statements.store.begin(db, table.name, new_label())
    statements.store.commit(txn, table, as_lines(rows), Counts(len(rows)))


def _values(statements: "Statements", parsed: exp.Insert) -> list[tuple[Any, ...]]:
    if not isinstance(parsed.expression, exp.Values):
        text = "the stand-in knows INSERT INTO … VALUES only"
        raise DorisError(f"errCode = 2, detailMessage = {text}")
    rows = []
    for row in parsed.expression.expressions:
        items = row.expressions if isinstance(row, exp.Tuple) else [row]
        selected = exp.select(*[item.copy() for item in items]).sql(dialect="duckdb")
        rows.append(statements.store.rows(selected)[0])
    return rows


def _row(
    table: Table, names: list[str], values: tuple[Any, ...], session: "Session"
) -> dict[str, Any]:
    if len(values) != len(names):
        text = "Column count doesn't match value count"
        raise DorisError(f"errCode = 2, detailMessage = {text}", 1136)
    given = {n.lower(): v for n, v in zip(names, values, strict=True)}
    here = zone(session.variables.get("time_zone", "Asia/Shanghai"))
    row = {}
    try:
        for column in table.columns:
            value = given.get(column.name.lower(), column.default)
            row[column.name] = fit(column, value, strict=True, here=here)
        place(table, row)
    except Unfit as e:
        text = f"Insert has filtered data in strict mode. {e}"
        raise DorisError(f"errCode = 5025, detailMessage = {text}") from e
    return row
