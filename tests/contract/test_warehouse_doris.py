"""What only the warehouse in Doris promises; faults are in ``tests/fault/test_doris.py``."""

import re
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backing import doris
from backing.doris import Ports
from backing.program import free_port
from backing_doris import address_of, make_tables, open_doris, shared_doris
from contract.warehouses import ACCESS, IMAGE, STATE, STORE, TRANSCODE, stores
from wado.adapters.warehouse.doris import DorisAddress, DorisWarehouse
from wado.adapters.warehouse.doris_init import prepare
from wado.adapters.warehouse.doris_rows import in_parts, layout
from wado.bootstrap import open_archive, prepare_archive
from wado.errors import InvalidMessage, InvalidRequest, Unavailable
from wado.settings import load_settings


@pytest.fixture
def ports(run_folder: Path) -> Ports:
    return shared_doris(run_folder)


@pytest.fixture
def address(ports: Ports) -> DorisAddress:
    """A database that is not there yet."""
    return address_of(ports, f"t{uuid.uuid4().hex}")


@pytest.fixture
def warehouse(address: DorisAddress) -> Iterator[DorisWarehouse]:
    make_tables(address)
    with closing(open_doris(address)) as opened:
        yield opened


def run(address: DorisAddress, sql: str) -> None:
    with closing(open_doris(address)) as warehouse:
        warehouse._connections.run(sql)


def remade(address: DorisAddress, table: Any, change: str, by: str) -> None:
    """Make a table as somebody else would."""
    text = layout(table).statement(replicas=1, buckets=2, image_buckets=2)
    changed = re.sub(change, by, text)
    assert changed != text
    run(address, f"DROP TABLE `{table}`")
    run(address, changed)


class TestPrepare:
    def test_makes_what_is_missing_and_says_so(self, address: DorisAddress) -> None:
        said = make_tables(address)
        assert said[0] == f"made database {address.database}"
        assert len(said) == 6
        assert make_tables(address) == [f"database {address.database} has all tables"]
        run(address, "DROP TABLE dicom_transcode_log")
        assert make_tables(address) == ["made table dicom_transcode_log"]

    def test_adds_columns_of_a_later_version(
        self, address: DorisAddress, warehouse: DorisWarehouse
    ) -> None:
        remade(address, "wado_access_log", r",\n    `user_agent`.*", "")
        run(address, "DROP TABLE dicom_image_meta")
        said = make_tables(address)
        assert said == [
            "made table dicom_image_meta",
            "added column user_agent to table wado_access_log",
        ]
        warehouse.load("wado_access_log", [replace(ACCESS, user_agent="x").to_json()], "a")
        assert warehouse.query("SELECT user_agent FROM wado_access_log") == [{"user_agent": "x"}]

    def test_gives_an_empty_table_the_key_of_a_later_version(self, address: DorisAddress) -> None:
        earlier = """CREATE TABLE `dicom_transcode_log` (
            `tenant_id` VARCHAR(64) NOT NULL, `transcoded_at` DATETIME(6) NOT NULL)
            ENGINE = OLAP DUPLICATE KEY (`tenant_id`) DISTRIBUTED BY HASH (`tenant_id`) BUCKETS 1
            PROPERTIES ("replication_num" = "1")"""
        make_tables(address)
        run(address, "DROP TABLE dicom_transcode_log")
        run(address, earlier)
        (said,) = make_tables(address)
        assert said.startswith("made table dicom_transcode_log anew")
        with closing(open_doris(address)) as warehouse:
            assert warehouse.load("dicom_transcode_log", [TRANSCODE.to_json()], "a-0-0-0")
            assert warehouse.count("dicom_transcode_log") == 1
        run(address, "DROP TABLE dicom_transcode_log")
        run(address, earlier)
        run(address, "INSERT INTO dicom_transcode_log VALUES ('t', '2026-11-01 10:00:00')")
        with pytest.raises(InvalidRequest, match="has rows, and a key of an earlier version"):
            make_tables(address)

    @pytest.mark.parametrize(
        ("change", "by", "named"),
        [
            (r"`modality` VARCHAR\(256\)", "`modality` VARCHAR(16)", "modality"),
            (r"`rows` BIGINT", "`rows` INT", "rows"),
            (r"    `digest`.*\n", "", "digest"),
            (r"`received_at` DATETIME\(6\)", "`received_at` DATETIME", "received_at"),
        ],
    )
    def test_refuses_tables_that_cannot_hold_our_rows(
        self, address: DorisAddress, change: str, by: str, named: str
    ) -> None:
        make_tables(address)
        remade(address, "dicom_image_meta", change, by)
        with pytest.raises(InvalidRequest, match=named):
            make_tables(address)

    def test_what_doris_refuses_is_said(self, address: DorisAddress) -> None:
        with pytest.raises(Unavailable, match="replication num"):
            prepare(
                address,
                doris.PASSWORD,
                connect_timeout_s=60,
                replicas=3,
                buckets=2,
                image_buckets=2,
            )

    def test_says_when_labels_are_forgotten_too_soon(self, tmp_path: Path) -> None:
        program = doris.server(tmp_path, ports := Ports.free(), options=("--label-keep-s", "60"))
        program.start()
        try:
            program.wait()
            said = make_tables(address_of(ports, "d"))
        finally:
            program.stop()
        assert re.match("advice: streaming_label_keep_max_second of the FE is 60", said[-1])

    def test_settings_lead_there(self, ports: Ports, tmp_path: Path) -> None:
        """By `bootstrap`, as `wado init` and the services go; the password from a file."""
        name = f"t{uuid.uuid4().hex}"
        (tmp_path / "password").write_text(f"{doris.PASSWORD}\n")
        settings = load_settings(
            storage={"root": tmp_path / "data"},
            warehouse={
                "url": f"doris://{doris.USER}@127.0.0.1:{ports.mysql}/{name}",
                "http_url": ports.frontend,
                "password_file": tmp_path / "password",
                "replicas": 1,
            },
        )
        (made,) = [p for p in prepare_archive(settings, wait_s=60) if p.port == "warehouse"]
        assert made.done[0] == f"made database {name}"
        with open_archive(settings) as archive:
            assert archive.warehouse.load("dicom_object_meta", stores(1), "a-0-0-0")
            assert archive.warehouse.count("dicom_object_meta") == 1


