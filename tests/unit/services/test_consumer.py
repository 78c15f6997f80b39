"""The consumer goes on: what is down is waited for, and does not stop what is not."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import synthetic
from service import wait_until
from steps import series_of, store
from wado.archive.journal import Journals
from wado.errors import OutOfResources, Unavailable, WadoError
from wado.ports import Archive
from wado.services import consumer
from wado.settings import ConsumerSettings


class Failing:
    """A port of which one method fails a number of times."""

    def __init__(self, port: Any, method: str, error: WadoError, times: int) -> None:
        self._port = port
        self._method = method
        self._error = error
        self._times = times

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._port, name)
        if name != self._method:
            return value

        def method(*args: Any, **kwargs: Any) -> Any:
            if self._times:
                self._times -= 1
                raise self._error
            return value(*args, **kwargs)

        return method


def run_until(archive: Archive, done: Callable[[], bool]) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            consumer.run(archive, ConsumerSettings(load_interval_s=0), stop)
        except Exception as e:  # noqa: BLE001 - the test says which
            failures.append(e)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_until(lambda: bool(failures) or done(), timeout_s=60, reason="done")
    finally:
        stop.set()
        thread.join(20)
    assert failures == []


@pytest.mark.parametrize(
    ("port", "method", "error"),
    [
        ("store", "append", OutOfResources("disk full")),
        ("index", "put", Unavailable("down")),
        ("log", "publish", Unavailable("down")),
        ("warehouse", "load", OutOfResources("disk full")),
    ],
)
def test_what_is_down_is_waited_for(
    archive: Archive, port: str, method: str, error: WadoError
) -> None:
    ds = synthetic.ct()
    store(archive, ds)
    failing: Any = {port: Failing(getattr(archive, port), method, error, 2)}
    run_until(replace(archive, **failing), lambda: archive.warehouse.count("dicom_image_meta") == 1)
    assert Journals(archive.store).view(series_of(ds)) is not None


def test_warehouse_in_use_by_another_program_delays_no_image(archive: Archive) -> None:
    class Busy:
        def __getattr__(self, _name: str) -> Any:
            def wait(*_args: Any) -> None:
                time.sleep(0.5)
                raise Unavailable("in use by another process")

            return wait

    ds = synthetic.ct()
    store(archive, ds)
    busy: Any = Busy()
    journals = Journals(archive.store)
    run_until(replace(archive, warehouse=busy), lambda: journals.view(series_of(ds)) is not None)
