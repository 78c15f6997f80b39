"""Stream Load to the stand-in for Apache Doris: what it takes, and what it refuses."""

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from backing import doris
from backing.doris import Ports
from backing.program import Program
from backing_doris import shared_doris
from doris_load import AUTHORIZATION, Site, lines, request
from service import wait_until

WAIT_S = 60.0
EXPECT = {"Expect": "100-continue"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, run_folder: Path) -> Iterator[Site]:
    site = Site(shared_doris(run_folder), "mysql")
    site.database = _new_database(site)
    yield site
    site.run(f"DROP DATABASE {site.database} FORCE")


def _new_database(site: Site) -> str:
    name = f"s{uuid.uuid4().hex}"
    site.run(f"CREATE DATABASE {name}")
    return name


class TestFrontend:
    def test_sends_on_with_user_and_password_in_the_address(self, site: Site) -> None:
        status, headers, body = request(
            site.ports.http, site.path(), {"Authorization": AUTHORIZATION, **EXPECT}
        )
        who = "wado:stand-in%3A%20p%40ss%2Fw%25rd"
        assert status == 307
        assert headers["location"] == f"http://{who}@127.0.0.1:{site.ports.be}{site.path()}"
        assert body == b""

    def test_takes_no_rows(self, site: Site) -> None:
        site.table("k INT NOT NULL")
        headers = {"Authorization": AUTHORIZATION, **EXPECT, "label": "to-the-fe"}
        assert request(site.ports.http, site.path(), headers, b'{"k": 1}')[0] == 307
        assert site.rows() == []
        assert site.load(b'{"k": 1}', "to-the-fe")["Status"] == "Success"

    def test_wants_an_expectation(self, site: Site) -> None:
        headers = {"Authorization": AUTHORIZATION}
        status, _, body = request(site.ports.http, site.path(), headers)
        assert (status, body["status"]) == (200, "FAILED")
        assert body["msg"] == "There is no 100-continue header"

    @pytest.mark.parametrize("authorization", ["", "Basic d2FkbzpubyE=", "Bearer x", "Basic !"])
    def test_refuses_strangers_with_200(self, site: Site, authorization: str) -> None:
        headers = {"Authorization": authorization, **EXPECT}
        status, _, body = request(site.ports.http, site.path(), headers)
        assert (status, body["msg"], body["code"]) == (200, "Unauthorized", 401)


