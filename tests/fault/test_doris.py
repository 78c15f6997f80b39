"""Doris fails in every way that it can: each row is there once, and no message is blamed for it."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

import synthetic
from backing import doris
from backing.doris import Ports
from backing.program import Program
from backing_doris import address_of, make_tables, open_doris
from contract import child
from contract.warehouses import ACCESS, IMAGE, stores
from service import wait_until
from steps import series_of, store
from wado.adapters.warehouse import doris_load
from wado.adapters.warehouse.doris import DorisAddress, DorisWarehouse
from wado.archive.journal import Journals
from wado.dicom.uids import SeriesRef
from wado.errors import Unavailable
from wado.ports import Archive, Message
from wado.records import Topic
from wado.services import consumer
from wado.settings import ConsumerSettings


class Site:
    """A Doris of our own, to be harmed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ports = Ports.free()
        self.program = self._start()

    def _start(self) -> Program:
        program = doris.server(self._folder, self.ports)
        program.start()
        program.wait()
        return program

    def arm(self, fault: str, *, times: int = 1, seconds: float = 0.0) -> None:
        doris.inject(self.ports.frontend, fault, times=times, seconds=seconds)

    def is_spent(self, fault: str) -> bool:
        return fault not in doris.armed(self.ports.frontend)

    def restart(self) -> None:
        self.program.kill()
        self.program = self._start()


@pytest.fixture(scope="module")
def running_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("doris"))
    yield site
    site.program.kill()


@pytest.fixture
def site(running_site: Site) -> Iterator[Site]:
    yield running_site
    if not running_site.program.alive:
        running_site.restart()
    for fault in doris.armed(running_site.ports.frontend):
        running_site.arm(fault, times=0)


@pytest.fixture
def address(site: Site) -> DorisAddress:
    address = address_of(site.ports, f"t{uuid.uuid4().hex}")
    make_tables(address)
    return address


@pytest.fixture
def warehouse(address: DorisAddress) -> Iterator[DorisWarehouse]:
    with closing(open_doris(address)) as opened:
        yield opened


@contextmanager
def hasty(address: DorisAddress) -> Iterator[DorisWarehouse]:
    """A warehouse without patience."""
    with closing(open_doris(address, load_timeout_s=1, query_timeout_s=1)) as opened:
        yield opened


def load(warehouse: DorisWarehouse, number: int = 1) -> bool:
    return warehouse.load("wado_access_log", [ACCESS.to_json()] * 3, f"access-0-{number}-{number}")


def eventually(attempt: Callable[[], bool]) -> bool:
    """Try again as the consumer does; what it came to, and never anything but Unavailable."""
    deadline = time.monotonic() + 120
    while True:
        try:
            return attempt()
        except Unavailable:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_committed_and_not_visible_yet_is_loaded(site: Site, warehouse: DorisWarehouse) -> None:
    site.arm("publish_timeout")
    assert load(warehouse)
    assert site.is_spent("publish_timeout")
    assert not load(warehouse)
    assert warehouse.count("wado_access_log") == 3


def test_a_label_that_is_running_is_waited_for(
    site: Site, warehouse: DorisWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doris_load, "_RUNNING_WITHIN_S", 60.0)  # four answers of a busy machine
    site.arm("label_running", times=3)
    assert load(warehouse)
    assert site.is_spent("label_running")
    assert warehouse.count("wado_access_log") == 3


def test_and_not_for_ever(
    site: Site, warehouse: DorisWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doris_load, "_RUNNING_WITHIN_S", 1.0)
    site.arm("label_running", times=1000)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="RUNNING"):
        load(warehouse)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    "fault", ["fail", "fe_500", "fe_no_backend", "be_unreachable", "drop_before_commit"]
)
def test_nothing_loaded_is_loaded_when_it_is_sent_again(
    site: Site, warehouse: DorisWarehouse, fault: str
) -> None:
    site.arm(fault)
    with pytest.raises(Unavailable) as e:
        load(warehouse)
    assert doris.PASSWORD not in str(e.value)
    assert "p%40ss" not in str(e.value)
    assert site.is_spent(fault)
    assert warehouse.count("wado_access_log") == 0
    assert eventually(lambda: load(warehouse))
    assert warehouse.count("wado_access_log") == 3


@pytest.mark.parametrize("fault", ["drop_after_commit", "cut_answer"])
def test_an_answer_that_was_lost_is_told_by_the_label(
    site: Site, warehouse: DorisWarehouse, fault: str
) -> None:
    site.arm(fault)
    with pytest.raises(Unavailable, match="failed during a load"):
        load(warehouse)
    assert not load(warehouse)
    assert warehouse.count("wado_access_log") == 3


