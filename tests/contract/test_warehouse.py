"""The contract of `Warehouse`; every adapter runs it."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest

from contract import child
from wado.adapters.warehouse.duckdb import DuckdbWarehouse
from wado.dicom.uids import SeriesRef
from wado.errors import InvalidMessage, InvalidRequest, Unavailable
from wado.ports import Warehouse
from wado.records import DicomImageMeta, DicomObjectMeta, DicomStateMeta, Table, WadoAccessLog

Open = Callable[..., Warehouse]


@pytest.fixture(params=[pytest.param("duckdb")])
def open_warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Open the warehouse; each call as another process would."""
    opened: list[Warehouse] = []

    def open_it(**settings: Any) -> Warehouse:
        warehouse = DuckdbWarehouse(tmp_path / "warehouse" / "warehouse.duckdb", **settings)
        opened.append(warehouse)
        return warehouse

    yield open_it
    for warehouse in opened:
        warehouse.close()


@pytest.fixture
def warehouse(open_warehouse: Open) -> Warehouse:
    return open_warehouse()


STORE = DicomObjectMeta(
    tenant_id="t",
    study_instance_uid="1.2",
    series_instance_uid="1.2.3",
    sop_instance_uid="1.2.3.4",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    patient_id="P'1\n\u5c71",
    file_name="1.2.3.4.dcm",
    file_path="t/1.2/1.2.3/1.2.3.4.dcm",
    file_size=1 << 40,
    digest="ab" * 32,
    received_at="2026-11-01T10:00:00.000000+00:00",
    trace_id="0",
)
STATE = DicomStateMeta("t", "1.2", "1.2.3", series_number=7, number_of_series_related_instances=1)
IMAGE = DicomImageMeta(
    **{f.name: getattr(STORE, f.name) for f in fields(DicomImageMeta) if hasattr(STORE, f.name)},
    rows=512,
)
ACCESS = WadoAccessLog("t", "2026-11-01", "0", "GET", "/", "", 200, 12, 1.5)
TRANSCODE = {
    **{f.name: getattr(STORE, f.name) for f in fields(STORE)},
    "target_transfer_syntax_uid": "1.2.840.10008.1.2.4.201",
    "succeeded": False,
    "reason": "truncated",
    "transcoded_at": "2026-11-01T10:00:01.000000+00:00",
}


def stores(*numbers: int, **attributes: Any) -> list[bytes]:
    return [replace(STORE, trace_id=str(n), **attributes).to_json() for n in numbers]


