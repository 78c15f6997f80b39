"""The distributed profile on one machine: who its members are, and how they find each other."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psycopg

import wado
from backing import doris, kafka, nginx, postgresql, redis
from backing.addresses import front_address, kept_ports
from backing.program import Program, connects
from backing.supervisor import Supervisor, replace_file
from wado.errors import WadoError
from wado.nginx import nginx_configuration
from wado.services.association import Peer
from wado.services.storescu import echo
from wado.settings import load_settings

EACH = 2
"""How many there are of each of our services."""
BROKERS = 3
AE_TITLE = "WADO"
_USUAL_HTTP, _USUAL_DIMSE = 8080, 11112
_STARTS_WITHIN_S = 120.0
_PREPARED_WITHIN_S = 120
_LOOPBACK = "127.0.0.0/8"
_LOOK_S = 1.0

Sections = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Backing:
    """The services that ours stand on.

    Parameters
    ----------
    programs
        What to run.
    sections
        The settings that lead there.
    prepare
        Makes what `wado init` expects to be there already, once all answer; idempotent.
    tend
        Looks after them until the event is set, in a thread of its own.
    profile
        Of the settings.
    """

    programs: Sequence[Program]
    sections: Mapping[str, Mapping[str, Any]]
    prepare: Callable[[], None] = lambda: None
    tend: Callable[[Event], None] = lambda _stop: None
    profile: str = "distributed"


StartBacking = Callable[[Path, Callable[[str], int]], Backing]
"""Gets a folder, and a function that gives each name a port of its own."""


class Cluster:
    """A cluster below a folder; a later start on the same folder goes on with what is there.

    Parameters
    ----------
    folder
        All that is written lies below it.
    http, dimse
        ``HOST:PORT`` of nginx, if they must be certain ones.
    backing
        Describes the services that ours stand on.
    say
        Takes lines for a person.
    """

    def __init__(
        self,
        folder: Path,
        *,
        http: str | None = None,
        dimse: str | None = None,
        backing: StartBacking | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.folder = folder.absolute()
        self.config = self.folder / "wado.toml"
        self.storage_root = self.folder / "storage"
        self._say = say
        self._http = front_address(http, self._port("http"), _USUAL_HTTP)
        self._dimse = front_address(dimse, self._port("dimse"), _USUAL_DIMSE)
        self.storage_root.mkdir(parents=True, exist_ok=True)
        self._backing = (backing or distributed)(self.folder, self._port)
        replace_file(self.config, toml(self._sections(), self._backing.profile))
        proxy = nginx.server(self.folder / "nginx", nginx_configuration(load_settings(self.config)))
        stages = [[*self._backing.programs, proxy], list(self._services())]
        for program in (p for stage in stages for p in stage):
            program.dies_with_parent = True
        self.supervisor = Supervisor(stages, self.folder, changed=self._changed, say=say)
        self._is_ready = False

    def _port(self, name: str) -> int:
        return kept_ports(self.folder / "ports.json", [name])[name]

    # -------------------------------------------------------------- what it consists of

    def _sections(self) -> Sections:
        names = range(1, EACH + 1)
        viewer = Path(wado.__file__).parent / "viewer"
        return {
            "storage": {"root": str(self.storage_root)},
            **{name: dict(section) for name, section in self._backing.sections.items()},
            "storescp": {
                "ae_title": AE_TITLE,
                "workers": 1,
                "proxy_protocol_from": [_LOOPBACK],
            },
            "server": {"workers": 1, "x_accel_location": "/_files"},
            "nginx": {
                "http_listen": _text(*self._http),
                "dimse_listen": _text(*self._dimse),
                "servers": [f"127.0.0.1:{self._port(f'server-{n}')}" for n in names],
                "storescps": [f"127.0.0.1:{self._port(f'storescp-{n}')}" for n in names],
                "static_folder": str(viewer) if (viewer / "index.html").is_file() else "",
                "user": nginx.own_user(),
                "run_folder": str(self.folder / "nginx"),
            },
        }

    def _services(self) -> Sequence[Program]:
        found = []
        for n in range(1, EACH + 1):
            dimse = self._port(f"storescp-{n}")
            http = f"127.0.0.1:{self._port(f'server-{n}')}"
            listens, is_ready = partial(connects, dimse), partial(_is_ready, http)
            found += [
                self._service("storescp", n, listens, "--dimse", f"127.0.0.1:{dimse}"),
                self._service("server", n, is_ready, "--http", http),
                self._service("consumer", n, lambda: True),
                self._service("webworker", n, lambda: True),
            ]
        return found

    def _service(
        self, kind: str, number: int, answers: Callable[[], bool], *options: str
    ) -> Program:
        return Program(
            f"{kind}-{number}",
            kind,
            [sys.executable, "-m", "wado", "--config", str(self.config), kind, *options],
            self.folder / "services",
            answers,
            environment={"PYTHONFAULTHANDLER": "1"},
            start_within_s=_STARTS_WITHIN_S,
        )

    # -------------------------------------------------------------- its life

    @property
    def http(self) -> str:
        """Base URL, through nginx."""
        return f"http://{_text(*self._http)}"

    @property
    def dimse(self) -> str:
        """``HOST:PORT`` of DICOM, through nginx."""
        return _text(*self._dimse)

    def start(self) -> None:
        """Start all members, prepare what ours stand on, and wait until everything answers.

        Raises
        ------
        RuntimeError
            Something does not come about; with the end of its log.
        """

        def between(stage: int) -> None:
            if stage == 0:
                self._prepare()

        self.supervisor.start(between)
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while not (self.supervisor.stop_asked.is_set() or self._answers()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"no answer through nginx: see {self.folder / 'nginx'}")
            self.supervisor.step()
        self._is_ready = True
        self._changed()
        Thread(target=self._backing.tend, args=(self.supervisor.stop_asked,), daemon=True).start()

    def _answers(self) -> bool:
        """Whether both ways in lead to services that answer."""
        host, port = self._dimse
        try:
            echo(Peer(AE_TITLE, _reachable(host), port), timeout_s=3.0)
        except WadoError:
            return False
        return _is_ready(_text(_reachable(self._http[0]), self._http[1]))

    def _prepare(self) -> None:
        self._backing.prepare()
        command = [sys.executable, "-m", "wado", "--config", str(self.config), "init"]
        done = subprocess.run(
            [*command, "--wait", str(_PREPARED_WITHIN_S)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
        )
        if done.returncode:
            raise RuntimeError(f"wado init: {done.stdout}{done.stderr}")

    def _changed(self) -> None:
        """Tell the world who runs where; before all is ready there is nothing to tell."""
        if not self._is_ready:
            return
        members = {
            p.name: {"kind": p.kind, "pid": p.pid}
            for p in self.supervisor.programs
            if p.process is not None
        }
        facts = {
            "http": self.http,
            "dicomweb": f"{self.http}/dicomweb",
            "dimse": self.dimse,
            "aet": AE_TITLE,
            "storage_root": str(self.storage_root),
            "config": str(self.config),
            "members": members,
        }
        replace_file(self.folder / "cluster.json", json.dumps(facts, indent=1))

    def stop(self) -> None:
        """Stop all members: receivers first, so that what they took still goes its way."""
        (self.folder / "cluster.json").unlink(missing_ok=True)
        self.supervisor.stop()


def distributed(folder: Path, port: Callable[[str], int]) -> Backing:
    """Kafka (three brokers), PostgreSQL, Redis, and the stand-in for Doris."""
    names = [f"kafka-{n}" for n in range(1, BROKERS + 1)]
    ports = [(port(name), port(f"{name}-controller")) for name in names]
    brokers = kafka.brokers(folder, BROKERS, ports=ports)
    home, place = folder / "postgresql", port("postgresql")
    database, superuser_url = postgresql.server(home, place)
    cache, cache_url = redis.server(folder / "redis", port("redis"))
    doors = doris.Ports(port("doris-http"), port("doris-be"), port("doris-mysql"))
    return Backing(
        [*brokers, database, cache, doris.server(folder / "doris", doors)],
        {
            "log": {"url": kafka.url(brokers)},
            "index": {
                "url": postgresql.url_of(home, place),
                "owner_url": postgresql.url_of(home, place, user=postgresql.OWNER),
            },
            "warehouse": {
                "url": doors.url,
                "http_url": doors.frontend,
                "replicas": 1,
                "buckets": 1,
                "image_buckets": 2,
            },
            "cache": {"url": cache_url},
        },
        prepare=partial(postgresql.prepare, superuser_url),
        tend=partial(_hurry, database, superuser_url),
    )


def _hurry(database: Program, url: str, stop: Event) -> None:
    """Let PostgreSQL stop at once when somebody sent it SIGTERM.

    It would wait for its clients to go, which ours never do, and let no others in meanwhile.
    """
    while not stop.wait(_LOOK_S):
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError as e:
            process = database.process
            if process is not None and "shutting down" in str(e):
                with suppress(ProcessLookupError):
                    os.kill(process.pid, database.stop_signal)


def toml(sections: Mapping[str, Mapping[str, Any]], profile: str) -> str:
    """Write settings as TOML; strings, numbers, and lists of strings."""
    lines = ["# Written by `make cluster` at each start.", f"profile = {json.dumps(profile)}"]
    for name, values in sections.items():
        lines += ["", f"[{name}]"]
        # What is written here looks the same in JSON.
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def _text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared only


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/readyz", timeout=3) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
