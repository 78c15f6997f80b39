"""SHOW and DESC."""

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from backing.doris_stand_in.queries import Result, of_texts, variable
from backing.doris_stand_in.schema import SEQUENCE, Column, DorisError, Table
from backing.doris_stand_in.tokens import Reader

if TYPE_CHECKING:
    from backing.doris_stand_in.statements import Session, Statements

_STATES = {"VISIBLE": "FINISHED", "ABORTED": "CANCELLED", "PREPARE": "LOADING"}


def show(statements: "Statements", session: "Session", reader: Reader) -> Result:
    """Answer SHOW.

    Raises
    ------
    DorisError
        There is nothing of that kind, or the stand-in does not show it.
    """
    for word, answer in _SHOWN.items():
        if reader.comes(*word.split()):
            return answer(statements, session, reader)
    what = reader.rest
    raise DorisError(f"errCode = 2, detailMessage = the stand-in does not show {what}")


def describe(statements: "Statements", session: "Session", reader: Reader) -> Result:
    """Answer DESC table."""
    db, name = statements.place(session, reader)
    reader.comes("ALL")
    return _described(statements.known_table(db, name))


def _described(table: Table) -> Result:
    rows = [
        [
            c.name,
            c.shown_type,
            "Yes" if c.nullable else "No",
            "true" if c.is_key else "false",
            c.default,
            "" if c.is_key else "NONE",
        ]
        for c in table.columns
        if c.name != SEQUENCE
    ]
    return of_texts(["Field", "Type", "Null", "Key", "Default", "Extra"], rows)


def _databases(statements: "Statements", _session: "Session", reader: Reader) -> Result:
    names = ["__internal_schema", "information_schema", "mysql", *statements.store.databases()]
    return of_texts(["Database"], [[n] for n in sorted(names) if _like(reader)(n)])


def _tables(statements: "Statements", session: "Session", reader: Reader) -> Result:
    db = _database(statements, session, reader)
    fits = _like(reader)
    rows = [[name] for name in statements.store.tables(db) if fits(name)]
    return of_texts([f"Tables_in_{db}"], rows)


def _database(statements: "Statements", session: "Session", reader: Reader) -> str:
    if reader.comes("FROM") or reader.comes("IN"):
        return statements.known_database(reader.name())
    return statements.current(session)


def _like(reader: Reader) -> Any:
    if not reader.comes("LIKE"):
        return lambda _name: True
    parts = [".*" if c == "%" else "." if c == "_" else re.escape(c) for c in reader.text()]
    return lambda name: re.fullmatch("".join(parts), name) is not None


def _create_table(statements: "Statements", session: "Session", reader: Reader) -> Result:
    db, name = statements.place(session, reader)
    text = definition(statements.known_table(db, name))
    return of_texts(["Table", "Create Table"], [[name, text]])


def definition(table: Table) -> str:
    """Write a table as SHOW CREATE TABLE does."""
    lines = [f"  {_column(c)}" for c in table.columns if c.name != SEQUENCE]
    lines += [f"  {index}" for index in table.indexes]
    text = f"CREATE TABLE `{table.name}` (\n" + ",\n".join(lines) + "\n) ENGINE=OLAP\n"
    text += f"{table.keys_type} KEY({_quoted(table.keys)})\n"
    if table.comment:
        text += f"COMMENT '{table.comment}'\n"
    if table.partition_columns:
        text += _partitioned(table)
    spread = f"HASH({_quoted(table.distributed_by)})" if table.distributed_by else "RANDOM"
    text += f"DISTRIBUTED BY {spread} BUCKETS {table.buckets}\nPROPERTIES (\n"
    given = dict(table.properties)
    replicas = given.pop("replication_num", "3")
    given = {"replication_allocation": f"tag.location.default: {replicas}"} | given
    return text + ",\n".join(f'"{k}" = "{v}"' for k, v in given.items()) + "\n);"


def _partitioned(table: Table) -> str:
    by = _quoted(table.partition_columns)
    if table.partition_unit:
        by = f"date_trunc({by}, '{table.partition_unit}')"
    auto = "AUTO " if table.is_auto_partition else ""
    ranges = [
        f"PARTITION {p.name} VALUES [('{p.lower or '0000-01-01'}'), ('{p.upper}'))"
        for p in table.partitions
    ]
    return f"{auto}PARTITION BY RANGE ({by})\n(" + ",\n".join(ranges) + ")\n"


def _column(column: Column) -> str:
    text = f"`{column.name}` {column.shown_type} {'NULL' if column.nullable else 'NOT NULL'}"
    if column.default is not None:
        text += f' DEFAULT "{column.default}"'
    return text + (f' COMMENT "{column.comment}"' if column.comment else "")


