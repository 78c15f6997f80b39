"""The stand-in for Apache Doris, held to its protocols by clients that others wrote.

The loaders of the official Flink connector (Java), of ray-doris and of DorisClient (Python); for
queries PyMySQL and asyncmy. Each is fetched once into a cache of this user.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pymysql
import pytest

import real
from backing import doris
from backing.doris import Ports
from backing_doris import shared_doris

MADE_OF = real.PROJECT / "tests" / "doris_clients"
TABLE = """CREATE TABLE {table} (id INT NOT NULL, name VARCHAR(10) NULL, size BIGINT NULL)
    UNIQUE KEY (id) DISTRIBUTED BY HASH (id) BUCKETS 1
    PROPERTIES ("replication_num" = "1", "enable_unique_key_merge_on_write" = "true")"""


@contextmanager
def _only_one(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "doris-clients.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetched(name: str, recipe: Path, fetch: Callable[[Path], list[str]]) -> Path:
    """Folder of a client; fetched when this user asks for the first time."""
    digest = hashlib.sha256(recipe.read_bytes()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wado-backing"
    folder = cache / f"doris-{name}-{digest}"
    with _only_one(cache):
        if not folder.is_dir():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            done = subprocess.run(
                fetch(partial), capture_output=True, text=True, check=False, timeout=240
            )
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
            partial.rename(folder)
    return folder


@pytest.fixture(scope="module")
def java_client() -> Path:
    for name in ("java", "mvn"):
        real.require(name)
    goal = "dependency:copy-dependencies"
    pom = MADE_OF / "pom.xml"
    return _fetched(
        "java",
        pom,
        lambda to: ["mvn", "-B", "-q", "-f", str(pom), goal, f"-DoutputDirectory={to}"],
    )


@pytest.fixture(scope="module")
def python_clients() -> Path:
    wanted = MADE_OF / "requirements.txt"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    how = ["--no-deps", "--require-hashes", "-r", str(wanted)]
    return _fetched("python", wanted, lambda to: [*pip, *how, "--target", str(to)])


@pytest.fixture
def ports(run_folder: Path) -> Ports:
    return shared_doris(run_folder)


@pytest.fixture
def cursor(ports: Ports) -> Iterator[Any]:
    """A cursor in a database of its own, with an empty table `t`."""
    database = f"c{uuid.uuid4().hex}"
    connection = pymysql.connect(
        host="127.0.0.1", port=ports.mysql, user=doris.USER, password=doris.PASSWORD
    )
    with connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {database}")
        connection.select_db(database)
        cursor.execute(TABLE.format(table="t"))
        yield cursor
        cursor.execute(f"DROP DATABASE {database} FORCE")


def _rows(cursor: Any, sql: str) -> list[Any]:
    cursor.execute(sql)
    return list(cursor.fetchall())


def _database(cursor: Any) -> str:
    return str(_rows(cursor, "SELECT database()")[0][0])


def _run(arguments: list[str], **environment: str) -> list[str]:
    done = subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout.splitlines()


def _python(clients: Path, script: str, *arguments: object) -> list[str]:
    command = [sys.executable, str(MADE_OF / script), *map(str, arguments)]
    return _run(command, PYTHONPATH=str(clients))


@pytest.fixture
def flink(java_client: Path, ports: Ports, cursor: Any) -> dict[str, str]:
    """What each step of `FlinkLoader.java` said."""
    who = [doris.USER, doris.PASSWORD, f"{_database(cursor)}.t"]
    java = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", f"{java_client}/*"]
    lines = _run([*java, str(MADE_OF / "FlinkLoader.java"), f"127.0.0.1:{ports.http}", *who])
    return dict(line.split(": ", 1) for line in lines if ": " in line)


def test_flink_connector(flink: dict[str, str], cursor: Any) -> None:
    assert flink["plain"] == "Success"
    assert "Label [flink-plain] has already been used, relate to txn [" in flink["again"]
    assert "too many filtered rows, see more in http://127.0.0.1:" in flink["unfit"]
    assert "Access denied" in flink["wrong password"]
    # In two phases: committed, committed a second time, given up, found left behind and given up.
    assert flink["committed"] == "Success true"
    assert flink["committed twice"] == flink["aborted"] == flink["left behind"] == "Success"
    # Batches: sent on by the FE, and to a BE that the connector asked the FE for.
    assert flink["batch by the FE"] == flink["batch by a BE"] == "done"
    ids = [row[0] for row in _rows(cursor, "SELECT id FROM t ORDER BY id")]
    assert ids == [1, 2, 10, 11, 12, *range(100, 150), *range(200, 250)]
    cursor.execute("SHOW LOAD WHERE LABEL = 'flink-aborted'")
    assert cursor.fetchone()[2] == "CANCELLED"


def test_ray_doris(python_clients: Path, ports: Ports, cursor: Any, tmp_path: Path) -> None:
    parquet = tmp_path / "rows.parquet"
    with duckdb.connect() as connection:
        rows = "SELECT unnest([1, 2, 3]) AS id, unnest(['a', NULL, 'c']) AS name"
        connection.execute(f"COPY ({rows}) TO '{parquet}' (FORMAT parquet)")
    who = [ports.http, ports.be, doris.USER, doris.PASSWORD, _database(cursor), "t"]
    loaded, updated = _python(python_clients, "ray_loader.py", *who, parquet)
    assert "status='Success', loaded_rows=3, filtered_rows=0, total_rows=3" in loaded
    assert "status='Success', loaded_rows=2, filtered_rows=0, total_rows=2" in updated
    assert _rows(cursor, "SELECT * FROM t ORDER BY id") == [
        (1, "a", 11),
        (2, None, 22),
        (3, "c", None),
    ]


def test_doris_client(python_clients: Path, ports: Ports, cursor: Any) -> None:
    who = [ports.http, ports.mysql, doris.USER, doris.PASSWORD, _database(cursor), "t"]
    lines = _python(python_clients, "doris_client.py", *who)
    assert lines == ["True", "True", "[{'n': 9}]"]
    assert _rows(cursor, "SELECT count(*), max(id) FROM t") == [(9, 108)]


def test_asyncmy(python_clients: Path, ports: Ports, cursor: Any) -> None:
    who = [ports.mysql, doris.USER, doris.PASSWORD, _database(cursor), "t"]
    rows, error = _python(python_clients, "asyncmy_queries.py", *who)
    assert rows == """((900, "it's", None),)"""
    assert error.startswith("(1105, 'errCode = 2, detailMessage = Table [nothing] does not exist")


def test_a_wrong_password_is_refused(ports: Ports) -> None:
    for user, password in ((doris.USER, "wrong"), ("nobody", ""), (doris.USER, "")):
        with pytest.raises(pymysql.err.OperationalError) as refusal:
            pymysql.connect(host="127.0.0.1", port=ports.mysql, user=user, password=password)
        assert refusal.value.args[0] == 1045