class TestLoad:
    @pytest.mark.parametrize(
        ("table", "record"),
        [
            ("dicom_object_meta", STORE),
            ("dicom_state_meta", STATE),
            ("dicom_image_meta", IMAGE),
            ("wado_access_log", ACCESS),
        ],
    )
    def test_a_row_has_the_fields_of_its_record(
        self, warehouse: Warehouse, table: Table, record: Any
    ) -> None:
        assert warehouse.load(table, [record.to_json()], "a-0-0-0")
        (row,) = warehouse.query(f"SELECT * FROM {table}")
        assert row == {f.name: getattr(record, f.name) for f in fields(record)}

    def test_what_was_transcoded(self, warehouse: Warehouse) -> None:
        warehouse.load("dicom_transcode_log", [orjson.dumps(TRANSCODE)] * 2, "a-0-0-1")
        rows = warehouse.query("SELECT succeeded, reason FROM dicom_transcode_log")
        assert rows == [{"succeeded": False, "reason": "truncated"}] * 2

    def test_a_label_is_loaded_once(self, warehouse: Warehouse) -> None:
        assert warehouse.load("dicom_object_meta", stores(1, 2), "log_queue-0-0-1")
        assert not warehouse.load("dicom_object_meta", stores(3), "log_queue-0-0-1")
        assert warehouse.count("dicom_object_meta") == 2
        assert warehouse.load("wado_access_log", [ACCESS.to_json()] * 3, "access-0-0-2")
        assert not warehouse.load("wado_access_log", [ACCESS.to_json()] * 3, "access-0-0-2")
        assert warehouse.count("wado_access_log") == 3

    def test_a_label_is_known_to_others(self, open_warehouse: Open) -> None:
        one, two = open_warehouse(), open_warehouse()
        assert one.load("dicom_object_meta", stores(1), "a-0-0-0")
        assert not two.load("dicom_object_meta", stores(1), "a-0-0-0")

    def test_a_label_is_loaded_once_though_sent_at_the_same_time(
        self, warehouse: Warehouse
    ) -> None:
        loaded: list[bool] = []

        def load() -> None:
            loaded.append(warehouse.load("wado_access_log", [ACCESS.to_json()], "a-0-0-0"))

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(loaded) == [False, False, False, True]
        assert warehouse.count("wado_access_log") == 1

    def test_is_kept_when_the_loader_is_killed(self, open_warehouse: Open) -> None:
        def load(reached: child.Reached) -> None:
            open_warehouse().load("dicom_object_meta", stores(1), "a-0-0-0")
            reached()

        child.crash(load)
        warehouse = open_warehouse()
        assert warehouse.count("dicom_object_meta") == 1
        assert not warehouse.load("dicom_object_meta", stores(1), "a-0-0-0")

    def test_the_last_row_of_a_key_stays(self, warehouse: Warehouse) -> None:
        counts = [replace(STATE, number_of_series_related_instances=n).to_json() for n in (1, 2)]
        warehouse.load("dicom_state_meta", counts, "a-0-0-1")
        assert [
            row["n"]
            for row in warehouse.query(
                "SELECT number_of_series_related_instances AS n FROM dicom_state_meta"
            )
        ] == [2]
        other = replace(STATE, tenant_id="u").to_json()
        warehouse.load("dicom_state_meta", [counts[0], other], "a-0-2-3")
        rows = warehouse.query(
            "SELECT number_of_series_related_instances AS n, tenant_id FROM dicom_state_meta"
            " ORDER BY tenant_id"
        )
        assert rows == [{"n": 1, "tenant_id": "t"}, {"n": 1, "tenant_id": "u"}]

    def test_a_reception_is_counted_once_though_its_label_changed(
        self, warehouse: Warehouse
    ) -> None:
        warehouse.load("dicom_object_meta", stores(1, 2), "a-0-0-1")
        warehouse.load("dicom_object_meta", stores(2, 3), "a-0-2-3")
        assert warehouse.count("dicom_object_meta") == 3

    @pytest.mark.parametrize(
        "bad",
        [
            b"",
            b"{",
            b"[1]",
            b"1",
            b'"text"',
            b"{}",
            b'{"trace_id": "1"}',
            stores(9)[0].replace(b"1099511627776", b'"large"'),
            stores(9)[0].replace(b'"ab', b'null,"x":"ab'),
        ],
    )
    def test_rows_that_do_not_fit_are_refused_all(self, warehouse: Warehouse, bad: bytes) -> None:
        with pytest.raises(InvalidMessage):
            warehouse.load("dicom_object_meta", [*stores(1), bad], "a-0-0-1")
        assert warehouse.count("dicom_object_meta") == 0
        assert warehouse.load("dicom_object_meta", stores(1), "a-0-0-1")

    def test_fields_that_are_unknown_are_passed_over(self, warehouse: Warehouse) -> None:
        row = orjson.dumps({**orjson.loads(STORE.to_json()), "field_of_tomorrow": [1, {"a": 2}]})
        assert warehouse.load("dicom_object_meta", [row], "a-0-0-0")
        assert warehouse.count("dicom_object_meta") == 1

    def test_no_rows_leave_the_label(self, warehouse: Warehouse) -> None:
        assert warehouse.load("dicom_object_meta", [], "a-0-0-0")
        assert not warehouse.load("dicom_object_meta", stores(1), "a-0-0-0")

    def test_a_table_that_is_none_is_refused(self, warehouse: Warehouse) -> None:
        table: Any = "load_label; --"
        with pytest.raises(InvalidRequest):
            warehouse.load(table, stores(1), "a-0-0-0")
        with pytest.raises(InvalidRequest):
            warehouse.count(table)
        with pytest.raises(InvalidRequest):
            warehouse.clear(table)


