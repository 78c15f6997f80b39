"""The query port of the FE: the MySQL protocol, with passwords."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from mysql_mimic.auth import IdentityProvider, NativePasswordAuthPlugin, User
from mysql_mimic.connection import Connection
from mysql_mimic.errors import ErrorCode, MysqlError
from mysql_mimic.results import ResultSet
from mysql_mimic.server import MysqlServer
from mysql_mimic.session import BaseSession
from mysql_mimic.variables import SYSTEM_VARIABLES, GlobalVariables, SessionVariables

from backing.doris_stand_in.accounts import Accounts
from backing.doris_stand_in.faults import Faults
from backing.doris_stand_in.queries import COMMENT, VERSION
from backing.doris_stand_in.schema import DorisError
from backing.doris_stand_in.statements import Session, Statements

_VARIABLES: dict[str, Any] = {
    **SYSTEM_VARIABLES,
    "version": (str, VERSION, False),
    "version_comment": (str, COMMENT, False),
}


class _Connection(BaseSession):
    """One client."""

    def __init__(self, statements: Statements, faults: Faults) -> None:
        self.variables = SessionVariables(GlobalVariables(_VARIABLES))
        self.username = None
        self.database = None
        self._statements = statements
        self._faults = faults
        self._session = Session("")
        self._connection: Connection | None = None
        self._refusal: MysqlError | None = None

    async def init(self, connection: Connection) -> None:
        if self.username is None:  # refused already: mysql-mimic would let it go on
            raise ConnectionError("not authenticated")
        self._connection = connection
        self._session = Session(self.username, None, connection.connection_id)
        if self.database:
            try:
                await self.use(self.database)
            except MysqlError as e:  # Doris says so in the handshake, where mysql-mimic can't
                self._refusal = e

    async def handle_query(self, sql: str, attrs: dict[str, str]) -> Any:  # noqa: ARG002
        if self._refusal is not None:
            raise self._refusal
        if self._faults.take("mysql_drop") is not None and self._connection is not None:
            self._connection.stream.writer.transport.abort()
            raise ConnectionError("a fault on demand")
        if (seconds := self._faults.take("mysql_hang")) is not None:
            await asyncio.sleep(seconds)
        try:
            result = await asyncio.to_thread(self._statements.run, self._session, sql)
        except DorisError as e:
            raise _error(e) from e
        return None if result is None else ResultSet(result.rows, result.columns)

    async def use(self, database: str) -> None:
        try:
            await asyncio.to_thread(self._statements.known_database, database)
        except DorisError as e:
            raise _error(e) from e
        self._session.database = database

    async def reset(self) -> None:
        self._session.variables.clear()


def _error(error: DorisError) -> MysqlError:
    """Make the error that goes to the client; mysql-mimic has a name for few numbers only."""
    return MysqlError(error.message, cast("ErrorCode", error.code))


class _Users(IdentityProvider):
    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def get_plugins(self) -> Sequence[NativePasswordAuthPlugin]:
        return [NativePasswordAuthPlugin()]

    async def get_user(self, username: str) -> User:
        password = self._accounts.password(username)
        if password is None:  # told apart from a wrong password by nobody
            return User(username, auth_string="0" * 40, auth_plugin=NativePasswordAuthPlugin.name)
        hashed = NativePasswordAuthPlugin.create_auth_string(password) if password else None
        return User(username, auth_string=hashed, auth_plugin=NativePasswordAuthPlugin.name)


async def serve(
    port: int, statements: Statements, accounts: Accounts, faults: Faults
) -> MysqlServer:
    """Listen at a port of 127.0.0.1."""
    server = MysqlServer(
        session_factory=lambda: _Connection(statements, faults),
        identity_provider=_Users(accounts),
    )
    await server.start_server(host="127.0.0.1", port=port)
    return server
