"""The process of a program that works on video: it limits itself, then becomes that program.

A fresh interpreter does it: code that runs between fork and exec of a process with threads may
hang.
"""

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
_NICE = 10
"""What is sent as stored, and single images, come first."""


def main() -> None:
    """Become a program: parent, bytes of memory, bytes of a file, and the command are given."""
    parent, memory_bytes, file_bytes, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it ended before it could take us along
        sys.exit("the service is gone")
    for limit, value in (
        (resource.RLIMIT_AS, int(memory_bytes)),
        (resource.RLIMIT_FSIZE, int(file_bytes)),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    os.nice(_NICE)
    try:
        os.execv(command[0], command)  # noqa: S606 - a list of arguments, no shell
    except OSError as e:
        sys.exit(f"{command[0]} can't be run: {e.strerror}")