class TestBackend:
    def test_asks_again_who_it_is(self, site: Site) -> None:
        _, _, body = request(site.ports.be, site.path(), EXPECT, b"{}")
        assert (body["Status"], body["TxnId"]) == ("Fail", -1)
        assert body["Message"] == "[NOT_AUTHORIZED]no valid Basic authorization"

    def test_wants_the_body_when_it_has_checked_the_head(self, site: Site) -> None:
        site.table("k INT NOT NULL")
        assert site.load(b'{"k": 1}', "head-1")["Status"] == "Success"
        assert site.head({**EXPECT, "label": "head-2"}) == b"HTTP/1.1 100 Continue\r\n"
        assert site.head({**EXPECT, "label": "head-1"}) == b"HTTP/1.1 200 OK\r\n"

    def test_a_client_that_goes_away_leaves_its_label_free(self, site: Site) -> None:
        site.table("k INT NOT NULL")
        assert site.head({**EXPECT, "label": "gone"}) == b"HTTP/1.1 100 Continue\r\n"
        wait_until(
            lambda: site.load(b'{"k": 1}', "gone")["Status"] == "Success",
            timeout_s=WAIT_S,
            reason="the label is free",
        )

    def test_all_fields_of_an_answer(self, site: Site) -> None:
        site.table("k INT NOT NULL")
        answer = site.load(lines({"k": 1}, {"k": 2}), "fields")
        counts = {n: v for n, v in answer.items() if n.startswith("Number") or n == "LoadBytes"}
        assert list(counts.values()) == [2, 2, 0, 0, 17]
        assert answer["TxnId"] > 0
        assert (answer["Label"], answer["TwoPhaseCommit"]) == ("fields", "false")
        assert (answer["Status"], answer["Message"]) == ("Success", "OK")
        assert "ErrorURL" not in answer
        assert "ExistingJobStatus" not in answer

    @pytest.mark.parametrize(
        ("headers", "message"),
        [
            ({"label": "no spaces"}, "Label format error. regex: ^[-_A-Za-z0-9:]{1,128}$"),
            ({"label": "x" * 129}, "Label format error"),
            ({"format": "yaml"}, "[DATA_FILE_TYPE_ERROR]unknown data format, format=yaml"),
            ({"strict_mode": "perhaps"}, "Must be bool type"),
            ({"timezone": "Mars/Olympus"}, "Mars/Olympus"),
            ({"merge_type": "UPDATE"}, "Invalid merge type UPDATE"),
            ({"merge_type": "DELETE"}, "only supported in unique tables"),
            ({"merge_type": "MERGE"}, "DELETE ON clause"),
            ({"columns": "k, v, w = k + 1"}, "unknown column(w) in table(t)"),
            ({"columns": "v"}, "Column has no default value. column: k"),
            ({"function_column__sequence_col": "v"}, "There is no sequence column in the table t"),
            ({"partial_columns": "true", "columns": "k"}, "Only unique key merge on write"),
            ({"timeout": "soon"}, "soon"),
            ({"timeout": "0"}, "Timeout should between 1 and 259200 seconds"),
        ],
    )
    def test_refused_headers(self, site: Site, headers: dict[str, str], message: str) -> None:
        site.table("k INT NOT NULL, v VARCHAR(5) NULL")
        answer = site.load(b'{"k": 1}', **headers)
        assert answer["Status"] == "Fail"
        assert message in answer["Message"]
        assert site.rows() == []

    def test_unknown_table_and_database(self, site: Site) -> None:
        for path, what in (
            (site.path("none"), "unknown table, tableName=none"),
            ("/api/none/t/_stream_load", "unknown database, database=none"),
        ):
            headers = {"Authorization": AUTHORIZATION, "format": "json"}
            _, _, body = request(site.ports.be, path, headers, b"{}")
            assert body["Status"] == "Fail"
            assert what in body["Message"]

    def test_a_body_that_is_too_large_is_refused_by_its_head(self, site: Site) -> None:
        site.table("k INT NOT NULL")
        size = str((100 << 20) + 1)
        whole = {"read_json_by_line": "false", "strip_outer_array": "true"}
        path, headers = site.path(), {"Authorization": AUTHORIZATION, **EXPECT, "format": "json"}
        large = {**headers, **whole, "Content-Length": size}
        _, _, body = request(site.ports.be, path, large, None)
        assert "exceed BE's conf `streaming_load_json_max_mb`" in body["Message"]
        assert site.head({**EXPECT, "Content-Length": size}) == b"HTTP/1.1 100 Continue\r\n"

    def test_csv_is_the_default(self, site: Site) -> None:
        site.table("k INT NOT NULL, v VARCHAR(5) NULL")
        assert site.load(b"1\ta\n2\t\\N\n", format="", read_json_by_line="")["Status"] == "Success"
        assert site.rows() == [(1, "a"), (2, None)]
        answer = site.load(b'{"k": 3}', format="", read_json_by_line="")
        assert answer["Status"] == "Fail"
        assert "actual column number in csv file is less" in site.errors(answer)

    def test_an_array_has_to_be_announced(self, site: Site) -> None:
        site.table("k INT NOT NULL")
        body = b'[{"k": 1}, {"k": 2}]'
        assert site.load(body)["NumberFilteredRows"] == 1
        answer = site.load(body, read_json_by_line="", strip_outer_array="true")
        assert (answer["Status"], answer["NumberLoadedRows"]) == ("Success", 2)
        assert site.load(b'{"k": 3}', read_json_by_line="", strip_outer_array="true")["Status"] == (
            "Fail"
        )

    def test_computed_columns_and_rows_left_out(self, site: Site) -> None:
        site.table("k INT NOT NULL, v VARCHAR(9) NULL")
        body = lines({"a": 1, "b": "x"}, {"a": 2, "b": "y"})
        headers = {"columns": "a, b, k = a + 1, v = upper(b)", "where": "a <> 2"}
        answer = site.load(body, **headers)
        assert (answer["NumberLoadedRows"], answer["NumberUnselectedRows"]) == (1, 1)
        assert site.rows() == [(2, "X")]


