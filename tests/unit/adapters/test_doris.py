"""The Doris adapter without a Doris: definitions, rows, labels, addresses, placeholders."""

import re
from dataclasses import fields
from string import Template
from typing import Any, get_args

import orjson
import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st

from real import PROJECT
from wado.adapters.warehouse import doris, doris_load, session
from wado.adapters.warehouse.doris import DorisAddress, DorisWarehouse
from wado.adapters.warehouse.doris_query import with_placeholders
from wado.adapters.warehouse.doris_rows import in_parts, layout, layouts
from wado.errors import InvalidMessage, InvalidRequest
from wado.records import (
    DicomImageMeta,
    DicomObjectMeta,
    DicomStateMeta,
    Table,
    Topic,
    WadoAccessLog,
)
from wado.services.consumer import LOADED

RECORDS: dict[Table, Any] = {
    "dicom_object_meta": DicomObjectMeta,
    "dicom_state_meta": DicomStateMeta,
    "dicom_image_meta": DicomImageMeta,
    "wado_access_log": WadoAccessLog,
}
NUMBERS = {"replicas": 3, "buckets": 4, "image_buckets": 32}
TABLES = get_args(Table)


class TestDefinitions:
    @pytest.mark.parametrize(("table", "record"), RECORDS.items())
    def test_have_the_fields_of_the_record(self, table: Table, record: Any) -> None:
        assert {c.name for c in layout(table).columns} == {f.name for f in fields(record)}

    @pytest.mark.parametrize("table", TABLES)
    def test_have_the_columns_of_the_embedded_warehouse(self, table: Table) -> None:
        """The same rows may be null in both."""
        embedded = re.findall(
            r"^ {4}(\w+) (?:VARCHAR|BIGINT|DOUBLE|BOOLEAN)( NOT NULL)?",
            session.definition(table),
            re.MULTILINE,
        )
        ours = {(c.name, "" if c.nullable else " NOT NULL") for c in layout(table).columns}
        assert ours == set(embedded)

    @pytest.mark.parametrize("table", TABLES)
    def test_are_read_by_a_parser_of_another_house(self, table: Table) -> None:
        """It does not know AUTO PARTITION: that clause is taken out before."""
        text = layout(table).statement(**NUMBERS)
        assert "$" not in text
        (parsed,) = sqlglot.parse(re.sub(r"AUTO PARTITION.*\n", "", text), dialect="doris")
        assert isinstance(parsed, sqlglot.exp.Create)
        columns = {c.name for c in parsed.find_all(sqlglot.exp.ColumnDef)}
        assert columns == {c.name for c in layout(table).columns}

    @pytest.mark.parametrize("table", TABLES)
    def test_keep_what_doris_asks_of_keys_and_partitions(self, table: Table) -> None:
        text = layout(table).statement(**NUMBERS)
        kind, keys = re.findall(r"^(UNIQUE|DUPLICATE) KEY \((.*)\)", text, re.MULTILINE)[0]
        key = re.findall(r"`(\w+)`", keys)
        assert [c.name for c in layout(table).columns[: len(key)]] == key, "first, in this order"
        assert all(not c.nullable for c in layout(table).columns if c.name in key)
        (bucket,) = re.findall(r"HASH \(`(\w+)`\)", text)
        partition = re.findall(r"date_trunc\(`(\w+)`, 'month'\)", text)
        if kind == "UNIQUE":
            assert bucket in key
            assert set(partition) <= set(key)
            assert '"enable_unique_key_merge_on_write" = "true"' in text
        assert all(c.type == "DATETIME" for c in layout(table).columns if c.name in partition)

    def test_only_what_is_written_once_has_partitions(self) -> None:
        partitioned = {e.table for e in layouts() if "PARTITION BY" in e.template.template}
        assert partitioned == {"dicom_object_meta", "wado_access_log", "dicom_transcode_log"}

    @pytest.mark.parametrize("table", TABLES)
    def test_every_name_is_quoted(self, table: Table) -> None:
        text = layout(table).template.template
        for name in ("rows", "columns", "query", "method", "path", "status", "reason"):
            assert not re.search(rf"(?<![`\w]){name}(?![`\w ])", _without_comments(text))


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("--"))


IMAGE = {
    "tenant_id": "t",
    "study_instance_uid": "1.2",
    "series_instance_uid": "1.2.3",
    "sop_instance_uid": "1.2.3.4",
    "sop_class_uid": "1.2.840",
    "transfer_syntax_uid": "1.2.840",
    "file_path": "p",
    "file_size": 1,
    "digest": "d",
    "received_at": "2026-11-01T10:00:00.000001+00:00",
    "trace_id": "0",
}


