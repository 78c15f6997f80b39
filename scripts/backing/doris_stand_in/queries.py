"""SELECT: names checked as Doris checks them, the rest run by the engine below."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mysql_mimic.results import ResultColumn
from mysql_mimic.types import ColumnType
from sqlglot import exp

from backing.doris_stand_in.schema import SEQUENCE, DorisError
from backing.doris_stand_in.values import zone

if TYPE_CHECKING:
    from backing.doris_stand_in.statements import Session, Statements

VERSION = "5.7.99"
COMMENT = "Doris version doris-3.0.8-stand-in"
_TYPES = {
    "BOOLEAN": ColumnType.TINY,
    "TINYINT": ColumnType.TINY,
    "SMALLINT": ColumnType.SHORT,
    "INTEGER": ColumnType.LONG,
    "BIGINT": ColumnType.LONGLONG,
    "FLOAT": ColumnType.FLOAT,
    "DOUBLE": ColumnType.DOUBLE,
    "DATE": ColumnType.DATE,
    "TIMESTAMP": ColumnType.DATETIME,
}


@dataclass(slots=True)
class Result:
    """Rows and the columns that describe them."""

    columns: list[ResultColumn]
    rows: list[tuple[Any, ...]]


def of_texts(names: list[str], rows: list[list[Any]]) -> Result:
    """Make a result of texts, as SHOW gives them."""
    columns = [ResultColumn(name, ColumnType.VAR_STRING) for name in names]
    return Result(columns, [tuple(None if v is None else str(v) for v in row) for row in rows])


def run_query(statements: "Statements", session: "Session", parsed: exp.Expr) -> Result:
    """Run a query.

    Raises
    ------
    DorisError
        It names what is not there.
    """
    store = statements.store
    with store.lock:
        expression = _answered(session, parsed.copy())
        for table in list(expression.find_all(exp.Table)):
            _resolve(statements, session, expression, table)
        cursor = store.connection.execute(expression.sql(dialect="duckdb"))
        described = cursor.description or []
        rows = cursor.fetchall()
    hidden = {i for i, d in enumerate(described) if d[0] == SEQUENCE}
    columns = [_column(d[0], str(d[1])) for i, d in enumerate(described) if i not in hidden]
    shown = [tuple(v for i, v in enumerate(row) if i not in hidden) for row in rows]
    return Result(columns, shown)


def _column(name: str, kind: str) -> ResultColumn:
    if kind.startswith("DECIMAL"):
        return ResultColumn(name, ColumnType.NEWDECIMAL, text_encoder=_plain)
    if kind == "HUGEINT":  # what sum() gives; Doris sends LARGEINT as a text, sums as BIGINT
        return ResultColumn(name, ColumnType.LONGLONG)
    return ResultColumn(name, _TYPES.get(kind, ColumnType.VAR_STRING))


def _plain(_column: ResultColumn, value: Any) -> bytes:
    return str(value).encode()


def _resolve(
    statements: "Statements", session: "Session", whole: exp.Expr, table: exp.Table
) -> None:
    name, db = table.name, table.db
    if not db and any(cte.alias == name for cte in whole.find_all(exp.CTE)):
        return
    if db.lower() == "information_schema":
        from backing.doris_stand_in.information import materialise  # noqa: PLC0415  # a circle

        table.set("db", None)
        table.set("this", exp.to_identifier(materialise(statements, name.lower()), quoted=True))
        if not table.alias:
            table.set("alias", exp.TableAlias(this=exp.to_identifier(name)))
        return
    db = statements.known_database(db) if db else statements.current(session)
    statements.known_table(db, name)
    table.set("db", exp.to_identifier(db, quoted=True))
    table.set("this", exp.to_identifier(name, quoted=True))
    if not table.alias:
        table.set("alias", exp.TableAlias(this=exp.to_identifier(name, quoted=True)))


def _answered(session: "Session", parsed: exp.Expr) -> exp.Expr:
    """Replace what the session knows: variables, functions of information, the time."""
    if isinstance(parsed, exp.Select):
        for item in parsed.expressions:
            if isinstance(item, exp.SessionParameter | exp.Func) and not item.alias:
                item.replace(exp.alias_(item.copy(), item.sql(dialect="doris"), quoted=True))
    return parsed.transform(lambda node: _known(session, node))


def _known(session: "Session", node: exp.Expr) -> exp.Expr:
    if isinstance(node, exp.SessionParameter | exp.Parameter):
        return exp.convert(variable(session, node.name))
    if not isinstance(node, exp.Func):
        return node
    name = node.name.lower() if isinstance(node, exp.Anonymous) else node.sql_name().lower()
    known = {
        "current_version": VERSION,
        "current_schema": session.database,
        "connection_id": session.connection_id,
        "user": f"'{session.user}'@'127.0.0.1'",
        "current_user": f"'{session.user}'@'%'",
    }
    if name in known:
        return exp.convert(known[name])
    here = UTC if name == "utc_timestamp" else zone(variable(session, "time_zone"))
    now = datetime.now(here).replace(tzinfo=None)
    if name in {"now", "current_timestamp", "utc_timestamp", "localtime", "localtimestamp"}:
        return exp.cast(exp.convert(str(now.replace(microsecond=0))), "timestamp")
    if name in {"current_date", "curdate"}:
        return exp.cast(exp.convert(str(now.date())), "date")
    return node


def variable(session: "Session", name: str) -> str:
    """Give the value of a system variable."""
    known = {
        "version": VERSION,
        "version_comment": COMMENT,
        "time_zone": "Asia/Shanghai",
        "system_time_zone": "Asia/Shanghai",
        "autocommit": "1",
        "max_allowed_packet": "16777216",
        "sql_mode": "ONLY_FULL_GROUP_BY",
        "transaction_isolation": "READ-COMMITTED",
        "tx_isolation": "READ-COMMITTED",
        "lower_case_table_names": "0",
        "query_timeout": "900",
        "wait_timeout": "28800",
        "character_set_client": "utf8mb4",
        "character_set_results": "utf8mb4",
        "character_set_connection": "utf8mb4",
        "collation_connection": "utf8mb4_0900_bin",
    }
    name = name.lower()
    value = session.variables.get(name, known.get(name))
    if value is None:
        text = f"errCode = 2, detailMessage = Unknown system variable '{name}'"
        raise DorisError(text, 1193)
    return value
