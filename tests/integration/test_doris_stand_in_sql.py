"""Statements to the stand-in for Apache Doris: definitions it refuses, and what it answers."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from backing_doris import shared_doris
from doris_load import Site, lines

ONE = 'PROPERTIES ("replication_num" = "1")'
HASH = "DISTRIBUTED BY HASH (k) BUCKETS 1"
KV = "(k INT NOT NULL, v INT NULL)"


@pytest.fixture(scope="module")
def site(run_folder: Path) -> Iterator[Site]:
    site = Site(shared_doris(run_folder), "mysql")
    name = f"q{uuid.uuid4().hex}"
    site.run(f"CREATE DATABASE {name}")
    site.database = name
    yield site
    site.run(f"DROP DATABASE {name} FORCE")


def refused(site: Site, sql: str) -> tuple[int, str]:
    """Give number and text of a refusal."""
    with pytest.raises(pymysql.err.MySQLError) as refusal:
        site.run(sql)
    code, text = refusal.value.args
    return int(code), str(text)


AUTO = "AUTO PARTITION BY RANGE (date_trunc(d, 'day')) ()"
KD = "(k INT NOT NULL, d DATE NOT NULL)"
ENGLISH = 'PROPERTIES ("parser" = "english")'


def with_property(name: str, value: str) -> str:
    """One replica, and a property more."""
    return f'PROPERTIES ("replication_num" = "1", "{name}" = "{value}")'


DEFINITIONS = [
    (f"{KV} UNIQUE KEY (v) {HASH} {ONE}", "Key columns should be a ordered prefix"),
    (f"{KV} UNIQUE KEY (k, x) {HASH} {ONE}", "unknown column[x]"),
    (f"{KV} UNIQUE KEY (k) {ONE}", "should contain distribution desc"),
    (f"{KV} UNIQUE KEY (k) DISTRIBUTED BY RANDOM {ONE}", "random distribution desc"),
    (f"{KV} UNIQUE KEY (k) DISTRIBUTED BY HASH (v) BUCKETS 1 {ONE}", "is not key column"),
    (f"{KV} UNIQUE KEY (k) DISTRIBUTED BY HASH (x) BUCKETS 1 {ONE}", "column(x) doesn't exist"),
    (f"{KV} UNIQUE KEY (k) DISTRIBUTED BY HASH (k) BUCKETS 0 {ONE}", "greater than zero"),
    (f"{KV} UNIQUE KEY (k) {HASH}", "Failed to find enough backend"),
    (f'{KV} UNIQUE KEY (k) {HASH} PROPERTIES ("replication_num" = "2")', "replication num: 2"),
    (f'{KV} UNIQUE KEY (k) {HASH} PROPERTIES ("replicas" = "1")', "Unknown properties: {replicas"),
    (f"(k STRING NOT NULL) UNIQUE KEY (k) {HASH} {ONE}", "String Type should not be used in key"),
    (f"(k DOUBLE NOT NULL) UNIQUE KEY (k) {HASH} {ONE}", "Float or double can not used as a key"),
    (f"(k FLOAT NOT NULL) {HASH} {ONE}", "first column could not be float"),
    (f"(k VARCHAR NOT NULL) {HASH} {ONE}", "needs a length"),
    (f"(k VARCHAR(65534) NOT NULL) {HASH} {ONE}", "VARCHAR size must be <= 65533"),
    (f"(k VARCHAR(0) NOT NULL) {HASH} {ONE}", "VARCHAR size must be > 0"),
    (f"(k INT NOT NULL, K INT) {HASH} {ONE}", "Duplicate column name 'K'"),
    (f"(k INT NOT NULL, v GEOMETRY) {HASH} {ONE}", "no type GEOMETRY"),
    (f"(k INT NOT NULL,) {HASH} {ONE}", "mismatched input ')'"),
    (f"{KV} UNIQUE KEY (k) {HASH} {ONE} ORDER BY v", "mismatched input 'ORDER'"),
    (f"{KV} ENGINE = InnoDB {HASH} {ONE}", "Unknown table engine 'InnoDB'"),
    (
        f"{KD} UNIQUE KEY (k) {AUTO} {HASH} {ONE}",
        "partition column must be key column",
    ),
    (
        f"(k INT NOT NULL, d DATE NULL) {AUTO} {HASH} {ONE}",
        "doesn't support NULL column",
    ),
    (
        f"{KD} AUTO PARTITION BY RANGE (d) () {HASH} {ONE}",
        "need a function expr",
    ),
    (
        f"{KD} {AUTO.removeprefix('AUTO ')} {HASH} {ONE}",
        "only Auto Range Partition",
    ),
    (f"{KV} PARTITION BY RANGE (x) () {HASH} {ONE}", "partition key x is not exists"),
    (f"(k INT NOT NULL, INDEX i (x) USING INVERTED) {HASH} {ONE}", "does not exist in table"),
    (f"(k INT NOT NULL, INDEX i (k) USING BTREE) {HASH} {ONE}", "mismatched input"),
    (
        f"(k INT NOT NULL, INDEX i (k) USING INVERTED {ENGLISH}) {HASH} {ONE}",
        "is not supported for column: k",
    ),
    (
        f"{KV} UNIQUE KEY (k) {HASH} {with_property('bloom_filter_columns', 'x')}",
        "Bloom filter column does not exist",
    ),
    (
        f"{KV} {HASH} {with_property('enable_unique_key_merge_on_write', 'true')}",
        "only supported in unique tables",
    ),
]


class TestDefinitions:
    @pytest.mark.parametrize(("definition", "reason"), DEFINITIONS)
    def test_refused(self, site: Site, definition: str, reason: str) -> None:
        _, text = refused(site, f"CREATE TABLE bad {definition}")
        assert text.startswith("errCode = 2, detailMessage = ")
        assert reason in text
        assert site.run("SHOW TABLES LIKE 'bad'") == []

    def test_names_are_taken_once(self, site: Site) -> None:
        site.run(f"CREATE TABLE taken {KV} {HASH} {ONE}")
        assert refused(site, f"CREATE TABLE taken {KV} {HASH} {ONE}")[0] == 1050
        site.run(f"CREATE TABLE IF NOT EXISTS taken {KV} {HASH} {ONE}")
        assert refused(site, f"CREATE DATABASE {site.database}")[0] == 1007
        assert refused(site, "DROP TABLE missing")[0] == 1051
        site.run("DROP TABLE IF EXISTS missing", "DROP TABLE taken")

    def test_shown_as_it_can_be_made_again(self, site: Site) -> None:
        site.run(
            "CREATE TABLE shown (k VARCHAR(64) NOT NULL COMMENT 'the key', d DATETIME(6) NOT NULL, "
            "v DECIMAL(9, 2) NULL DEFAULT '1.5', INDEX by_v (k) USING INVERTED COMMENT 'i') "
            "ENGINE = OLAP UNIQUE KEY (k, d) COMMENT 'all' "
            "AUTO PARTITION BY RANGE (date_trunc(d, 'month')) () "
            "DISTRIBUTED BY HASH (k) BUCKETS AUTO "
            'PROPERTIES ("replication_num" = "1", "compression" = "zstd")'
        )
        ((_, text),) = site.run("SHOW CREATE TABLE shown")
        site.run("DROP TABLE shown", text)
        assert site.run("SHOW CREATE TABLE shown") == ([("shown", text)])
        assert site.run("DESC shown")[1:] == [
            ("d", "datetime(6)", "No", "true", None, ""),
            ("v", "decimal(9,2)", "Yes", "false", "1.5", "NONE"),
        ]
        columns = (
            "SELECT column_name, is_nullable, character_maximum_length, column_key "
            "FROM information_schema.columns WHERE table_schema = database() "
            "AND table_name = 'shown' ORDER BY ordinal_position"
        )
        assert site.run(columns)[0] == ("k", "NO", 64, "UNI")


class TestPartitions:
    def test_made_on_demand(self, site: Site) -> None:
        site.run(
            "DROP TABLE IF EXISTS t",
            "CREATE TABLE t (k INT NOT NULL, d DATETIME(3) NOT NULL) "
            f"AUTO PARTITION BY RANGE (date_trunc(d, 'month')) () {HASH} {ONE}",
        )
        site.load(lines({"k": 1, "d": "2026-11-30 23:59:59.999"}, {"k": 2, "d": "2026-12-01"}))
        names = [row[1] for row in site.run("SHOW PARTITIONS FROM t")]
        assert names == ["p20261101000000", "p20261201000000"]
        assert len(site.rows()) == 2

    def test_a_row_of_no_partition_is_filtered(self, site: Site) -> None:
        site.run(
            "DROP TABLE IF EXISTS t",
            "CREATE TABLE t (k INT NOT NULL, d DATE NOT NULL) PARTITION BY RANGE (d) "
            "(PARTITION a VALUES LESS THAN ('2026-01-01'), "
            f"PARTITION b VALUES [('2026-01-01'), ('2026-02-01'))) {HASH} {ONE}",
        )
        assert site.load(lines({"k": 1, "d": "2026-01-31"}))["Status"] == "Success"
        answer = site.load(lines({"k": 1, "d": "2026-02-01"}))
        assert "no partition for this tuple" in site.errors(answer)


class TestStatements:
    def test_rows_in_and_out(self, site: Site) -> None:
        site.table("k INT NOT NULL, v VARCHAR(9) NULL, d DATETIME(6) NULL, b BOOLEAN NULL")
        site.run("INSERT INTO t (k, v, b) VALUES (1, 'it''s', TRUE), (2, 'a\\\\b', FALSE)")
        query = "SELECT v, d, b, count(*) AS n FROM t GROUP BY 1, 2, 3 ORDER BY v DESC LIMIT 5"
        assert site.run(query) == [("it's", None, 1, 1), ("a\\b", None, 0, 1)]
        assert site.run(f"SELECT sum(k) FROM {site.database}.t WHERE v IN ('x', 'it\\'s')") == [
            (1,)
        ]
        assert "strict mode" in refused(site, "INSERT INTO t (k) VALUES (NULL)")[1]
        assert refused(site, "INSERT INTO t (k, x) VALUES (1, 2)")[0] == 1054
        site.run("TRUNCATE TABLE t")
        assert site.rows() == []

    def test_what_a_duplicate_table_deletes_by(self, site: Site) -> None:
        site.table("k INT NOT NULL, v VARCHAR(9) NULL, f DOUBLE NULL")
        site.run("INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, NULL, 3), (4, 'd', 4)")
        assert "Where clause is not set" in refused(site, "DELETE FROM t")[1]
        for condition in ("k = 1 OR k = 2", "length(v) = 1", "k IN (SELECT k FROM t)", "f > 1"):
            assert "errCode = 2" in refused(site, f"DELETE FROM t WHERE {condition}")[1]
        assert "Unknown column" in refused(site, "DELETE FROM t WHERE x = 1")[1]
        site.run("DELETE FROM t WHERE k IN (1, 2) AND v = 'a'", "DELETE FROM t WHERE v IS NULL")
        assert [row[0] for row in site.rows()] == [2, 4]

    def test_a_unique_table_deletes_by_anything(self, site: Site) -> None:
        site.table("k INT NOT NULL, v VARCHAR(9) NULL", "UNIQUE KEY (k)")
        site.run("INSERT INTO t VALUES (1, 'a'), (2, 'bb'), (2, 'c')")
        site.run("DELETE FROM t WHERE length(v) = 1 AND (k = 1 OR k = 3)")
        assert site.rows() == [(2, "c")]

    @pytest.mark.parametrize(
        ("sql", "code", "text"),
        [
            ("SELECT * FROM nothing", 1105, "Table [nothing] does not exist in database"),
            ("SELECT * FROM no.t", 1049, "Unknown database 'no'"),
            ("SELECT nothing FROM information_schema.tables", 1105, "nothing"),
            ("SELECT * FROM information_schema.nothing", 1105, "does not exist"),
            ("SELEC 1", 1105, "errCode = 2"),
            ("USE no", 1049, "Unknown database 'no'"),
            ("SET no_such_variable = 1", 1193, "Unknown system variable 'no_such_variable'"),
            ("SELECT @@no_such_variable", 1193, "no_such_variable"),
            ("UPDATE t SET k = 1", 1105, "does not know UPDATE"),
            ("SHOW ROUTINE LOAD", 1105, "does not show"),
        ],
    )
    def test_refused(self, site: Site, sql: str, code: int, text: str) -> None:
        number, said = refused(site, sql)
        assert number == code
        assert text in said

    def test_what_a_connection_knows(self, site: Site) -> None:
        query = "SELECT version(), database(), @@version_comment, 1 + 1"
        ((version, database, comment, two),) = site.run("SET time_zone = 'UTC'", query)
        assert (version, database, two) == ("5.7.99", site.database, 2)
        assert comment.startswith("Doris version")
        ((utc, there),) = site.run("SET time_zone = '+08:00'", "SELECT utc_timestamp(), now()")
        assert 28_795 <= (there - utc).total_seconds() <= 28_805

    def test_loads_by_their_label(self, site: Site) -> None:
        site.table("k INT NOT NULL")
        site.load(b'{"k": 1}', "shown-1")
        site.load(b'{"k": null}', "shown-2")
        rows = [site.run(f"SHOW LOAD WHERE LABEL = 'shown-{n}'") for n in (1, 2, 3)]
        assert [[r[2] for r in found] for found in rows] == [["FINISHED"], ["CANCELLED"], []]
        assert "too many filtered rows" in rows[1][0][5]

    def test_users(self, site: Site) -> None:
        name = f"u{uuid.uuid4().hex[:8]}"
        site.run(f"CREATE USER '{name}'@'%' IDENTIFIED BY 'secret'")
        where: dict[str, Any] = {"host": "127.0.0.1", "port": site.ports.mysql, "user": name}
        pymysql.connect(**where, password="secret").close()
        site.run(f"SET PASSWORD FOR '{name}' = PASSWORD('other')")
        with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
            pymysql.connect(**where, password="secret")
        site.run(f"DROP USER '{name}'@'%'")