def fitted(**values: Any) -> dict[str, Any]:
    (line,) = layout("dicom_image_meta").lines([orjson.dumps(IMAGE | values)])
    row: dict[str, Any] = orjson.loads(line)
    return row


class TestRows:
    @pytest.mark.parametrize(
        ("time", "held"),
        [
            ("2026-11-01T10:00:00.000001+00:00", "2026-11-01 10:00:00.000001"),
            ("2026-11-01T10:00:00+00:00", "2026-11-01 10:00:00.000000"),
            ("2026-11-01T00:30:00+08:00", "2026-10-31 16:30:00.000000"),
            ("2026-11-01T10:00:00Z", "2026-11-01 10:00:00.000000"),
            ("2026-11-01", "2026-11-01 00:00:00.000000"),
        ],
    )
    def test_times_are_in_utc(self, time: str, held: str) -> None:
        assert fitted(received_at=time)["received_at"] == held

    @pytest.mark.parametrize(
        "wrong",
        [
            {"received_at": ""},
            {"received_at": "yesterday"},
            {"received_at": 5},
            {"received_at": "0001-01-01T00:00:00+14:00"},
            {"file_size": 1.5},
            {"file_size": True},
            {"file_size": 1 << 63},
            {"file_size": "1"},
            {"digest": None},
            {"digest": 7},
            {"modality": ["CT"]},
            {"sop_instance_uid": "1" * 65},
            {"tenant_id": "\u5c71" * 22},
        ],
    )
    def test_what_does_not_fit_is_refused(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(InvalidMessage, match=next(iter(wrong))):
            fitted(**wrong)

    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=2000))
    def test_long_texts_are_cut_between_characters(self, text: str) -> None:
        modality = fitted(modality=text)["modality"]
        assert text.startswith(modality)
        size, left = len(modality.encode()), len(text.encode()) - len(modality.encode())
        assert size <= 256
        assert left == 0 or size > 252, "no more than it must"

    def test_null_and_unknown_fields_are_left_out(self) -> None:
        row = fitted(patient_id=None, field_of_tomorrow=[1])
        assert row.keys() == IMAGE.keys()

    def test_of_a_key_the_last_row_stays(self) -> None:
        rows = [IMAGE | {"file_size": n, "sop_instance_uid": f"1.{n % 2}"} for n in range(5)]
        lines = layout("dicom_image_meta").lines(map(orjson.dumps, rows))
        assert [orjson.loads(line)["file_size"] for line in lines] == [4, 3]

    def test_a_reason_names_no_value(self) -> None:
        with pytest.raises(InvalidMessage) as e:
            fitted(sop_instance_uid="Meier^Hans" * 9)
        assert "Meier" not in str(e.value)

    def test_keys_alone_make_rows_that_fit(self) -> None:
        (line,) = layout("dicom_image_meta").key_lines([("t", "1.2", "1.2.3", "1.2.3.4")])
        row = orjson.loads(line)
        assert row.keys() == IMAGE.keys()
        assert row["sop_instance_uid"] == "1.2.3.4"

    @given(st.lists(st.binary(max_size=30), max_size=30), st.integers(1, 100))
    def test_parts_are_all_lines_in_their_order(self, lines: list[bytes], most: int) -> None:
        lines = [line.replace(b"\n", b"") for line in lines]
        parts = in_parts(lines, most)
        assert b"\n".join(parts) == b"\n".join(lines)
        assert all(len(p) <= most or b"\n" not in p for p in parts)


class TestPlaceholders:
    @pytest.mark.parametrize(
        ("sql", "text"),
        [
            ("SELECT 1 WHERE a = ? AND b IN (?, ?)", "SELECT 1 WHERE a = %s AND b IN (%s, %s)"),
            ("SELECT '?' , \"?\", `?`, ?", "SELECT '?' , \"?\", `?`, %s"),
            ("SELECT 'it''s ?' , ?", "SELECT 'it''s ?' , %s"),
            (r"SELECT '\'?' , ?", r"SELECT '\'?' , %s"),
            ("SELECT a LIKE '%x%' AND a % 2 = ?", "SELECT a LIKE '%%x%%' AND a %% 2 = %s"),
        ],
    )
    def test_stand_for_question_marks_outside_quotes(self, sql: str, text: str) -> None:
        assert with_placeholders(sql) == text