FITS: list[tuple[str, Any, Any]] = [
    ("INT NULL", "12", 12),
    ("INT NULL", 3.7, 3),
    ("BIGINT NULL", -(1 << 63), -(1 << 63)),
    ("VARCHAR(3) NULL", 512, "512"),
    ("VARCHAR(3) NULL", True, "1"),
    ("VARCHAR(9) NULL", {"a": 1.5}, '{"a":1.5}'),
    ("DECIMAL(9, 2) NULL", 1.005, Decimal("1.01")),
    ("STRING NULL", "x" * 70_000, "x" * 70_000),
    ("BOOLEAN NULL", "TRUE", 1),
    ("DOUBLE NULL", "1e3", 1000.0),
    ("VARCHAR(3) NOT NULL DEFAULT 'd'", ..., "d"),
]
UNFIT: list[tuple[str, Any, str]] = [
    ("INT NULL", "x", "strict mode is true"),
    ("TINYINT NULL", 128, "strict mode is true"),
    ("BIGINT NULL", 1 << 63, "strict mode is true"),
    ("DATETIME NULL", "yesterday", "strict mode is true"),
    ("DATE NULL", "2026-02-30", "strict mode is true"),
    ("BOOLEAN NULL", "maybe", "strict mode is true"),
]
NEVER_FITS: list[tuple[str, Any, str]] = [
    ("INT NOT NULL", None, "null value for not null column"),
    ("INT NOT NULL", "x", "null value for not null column"),
    ("VARCHAR(3) NULL", "four", "the length of input is too long than schema"),
    ("VARCHAR(3) NULL", "\u5c71\u5c71", "actual length: 6"),
    ("DECIMAL(4, 1) NULL", "1000", "decimal value is not valid for definition"),
    ("INT NOT NULL", ..., "is not nullable, but it's not found in jsondata"),
]


def _row(value: Any) -> bytes:
    return lines({"k": 1} if value is ... else {"k": 1, "v": value})


class TestValues:
    @pytest.mark.parametrize(("column", "value", "loaded"), FITS)
    def test_fits(self, site: Site, column: str, value: Any, loaded: Any) -> None:
        site.table(f"k INT NOT NULL, v {column}")
        assert site.load(_row(value), strict_mode="true")["Status"] == "Success"
        assert site.rows() == [(1, loaded)]

    @pytest.mark.parametrize(("column", "value", "reason"), UNFIT)
    def test_becomes_null_unless_the_mode_is_strict(
        self, site: Site, column: str, value: Any, reason: str
    ) -> None:
        site.table(f"k INT NOT NULL, v {column}")
        answer = site.load(_row(value), strict_mode="true")
        assert (answer["Status"], answer["NumberFilteredRows"]) == ("Fail", 1)
        assert reason in site.errors(answer)
        assert site.load(_row(value))["Status"] == "Success"
        assert site.rows() == [(1, None)]

    @pytest.mark.parametrize(("column", "value", "reason"), NEVER_FITS)
    def test_never_fits(self, site: Site, column: str, value: Any, reason: str) -> None:
        site.table(f"k INT NOT NULL, v {column}")
        answer = site.load(_row(value))
        assert answer["Message"] == "[DATA_QUALITY_ERROR]too many filtered rows"
        assert reason in site.errors(answer)
        assert site.rows() == []

    def test_some_rows_may_be_filtered(self, site: Site) -> None:
        site.table("k INT NOT NULL")
        body = lines(*({"k": k} for k in (1, None, 3, 4)))
        assert site.load(body, max_filter_ratio="0.24")["Status"] == "Fail"
        answer = site.load(body, max_filter_ratio="0.25")
        assert (answer["Status"], answer["NumberLoadedRows"]) == ("Success", 3)
        assert answer["NumberFilteredRows"] == 1

    def test_times_are_those_of_the_load_zone(self, site: Site) -> None:
        site.table("k INT NOT NULL, v DATETIME(6) NULL")
        row = '{{"k": {}, "v": "2026-11-01T22:00:00.1234567+00:00"}}'
        site.load(row.format(1).encode(), timezone="UTC")
        site.load(row.format(2).encode(), timezone="")
        site.load(b'{"k": 3, "v": "2026-11-01 22:00:00"}', timezone="")
        assert [str(v) for _, v in site.rows()] == [
            "2026-11-01 22:00:00.123457",
            "2026-11-02 06:00:00.123457",
            "2026-11-01 22:00:00",
        ]


