"""A process that works on pixels: codecs of other people, on data of anybody.

Run as a fresh interpreter by `wado.archive.pixel_workers`, which it talks to over a socket. It ends
by itself when it has had nothing to do for a while, when its parent is gone, and, by the alarm,
when a job hangs, or takes far more of a processor than frames of its size do.
"""

import os
import pickle
import resource
import signal
import socket
import sys
from struct import Struct
from typing import Any

from wado.dicom.image import ImagePixel
from wado.dicom.rendering.placement import Placement
from wado.errors import CannotUnderstand, CutShort, WadoError

LENGTH = Struct("<Q")
"""Before each message."""
_READ_BYTES = 1 << 20
_LEAST_S, _SAMPLE_S = 3.0, 20e-6
"""Processor time for any job, which may have to load libraries, and for each sample: some twenty
times what the slowest codec takes. Damaged streams may keep a decoder busy for as long as it may.
"""


def send(connection: socket.socket, message: Any) -> None:
    """Send an object; raises OSError as sockets do."""
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    connection.sendall(LENGTH.pack(len(data)))
    connection.sendall(data)


def receive(connection: socket.socket) -> Any:
    """Receive an object.

    Raises
    ------
    EOFError
        The other side is gone.
    TimeoutError
        It sends nothing.
    """
    (length,) = LENGTH.unpack(_exactly(connection, LENGTH.size))
    return pickle.loads(_exactly(connection, length))  # noqa: S301 - from our own process


def _exactly(connection: socket.socket, length: int) -> bytearray:
    data = bytearray(length)
    with memoryview(data) as view:
        filled = 0
        while filled < length:
            count = connection.recv_into(view[filled : filled + _READ_BYTES])
            if not count:
                raise EOFError
            filled += count
    return data


def processor_seconds(arguments: Any) -> float:
    """Processor time that a job may take by the size of its frames; 0 if they are not known."""
    samples = _samples(arguments)
    return _LEAST_S + samples * _SAMPLE_S if samples else 0.0


def _samples(value: Any) -> int:
    match value:
        case ImagePixel():
            return value.pixels * value.samples_per_pixel
        case Placement():
            return 3 * value.width * value.height
        case tuple():
            return sum(map(_samples, value))
    return 0


def answer(work: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[bool, Any]:
    """Do a job: whether it went well, and its result or error."""
    try:
        return True, work(*arguments, **keywords)
    except WadoError as e:
        return False, e
    except MemoryError:
        return False, CutShort("the pixels need more memory than a worker may take")
    except Exception as e:  # noqa: BLE001 - whatever a codec does, the process goes on
        return False, CannotUnderstand(f"the pixels can't be worked on: {type(e).__name__}: {e}")


def main() -> None:
    """Work until there is nothing to do: socket, idle seconds, bytes and job seconds are given."""
    descriptor, idle_s, max_memory_bytes, timeout_s = sys.argv[1:5]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which closes us
    resource.setrlimit(resource.RLIMIT_AS, (int(max_memory_bytes), int(max_memory_bytes)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(5)  # what is sent as stored comes first
    with socket.socket(fileno=int(descriptor)) as connection:
        connection.settimeout(float(idle_s))
        while True:
            try:
                work, arguments, keywords = receive(connection)
            except (TimeoutError, EOFError, OSError):
                return
            signal.setitimer(signal.ITIMER_REAL, float(timeout_s))
            signal.setitimer(signal.ITIMER_PROF, processor_seconds(arguments))
            result = answer(work, arguments, keywords)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            del work, arguments, keywords
            connection.settimeout(None)
            send(connection, result)
            connection.settimeout(float(idle_s))
            del result
