"""Jobs for the tests of the pixel workers; run in processes of their own."""

import os
import time
from pathlib import Path

from wado.errors import NotAcceptable


def double(value: int, *, plus: int = 0) -> int:
    return 2 * value + plus


def pid() -> int:
    return os.getpid()


def die() -> None:
    os._exit(7)


def die_of_it(*_arguments: object) -> None:
    os._exit(7)


def hang(marker: str) -> None:
    Path(marker).write_text(str(os.getpid()))
    while True:
        time.sleep(3600)


def spin(*_arguments: object) -> None:
    while True:
        pass


def take(size: int) -> int:
    return len(bytearray(size))


def refuse() -> None:
    raise NotAcceptable("not that way")


def fail() -> None:
    raise ZeroDivisionError("by nothing")


def echo(data: bytes) -> bytes:
    return data