class TestKeys:
    MODEL = "UNIQUE KEY (k)"

    def test_the_last_row_of_a_key_stays(self, site: Site) -> None:
        site.table("k INT NOT NULL, v INT NULL", self.MODEL)
        site.load(lines({"k": 1, "v": 1}, {"k": 2, "v": 2}, {"k": 1, "v": 3}))
        assert site.rows() == [(1, 3), (2, 2)]
        site.load(lines({"k": 2}))
        assert site.rows() == [(1, 3), (2, None)]
        site.load(lines({"k": 1}), merge_type="DELETE")
        assert site.rows() == [(2, None)]
        site.load(lines({"k": 2, "v": 9}, {"k": 4, "v": 4}), merge_type="MERGE", delete="v > 5")
        assert site.rows() == [(4, 4)]

    def test_a_sequence_decides(self, site: Site) -> None:
        column = '"function_column.sequence_col" = "v"'
        site.table("k INT NOT NULL, v INT NULL, w INT NULL", self.MODEL, column)
        site.load(lines({"k": 1, "v": 5, "w": 1}, {"k": 1, "v": 4, "w": 2}))
        site.load(lines({"k": 1, "v": 3, "w": 3}))
        assert site.rows() == [(1, 5, 1)]
        site.load(lines({"k": 1, "v": 5, "w": 4}))
        assert site.rows() == [(1, 5, 4)]

    def test_a_hidden_sequence_has_to_be_named(self, site: Site) -> None:
        kind = '"function_column.sequence_type" = "bigint"'
        site.table("k INT NOT NULL, v INT NULL", self.MODEL, kind)
        answer = site.load(lines({"k": 1, "v": 1}))
        assert "need to specify the sequence column" in answer["Message"]
        for value in (2, 1):
            site.load(lines({"k": 1, "v": value}), function_column__sequence_col="v")
        assert site.rows() == [(1, 2)]


