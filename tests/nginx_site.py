"""nginx before two servers and two receivers, which share one embedded archive."""

import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import real
from backing import nginx
from backing.program import Program, connects, free_port
from chaos.faults import family
from freezing import runs
from service import PATIENT_ENV, Addresses, Service, wait_until
from wado.nginx import nginx_configuration
from wado.settings import Settings, load_settings

LOOPBACK = ("127.0.0.0/8",)


def certificate(folder: Path, *names: str) -> dict[str, str]:
    """Make a certificate of its own for these names; settings of nginx that name it."""
    key, file = folder / f"{names[0]}.key", folder / f"{names[0]}.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN={names[0]}"),
            *("-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names)),
            *("-keyout", str(key), "-out", str(file)),
        ],
        check=True,
        capture_output=True,
    )
    return {"certificate": str(file), "certificate_key": str(key)}


def trusting(certificate_file: str) -> ssl.SSLContext:
    """A client's view of TLS that knows a certificate made by `certificate`."""
    return ssl.create_default_context(cafile=certificate_file)


@contextmanager
def running(program: Program) -> Iterator[Program]:
    """Run a program; stopped at the end."""
    try:
        program.start()
        program.wait()
        yield program
    finally:
        program.stop()


class Site(Addresses):
    """Addresses and processes of an archive behind nginx.

    Parameters
    ----------
    folder
        Everything lies below it.
    more
        Settings over those that this needs, by section.
    """

    def __init__(self, folder: Path, **more: Mapping[str, Any]) -> None:
        real.require("nginx")
        self.folder = folder
        self.root = folder / "data"
        self.server_ports = [free_port(), free_port()]
        self.storescp_ports = [free_port(), free_port()]
        self.http_port, self.dimse_port = free_port(), free_port()
        sections: dict[str, dict[str, Any]] = {
            "storage": {"root": self.root, "durability": "os", "unknown_sop_classes": True},
            "server": {"workers": 1, "x_accel_location": "/_files"},
            "storescp": {"workers": 1, "proxy_protocol_from": LOOPBACK},
            "nginx": {
                "http_listen": f"127.0.0.1:{self.http_port}",
                "servers": [f"127.0.0.1:{port}" for port in self.server_ports],
                "dimse_listen": f"127.0.0.1:{self.dimse_port}",
                "storescps": [f"127.0.0.1:{port}" for port in self.storescp_ports],
                "run_folder": str(folder / "nginx"),
                "user": nginx.own_user(),
            },
        }
        for name, values in more.items():
            sections.setdefault(name, {}).update(values)
        self.settings: Settings = load_settings(None, **sections)
        self.configuration = nginx_configuration(self.settings)
        self.services: dict[str, Service] = {}
        self._open = ExitStack()

    def nginx_log(self, name: str) -> Path:
        """One of the logs of nginx: ``access``, ``dicom`` or ``error``."""
        return self.folder / "nginx" / f"{name}.log"

    def nginx_memory(self) -> int:
        """Bytes that the processes of nginx hold, at most so far."""
        master = self.nginx.pid
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        return sum(map(peak_of, [master, *map(int, children)]))

    def encrypting_receiver(self, name: str, port: int, made: Mapping[str, str]) -> Service:
        """Run a receiver that ends TLS itself, with a certificate made by `certificate`."""
        service = Service(
            *("storescp", "--root", str(self.root), "--dimse", f"127.0.0.1:{port}"),
            log_path=self.folder / f"{name}.log",
            env={
                **self._environment(),
                "WADO_STORESCP__TLS_CERTIFICATE": made["certificate"],
                "WADO_STORESCP__TLS_CERTIFICATE_KEY": made["certificate_key"],
            },
        )
        service.start(ready=None)
        wait_until(lambda: connects(port), timeout_s=60, reason=f"{name} listens")
        return service

    @contextmanager
    def another(self, name: str, **more: Mapping[str, Any]) -> Iterator[Program]:
        """Run another nginx before the same services, with other settings."""
        folder = self.folder / name
        given = self.settings.model_dump(exclude_unset=True)
        own: dict[str, Any] = {
            "run_folder": str(folder),
            "http_listen": "",
            "dimse_listen": "",
        }
        sections = {key: {**given.get(key, {}), **more.get(key, {})} for key in {*given, *more}}
        sections["nginx"] = {**given["nginx"], **own, **more.get("nginx", {})}
        configuration = nginx_configuration(load_settings(None, **sections))
        with running(nginx.server(folder, configuration)) as program:
            yield program

    def kill(self, name: str) -> None:
        """Kill one of our services, and wait until none of its processes holds a connection."""
        service = self.services[name]
        pids = family(service.pid)
        service.kill()
        wait_until(lambda: not any(map(runs, pids)), timeout_s=60, reason=f"{name} is gone")

    def start_again(self, name: str) -> None:
        """Run one of our services again that was killed, and wait until nginx may use it."""
        self.services[name].start(ready=None)
        self._wait(name)

    def _wait(self, name: str) -> None:
        kind, _, number = name.partition("-")
        ports = {"server": self.server_ports, "storescp": self.storescp_ports}.get(kind)
        if ports is not None:
            port = ports[int(number) - 1]
            wait_until(lambda: connects(port), timeout_s=60, reason=f"{name} listens")

    def direct(self, number: int = 0) -> str:
        """Base URL of one of the servers itself."""
        return f"http://127.0.0.1:{self.server_ports[number]}"

    def start(self, name: str, *arguments: str) -> Service:
        """Run one of our services on this archive."""
        self.root.mkdir(parents=True, exist_ok=True)
        service = Service(
            *(name.partition("-")[0], "--root", str(self.root), *arguments),
            log_path=self.folder / f"{name}.log",
            env=self._environment(),
        )
        service.start(ready=None)
        self._open.callback(service.stop)
        self.services[name] = service
        return service

    def _environment(self) -> dict[str, str]:
        """What the services must know of the settings, as an operator would say it."""
        server = self.settings.server
        return {
            **PATIENT_ENV,
            "WADO_STORAGE__DURABILITY": "os",
            "WADO_STORAGE__UNKNOWN_SOP_CLASSES": "true",
            "WADO_SERVER__WORKERS": "1",
            "WADO_SERVER__X_ACCEL_LOCATION": server.x_accel_location,
            "WADO_SERVER__ROOT_PATH": server.root_path,
            "WADO_STORESCP__WORKERS": "1",
            "WADO_STORESCP__PROXY_PROTOCOL_FROM": '["127.0.0.0/8"]',
            "WADO_WEBWORKER__QUIET_S": "0.2",
        }

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self._open.close)
            for number, port in enumerate(self.server_ports, 1):
                self.start(f"server-{number}", "--http", f"127.0.0.1:{port}")
            for number, port in enumerate(self.storescp_ports, 1):
                self.start(f"storescp-{number}", "--dimse", f"127.0.0.1:{port}")
            self.start("consumer")
            self.start("webworker")
            for name in self.services:
                self._wait(name)
            program = nginx.server(self.folder / "nginx", self.configuration)
            self._open.enter_context(running(program))
            self.nginx = program
            stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()


def peak_of(pid: int) -> int:
    """Largest resident size of a process since it started, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10
