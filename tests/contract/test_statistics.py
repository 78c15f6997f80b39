"""What is counted in the warehouse: the same in DuckDB and on the stand-in for Doris."""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backing_doris import address_of, make_tables, open_doris, shared_doris
from contract.warehouses import TRANSCODE
from wado.adapters.warehouse.duckdb import DuckdbWarehouse
from wado.archive.statistics import Attempts, Example, attempts, conversions, failures
from wado.ports import Warehouse
from wado.records import TranscodeLog

HTJ2K, JPEG2000, NATIVE = "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.92", "1.2.840.10008.1.2.1"


@pytest.fixture(params=["duckdb", "doris"])
def warehouse(
    request: pytest.FixtureRequest, tmp_path: Path, run_folder: Path
) -> Iterator[Warehouse]:
    opened: Warehouse
    if request.param == "doris":
        address = address_of(shared_doris(run_folder), f"t{uuid.uuid4().hex}")
        make_tables(address)
        opened = open_doris(address)
    else:
        opened = DuckdbWarehouse(tmp_path / "warehouse" / "warehouse.duckdb")
    yield opened
    opened.close()


def at(second: int) -> str:
    return f"2026-11-01T10:00:{second:02}.500000+00:00"


def made(uid: str, second: int, **values: Any) -> TranscodeLog:
    same: dict[str, Any] = {"transfer_syntax_uid": JPEG2000, "target_transfer_syntax_uid": HTJ2K}
    done = replace(TRANSCODE, sop_instance_uid=uid, transcoded_at=at(second), **same)
    sizes: dict[str, Any] = {
        "file_size": 100,
        "derived_size": 60,
        "number_of_frames": 3,
        "duration_ms": 4.0,
    }
    asked = {"requested_transfer_syntax_uid": values.get("target_transfer_syntax_uid", HTJ2K)}
    return replace(done, **{**sizes, **asked, **values})


def failed(uid: str, second: int, reason: str | None, **values: Any) -> TranscodeLog:
    of = made(uid, second, succeeded=False, derived_path=None, derived_size=None, codec=None)
    return replace(of, reason=reason, **values)


def load(warehouse: Warehouse, *rows: TranscodeLog) -> None:
    each = [replace(row, request_id=f"{n:032x}") for n, row in enumerate(rows)]
    warehouse.load("dicom_transcode_log", [row.to_json() for row in each], "a-0-0-0")


def test_attempts_by_transfer_syntax(warehouse: Warehouse) -> None:
    load(
        warehouse,
        made("1.1", 1),
        made("1.2", 2, duration_ms=8.0, derived_size=80),
        failed("1.3", 3, "x"),
        failed("1.4", 4, "x", transfer_syntax_uid=NATIVE, number_of_frames=None),
        made("1.5", 5, tenant_id="other"),
    )
    one, other = conversions(warehouse, tenant_id="t")
    assert (one.transfer_syntax_uid, one.target_transfer_syntax_uid) == (JPEG2000, HTJ2K)
    assert (one.succeeded, one.failed, one.frames) == (2, 1, 6)
    assert (one.bytes_before, one.bytes_after, one.mean_ms) == (200, 140, 6.0)
    assert (other.transfer_syntax_uid, other.succeeded, other.failed) == (NATIVE, 0, 1)
    assert (other.frames, other.bytes_before, other.mean_ms) == (0, 0, None)
    assert attempts(warehouse) == Attempts(3, 2)
    assert attempts(warehouse, tenant_id="t", since=at(3)) == Attempts(0, 2)
    assert [c.succeeded for c in conversions(warehouse, since=at(2))] == [2, 0]


def test_nothing_was_transcoded(warehouse: Warehouse) -> None:
    assert attempts(warehouse) == Attempts(0, 0)
    assert conversions(warehouse) == []
    assert failures(warehouse) == []


def test_reasons_that_differ_in_numbers_are_one(warehouse: Warehouse) -> None:
    load(
        warehouse,
        *(
            failed(f"1.{n}", n, f"frame {n * 7} of 200: the stream ends early")
            for n in range(1, 21)
        ),
        failed("1.30", 30, "JPEG 2000 with 3 tiles"),
        failed("1.31", 31, "JPEG 2000 with 3 tiles"),
        failed("1.32", 32, None),
    )
    many, same, none = failures(warehouse)
    assert (many.reason, many.count) == ("frame N of N: the stream ends early", 20)
    assert (many.transfer_syntax_uid, many.target_transfer_syntax_uid) == (JPEG2000, HTJ2K)
    assert many.last_at == at(20)
    study, series = TRANSCODE.study_instance_uid, TRANSCODE.series_instance_uid
    assert many.example == Example(study, series, "1.20")
    assert (same.reason, same.count) == ("JPEG 2000 with 3 tiles", 2), "as it was written"
    assert (none.reason, none.count) == ("no reason was given", 1)
    assert failures(warehouse, most=1) == [many]
    assert [f.count for f in failures(warehouse, since=at(30))] == [2, 1]
    assert failures(warehouse, tenant_id="other") == []


def test_what_went_well_later_is_no_failure(warehouse: Warehouse) -> None:
    load(
        warehouse,
        failed("1.1", 1, "it crashed", attempt=1),
        made("1.1", 2, attempt=2),
        made("1.2", 1),
        failed("1.2", 2, "another one", attempt=2),
        failed("1.3", 1, "it crashed", attempt=1),
        failed("1.3", 2, "it took too long", attempt=2),
        made("1.3", 3, target_transfer_syntax_uid=NATIVE),
        made("1.3", 3, tenant_id="other"),
        failed("1.4", 1, "it crashed"),
        made("1.4", 2, target_transfer_syntax_uid=NATIVE, requested_transfer_syntax_uid=HTJ2K),
    )
    found = failures(warehouse, tenant_id="t")
    assert {(f.reason, f.count) for f in found} == {("another one", 1), ("it took too long", 1)}
