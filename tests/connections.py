"""What the kernel says of TCP connections: whether the other end writes still, and can."""

import socket
from pathlib import Path

_ESTABLISHED = "01"


def _server_end(client: socket.socket) -> tuple[str, int]:
    """State of the other end of a connection on 127.0.0.1, and bytes it can't get rid of."""
    ours, theirs = (
        f"0100007F:{name()[1]:04X}" for name in (client.getsockname, client.getpeername)
    )
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, queues, *_ = line.split()
        if (local, remote) == (theirs, ours):
            return state, int(queues.partition(":")[0], 16)
    return "", 0


def is_held_up(client: socket.socket) -> bool:
    """Whether the other end has written more than this one takes."""
    state, waiting = _server_end(client)
    return state == _ESTABLISHED and waiting > 0


def is_given_up(client: socket.socket) -> bool:
    """Whether the other end has closed the connection; what it wrote before may be on its way."""
    return _server_end(client)[0] != _ESTABLISHED
