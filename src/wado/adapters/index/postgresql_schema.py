"""The tables in PostgreSQL: made by `wado init` as their owner; services only look at the revision.

A service goes on beside tables that are newer than it knows: revisions add what is new before they
take away what is old, one release later, so that services can be replaced one by one.
"""

from contextlib import closing
from typing import Any

import psycopg
from psycopg import errors, sql
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from wado.adapters.index.migrations import HEAD, configuration
from wado.adapters.index.postgresql_session import (
    EVERY_TENANT,
    RUN_INIT,
    Sessions,
    driver,
)
from wado.errors import Unavailable

_LOCK = 0x7761646F  # "wado": one process migrates at a time
_WAIT_S = 120
TENANT_TABLES = (
    "patient",
    "study",
    "series",
    "series_awaiting",
    "study_modality",
    "study_count",
)
_HELP = (
    "a superuser can help: CREATE EXTENSION pg_trgm; "
    "ALTER DATABASE … OWNER TO the role that runs `wado init`"
)
_REVISION = "SELECT version_num FROM alembic_version"
_IS_BOUND = """SELECT NOT (r.rolsuper OR r.rolbypassrls OR pg_has_role(r.oid, c.relowner, 'MEMBER'))
    FROM pg_roles r, pg_class c WHERE r.rolname = %s AND c.oid = 'study'::regclass"""


def check_revision(connection: Connection) -> None:
    """Refuse tables that are older than this code.

    Raises
    ------
    Unavailable
        `wado init` is to be run.
    """
    present = connection.execute(text(_REVISION)).scalar()
    if present is None or present < HEAD:
        raise Unavailable(
            f"the index is at revision {present}, this version needs {HEAD}: {RUN_INIT}"
        )


def prepare(url: str, owner_url: str, *, timeout_s: float) -> list[str]:
    """Make the tables, or bring them up to date, and let the services' role use them.

    Parameters
    ----------
    url
        By which services reach the database.
    owner_url
        By which the owner of the tables does; may be the same.
    timeout_s
        How long a connection is waited for.

    Raises
    ------
    Unavailable
        The server does not answer, or the role may not do what is needed; nothing was changed.
    """
    role = psycopg.conninfo.conninfo_to_dict(url).get("user")
    owner = Sessions(owner_url, timeout_s=timeout_s, connections=1, is_bounded=False)
    begin = (
        f"BEGIN; SET LOCAL lock_timeout = '{_WAIT_S}s'; "
        f"SET LOCAL wado.tenant_id = '{EVERY_TENANT}'; SELECT pg_advisory_xact_lock({_LOCK})"
    )
    with closing(owner), owner.border(), owner.begun(begin) as connection:
        told = _migrate(owner, connection)
        told += _grant(driver(connection), str(role)) if role else []
        driver(connection).execute("COMMIT")
    return told


def _migrate(owner: Sessions, connection: Connection) -> list[str]:
    before = _revision(driver(connection))
    if before == HEAD:
        return [f"{owner.shown} is at revision {HEAD}"]
    if before is not None and before > HEAD:
        return [f"{owner.shown} is at revision {before}, newer than {HEAD}: left as it is"]
    from alembic import command  # noqa: PLC0415 - slow, and seldom needed

    try:
        command.upgrade(configuration(connection), HEAD)
    except DBAPIError as e:
        if not isinstance(e.orig, errors.InsufficientPrivilege):
            raise
        raise Unavailable(f"{owner.shown}: {e.orig}; {_HELP}") from e
    return [f"{owner.shown}: from revision {before or 'none'} to {HEAD}"]


def _revision(connection: psycopg.Connection[Any]) -> str | None:
    there = connection.execute("SELECT to_regclass('alembic_version')").fetchone()
    if there is None or there[0] is None:
        return None
    row = connection.execute(_REVISION).fetchone()
    return row[0] if row else None


def _grant(connection: psycopg.Connection[Any], role: str) -> list[str]:
    """Let the services' role read and write rows; row-level security shows it one tenant."""
    bound = connection.execute(_IS_BOUND, [role]).fetchone()
    if bound is None:
        raise Unavailable(f"there is no role {role}: CREATE ROLE {role} LOGIN PASSWORD '…'")
    if not bound[0]:
        return [f"row-level security does not bind {role}, which owns the tables or may do all"]
    name = sql.Identifier(role)
    tables = sql.SQL(", ").join(map(sql.Identifier, (*TENANT_TABLES, "index_generation")))
    for statement in (
        "GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {role}",
        "GRANT SELECT ON alembic_version TO {role}",
        "GRANT EXECUTE ON FUNCTION wado_find_text TO {role}",
    ):
        connection.execute(sql.SQL(statement).format(tables=tables, role=name))
    return [f"{role} may use the tables, one tenant at a time"]
