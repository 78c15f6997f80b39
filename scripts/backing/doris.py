"""Apache Doris, by the stand-in of `backing.doris_stand_in`."""

import json
import os
import sys
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from backing.program import Program, connects, free_port

_SCRIPTS = Path(__file__).resolve().parents[1]
DATABASE = "wado"
USER = "wado"
PASSWORD = "stand-in: p@ss/w%rd"  # noqa: S105  # of a service on loopback; signs that need quoting
"""Password of the tests."""

_AS_ADVISED = ("--label-keep-s", "259200", "--label-num", "50000")
"""Labels are known for three days, as docs/operations/doris.md tells an administrator."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a stand-in listens, on 127.0.0.1."""

    http: int
    be: int
    mysql: int

    @classmethod
    def free(cls) -> "Ports":
        """Take ports that nobody uses now."""
        return cls(free_port(), free_port(), free_port())

    @property
    def url(self) -> str:
        """The address that the adapter takes, with user and password."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """Give the address with another database."""
        return f"doris://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.mysql}/{database}"

    @property
    def frontend(self) -> str:
        """The FE over HTTP."""
        return f"http://127.0.0.1:{self.http}"


def server(
    folder: Path, ports: Ports, *, name: str = "doris", options: tuple[str, ...] = ()
) -> Program:
    """Describe a stand-in for one FE and one BE whose data is kept below a folder.

    Parameters
    ----------
    folder
        Takes data and log; started again with the same, it knows what it knew.
    ports
        Where it listens.
    name
        Name of the program and of its log.
    options
        More options of ``python -m backing.doris_stand_in``.
    """
    return Program(
        name=name,
        kind="doris",
        arguments=[
            *(sys.executable, "-m", "backing.doris_stand_in", "--folder", str(folder / "data")),
            *("--http-port", str(ports.http), "--be-port", str(ports.be)),
            *("--mysql-port", str(ports.mysql), "--user", USER),
            *_AS_ADVISED,
            *options,
        ],
        folder=folder,
        answers=lambda: connects(ports.http) and connects(ports.mysql),
        environment={
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(_SCRIPTS), os.environ.get("PYTHONPATH")])
            ),
            "DORIS_STAND_IN_PASSWORD": PASSWORD,
        },
    )


def inject(frontend: str, fault: str, *, times: int = 1, seconds: float = 0.0) -> None:
    """Arm a fault of `backing.doris_stand_in.faults`; `times` 0 disarms it.

    Raises
    ------
    ValueError
        There is no such fault.
    """
    body = json.dumps({"name": fault, "times": times, "seconds": seconds})
    status, answer = _ask(frontend, "POST", body)
    if status != 200:
        raise ValueError(answer)


def armed(frontend: str) -> dict[str, Any]:
    """Which faults are still armed."""
    return dict(_ask(frontend, "GET", None)[1])


def _ask(frontend: str, method: str, body: str | None) -> tuple[int, Any]:
    with closing(HTTPConnection(urlsplit(frontend).netloc, timeout=60)) as connection:
        try:
            connection.request(method, "/stand_in/faults", body)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        except HTTPException as e:
            raise ValueError(str(e)) from e
