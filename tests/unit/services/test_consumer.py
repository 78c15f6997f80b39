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
from wado import vitals
from wado.archive.journal import Journals
from wado.errors import OutOfResources, Unavailable, WadoError
from wado.ports import Archive, Delivered
from wado.records import DicomImageMeta, DicomImageRemoval, Topic
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
        thread.join()
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
    run_until(
        replace(archive, **failing),
        lambda: (
            archive.warehouse.count("dicom_image_meta") == 1
            and archive.log.lag(Topic.STORAGE, "wado-consumer") == 0
        ),
    )
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


class OneBatch:
    """A batch as the log gives it."""

    label = "dicom_image_queue-0-0-9"

    def __init__(self, *bodies: bytes) -> None:
        self.messages = [
            Delivered(Topic.DICOM_IMAGE, 0, n, "clinic/1.2", body) for n, body in enumerate(bodies)
        ]
        self.rejected: list[str] = []

    def is_ours(self) -> bool:
        return True

    def reject(self, _message: Delivered, reason: str) -> None:
        self.rejected.append(reason)

    def commit(self) -> None:
        """Nothing to do."""


def image(number: int) -> bytes:
    return DicomImageMeta(
        "clinic", "1.2", "1.2.3", f"1.2.3.{number}", "1.2.840", "1.2.840", "path", 1, "digest",
        "2026-01-02T03:04:05.000006+00:00", "trace",
    ).to_json()  # fmt: skip


def removal(*numbers: int) -> bytes:
    uids = [f"1.2.3.{number}" for number in numbers]
    return DicomImageRemoval("clinic", "1.2", "1.2.3", uids).to_json()


def test_rows_are_loaded_and_removed_in_their_order_and_in_a_replay(archive: Archive) -> None:
    consumer.load_batch(archive, "dicom_image_meta", replaced_label(OneBatch(image(1), image(2))))
    batch = OneBatch(image(3), removal(1, 3, 4), b"no JSON", image(4), image(1))
    for _ in range(2):  # the second time as after a crash before the commit
        consumer.load_batch(archive, "dicom_image_meta", batch)
        rows = archive.warehouse.query("select sop_instance_uid as uid from dicom_image_meta")
        assert sorted(row["uid"] for row in rows) == ["1.2.3.1", "1.2.3.2", "1.2.3.4"]
    assert len(batch.rejected) == 2


def replaced_label(batch: OneBatch) -> OneBatch:
    batch.label = "dicom_image_queue-0-0-1"
    return batch


def test_a_row_that_does_not_fit_among_deletions_is_a_dead_letter(archive: Archive) -> None:
    """It is a record of an image, and the warehouse can't hold its number."""
    bad = image(2).replace(b'"file_size":1', b'"file_size":"much"')
    batch = OneBatch(image(1), removal(3), bad, image(4))
    for _ in range(2):
        consumer.load_batch(archive, "dicom_image_meta", batch)
    rows = archive.warehouse.query("select sop_instance_uid as uid from dicom_image_meta")
    assert sorted(row["uid"] for row in rows) == ["1.2.3.1", "1.2.3.4"]
    assert len(batch.rejected) == 2
    assert all("file_size" in reason or "much" in reason for reason in batch.rejected)


def test_a_bad_row_is_found_with_few_loads(archive: Archive) -> None:
    class Counting(Failing):
        loads = 0

        def load(self, *args: Any) -> Any:
            Counting.loads += 1
            return self._port.load(*args)

    counting: Any = Counting(archive.warehouse, "", Unavailable(""), 0)
    batch = OneBatch(*(image(n) for n in range(200)), b"{}", *(image(n) for n in range(201, 256)))
    consumer.load_batch(replace(archive, warehouse=counting), "dicom_image_meta", batch)
    assert archive.warehouse.count("dicom_image_meta") == 255
    assert len(batch.rejected) == 1
    assert Counting.loads < 20


def test_a_batch_that_takes_many_loads_and_removals_does_not_look_stuck(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, now, busy_s = vitals.Board(["consumer"]), [100.0], list[float]()
    removals = [removal(n).replace(b"1.2.3", b"1.2.%d" % n) for n in range(3)]
    batch = OneBatch(*removals, image(1), b"{}", image(2), image(4))

    class Slow(Failing):
        def _after(self, work: Callable[..., Any], *args: Any) -> Any:
            now[0] += 100.0
            busy_s.append(board.busy_s("consumer")["load dicom_image_meta"])
            return work(*args)

        def load(self, *args: Any) -> Any:
            return self._after(self._port.load, *args)

        def delete(self, *args: Any) -> Any:
            return self._after(self._port.delete, *args)

    slow: Any = Slow(archive.warehouse, "", Unavailable(""), 0)
    vitals.use(board.row("consumer"))
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with vitals.at("load dicom_image_meta"):
        consumer.load_batch(replace(archive, warehouse=slow), "dicom_image_meta", batch)
    vitals.use(vitals.Board(["alone"]).row("alone"))
    assert len(busy_s) > 3
    assert set(busy_s) == {100.0}


def test_tables_that_others_load_are_left_to_them(archive: Archive) -> None:
    settings = ConsumerSettings(load_interval_s=0, load_tables=("dicom_state_meta",))
    store(archive, synthetic.ct())
    stop = threading.Event()
    thread = threading.Thread(target=consumer.run, args=(archive, settings, stop))
    thread.start()
    try:
        wait_until(
            lambda: archive.warehouse.count("dicom_state_meta") == 1, timeout_s=60, reason="loaded"
        )
    finally:
        stop.set()
        thread.join()
    assert archive.log.lag(Topic.LOG, "wado-warehouse") == 1
    assert archive.warehouse.count("dicom_object_meta") == 0
