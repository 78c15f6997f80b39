"""Redis on loopback: nothing is kept on the disk."""

import socket
from contextlib import closing
from pathlib import Path

from backing.program import Program, free_port

_PROGRAM = "redis-server"


def server(
    folder: Path,
    port: int | None = None,
    *,
    max_memory: str = "64mb",
    policy: str = "allkeys-lru",
    options: tuple[str, ...] = (),
) -> tuple[Program, str]:
    """Describe a Redis server, and give its URL.

    Parameters
    ----------
    folder
        Where it runs, and where its output goes.
    port
        TCP port of 127.0.0.1; a free one if None.
    max_memory, policy
        Limit of its memory, and what it forgets when it gets there.
    options
        Further ones (``--requirepass secret``).
    """
    port = port or free_port()
    arguments = [
        _PROGRAM,
        *("--bind", "127.0.0.1", "--port", str(port)),
        *("--save", "", "--appendonly", "no", "--daemonize", "no"),
        *("--maxmemory", max_memory, "--maxmemory-policy", policy),
        *("--dir", str(folder)),
        *options,
    ]
    program = Program(
        "redis", "redis", arguments, folder, lambda: answers(port), start_within_s=60.0
    )
    return program, f"redis://127.0.0.1:{port}/0"


def answers(port: int) -> bool:
    """Whether Redis answers at a port of 127.0.0.1; one that asks for a password does."""
    try:
        with closing(socket.create_connection(("127.0.0.1", port), timeout=1.0)) as s:
            s.sendall(b"PING\r\n")
            return s.recv(64).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False