class TestLabels:
    def test_a_label_is_loaded_once(self, site: Site) -> None:
        site.table("k INT NOT NULL")
        first = site.load(b'{"k": 1}', "once")
        again = site.load(b'{"k": 2}', "once")
        assert again["Status"] == "Label Already Exists"
        assert again["ExistingJobStatus"] == "FINISHED"
        assert again["Message"].endswith(
            f"Label [once] has already been used, relate to txn [{first['TxnId']}]"
        )
        assert site.rows() == [(1,)]

    def test_a_label_of_a_failed_load_is_free(self, site: Site) -> None:
        site.table("k INT NOT NULL")
        assert site.load(b'{"k": null}', "failed")["Status"] == "Fail"
        assert site.load(b'{"k": 1}', "failed")["Status"] == "Success"

    def test_labels_are_of_a_database(self, site: Site) -> None:
        site.table("k INT NOT NULL")
        other = Site(site.ports, _new_database(site))
        other.table("k INT NOT NULL")
        assert site.load(b'{"k": 1}', "both")["Status"] == "Success"
        assert other.load(b'{"k": 1}', "both")["Status"] == "Success"
        other.run(f"DROP DATABASE {other.database}")

    def test_the_oldest_are_forgotten(self, tmp_path: Path) -> None:
        ports = Ports.free()
        program = doris.server(tmp_path, ports, options=("--label-num", "2"))
        program.start()
        try:
            program.wait()
            site = Site(ports, "mysql")
            site.run("CREATE DATABASE own")
            site.database = "own"
            site.table("k INT NOT NULL")
            for label in ("a", "b", "c"):
                assert site.load(b'{"k": 1}', label)["Status"] == "Success"
            until = time.monotonic() + WAIT_S
            while len(site.run("SHOW LOAD")) > 2:
                assert site.load(b'{"k": 1}', "c")["Status"] == "Label Already Exists"
                assert time.monotonic() < until
                time.sleep(0.2)
            assert site.load(b'{"k": 2}', "a")["Status"] == "Success"
        finally:
            program.stop()

    def test_two_phases(self, site: Site) -> None:
        site.table("k INT NOT NULL")
        first = site.load(b'{"k": 1}', "phases", two_phase_commit="true")
        assert (first["Status"], first["TwoPhaseCommit"], site.rows()) == ("Success", "true", [])
        assert site.load(b'{"k": 1}', "phases")["ExistingJobStatus"] == "PRECOMMITTED"
        path = f"/api/{site.database}/_stream_load_2pc"
        headers = {"Authorization": AUTHORIZATION, "txn_id": str(first["TxnId"])}
        commit = {**headers, "txn_operation": "commit"}
        assert request(site.ports.http, path, commit)[0] == 307
        _, _, done = request(site.ports.be, path, commit)
        text = f"transaction [{first['TxnId']}] commit successfully."
        assert done == {"status": "Success", "msg": text}
        assert site.rows() == [(1,)]
        _, _, again = request(site.ports.be, path, commit)
        assert "is already visible, not pre-committed." in again["msg"]
        _, _, unknown = request(site.ports.be, path, {**commit, "txn_id": "1"})
        assert "transaction [1] not found" in unknown["msg"]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Site, Program]]:
    """A stand-in of this test alone, that may be killed."""
    ports = Ports.free()
    program = doris.server(tmp_path, ports, options=("--look-s", "0"))
    program.start()
    program.wait()
    site = Site(ports, "mysql")
    site.run("CREATE DATABASE own")
    site.database = "own"
    site.table("k INT NOT NULL")
    yield site, program
    program.kill()


def _start_again(program: Program) -> None:
    program.process and program.process.wait(WAIT_S)
    program.start()
    program.wait()