class TestMissing:
    @pytest.mark.parametrize("has_database", [True, False])
    def test_tables_are_a_matter_of_wado_init(
        self, address: DorisAddress, has_database: bool
    ) -> None:
        if has_database:
            make_tables(address)
            run(address, "DROP TABLE dicom_object_meta")
        with closing(open_doris(address)) as warehouse:
            with pytest.raises(Unavailable, match="wado init"):
                warehouse.count("dicom_object_meta")
            with pytest.raises(Unavailable, match="wado init"):
                warehouse.load("dicom_object_meta", stores(1), "a-0-0-0")
            make_tables(address)
            assert warehouse.load("dicom_object_meta", stores(1), "a-0-0-0")
            assert warehouse.count("dicom_object_meta") == 1

    @pytest.mark.parametrize("password", ["", "not: it"])
    def test_a_wrong_password_is_unavailable_and_not_shown(
        self, address: DorisAddress, password: str
    ) -> None:
        make_tables(address)
        with closing(DorisWarehouse(address, password, connect_timeout_s=60)) as warehouse:
            for call in (
                lambda: warehouse.count("dicom_object_meta"),
                lambda: warehouse.load("dicom_object_meta", stores(1), "a-0-0-0"),
            ):
                with pytest.raises(Unavailable) as e:
                    call()
                assert not password or password not in str(e.value)

    def test_nobody_there_is_unavailable_at_once(self) -> None:
        port = free_port()
        address = DorisAddress(f"doris://u@127.0.0.1:{port}/d", f"http://127.0.0.1:{port}")
        began = time.monotonic()
        with closing(DorisWarehouse(address, connect_timeout_s=200)) as warehouse:
            with pytest.raises(Unavailable):
                warehouse.count("dicom_object_meta")
            with pytest.raises(Unavailable):
                warehouse.load("dicom_object_meta", stores(1), "a-0-0-0")
        assert time.monotonic() - began < 60

    def test_the_next_frontend_is_asked(self, ports: Ports, address: DorisAddress) -> None:
        make_tables(address)
        away = f"127.0.0.1:{free_port()}"
        several = DorisAddress(
            ports.url_of(address.database).replace("@", f"@{away},"),
            f"http://{away},{ports.frontend}",
        )
        with closing(open_doris(several)) as warehouse:
            assert warehouse.load("dicom_object_meta", stores(1), "a-0-0-0")
            assert warehouse.load("dicom_object_meta", stores(2), "a-0-1-1")
            assert warehouse.count("dicom_object_meta") == 2