class TestDelete:
    def test_removes_instances_of_one_series(self, warehouse: Warehouse) -> None:
        rows = [replace(IMAGE, sop_instance_uid=f"1.{n}") for n in range(3)]
        other = replace(rows[0], series_instance_uid="1.9")
        warehouse.load("dicom_image_meta", [r.to_json() for r in (*rows, other)], "a-0-0-3")
        ref = SeriesRef(IMAGE.tenant_id, IMAGE.study_instance_uid, IMAGE.series_instance_uid)
        warehouse.delete(ref, ["1.0", "1.2", "1.77"])
        left = warehouse.query(
            "select series_instance_uid, sop_instance_uid from dicom_image_meta order by 1"
        )
        assert [tuple(r.values()) for r in left] == [
            (IMAGE.series_instance_uid, "1.1"),
            ("1.9", "1.0"),
        ]
        warehouse.delete(ref, [])
        assert warehouse.load("dicom_image_meta", [rows[0].to_json()], "b-0-0-0")


class TestClear:
    def test_removes_the_rows_of_one_table(self, warehouse: Warehouse) -> None:
        warehouse.load("dicom_object_meta", stores(1, 2), "a-0-0-1")
        warehouse.load("wado_access_log", [ACCESS.to_json()], "b-0-0-0")
        warehouse.clear("dicom_object_meta")
        assert warehouse.count("dicom_object_meta") == 0
        assert warehouse.count("wado_access_log") == 1
        assert warehouse.load("dicom_object_meta", stores(1), "rebuild-0")
        assert warehouse.count("dicom_object_meta") == 1

    def test_keeps_the_labels(self, warehouse: Warehouse) -> None:
        warehouse.load("dicom_object_meta", stores(1), "a-0-0-0")
        warehouse.clear("dicom_object_meta")
        assert not warehouse.load("dicom_object_meta", stores(1), "a-0-0-0")


class TestQuery:
    def test_parameters(self, warehouse: Warehouse) -> None:
        warehouse.load("dicom_object_meta", [*stores(1, 2), *stores(3, tenant_id="u")], "a-0-0-2")
        sql = "SELECT trace_id FROM dicom_object_meta WHERE tenant_id = ? AND trace_id > ?"
        assert warehouse.query(sql, ["t", "1"]) == [{"trace_id": "2"}]

    def test_counts_one_tenant_or_all(self, warehouse: Warehouse) -> None:
        warehouse.load("dicom_object_meta", [*stores(1, 2), *stores(3, tenant_id="u")], "a-0-0-2")
        tenants = (None, "t", "u", "v")
        assert [warehouse.count("dicom_object_meta", t) for t in tenants] == [3, 2, 1, 0]

    @pytest.mark.parametrize("table", get_args(Table))
    def test_an_empty_warehouse_has_all_tables(self, warehouse: Warehouse, table: Table) -> None:
        assert warehouse.count(table) == 0

    def test_cannot_write(self, warehouse: Warehouse) -> None:
        warehouse.load("dicom_object_meta", stores(1), "a-0-0-0")
        with pytest.raises(Unavailable):
            warehouse.query("DELETE FROM dicom_object_meta")
        assert warehouse.count("dicom_object_meta") == 1


