"""PostgreSQL as an ordinary process: a cluster of databases in a folder, on loopback.

It has three roles, as an installation should: the superuser ``postgres``, the owner of the tables
(``wado_owner``, by which `wado init` works), and the role of the services (``wado``), which
row-level security binds. All have the same random password, kept in the folder.
"""

import secrets
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
from psycopg import sql

from backing.program import Program, as_ordinary_user, free_port

SUPERUSER, OWNER, SERVICE = "postgres", "wado_owner", "wado"
_STOP_FAST = 2  # SIGINT: ends connections; SIGTERM would wait for clients to go
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "128MB",
    "max_connections": "200",
    "max_wal_size": "1GB",
    "wal_recycle": "on",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] ",
    "timezone": "UTC",
}


def programs() -> Path | None:
    """Find the folder of the newest server's programs; None if there is none on this machine."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: int(p.parts[-3])
    )
    return found[-1].parent if found else None


def server(folder: Path, port: int | None = None, **settings: str) -> tuple[Program, str]:
    """Describe a server in a folder, which is made ready if it is new.

    Parameters
    ----------
    folder
        Where everything is written.
    port
        TCP port of 127.0.0.1; None: a free one.
    settings
        What differs from this module's settings of PostgreSQL.

    Returns
    -------
    program, url
        What to run, and the URL of its superuser (see `url_of` for others).
    """
    bin_folder = programs()
    if bin_folder is None:
        raise RuntimeError("PostgreSQL is not on this machine")
    data = folder / "data"
    if not (data / "PG_VERSION").exists():
        _make(bin_folder, folder)
    port = port or free_port()
    url = url_of(folder, port, user=SUPERUSER, database="postgres")
    arguments = [str(bin_folder / "postgres"), "-D", str(data), "-p", str(port)]
    for name, value in {**_SETTINGS, **settings}.items():
        arguments += ["-c", f"{name}={value}"]
    program = Program(
        name="postgresql",
        kind="postgresql",
        arguments=as_ordinary_user(arguments),
        folder=folder,
        answers=_answers(url),
        stop_signal=_STOP_FAST,
    )
    return program, url


def url_of(folder: Path, port: int, *, user: str = SERVICE, database: str = "wado") -> str:
    """Write the URL by which one of the roles reaches a database."""
    password = (folder / "password").read_text().strip()
    return f"postgresql://{user}:{password}@127.0.0.1:{port}/{database}"


def prepare(superuser_url: str, database: str = "wado", template: str | None = None) -> None:
    """Make the roles, and a database that the owner owns, in a server that runs; idempotent."""
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        password = connection.info.password
        for role in (OWNER, SERVICE):
            if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).rowcount:
                connection.execute(
                    sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                        sql.Identifier(role), sql.Literal(password)
                    )
                )
        known = "SELECT FROM pg_database WHERE datname = %s"
        if not connection.execute(known, [database]).rowcount:
            made = sql.SQL("CREATE DATABASE {} OWNER {}").format(
                sql.Identifier(database), sql.Identifier(OWNER)
            )
            if template:
                made += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
            connection.execute(made)


def _make(bin_folder: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    password = folder / "password"
    password.touch(mode=0o600)
    password.write_text(secrets.token_hex(16) + "\n")
    arguments = [
        str(bin_folder / "initdb"),
        f"--pgdata={folder / 'data'}",
        f"--username={SUPERUSER}",
        f"--pwfile={password}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
    ]
    subprocess.run(as_ordinary_user(arguments), check=True, capture_output=True)


def _answers(url: str) -> Callable[[], bool]:
    def ask() -> bool:
        try:
            with psycopg.connect(url, connect_timeout=2) as connection:
                connection.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True

    return ask