class TestRows:
    def test_long_text_of_four_byte_characters(self, warehouse: DorisWarehouse) -> None:
        name = "\U0001f980" * 5000
        warehouse.load("dicom_state_meta", [replace(STATE, patient_name=name).to_json()], "a")
        (row,) = warehouse.query("SELECT patient_name FROM dicom_state_meta")
        assert row["patient_name"] == name[: 2048 // 4]

    @pytest.mark.parametrize("zone", ["Z", "+00:00"])
    def test_times_compare_with_parameters(self, warehouse: DorisWarehouse, zone: str) -> None:
        for n, hour in enumerate(("09:59:59.999999", "10:00:00", "10:00:00.000001")):
            record = replace(STORE, received_at=f"2026-11-01T{hour}{zone}")
            warehouse.load("dicom_object_meta", [record.to_json()], f"a-{n}")
        found = warehouse.query(
            "SELECT received_at FROM dicom_object_meta WHERE received_at >= ? ORDER BY 1",
            ["2026-11-01T10:00:00.000000+00:00"],
        )
        assert [row["received_at"] for row in found] == [
            "2026-11-01T10:00:00.000000+00:00",
            "2026-11-01T10:00:00.000001+00:00",
        ]

    def test_parameters_are_values_whatever_is_in_them(self, warehouse: DorisWarehouse) -> None:
        value = 'it\'s \\ % ? %s "quoted" `so` \u5c71 -- \n; \U0001f980'
        sql = "SELECT '?' AS mark, '%' AS percent, ? AS given, ? AS nothing"
        assert warehouse.query(sql, [value, None]) == [
            {"mark": "?", "percent": "%", "given": value, "nothing": None}
        ]

    def test_a_batch_too_large_is_cut_the_same_way_each_time(
        self, warehouse: DorisWarehouse
    ) -> None:
        warehouse._most_load_bytes = 2000
        rows = stores(*range(20))
        assert warehouse.load("wado_access_log", [ACCESS.to_json()] * 50, "a-0-0-49")
        assert not warehouse.load("wado_access_log", [ACCESS.to_json()] * 50, "a-0-0-49")
        assert warehouse.count("wado_access_log") == 50
        # As after a crash between two parts: the first is there, the others come now.
        first = in_parts(layout("dicom_object_meta").lines(rows), 2000)[0]
        label = warehouse._label("dicom_object_meta", "b-0-0-19:1")
        assert warehouse._loader.load("dicom_object_meta", first, label)
        assert 0 < warehouse.count("dicom_object_meta") < 20
        assert warehouse.load("dicom_object_meta", rows, "b-0-0-19")
        assert not warehouse.load("dicom_object_meta", rows, "b-0-0-19")
        assert warehouse.count("dicom_object_meta") == 20

    def test_rows_that_are_not_wanted_are_not_sent(self, warehouse: DorisWarehouse) -> None:
        """The answer to a label that is known comes before the rows, megabytes here."""
        rows = [replace(ACCESS, path="/" * 10_000).to_json()] * 500
        assert warehouse.load("wado_access_log", rows, "a-0-0-499")
        assert not warehouse.load("wado_access_log", rows, "a-0-0-499")
        assert warehouse.count("wado_access_log") == 500


class TestRefusals:
    def test_rows_that_doris_filters_do_not_fit(
        self, address: DorisAddress, warehouse: DorisWarehouse
    ) -> None:
        """A table that somebody else made; the reason names no patient."""
        remade(address, "dicom_image_meta", r"`patient_id` VARCHAR\(1024\)", "`patient_id` CHAR(3)")
        good, bad = replace(IMAGE, patient_id="P1"), replace(IMAGE, patient_id="Meier^Hans")
        with pytest.raises(InvalidMessage, match="patient_id") as e:
            warehouse.load("dicom_image_meta", [good.to_json(), bad.to_json()], "a-0-0-1")
        assert not re.search("1.2.3.4|Meier", str(e.value))
        assert warehouse.count("dicom_image_meta") == 0
        assert warehouse.load("dicom_image_meta", [good.to_json()], "a-0-0-1"), "the label is free"

    def test_a_missing_partition_is_no_fault_of_the_row(
        self, address: DorisAddress, warehouse: DorisWarehouse
    ) -> None:
        partition = (
            "PARTITION BY RANGE (`received_at`) (PARTITION p VALUES LESS THAN ('2020-01-01'))"
        )
        remade(address, "dicom_object_meta", r"AUTO PARTITION.*", partition)
        with pytest.raises(Unavailable, match="no partition"):
            warehouse.load("dicom_object_meta", stores(1), "a-0-0-0")
