"""ALTER TABLE: columns are added at the end, and nothing else."""

from typing import TYPE_CHECKING

from backing.doris_stand_in.ddl import one_column
from backing.doris_stand_in.schema import DorisError

if TYPE_CHECKING:
    from backing.doris_stand_in.statements import Session, Statements
    from backing.doris_stand_in.tokens import Reader


def alter(statements: "Statements", session: "Session", reader: "Reader") -> None:
    """Add a column.

    Raises
    ------
    DorisError
        It is there, or rows that are there would have no value in it.
    """
    reader.expect("TABLE")
    db, name = statements.place(session, reader)
    reader.expect("ADD", "COLUMN")
    column = one_column(reader)
    reader.end()
    store = statements.store
    with store.transaction() as c:
        table = statements.known_table(db, name)
        if table.column(column.name) is not None:
            raise _refusal(f"Can not add column which already exists in base table: {column.name}")
        if not column.nullable and column.default is None:
            raise _refusal(f"column {column.name} is not null and has no default value")
        table.columns.append(column)
        kind = column.type_below
        c.execute(f'ALTER TABLE "{db}"."{name}" ADD COLUMN "{column.name}" {kind}')
        store.redefine_table(db, table)


def _refusal(message: str) -> DorisError:
    return DorisError(f"errCode = 2, detailMessage = {message}")
