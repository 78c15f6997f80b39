"""DELETE: what Doris lets one delete by."""

from typing import TYPE_CHECKING

from sqlglot import exp

from backing.doris_stand_in.schema import DorisError, Table

if TYPE_CHECKING:
    from backing.doris_stand_in.statements import Session, Statements

_LONGEST_LIST = 1024
_COMPARISONS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE)


def delete(statements: "Statements", session: "Session", parsed: exp.Delete) -> None:
    """Delete rows.

    Raises
    ------
    DorisError
        There is no condition, or one that this kind of table does not take.
    """
    target = parsed.this
    db = statements.known_database(target.db) if target.db else statements.current(session)
    table = statements.known_table(db, target.name)
    where = parsed.args.get("where")
    if where is None:
        raise _refusal("Where clause is not set")
    merges_on_write = table.properties.get("enable_unique_key_merge_on_write", "true") == "true"
    for column in where.find_all(exp.Column):
        if table.column(column.name) is None:
            raise _refusal(f"Unknown column '{column.name}' in 'table list'")
    if not (table.is_unique and merges_on_write):
        for condition in where.this.flatten() if isinstance(where.this, exp.And) else [where.this]:
            _simple(table, condition)
    sql = where.this.sql(dialect="duckdb")
    with statements.store.transaction() as c:
        c.execute(f'DELETE FROM "{db}"."{table.name}" WHERE {sql}')


def _simple(table: Table, condition: exp.Expr) -> None:
    """Compare a column with a value: all that a table without merging on write takes."""
    negated = condition.this if isinstance(condition, exp.Not) else condition
    if not isinstance(negated, (*_COMPARISONS, exp.In, exp.Is)):
        raise _refusal(
            "Where clause only supports compound predicate, binary predicate, is_null predicate "
            "or in predicate"
        )
    if isinstance(negated, exp.In) and len(negated.expressions) > _LONGEST_LIST:
        raise _refusal(f"Element num of in predicate should not be more than {_LONGEST_LIST}")
    named = negated.this
    if not isinstance(named, exp.Column):
        raise _refusal("Left expr of binary predicate should be column name")
    column = table.column(named.name)
    assert column is not None
    if column.type in {"FLOAT", "DOUBLE"}:
        raise _refusal(f"Column[{column.name}] type is float or double.")
    if table.is_unique and not column.is_key:
        raise _refusal(
            f"delete predicate on value column only supports Unique table with merge-on-write "
            f"enabled and Duplicate table, but Table[{table.name}] is an unique table without "
            "merge-on-write."
        )


def _refusal(message: str) -> DorisError:
    return DorisError(f"errCode = 2, detailMessage = {message}")
