"""The contract of `Warehouse`; every adapter runs it."""

import re
import threading
import uuid
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest

from backing_doris import address_of, make_tables, open_doris, shared_doris
from contract import child
from contract.warehouses import (
    ACCESS,
    FAILED,
    IMAGE,
    STATE,
    STORE,
    TRANSCODE,
    Open,
    stores,
)
from wado.adapters.warehouse.duckdb import DuckdbWarehouse
from wado.dicom.uids import SeriesRef
from wado.errors import InvalidMessage, InvalidRequest, WadoError
from wado.ports import Warehouse
from wado.records import Table

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(params=[pytest.param("duckdb"), pytest.param("doris")])
def open_warehouse(
    request: pytest.FixtureRequest, tmp_path: Path, run_folder: Path
) -> Iterator[Open]:
    """Open the warehouse; each call as another process would."""
    opened: list[Warehouse] = []
    if request.param == "doris":
        address = address_of(shared_doris(run_folder), f"t{uuid.uuid4().hex}")
        make_tables(address)

    def open_it() -> Warehouse:
        if request.param == "doris":
            opened.append(open_doris(address))
        else:
            opened.append(DuckdbWarehouse(tmp_path / "warehouse" / "warehouse.duckdb"))
        return opened[-1]

    yield open_it
    for warehouse in opened:
        warehouse.close()


@pytest.fixture
def warehouse(open_warehouse: Open) -> Warehouse:
    return open_warehouse()


class TestLoad:
    @pytest.mark.parametrize(
        ("table", "record"),
        [
            ("dicom_object_meta", STORE),
            ("dicom_state_meta", STATE),
            ("dicom_image_meta", IMAGE),
            ("wado_access_log", ACCESS),
            ("dicom_transcode_log", TRANSCODE),
            ("dicom_transcode_log", FAILED),
        ],
    )
    def test_a_row_has_the_fields_of_its_record(
        self, warehouse: Warehouse, table: Table, record: Any
    ) -> None:
        assert warehouse.load(table, [record.to_json()], "a-0-0-0")
        (row,) = warehouse.query(f"SELECT * FROM {table}")
        assert row == {f.name: getattr(record, f.name) for f in fields(record)}

    def test_each_attempt_to_transcode_is_a_row_once(self, warehouse: Warehouse) -> None:
        """Also if it is told of again, at another time and with another end."""
        first, later = replace(FAILED, attempt=1), "2026-12-01T10:00:00.000000+00:00"
        other = replace(TRANSCODE, request_id="0" * 32)
        attempts = [replace(TRANSCODE, attempt=1), other, first]
        warehouse.load("dicom_transcode_log", [row.to_json() for row in attempts], "a-0-0-2")
        again = [replace(first, transcoded_at=later, reason="it died"), FAILED]
        warehouse.load("dicom_transcode_log", [row.to_json() for row in again], "a-0-3-4")
        rows = warehouse.query(
            "SELECT request_id, attempt, succeeded, reason, transcoded_at FROM dicom_transcode_log"
            " ORDER BY request_id, attempt"
        )
        assert [tuple(row.values()) for row in rows] == [
            (other.request_id, 2, True, None, other.transcoded_at),
            (first.request_id, 1, False, "it died", later),
            (first.request_id, 3, False, FAILED.reason, FAILED.transcoded_at),
        ]

    def test_the_queries_of_the_documents(self, warehouse: Warehouse) -> None:
        rows = [replace(FAILED, attempt=1), FAILED, TRANSCODE]
        warehouse.load("dicom_transcode_log", [row.to_json() for row in rows], "a-0-0-2")
        text = (DOCS / "operations" / "transcoding.md").read_text(encoding="utf-8")
        failures, costs = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
        (failed,) = warehouse.query(failures)
        assert (failed["reason"], failed["images"], failed["attempts"]) == (FAILED.reason, 1, 2)
        assert failed["latest"] == FAILED.transcoded_at
        (made,) = warehouse.query(costs)
        assert made["frames_per_second"] == pytest.approx(10_000 / 0.0125)
        assert made["of_the_original"] == pytest.approx(1.0)

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

    def test_no_rows_are_no_load(self, warehouse: Warehouse) -> None:
        warehouse.load("dicom_object_meta", [], "a-0-0-0")
        assert warehouse.count("dicom_object_meta") == 0

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

    def test_a_label_deletes_once(self, warehouse: Warehouse) -> None:
        """Whoever was frozen amid a batch must not undo what came after it."""
        ref = SeriesRef(IMAGE.tenant_id, IMAGE.study_instance_uid, IMAGE.series_instance_uid)
        for number in range(2):
            warehouse.load("dicom_image_meta", [IMAGE.to_json()], f"a-0-{number}-{number}")
            warehouse.delete(ref, [IMAGE.sop_instance_uid], "a-0-1-2-removed-0")
            assert warehouse.count("dicom_image_meta") == number
        warehouse.delete(ref, [IMAGE.sop_instance_uid])
        assert warehouse.count("dicom_image_meta") == 0


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
        with pytest.raises(WadoError):
            warehouse.query("DELETE FROM dicom_object_meta")
        assert warehouse.count("dicom_object_meta") == 1
