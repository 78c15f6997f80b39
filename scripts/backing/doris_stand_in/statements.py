"""Statements that come over the MySQL protocol: each is understood, or refused."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import uuid4

import duckdb
import sqlglot
from sqlglot import exp

from backing.doris_stand_in import alteration, deletion, insertion, show
from backing.doris_stand_in.accounts import Accounts
from backing.doris_stand_in.ddl import create_table
from backing.doris_stand_in.naming import is_database
from backing.doris_stand_in.queries import Result, run_query
from backing.doris_stand_in.schema import DorisError, Table
from backing.doris_stand_in.store import Store
from backing.doris_stand_in.tokens import Reader

SYSTEM_DATABASES = ("information_schema", "__internal_schema", "mysql")
_VARIABLES = frozenset(
    [
        "autocommit",
        "time_zone",
        "sql_mode",
        "wait_timeout",
        "interactive_timeout",
        "query_timeout",
        "insert_timeout",
        "max_execution_time",
        "net_write_timeout",
        "net_read_timeout",
        "character_set_client",
        "character_set_results",
        "character_set_connection",
        "collation_connection",
        "exec_mem_limit",
        "enable_insert_strict",
        "insert_max_filter_ratio",
        "delete_without_partition",
        "group_commit",
        "enable_unique_key_partial_update",
        "sql_select_limit",
        "transaction_isolation",
        "tx_isolation",
        "sql_safe_updates",
        "batch_size",
        "parallel_pipeline_task_num",
        "enable_nereids_planner",
        "enable_profile",
        "show_hidden_columns",
        "enable_sql_cache",
        "workload_group",
        "names",
        "allow_partition_column_nullable",
        "enable_fallback_to_original_planner",
        "runtime_filter_mode",
        "max_allowed_packet",
        "sql_auto_is_null",
        "default_storage_engine",
        "read_only",
        "enable_memtable_on_sink_node",
        "parallel_fragment_exec_instance_num",
    ]
)


@dataclass(slots=True)
class Session:
    """What a connection has set."""

    user: str
    database: str | None = None
    connection_id: int = 0
    variables: dict[str, str] = field(default_factory=dict)


class Statements:
    """Runs statements.

    Parameters
    ----------
    store, accounts
        What the HTTP services use too.
    backends
        How many BEs the cluster is to have: more replicas are refused.
    be_port
        Of the BE that there is.
    """

    def __init__(self, store: Store, accounts: Accounts, *, backends: int, be_port: int) -> None:
        self.store = store
        self.accounts = accounts
        self.backends = backends
        self.be_port = be_port
        self._by_word: dict[str, Callable[[Session, Reader], Result | None]] = {
            "ADMIN": lambda s, r: show.frontend_config(self, s, r),
            "ALTER": lambda s, r: alteration.alter(self, s, r),
            "CREATE": self._create,
            "DROP": self._drop,
            "USE": self._use,
            "SET": self._set,
            "TRUNCATE": self._truncate,
            "SHOW": lambda s, r: show.show(self, s, r),
            "DESC": lambda s, r: show.describe(self, s, r),
            "DESCRIBE": lambda s, r: show.describe(self, s, r),
            "GRANT": lambda _s, _r: None,
            "BEGIN": lambda _s, _r: None,
            "START": lambda _s, _r: None,
            "COMMIT": lambda _s, _r: None,
            "ROLLBACK": self._rollback,
        }

    def run(self, session: Session, sql: str) -> Result | None:
        """Run one statement; None where it has no rows.

        Raises
        ------
        DorisError
            It is refused.
        """
        sql = sql.strip().rstrip(";").strip()
        reader = Reader(sql)
        word = reader.next.value.upper()
        if word in self._by_word:
            reader.take()
            return self._by_word[word](session, reader)
        if not sql:
            raise DorisError("errCode = 2, detailMessage = Query was empty", 1065)
        try:
            parsed = sqlglot.parse_one(sql, read="doris")
            return self._run_parsed(session, parsed)
        except sqlglot.errors.SqlglotError as e:
            message = str(e).splitlines()[0]
            raise DorisError(f"errCode = 2, detailMessage = \n{message}") from e
        except duckdb.Error as e:
            message = str(e).splitlines()[0]
            raise DorisError(f"errCode = 2, detailMessage = {message}") from e

    def _run_parsed(self, session: Session, parsed: exp.Expr) -> Result | None:
        match parsed:
            case exp.Insert():
                insertion.insert(self, session, parsed)
                return None
            case exp.Delete():
                deletion.delete(self, session, parsed)
                return None
            case exp.Select() | exp.SetOperation() | exp.Subquery():
                return run_query(self, session, parsed)
        what = parsed.key.upper()
        raise DorisError(f"errCode = 2, detailMessage = the stand-in does not know {what}")

    # ------------------------------------------------------------------ names

    def place(self, session: Session, reader: Reader) -> tuple[str, str]:
        """Read the name of a table, with or without its database."""
        name = reader.name()
        if reader.comes("."):
            return self.known_database(name), reader.name()
        return self.current(session), name

    def current(self, session: Session) -> str:
        """Give the database in use."""
        if not session.database:
            raise DorisError("errCode = 2, detailMessage = No database selected", 1046)
        return self.known_database(session.database)

    def known_database(self, name: str) -> str:
        """Give a name of a database back, if there is one."""
        if name not in self.store.databases() and name not in SYSTEM_DATABASES:
            raise DorisError(f"errCode = 2, detailMessage = Unknown database '{name}'", 1049)
        return name

    def known_table(self, db: str, name: str) -> Table:
        """Find a table."""
        table = self.store.table(db, name)
        if table is None:
            text = f"Table [{name}] does not exist in database [{db}]."
            raise DorisError(f"errCode = 2, detailMessage = {text}")
        return table

    # ------------------------------------------------------------------ definitions

    def _create(self, session: Session, reader: Reader) -> None:
        if reader.comes("DATABASE") or reader.comes("SCHEMA"):
            self._create_database(reader)
        elif reader.comes("USER"):
            self._create_user(reader)
        elif reader.comes("TABLE"):
            self._create_table(session, reader)
        else:
            what = reader.next.value
            raise DorisError(f"errCode = 2, detailMessage = the stand-in can't create {what}")

    def _create_database(self, reader: Reader) -> None:
        there = reader.comes("IF", "NOT", "EXISTS")
        name = reader.name()
        if reader.comes("PROPERTIES"):
            reader.pairs()
        reader.end()
        if not is_database(name):
            raise DorisError(f"errCode = 2, detailMessage = Incorrect database name '{name}'", 1102)
        if name not in self.store.databases():
            self.store.create_database(name)
        elif not there:
            text = f"Can't create database '{name}'; database exists"
            raise DorisError(f"errCode = 2, detailMessage = {text}", 1007)

    def _create_table(self, session: Session, reader: Reader) -> None:
        there = reader.comes("IF", "NOT", "EXISTS")
        db, name = self.place(session, reader)
        table = create_table(reader, name, backends=self.backends)
        with self.store.lock:
            if self.store.table(db, name) is None:
                if name.lower() in map(str.lower, self.store.tables(db)):
                    text = "the stand-in has no names that differ in case only"
                    raise DorisError(f"errCode = 2, detailMessage = {text}")
                self.store.create_table(db, table)
            elif not there:
                text = f"Table '{name}' already exists"
                raise DorisError(f"errCode = 2, detailMessage = {text}", 1050)

    def _create_user(self, reader: Reader) -> None:
        there = reader.comes("IF", "NOT", "EXISTS")
        name, password = _user(reader), ""
        if reader.comes("IDENTIFIED", "BY"):
            password = reader.text()
        if self.accounts.password(name) is None:
            self.accounts.set(name, password)
        elif not there:
            raise DorisError(f"errCode = 2, detailMessage = User '{name}' already exist")

    def _drop(self, session: Session, reader: Reader) -> None:
        if reader.comes("USER"):
            reader.comes("IF", "EXISTS")
            self.accounts.set(_user(reader), None)
        elif reader.comes("DATABASE") or reader.comes("SCHEMA"):
            there = reader.comes("IF", "EXISTS")
            name = reader.name()
            reader.comes("FORCE")
            reader.end()
            if name in self.store.databases():
                self.store.drop_database(name)
            elif not there:
                text = f"Can't drop database '{name}'; database doesn't exist"
                raise DorisError(f"errCode = 2, detailMessage = {text}", 1008)
        else:
            reader.expect("TABLE")
            there = reader.comes("IF", "EXISTS")
            db, name = self.place(session, reader)
            reader.comes("FORCE")
            reader.end()
            if self.store.table(db, name) is not None:
                self.store.drop_table(db, name)
            elif not there:
                text = f"Unknown table '{name}'"
                raise DorisError(f"errCode = 2, detailMessage = {text} in {db}", 1051)

    def _truncate(self, session: Session, reader: Reader) -> None:
        reader.expect("TABLE")
        db, name = self.place(session, reader)
        if not reader.comes("FORCE"):
            reader.end()
        table = self.known_table(db, name)
        with self.store.transaction() as c:
            c.execute(f'DELETE FROM "{db}"."{name}"')
            if table.is_auto_partition:
                table.partitions.clear()
                self.store.redefine_table(db, table)

    # ------------------------------------------------------------------ the session

    def _use(self, session: Session, reader: Reader) -> None:
        session.database = self.known_database(reader.name())

    def _rollback(self, _session: Session, _reader: Reader) -> None:
        """Nothing to take back: each statement stands for itself."""

    def _set(self, session: Session, reader: Reader) -> None:
        if reader.comes("PASSWORD"):
            name = session.user
            if reader.comes("FOR"):
                name = _user(reader)
            reader.expect("=", "PASSWORD", "(")
            self.accounts.set(name, reader.text())
            return
        for part in reader.rest.split(","):
            self._set_variable(session, part)

    def _set_variable(self, session: Session, text: str) -> None:
        found = re.match(
            r"\s*(?:global\s+|session\s+|@@(?:global\.|session\.)?)?(\w+)", text, re.IGNORECASE
        )
        name = found[1].lower() if found else ""
        if name not in _VARIABLES:
            message = f"Unknown system variable '{name}'"
            raise DorisError(f"errCode = 2, detailMessage = {message}", 1193)
        session.variables[name] = text.rpartition("=")[2].strip().strip("'\"")


def _user(reader: Reader) -> str:
    """Read ``name``, ``'name'@'%'`` and the like; the host is not looked at."""
    name = reader.take().value
    if reader.next.value.startswith("@") and reader.take().value == "@":
        reader.take()
    return name.partition("@")[0]


def new_label() -> str:
    """Make the label of an INSERT."""
    return f"label_{uuid4().hex}"