def _quoted(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _partitions(statements: "Statements", session: "Session", reader: Reader) -> Result:
    reader.expect("FROM")
    db, name = statements.place(session, reader)
    table = statements.known_table(db, name)
    titles = ["PartitionId", "PartitionName", "State", "PartitionKey", "Range", "Buckets"]
    key = ", ".join(table.partition_columns)
    rows: list[list[Any]] = [
        [1000 + n, p.name, "NORMAL", key, f"[{p.lower}; {p.upper})", table.buckets]
        for n, p in enumerate(table.partitions)
    ]
    if not table.partition_columns:
        rows = [[1000, name, "NORMAL", "", "", table.buckets]]
    return of_texts(titles, rows)


def _load(statements: "Statements", session: "Session", reader: Reader) -> Result:
    db = _database(statements, session, reader)
    wanted = None
    if reader.comes("WHERE", "LABEL"):
        reader.expect("=")
        wanted = reader.text()
    titles = ["JobId", "Label", "State", "Progress", "Type", "ErrorMsg", "CreateTime", "URL"]
    titles += ["TransactionId"]
    rows = [
        [
            t["id"],
            t["label"],
            _STATES.get(t["state"], t["state"]),
            "100.00%",
            "STREAM_LOAD",
            None if t["message"] in {"OK", ""} else t["message"],
            _time(t["at"]),
            t["url"] or None,
            t["id"],
        ]
        for t in statements.store.loads(db)
        if wanted in {None, t["label"]}
    ]
    return of_texts(titles, rows)


def _transaction(statements: "Statements", session: "Session", reader: Reader) -> Result:
    db = _database(statements, session, reader)
    reader.expect("WHERE")
    by = "label" if reader.comes("LABEL") else "id"
    if by == "id":
        reader.expect("ID")
    reader.expect("=")
    wanted = reader.take().value
    titles = ["TransactionId", "Label", "Coordinator", "TransactionStatus", "Reason"]
    found = [
        [
            t["id"],
            t["label"],
            "BE: 127.0.0.1",
            t["state"],
            "" if t["message"] == "OK" else t["message"],
        ]
        for t in statements.store.loads(db)
        if str(t[by]) == wanted
    ]
    if not found:
        text = f"transaction with {by} {wanted} does not exist"
        raise DorisError(f"errCode = 2, detailMessage = {text}")
    return of_texts(titles, found)


def _backends(statements: "Statements", _session: "Session", _reader: Reader) -> Result:
    titles = ["BackendId", "Host", "HeartbeatPort", "BePort", "HttpPort", "BrpcPort", "Alive"]
    row = [10001, "127.0.0.1", 9050, 9060, statements.be_port, 8060, "true"]
    return of_texts(titles, [row])


def _frontends(_statements: "Statements", _session: "Session", _reader: Reader) -> Result:
    titles = ["Name", "Host", "EditLogPort", "Role", "IsMaster", "Alive", "Version"]
    row = ["fe_stand_in", "127.0.0.1", 9010, "FOLLOWER", "true", "true", "doris-3.0.8-stand-in"]
    return of_texts(titles, [row])


def frontend_config(statements: "Statements", _session: "Session", reader: Reader) -> Result:
    """Answer ``ADMIN SHOW FRONTEND CONFIG``: how long, and how many, labels are known here."""
    reader.expect("SHOW", "FRONTEND", "CONFIG")
    fits = _like(reader)
    known = {
        "label_num_threshold": str(statements.store.label_num),
        "streaming_label_keep_max_second": str(int(statements.store.label_keep_s)),
    }
    titles = ["Key", "Value", "Type", "IsMutable", "MasterOnly", "Comment"]
    rows = [[name, value, "int", "true", "true", ""] for name, value in known.items() if fits(name)]
    return of_texts(titles, rows)


def _variables(_statements: "Statements", session: "Session", reader: Reader) -> Result:
    fits = _like(reader)
    names = [
        "autocommit",
        "lower_case_table_names",
        "max_allowed_packet",
        "query_timeout",
        "sql_mode",
        "time_zone",
        "version",
        "version_comment",
        "wait_timeout",
    ]
    rows = [[name, variable(session, name)] for name in names if fits(name)]
    return of_texts(["Variable_name", "Value"], rows)


def _columns_of(statements: "Statements", session: "Session", reader: Reader) -> Result:
    reader.expect("FROM")
    db, name = statements.place(session, reader)
    return _described(statements.known_table(db, name))


def _warnings(_statements: "Statements", _session: "Session", _reader: Reader) -> Result:
    return of_texts(["Level", "Code", "Message"], [])


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"


_SHOWN = {
    "DATABASES": _databases,
    "SCHEMAS": _databases,
    "TABLES": _tables,
    "CREATE TABLE": _create_table,
    "PARTITIONS": _partitions,
    "LOAD": _load,
    "STREAM LOAD": _load,
    "TRANSACTION": _transaction,
    "BACKENDS": _backends,
    "FRONTENDS": _frontends,
    "FULL COLUMNS": _columns_of,
    "COLUMNS": _columns_of,
    "SESSION VARIABLES": _variables,
    "GLOBAL VARIABLES": _variables,
    "VARIABLES": _variables,
    "WARNINGS": _warnings,
}
