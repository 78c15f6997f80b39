"""When the supervisor gives up, and when it starts a service again."""

import multiprocessing
import os
from threading import Event

import pytest

from wado.errors import InvalidRequest, NotFound, Unavailable, WadoError
from wado.supervisor import Service, _child


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("a setting"), 3),
        (Unavailable("a service"), 1),
        (NotFound("one file: no reason to stop the archive"), 1),
    ],
)
def test_exit_code_says_whether_to_start_again(error: WadoError, code: int) -> None:
    def body(_stop: Event) -> None:
        raise error

    process = multiprocessing.get_context("fork").Process(
        target=_child, args=(Service("test", body), "ERROR", os.getpid())
    )
    process.start()
    process.join(20)
    assert process.exitcode == code