class TestAddress:
    def test_of_one_host(self) -> None:
        address = DorisAddress("doris://wado:p%40ss@fe.example/archive")
        assert (address.user, address.database) == ("wado", "archive")
        assert address.hosts == [("fe.example", 9030)]
        assert address.frontends == ["http://fe.example:8030"]

    def test_of_several_hosts(self) -> None:
        address = DorisAddress("doris://u@a:1,b:2/d", "http://a:3, https://b:4/")
        assert address.hosts == [("a", 1), ("b", 2)]
        assert address.frontends == ["http://a:3", "https://b:4/"]

    @pytest.mark.parametrize(
        ("url", "http_url"),
        [
            ("doris://u@a", ""),
            ("doris://u@a/", ""),
            ("doris://u@a/a`b", ""),
            ("doris://u@/d", ""),
            ("doris://u:secret@a:port/d", ""),
            ("doris://u@a/d", "a:8030"),
            ("doris://u@a/d", "http://a:port"),
            ("doris://u@a/d", "http://a:99999"),
            ("doris://u@a/d", "http://:8030"),
            ("doris://u@a/d", "http://u:secret@a:8030"),
        ],
    )
    def test_that_is_none_is_refused_without_the_password(self, url: str, http_url: str) -> None:
        with pytest.raises(InvalidRequest) as e:
            DorisAddress(url, http_url)
        assert "secret" not in str(e.value)


class TestAddressOfABackend:
    @pytest.mark.parametrize(
        ("location", "cleaned"),
        [
            ("http://u:p%40ss@be:8040/api/d/t/_stream_load", "http://be:8040/api/d/t/_stream_load"),
            ("http://u:secret@be:8040/p?x=1", "http://be:8040/p?x=1"),
            ("https://be/p", "https://be/p"),
        ],
    )
    def test_has_no_account(self, location: str, cleaned: str) -> None:
        assert doris_load._without_account(location) == cleaned

    @pytest.mark.parametrize(
        "location", ["http://u:se/cret@be:8040/p", "ftp://be/p", "", "http:///p", "http://be:x/p"]
    )
    def test_that_cannot_be_used_is_not_shown(self, location: str) -> None:
        with pytest.raises(doris_load._Unreachable) as e:
            doris_load._without_account(location)
        assert "cret" not in str(e.value)


class TestReasons:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            (
                "Reason: column_name[x] is too long. first 32 bytes of input str: [Meier^Hans] ; .",
                "Reason: column_name[x] is too long",
            ),
            (
                "Reason: no partition for this tuple. tuple=+--+\n|Meier^Hans|. src line [Meier];",
                "Reason: no partition for this tuple",
            ),
            ("Reason: Parse json data failed. src line [Meier]", "Reason: Parse json data failed"),
            ("convert to date failed, value Meier", "convert to date failed"),
            (
                "[DATA_QUALITY_ERROR]too many filtered rows",
                "[DATA_QUALITY_ERROR]too many filtered rows",
            ),
            ("unknown table, tableName=t", "unknown table, tableName=t"),
        ],
    )
    def test_name_columns_and_no_values(self, text: str, shown: str) -> None:
        assert doris_load.without_values(text) == shown


class TestLabel:
    def test_has_the_table_and_is_what_doris_takes(self) -> None:
        warehouse = DorisWarehouse(DorisAddress("doris://u@a/d"), label_prefix="here")
        label = "dicom_image_queue-0-17-99"
        assert warehouse._label("dicom_image_meta", label) == f"here-dicom_image_meta-{label}"
        names = {
            warehouse._label(table, label)
            for table in ("dicom_image_meta", "dicom_state_meta")
            for label in ("a.b", "a/b", "a" * 200, "a" * 201, "\u5c71")
        }
        assert len(names) == 10
        assert all(doris._LABEL.match(name) for name in names)


def test_settings_are_all_the_numbers_of_the_definitions() -> None:
    named = {name for e in layouts() for name in Template(e.template.template).get_identifiers()}
    assert named == NUMBERS.keys()


def test_routine_load_and_our_loaders_share_the_tables() -> None:
    text = (PROJECT / "deploy" / "doris" / "routine_load.sql").read_text()
    jobs = re.findall(r'ON `(\w+)`.*?"kafka_topic" = "(\w+)"', text, re.DOTALL)
    assert jobs
    assert all(LOADED[Topic(topic)] == table for table, topic in jobs)
    (ours,) = re.findall(r"load_tables = (\[.*\])", text)
    left = list(LOADED.values())
    for table in (*orjson.loads(ours), *(table for table, _ in jobs)):
        left.remove(table)
    assert left == []