@pytest.mark.parametrize("fault", ["hang_before_commit", "hang_after_commit"])
def test_an_answer_that_does_not_come_is_not_waited_for(
    site: Site, address: DorisAddress, warehouse: DorisWarehouse, fault: str
) -> None:
    """It may still be loaded meanwhile: whoever asks again hears RUNNING, then how it ended."""
    site.arm(fault, seconds=15)  # nobody waits for it, but for a load that is not committed yet
    began = time.monotonic()
    with hasty(address) as impatient, pytest.raises(Unavailable, match="no answer in time"):
        load(impatient)
    assert time.monotonic() - began < 14
    eventually(lambda: load(warehouse) or True)
    assert not load(warehouse)
    assert warehouse.count("wado_access_log") == 3


@pytest.mark.parametrize("fault", ["crash_before_commit", "crash_after_commit"])
def test_a_doris_that_dies_amid_a_load(site: Site, warehouse: DorisWarehouse, fault: str) -> None:
    site.arm(fault)
    with pytest.raises(Unavailable):
        load(warehouse)
    wait_until(lambda: not site.program.alive, timeout_s=60, reason="it died")
    began = time.monotonic()
    with pytest.raises(Unavailable):
        load(warehouse)
    with pytest.raises(Unavailable):
        warehouse.count("wado_access_log")
    assert time.monotonic() - began < 30, "away is said at once"
    site.restart()
    assert eventually(lambda: load(warehouse)) is (fault == "crash_before_commit")
    assert warehouse.count("wado_access_log") == 3


def test_a_part_of_a_large_batch_that_fails_comes_again(
    site: Site, warehouse: DorisWarehouse
) -> None:
    warehouse._most_load_bytes = 700
    rows = [ACCESS.to_json()] * 40
    whole: list[bool] = []

    def attempt() -> bool:
        whole.append(warehouse.load("wado_access_log", rows, "access-0-0-39"))
        return whole[-1]

    for fault in ("drop_after_commit", "fail", "cut_answer", "drop_before_commit"):
        site.arm(fault)
        with pytest.raises(Unavailable):
            attempt()
    assert eventually(attempt)
    assert not attempt()
    assert warehouse.count("wado_access_log") == 40


def test_deletions_are_repeated(site: Site, warehouse: DorisWarehouse) -> None:
    rows = [replace(IMAGE, sop_instance_uid=f"1.{n}").to_json() for n in range(5)]
    warehouse.load("dicom_image_meta", rows, "a-0-0-4")
    series = SeriesRef(IMAGE.tenant_id, IMAGE.study_instance_uid, IMAGE.series_instance_uid)
    for fault in ("drop_before_commit", "drop_after_commit", "fail"):
        site.arm(fault)
        with pytest.raises(Unavailable):
            warehouse.delete(series, ["1.0", "1.3"])
    warehouse.delete(series, ["1.0", "1.3"])
    assert warehouse.count("dicom_image_meta") == 3


