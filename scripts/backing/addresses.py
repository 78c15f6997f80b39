"""Ports that are chosen once and kept: a member that starts again is found where it was."""

import json
import socket
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import SystemRandom

from backing.supervisor import replace_file

_LOWEST = 20_000
_TRIES = 1000


def kept_ports(file: Path, names: Sequence[str]) -> dict[str, int]:
    """Give each name a port of 127.0.0.1: the one that `file` has for it, or a free one.

    They lie below the range from which the kernel takes ports for outgoing connections: one of
    those could otherwise sit on a member's port just when the member starts again.
    """
    ports: dict[str, int] = json.loads(file.read_text()) if file.is_file() else {}
    for name in names:
        if name not in ports:
            ports[name] = _free_port(taken=set(ports.values()))
    replace_file(file, json.dumps(ports, indent=1))
    return ports


def _free_port(taken: set[int]) -> int:
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = range(_LOWEST, max(first_outgoing, _LOWEST + _TRIES))
    chance = SystemRandom()
    for _ in range(_TRIES):
        port = chance.choice(candidates)
        if port not in taken and is_free("127.0.0.1", port):
            return port
    raise RuntimeError("no free port was found")


def is_free(host: str, port: int) -> bool:
    """Whether one could listen at an address now."""
    with closing(socket.socket()) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError:
            return False
    return True


def front_address(given: str | None, kept: int, usual: int) -> tuple[str, int]:
    """Where the world finds a cluster: as given, or where it was, or at the usual port if free.

    Parameters
    ----------
    given
        ``HOST:PORT``, if somebody asked for one.
    kept
        Port of 127.0.0.1 that was kept for it.
    usual
        Port that people expect.
    """
    if given:
        host, _, port = given.rpartition(":")
        return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - ":8080" asks for it
    return "127.0.0.1", usual if is_free("127.0.0.1", usual) else kept
