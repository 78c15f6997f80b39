"""Stream Load by hand, for the tests of the stand-in: nothing is done that no test asked for."""

import base64
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from typing import Any

import pymysql

from backing import doris
from backing.doris import Ports

AUTHORIZATION = "Basic " + base64.b64encode(f"{doris.USER}:{doris.PASSWORD}".encode()).decode()
TIMEOUT_S = 120
"""Longer than any answer takes, however busy the machine is."""
JSON_LINES = {"format": "json", "read_json_by_line": "true", "timezone": "UTC"}


def request(
    port: int, path: str, headers: Mapping[str, str], body: bytes | None = b""
) -> tuple[int, dict[str, str], Any]:
    """PUT, and give status, headers and body (decoded, where it is JSON)."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)) as connection:
        connection.request("PUT", path, body, dict(headers))
        response = connection.getresponse()
        text = response.read()
        names = {name.lower(): value for name, value in response.getheaders()}
        return response.status, names, json.loads(text) if text.startswith(b"{") else text


def lines(*rows: Mapping[str, Any]) -> bytes:
    """Rows as JSON, one a line."""
    return b"\n".join(json.dumps(row).encode() for row in rows)


class Site:
    """A stand-in and a database in it."""

    def __init__(self, ports: Ports, database: str) -> None:
        self.ports = ports
        self.database = database

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        """A cursor of a new connection."""
        with (
            pymysql.connect(
                host="127.0.0.1",
                port=self.ports.mysql,
                user=doris.USER,
                password=doris.PASSWORD,
                database=self.database,
                read_timeout=TIMEOUT_S,
            ) as connection,
            connection.cursor() as cursor,
        ):
            yield cursor

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements, and give the rows of the last."""
        with self.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def table(self, columns: str, model: str = "DUPLICATE KEY (k)", properties: str = "") -> None:
        """Make the table `t`, whose first column is `k`."""
        one = '"replication_num" = "1"' + (f", {properties}" if properties else "")
        self.run(
            "DROP TABLE IF EXISTS t",
            f"CREATE TABLE t ({columns}) {model} DISTRIBUTED BY HASH (k) BUCKETS 1 "
            f"PROPERTIES ({one})",
        )

    def load(self, body: bytes, label: str = "", **headers: str) -> dict[str, Any]:
        """Load into `t`, as JSON lines unless headers say otherwise, and give the BE's answer."""
        given = {name.replace("__", "."): value for name, value in headers.items()}
        names = {"Authorization": AUTHORIZATION, **JSON_LINES, **given}
        names = {n: v for n, v in names.items() if v} | ({"label": label} if label else {})
        status, _, answer = request(self.ports.be, self.path(), names, body)
        assert status == 200
        assert isinstance(answer, dict), answer
        return answer

    def path(self, table: str = "t") -> str:
        """Where a load is put."""
        return f"/api/{self.database}/{table}/_stream_load"

    def rows(self) -> list[tuple[Any, ...]]:
        """All rows of `t`."""
        return self.run("SELECT * FROM t ORDER BY 1")

    def errors(self, answer: Mapping[str, Any]) -> str:
        """Fetch the error log of a load."""
        where = str(answer["ErrorURL"]).removeprefix(f"http://127.0.0.1:{self.ports.be}")
        with closing(HTTPConnection("127.0.0.1", self.ports.be, timeout=TIMEOUT_S)) as connection:
            connection.request("GET", where)
            return connection.getresponse().read().decode()

    def head(self, headers: Mapping[str, str]) -> bytes:
        """Send only the head of a load to the BE, and give the first line of what comes."""
        names = {"Authorization": AUTHORIZATION, **JSON_LINES, "Content-Length": "7", **headers}
        text = "".join(f"{name}: {value}\r\n" for name, value in names.items())
        with socket.create_connection(("127.0.0.1", self.ports.be), timeout=TIMEOUT_S) as s:
            s.sendall(f"PUT {self.path()} HTTP/1.1\r\n{text}\r\n".encode())
            return s.makefile("rb").readline()