class TestFaults:
    def test_dies_before_and_after_a_commit(self, own: tuple[Site, Program]) -> None:
        site, program = own
        doris.inject(site.ports.frontend, "crash_before_commit")
        with pytest.raises((HTTPException, OSError)):
            site.load(b'{"k": 1}', "before")
        _start_again(program)
        assert site.rows() == []
        assert site.load(b'{"k": 1}', "before")["Status"] == "Success"
        doris.inject(site.ports.frontend, "crash_after_commit")
        with pytest.raises((HTTPException, OSError)):
            site.load(b'{"k": 2}', "after")
        _start_again(program)
        assert site.load(b'{"k": 3}', "after")["ExistingJobStatus"] == "FINISHED"
        assert site.rows() == [(1,), (2,)]

    def test_hangs_while_others_see_it_run(self, own: tuple[Site, Program]) -> None:
        site, _ = own
        for seconds in (3, 10, 30):  # longer, if the machine was too busy to ask meanwhile
            doris.inject(site.ports.frontend, "hang_before_commit", seconds=seconds)
            label = f"slow-{seconds}"
            with ThreadPoolExecutor() as pool:
                slow = pool.submit(site.load, b'{"k": 1}', label)
                wait_until(
                    lambda: "hang_before_commit" not in doris.armed(site.ports.frontend),
                    timeout_s=WAIT_S,
                    reason="the load hangs",
                )
                answer = site.load(b'{"k": 1}', label)
                in_time = not slow.done()
                assert slow.result(WAIT_S)["Status"] == "Success"
            if in_time:
                break
        assert in_time
        assert answer["ExistingJobStatus"] == "RUNNING"

    def test_answers_that_are_not_plain(self, own: tuple[Site, Program]) -> None:
        site, _ = own
        frontend = site.ports.frontend
        doris.inject(frontend, "publish_timeout")
        assert site.load(b'{"k": 1}', "late")["Status"] == "Publish Timeout"
        doris.inject(frontend, "label_running", times=2)
        for _ in range(2):
            assert site.load(b'{"k": 2}', "busy")["ExistingJobStatus"] == "RUNNING"
        assert site.load(b'{"k": 2}', "busy")["Status"] == "Success"
        for fault, label in (("drop_after_commit", "dropped"), ("cut_answer", "cut")):
            doris.inject(frontend, fault)
            with pytest.raises((HTTPException, OSError)):
                site.load(b'{"k": 3}', label)
            assert site.load(b'{"k": 3}', label)["ExistingJobStatus"] == "FINISHED"
        doris.inject(frontend, "drop_before_commit")
        with pytest.raises((HTTPException, OSError)):
            site.load(b'{"k": 4}', "lost")
        assert site.load(b'{"k": 4}', "lost")["Status"] == "Success"
        doris.inject(frontend, "fail")
        assert site.load(b'{"k": 5}', "fails")["Status"] == "Fail"
        assert [k for (k,) in site.rows()] == [1, 2, 3, 3, 4]

    def test_committed_and_not_yet_seen(self, own: tuple[Site, Program]) -> None:
        site, program = own
        for label, seconds in (("soon", 1.0), ("never", 3600.0)):
            doris.inject(site.ports.frontend, "publish_timeout", seconds=seconds)
            seen = len(site.rows())
            assert site.load(b'{"k": 1}', label)["Status"] == "Publish Timeout"
            assert site.load(b'{"k": 1}', label)["ExistingJobStatus"] == "FINISHED"
            if label == "soon":
                wait_until(
                    lambda seen=seen: len(site.rows()) > seen,  # type: ignore[misc]
                    timeout_s=WAIT_S,
                    reason="it is seen",
                )
        assert len(site.rows()) == 1
        program.kill()
        _start_again(program)
        assert len(site.rows()) == 2

    def test_a_load_takes_no_longer_than_it_says(self, own: tuple[Site, Program]) -> None:
        site, _ = own
        doris.inject(site.ports.frontend, "hang_before_commit", seconds=60)
        answer = site.load(b'{"k": 1}', "late", timeout="1")
        assert answer["Status"] == "Fail"
        assert "timeout by txn manager" in answer["Message"]
        assert site.load(b'{"k": 1}', "late")["Status"] == "Success"

    def test_a_frontend_that_is_ill(self, own: tuple[Site, Program]) -> None:
        site, _ = own
        headers = {"Authorization": AUTHORIZATION, **EXPECT}
        doris.inject(site.ports.frontend, "fe_500")
        assert request(site.ports.http, site.path(), headers)[0] == 500
        doris.inject(site.ports.frontend, "be_unreachable")
        _, there, _ = request(site.ports.http, site.path(), headers)
        assert "127.0.0.1:1/" in there["location"]
        doris.inject(site.ports.frontend, "fe_no_backend")
        assert "No backend" in request(site.ports.http, site.path(), headers)[2]["msg"]
        with pytest.raises(ValueError, match="no_such"):
            doris.inject(site.ports.frontend, "no_such")