class TestQueries:
    def test_a_connection_that_was_closed_is_opened_again(
        self, site: Site, warehouse: DorisWarehouse
    ) -> None:
        load(warehouse)
        assert warehouse.count("wado_access_log") == 3
        site.arm("mysql_drop")
        assert warehouse.count("wado_access_log") == 3, "an idle one is not relied on"
        site.restart()
        assert warehouse.count("wado_access_log") == 3

    def test_a_query_that_hangs_is_given_up(self, site: Site, address: DorisAddress) -> None:
        with hasty(address) as warehouse:
            assert eventually(lambda: warehouse.count("wado_access_log") == 0)
            # For any, as one that was given up before may come late to a busy Doris.
            site.arm("mysql_hang", times=1000, seconds=60)
            began = time.monotonic()
            with pytest.raises(Unavailable):
                warehouse.count("wado_access_log")
            assert time.monotonic() - began < 30
            site.arm("mysql_hang", times=0)
            assert eventually(lambda: warehouse.count("wado_access_log") == 0)

    def test_more_threads_than_connections(self, address: DorisAddress) -> None:
        patient = open_doris(address, connections=2, query_timeout_s=120)
        with closing(patient) as warehouse:
            found: list[int] = []

            def count() -> None:
                found.extend(warehouse.count("wado_access_log") for _ in range(5))

            threads = [threading.Thread(target=count) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert found == [0] * 40

    def test_a_fork_while_it_is_open_harms_nobody(self, warehouse: DorisWarehouse) -> None:
        assert warehouse.count("wado_access_log") == 0

        def use() -> None:
            assert load(warehouse, 1)
            assert warehouse.count("wado_access_log") == 3
            warehouse.close()

        child.complete(use)
        assert load(warehouse, 2)
        assert warehouse.count("wado_access_log") == 6


SETTINGS = ConsumerSettings(batch_messages=1, load_interval_s=0)


@contextmanager
def consuming(archive: Archive, run: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run a part of the consumer; it must not end by itself."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            run(stop)
        except Exception as e:  # noqa: BLE001 - the test says which
            failures.append(e)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(90)
    assert failures == []
    assert not thread.is_alive()


def test_each_row_once_though_doris_is_killed_again_and_again(
    site: Site, warehouse: DorisWarehouse, archive: Archive
) -> None:
    archive = replace(archive, warehouse=warehouse)
    lines = [
        orjson.dumps(orjson.loads(ACCESS.to_json()) | {"trace_id": f"{n}"}) for n in range(400)
    ]

    def publish(number: int) -> None:
        part = lines[100 * number : 100 * (number + 1)]
        archive.log.publish(
            Message(Topic.WEBAPI_ACCESS, "t", b"\n".join(part[n : n + 2])) for n in range(0, 100, 2)
        )

    def lag() -> int:
        return archive.log.lag(Topic.WEBAPI_ACCESS, "wado-warehouse")

    with consuming(
        archive,
        lambda stop: consumer.load_topic(
            archive, SETTINGS, Topic.WEBAPI_ACCESS, "wado_access_log", stop
        ),
    ):
        for number in range(4):
            dies = number % 2 == 1
            if dies:  # told before there is something to load: else all might be loaded by then
                site.arm("crash_after_commit")
            publish(number)
            wait_until(
                lambda dies=dies: not site.program.alive if dies else lag() <= 25,  # type: ignore[misc]
                timeout_s=120,
                reason="it died" if dies else "it loads",
            )
            site.restart()
        wait_until(lambda: lag() == 0, timeout_s=120, reason="all is loaded")
    rows = warehouse.query("SELECT trace_id FROM wado_access_log")
    assert sorted(int(row["trace_id"]) for row in rows) == list(range(400))
    assert list(archive.log.dead_letters(Topic.WEBAPI_ACCESS)) == []


def test_reception_and_catalogue_go_on_without_doris(
    site: Site, warehouse: DorisWarehouse, archive: Archive
) -> None:
    archive = replace(archive, warehouse=warehouse)
    site.program.kill()
    ds = synthetic.ct()
    with consuming(archive, lambda stop: consumer.run(archive, SETTINGS, stop)):
        store(archive, ds)
        journals = Journals(archive.store)
        wait_until(
            lambda: journals.view(series_of(ds)) is not None, timeout_s=60, reason="catalogued"
        )
        wait_until(  # records are published after the journal is written
            lambda: archive.log.lag(Topic.DICOM_IMAGE, "wado-warehouse") == 1,
            timeout_s=60,
            reason="its record waits",
        )
        site.restart()
        counts: dict[str, Any] = {}
        for table in ("dicom_object_meta", "dicom_state_meta", "dicom_image_meta"):
            wait_until(
                lambda table=table: warehouse.count(table) == 1,  # type: ignore[misc]
                timeout_s=60,
                reason=f"{table} has its row",
            )
            counts[table] = warehouse.count(table)
    assert set(counts.values()) == {1}


def test_a_row_that_does_not_fit_is_a_dead_letter_and_no_other(
    site: Site, warehouse: DorisWarehouse, archive: Archive
) -> None:
    """Also among records of deletion, and while Doris fails now and then."""
    archive = replace(archive, warehouse=warehouse)
    bodies = [stores(n)[0] for n in range(40)]
    bodies[7] = b'{"no": "record"}'
    bodies[23] = bodies[23].replace(b'"file_size":1099511627776', b'"file_size":"much"')
    assert b"much" in bodies[23]
    archive.log.publish(Message(Topic.LOG, "t/1.2", body) for body in bodies)
    settings = ConsumerSettings(batch_messages=10, load_interval_s=0)
    for fault in ("fail", "drop_after_commit", "cut_answer"):
        site.arm(fault)
    with consuming(
        archive,
        lambda stop: consumer.load_topic(archive, settings, Topic.LOG, "dicom_object_meta", stop),
    ):
        wait_until(
            lambda: archive.log.lag(Topic.LOG, "wado-warehouse") == 0, timeout_s=120, reason="all"
        )
    dead = [letter.message.body for letter in archive.log.dead_letters(Topic.LOG)]
    assert sorted(dead) == sorted([bodies[7], bodies[23]])
    rows = warehouse.query("SELECT trace_id FROM dicom_object_meta")
    assert sorted(int(r["trace_id"]) for r in rows) == [n for n in range(40) if n not in (7, 23)]
