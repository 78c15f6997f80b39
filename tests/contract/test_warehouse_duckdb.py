"""What only the embedded warehouse promises."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from contract import child
from contract.warehouses import ACCESS, FAILED, TRANSCODE, Open, stores
from wado.adapters.warehouse import session
from wado.adapters.warehouse.duckdb import DuckdbWarehouse
from wado.errors import Unavailable
from wado.ports import Warehouse


@pytest.fixture
def open_warehouse(tmp_path: Path) -> Iterator[Open]:
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


def test_processes_take_turns(open_warehouse: Open) -> None:
    loads = 15

    def load() -> None:
        mine = open_warehouse(patience_s=100)
        name = os.getpid()
        for n in range(loads):
            assert mine.load("wado_access_log", [ACCESS.to_json()], f"{name}-{n}")

    child.complete(load, processes=3)
    assert open_warehouse().count("wado_access_log") == 3 * loads


def test_a_reader_gets_in_between_the_loads_of_another(open_warehouse: Open) -> None:
    busy, reader = open_warehouse(), open_warehouse(patience_s=60)
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


def test_lets_go_when_idle(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.count("wado_access_log")
    path = tmp_path / "warehouse" / "warehouse.duckdb"
    another_program = f"import duckdb; duckdb.connect({str(path)!r})"
    deadline = time.monotonic() + 120
    while subprocess.run(
        [sys.executable, "-c", another_program], capture_output=True, check=False
    ).returncode:
        assert time.monotonic() < deadline, "the file stays in use"


def test_waits_and_gives_up(open_warehouse: Open) -> None:
    def hold(reached: child.Reached) -> None:
        holder: Any = open_warehouse()
        with holder._session.connection():
            reached()

    open_warehouse().close()
    with child.running(hold), pytest.raises(Unavailable, match="in use"):
        open_warehouse(patience_s=0.2).count("wado_access_log")
    assert open_warehouse().count("wado_access_log") == 0


def test_is_usable_after_fork(warehouse: Warehouse) -> None:
    warehouse.load("wado_access_log", [ACCESS.to_json()], "1")
    warehouse.close()
    child.complete(lambda: _load_and_close(warehouse, "2"))
    assert warehouse.count("wado_access_log") == 2


def test_a_fork_while_it_is_open_harms_nobody(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "IDLE_S", 120.0)  # it is open still, however late the fork comes
    warehouse.load("wado_access_log", [ACCESS.to_json()], "1")

    def load() -> None:
        with pytest.raises(Unavailable, match="forked"):
            warehouse.load("wado_access_log", [ACCESS.to_json()], "2")

    child.complete(load)
    warehouse.load("wado_access_log", [ACCESS.to_json()], "3")
    assert warehouse.count("wado_access_log") == 2


def test_leaves_no_files_behind(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.load("dicom_object_meta", stores(1), "a-0-0-0")
    warehouse.close()
    names = {f.name for f in (tmp_path / "warehouse").iterdir()}
    assert names == {"warehouse.duckdb", "warehouse.lock", "warehouse.wanted"}


def test_a_connection_that_failed_is_not_used_again(tmp_path: Path) -> None:
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


def test_old_labels_are_forgotten(open_warehouse: Open) -> None:
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


def test_a_file_in_place_of_the_folder_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "warehouse").write_text("")
    with pytest.raises(Unavailable, match="cannot make the folder"):
        DuckdbWarehouse(tmp_path / "warehouse" / "warehouse.duckdb")


def test_a_spoilt_file_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "warehouse.duckdb").write_bytes(b"not a database" * 1000)
    warehouse = DuckdbWarehouse(tmp_path / "warehouse.duckdb")
    with closing(warehouse), pytest.raises(Unavailable, match=r"warehouse\.duckdb"):
        warehouse.count("wado_access_log")


def test_no_rows_leave_the_label(warehouse: Warehouse) -> None:
    assert warehouse.load("dicom_object_meta", [], "a-0-0-0")
    assert not warehouse.load("dicom_object_meta", stores(1), "a-0-0-0")


def _load_and_close(warehouse: Warehouse, label: str) -> None:
    warehouse.load("wado_access_log", [ACCESS.to_json()], label)
    warehouse.close()


@pytest.mark.parametrize("has_attempt", [True, False])
def test_a_table_of_an_earlier_version_gets_the_columns_and_the_key_it_lacks(
    tmp_path: Path, has_attempt: bool
) -> None:
    path = tmp_path / "warehouse" / "warehouse.duckdb"
    later = ["codec", "number_of_frames", "modality", *([] if has_attempt else ["attempt"])]
    later += ["request_id", "requested_at", "requested_transfer_syntax_uid"]
    old = replace(FAILED, codec=None, number_of_frames=None, modality=None)
    with closing(DuckdbWarehouse(path)) as warehouse:
        for n in range(2):
            row = replace(old, sop_instance_uid=f"1.{n}", request_id=str(n))
            warehouse.load("dicom_transcode_log", [row.to_json()], f"a-0-{n}-{n}")
    with closing(duckdb.connect(str(path))) as connection:
        connection.execute(
            "CREATE TABLE old AS SELECT * FROM dicom_transcode_log;"
            "DROP TABLE dicom_transcode_log; ALTER TABLE old RENAME TO dicom_transcode_log"
        )
        for name in later:
            connection.execute(f"ALTER TABLE dicom_transcode_log DROP COLUMN {name}")
    with closing(DuckdbWarehouse(path)) as warehouse:
        for n in range(2):
            assert warehouse.load("dicom_transcode_log", [TRANSCODE.to_json()], f"a-0-2-{n}")
        found = warehouse.query("SELECT * FROM dicom_transcode_log ORDER BY sop_instance_uid")
    attempt = 3 if has_attempt else 1
    kept = replace(old, attempt=attempt, requested_at=old.transcoded_at)
    assert found == [
        asdict(replace(kept, sop_instance_uid="1.0", request_id="earlier-1")),
        asdict(replace(kept, sop_instance_uid="1.1", request_id="earlier-2")),
        asdict(TRANSCODE),
    ]