class TestDuckdb:
    """What only the embedded adapter promises."""

    def test_processes_take_turns(self, open_warehouse: Open) -> None:
        loads = 15

        def load() -> None:
            mine = open_warehouse()
            name = time.monotonic_ns()
            for n in range(loads):
                assert mine.load("wado_access_log", [ACCESS.to_json()], f"{name}-{n}")

        child.complete(load, processes=3)
        assert open_warehouse().count("wado_access_log") == 3 * loads

    def test_a_reader_gets_in_between_the_loads_of_another(self, open_warehouse: Open) -> None:
        busy, reader = open_warehouse(), open_warehouse(patience_s=3)
        stop = threading.Event()

        def load() -> None:
            n = 0
            while not stop.is_set():
                n += 1
                busy.load("wado_access_log", [ACCESS.to_json()], str(n))

        thread = threading.Thread(target=load)
        thread.start()
        try:
            assert all(reader.count("wado_access_log") >= 0 for _ in range(3))
        finally:
            stop.set()
            thread.join()

    def test_lets_go_when_idle(self, warehouse: Warehouse, tmp_path: Path) -> None:
        warehouse.count("wado_access_log")
        path = tmp_path / "warehouse" / "warehouse.duckdb"
        another_program = f"import duckdb; duckdb.connect({str(path)!r})"
        deadline = time.monotonic() + 30
        while subprocess.run(
            [sys.executable, "-c", another_program], capture_output=True, check=False
        ).returncode:
            assert time.monotonic() < deadline, "the file stays in use"

    def test_waits_and_gives_up(self, open_warehouse: Open) -> None:
        def hold(reached: child.Reached) -> None:
            holder: Any = open_warehouse()
            with holder._session.connection():
                reached()

        open_warehouse().close()
        with child.running(hold), pytest.raises(Unavailable, match="in use"):
            open_warehouse(patience_s=0.2).count("wado_access_log")
        assert open_warehouse().count("wado_access_log") == 0

    def test_is_usable_after_fork(self, warehouse: Warehouse) -> None:
        warehouse.load("wado_access_log", [ACCESS.to_json()], "1")
        warehouse.close()
        child.complete(lambda: _load_and_close(warehouse, "2"))
        assert warehouse.count("wado_access_log") == 2

    def test_a_fork_while_it_is_open_harms_nobody(self, warehouse: Warehouse) -> None:
        warehouse.load("wado_access_log", [ACCESS.to_json()], "1")

        def load() -> None:
            with pytest.raises(Unavailable, match="forked"):
                warehouse.load("wado_access_log", [ACCESS.to_json()], "2")

        child.complete(load)
        warehouse.load("wado_access_log", [ACCESS.to_json()], "3")
        assert warehouse.count("wado_access_log") == 2

    def test_leaves_no_files_behind(self, warehouse: Warehouse, tmp_path: Path) -> None:
        warehouse.load("dicom_object_meta", stores(1), "a-0-0-0")
        warehouse.close()
        names = {f.name for f in (tmp_path / "warehouse").iterdir()}
        assert names == {"warehouse.duckdb", "warehouse.lock", "warehouse.wanted"}

    def test_a_connection_that_failed_is_not_used_again(self, tmp_path: Path) -> None:
        """After a full disk DuckDB refuses everything on it."""
        warehouse = DuckdbWarehouse(tmp_path / "warehouse.duckdb")

        def fail() -> None:
            with warehouse._session.connection() as connection:
                connection.close()
                raise OSError("disk")

        with pytest.raises(OSError, match="disk"):
            fail()
        assert warehouse.count("dicom_object_meta") == 0
        warehouse.close()

    def test_old_labels_are_forgotten(self, open_warehouse: Open) -> None:
        warehouse = open_warehouse()
        assert isinstance(warehouse, DuckdbWarehouse)
        warehouse.load("dicom_object_meta", stores(1), "old")
        with warehouse._session.connection() as connection:
            connection.execute("UPDATE load_label SET loaded_at = '2020-01-01'")
        warehouse.load("dicom_object_meta", stores(2), "new")
        assert not warehouse.load("dicom_object_meta", stores(1), "old"), "not yet: once an hour"
        warehouse.close()
        again = open_warehouse()
        assert again.load("dicom_object_meta", stores(3), "newer")
        labels = again.query("SELECT label FROM load_label ORDER BY label")
        assert [row["label"] for row in labels] == ["new", "newer"]

    def test_a_file_in_place_of_the_folder_is_unavailable(self, tmp_path: Path) -> None:
        (tmp_path / "warehouse").write_text("")
        with pytest.raises(Unavailable, match="cannot make the folder"):
            DuckdbWarehouse(tmp_path / "warehouse" / "warehouse.duckdb")

    def test_a_spoilt_file_is_unavailable(self, tmp_path: Path) -> None:
        (tmp_path / "warehouse.duckdb").write_bytes(b"not a database" * 1000)
        warehouse = DuckdbWarehouse(tmp_path / "warehouse.duckdb")
        with pytest.raises(Unavailable, match=r"warehouse\.duckdb"):
            warehouse.count("wado_access_log")


def _load_and_close(warehouse: Warehouse, label: str) -> None:
    warehouse.load("wado_access_log", [ACCESS.to_json()], label)
    warehouse.close()
