"""What only the index in PostgreSQL promises: tenants apart, counts right, growth bounded."""

import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from alembic import command
from sqlalchemy import select
from sqlalchemy.dialects import postgresql as dialect

import backing_postgresql
from backing_postgresql import Database
from contract.index_data import KEYS, archive, one, said
from contract.indexes import PATIENCE_S, emptied, search, state, uids
from wado.adapters.index import finders, migrations, postgresql_writes, statements
from wado.adapters.index.matching import asked
from wado.adapters.index.postgresql import PostgresqlIndex
from wado.adapters.index.postgresql_schema import TENANT_TABLES, prepare
from wado.adapters.index.postgresql_session import Sessions, driver
from wado.adapters.index.postgresql_texts import Trigrams
from wado.adapters.index.tables import study
from wado.errors import Unavailable
from wado.ports import Level, Match, Query
from wado.records import DicomStateMeta

CITUS = Path(__file__).resolve().parents[2] / "deploy" / "postgresql" / "citus.sql"


@pytest.fixture
def index(database: Database) -> Iterator[PostgresqlIndex]:
    opened = PostgresqlIndex(database.url, timeout_s=PATIENCE_S)
    yield opened
    opened.close()


@pytest.fixture
def superuser(database: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database.superuser_url, autocommit=True) as connection:
        yield connection


class TestTenants:
    """Row-level security is a second wall, behind the conditions of each statement."""

    def test_a_forgotten_condition_shows_no_other_tenant(self, index: PostgresqlIndex) -> None:
        index.put([state("1.1"), state("1.2", tenant_id="u")])
        with index._sessions.reading("t") as connection:
            assert connection.execute(select(study.c.tenant_id)).scalars().all() == ["t"]
        with index._sessions.reading("*") as connection:
            assert len(connection.execute(select(study.c.tenant_id)).all()) == 2

    def test_without_a_tenant_nothing_is_seen_in_any_table(
        self, index: PostgresqlIndex, database: Database
    ) -> None:
        index.put([state()])
        with psycopg.connect(database.url) as connection:
            for table in TENANT_TABLES:
                assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
            connection.execute("SET wado.tenant_id = 't'")
            for table in TENANT_TABLES:
                assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,)

    def test_rows_of_another_tenant_cannot_be_written(
        self, index: PostgresqlIndex, database: Database
    ) -> None:
        index.put([state()])
        with psycopg.connect(database.url) as connection:
            connection.execute("SET wado.tenant_id = 'u'")
            assert connection.execute("DELETE FROM series").rowcount == 0
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("INSERT INTO study_count VALUES ('t', '', 1, 1)")

    def test_text_is_not_found_for_another_tenant(
        self, index: PostgresqlIndex, database: Database
    ) -> None:
        index.put([state(study_description="Abdomen")])
        asked_for = "SELECT * FROM wado_find_text('t', 'study', 'study_description', %s, 9)"
        with psycopg.connect(database.url) as connection:
            connection.execute("SET wado.tenant_id = 't'")
            assert connection.execute(asked_for, [["%bdo%"]]).fetchall() == [("1.2",)]
            connection.execute("SET wado.tenant_id = 'u'")
            assert connection.execute(asked_for, [["%bdo%"]]).fetchall() == []

    def test_the_role_of_the_services_cannot_change_the_tables(self, database: Database) -> None:
        for statement in ("DROP TABLE study", "ALTER TABLE study DISABLE ROW LEVEL SECURITY"):
            refused = pytest.raises(psycopg.errors.InsufficientPrivilege)
            with refused, psycopg.connect(database.url) as connection:
                connection.execute(statement)


class TestCitus:
    """What `create_distributed_table(…, 'tenant_id')` asks for."""

    def test_every_unique_index_begins_with_the_tenant(self, superuser: psycopg.Connection) -> None:
        rows = superuser.execute(
            """SELECT i.indrelid::regclass::text, i.indexrelid::regclass::text, a.attname
            FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
            JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
            WHERE i.indisunique AND c.relnamespace = 'public'::regnamespace"""
        ).fetchall()
        of_one_server = {"alembic_version", "index_generation"}
        assert {table for table, *_ in rows} == {*TENANT_TABLES, *of_one_server}
        assert {c for table, _, c in rows if table not in of_one_server} == {"tenant_id"}

    def test_no_foreign_key_leaves_the_tenant(self, superuser: psycopg.Connection) -> None:
        row = superuser.execute("SELECT count(*) FROM pg_constraint WHERE contype = 'f'").fetchone()
        assert row == (0,)

    def test_the_script_names_every_table(self) -> None:
        named = re.findall(r"create_distributed_table\('(\w+)', 'tenant_id'", CITUS.read_text())
        assert sorted(named) == sorted(TENANT_TABLES)

    @pytest.mark.parametrize("level", [Level.STUDY, Level.SERIES])
    @pytest.mark.parametrize("matches", KEYS, ids=said)
    def test_every_table_of_a_search_is_held_to_its_tenant(
        self, matches: tuple[Match, ...], level: Level
    ) -> None:
        query = Query("t", level, matches)
        told = asked(matches)
        for finder in [*finders.finders(query, told), finders.walk(query), finders.SORTED]:
            found = statements.Search(query, *statements.split(told), finder, Trigrams())
            compiled = statements.page(found).compile(
                dialect=dialect.dialect(), compile_kwargs={"literal_binds": False}
            )
            sql = str(compiled)
            for alias in set(re.findall(r"(?:FROM|JOIN) ([a-z_]+(?: AS \"?[a-z]+\"?)?)", sql)):
                name = alias.rpartition(" ")[2]
                if name != "page":
                    assert f"{name}.tenant_id = " in sql, sql


class TestManyWriters:
    def test_two_consumers_write_series_of_one_study(self, database: Database) -> None:
        writers, rounds = 4, 15
        together = threading.Barrier(writers)

        def put(writer: int) -> None:
            mine = PostgresqlIndex(database.url, timeout_s=PATIENCE_S)
            for n in range(rounds):
                together.wait(120)  # each round makes a study that none of them knows
                mine.put([state(f"1.{n}", f"{writer}", modality=f"M{writer}")])
                mine.put([state("9", f"{writer}.{n}", study_id=str(writer))], flush=False)
            mine.flush()
            mine.close()

        with ThreadPoolExecutor(writers) as pool:
            list(pool.map(put, range(writers)))
        index = PostgresqlIndex(database.url, timeout_s=PATIENCE_S)
        rows = {row["study_instance_uid"]: row for row in search(index, limit=99)}
        assert len(rows) == rounds + 1
        assert rows.pop("9")["number_of_study_related_series"] == writers * rounds
        for row in rows.values():
            assert row["number_of_study_related_series"] == writers
            assert row["modalities_in_study"] == r"M0\M1\M2\M3"
        with psycopg.connect(database.superuser_url) as connection:
            counts = connection.execute("SELECT sum(studies), sum(series) FROM study_count")
            assert counts.fetchone() == (rounds + 1, writers * rounds * 2)
            kept = connection.execute("SELECT count(*) FROM study_modality").fetchone()
            assert kept == (rounds * writers + 1,)
        index.close()

    def test_batches_in_any_order_do_not_stop_each_other(self, database: Database) -> None:
        states = [state(f"1.{n}", patient_id=f"P{n % 3}", study_date=f"2024010{n % 5}")
                  for n in range(40)]  # fmt: skip

        def put(writer: int) -> None:
            mine = PostgresqlIndex(database.url, timeout_s=PATIENCE_S)
            for n in range(8):
                turned = states[writer * n :] + states[: writer * n]
                mine.put(turned[:: -1 if writer % 2 else 1])
                gone = [state(f"1.{k}", number_of_series_related_instances=0) for k in range(9)]
                mine.put(gone)
            mine.close()

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(put, range(3)))
        index = PostgresqlIndex(database.url, timeout_s=PATIENCE_S)
        index.put(states)
        assert len(search(index, limit=99)) == 40
        with psycopg.connect(database.superuser_url) as connection:
            counts = connection.execute("SELECT sum(studies), sum(series) FROM study_count")
            assert counts.fetchone() == (40, 40)
            assert connection.execute("SELECT count(*) FROM patient").fetchone() == (3,)
        index.close()


class TestGrowth:
    @pytest.fixture
    def database(self, server: backing_postgresql.Server) -> Iterator[Database]:
        """One of its own, in which no other test left rows, and which nobody tidies meanwhile."""
        made = server.database()
        with psycopg.connect(made.superuser_url) as connection:
            for table in TENANT_TABLES:
                connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
        yield made
        server.drop(made)

    def test_the_same_again_writes_nothing(self, database: Database) -> None:
        states = archive(30)
        before = _written(database, lambda index: index.put(states))

        def repeat(index: PostgresqlIndex) -> None:
            for _ in range(5):
                index.put(states)

        after = _written(database, repeat)
        assert before["series"][0] >= len(states)
        assert after == before

    def test_a_series_that_grows_is_updated_in_place(
        self, database: Database, superuser: psycopg.Connection
    ) -> None:
        before = _written(database, lambda index: index.put([state(f"1.{n}") for n in range(20)]))
        sizes = _sizes(superuser)

        def grow(index: PostgresqlIndex) -> None:
            for count in range(2, 302):
                grown = state(
                    f"1.{count % 20}",
                    number_of_series_related_instances=count,
                    updated_at=str(count),
                )
                index.put([grown], flush=False)

        after = _written(database, grow)
        for table in ("series", "study"):
            updated, hot = (after[table][i] - before[table][i] for i in (1, 2))
            assert updated >= 300
            assert hot >= updated * 0.9, (table, updated, hot)
            assert _sizes(superuser)[table] <= sizes[table] + 8 * 8192


def _written(
    database: Database, work: Callable[[PostgresqlIndex], object]
) -> dict[str, tuple[int, ...]]:
    """Do some work; rows inserted, updated, updated in place, deleted until then, by table."""
    index = PostgresqlIndex(database.url, timeout_s=PATIENCE_S)
    work(index)
    index.close()
    with psycopg.connect(database.superuser_url, autocommit=True) as connection:
        # A session tells what it wrote at its end, if not before.
        others = """SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'wado'"""
        deadline = time.monotonic() + 60
        while connection.execute(others).fetchone() != (0,):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        rows = connection.execute(
            """SELECT relname, n_tup_ins, n_tup_upd, n_tup_hot_upd, n_tup_del
            FROM pg_stat_user_tables WHERE relname = ANY(%s)""",
            [list(TENANT_TABLES)],
        )
        return {row[0]: tuple(row[1:]) for row in rows.fetchall()}


def _sizes(connection: psycopg.Connection) -> dict[str, int]:
    rows = connection.execute(
        "SELECT relname, pg_relation_size(oid) FROM pg_class WHERE relname = ANY(%s)",
        [list(TENANT_TABLES)],
    )
    return dict(rows.fetchall())


def _difficult() -> list[DicomStateMeta]:
    """A batch in which states replace, remove, and contradict each other, of two tenants."""
    states = [
        state(f"1.{n % 50}", f"{n}", tenant_id="tu"[n % 2], patient_id=f"P{n % 7}",
              patient_name=f"N\u00e4me\\{n % 7}\t^\n", study_date=f"2024010{n % 9 + 1}",
              study_time=None if n % 5 else "10", modality="CM"[n % 2] + "TR"[n % 2],
              study_description=f"a\0b{n}", series_number=n if n % 3 else None)
        for n in range(300)
    ]  # fmt: skip
    again = [replace(s, study_id="2", modality="US") for s in states[40:60]]
    gone = [replace(s, number_of_series_related_instances=0) for s in states[:30] + states[100:103]]
    return [*states, *again, *gone, *states[5:10]]


def _tables(database: Database) -> dict[str, list[tuple[object, ...]]]:
    with psycopg.connect(database.superuser_url) as connection:
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall()
            for table in ("patient", "study", "series", "study_modality", "study_count")
        }


class TestCopy:
    """What comes by COPY is what comes as JSON."""

    @pytest.fixture
    def as_json(
        self, database: Database, index: PostgresqlIndex, monkeypatch: pytest.MonkeyPatch
    ) -> dict[str, list[tuple[object, ...]]]:
        """The tables after a difficult batch; the database is emptied again."""
        with monkeypatch.context() as patch:
            patch.setattr(postgresql_writes, "MANY", 10_000)
            index.put(_difficult())
        tables = _tables(database)
        assert all(tables.values())
        emptied(database)
        return tables

    def test_a_large_put(
        self, database: Database, index: PostgresqlIndex, as_json: dict[str, object]
    ) -> None:
        index.put(_difficult())
        assert _tables(database) == as_json
        index.put(_difficult())
        assert _tables(database) == as_json

    def test_a_large_put_of_a_role_that_may_make_no_tables(
        self, database: Database, superuser: psycopg.Connection, as_json: dict[str, object]
    ) -> None:
        name = database.url.rpartition("/")[2]
        superuser.execute(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")
        mine = PostgresqlIndex(database.url, timeout_s=PATIENCE_S)
        mine.put(_difficult())
        mine.close()
        superuser.execute(f"GRANT TEMPORARY ON DATABASE {name} TO PUBLIC")
        assert _tables(database) == as_json

    @pytest.mark.parametrize("role", ["url", "owner_url"])
    def test_loading(self, database: Database, as_json: dict[str, object], role: str) -> None:
        loader = PostgresqlIndex(getattr(database, role), timeout_s=PATIENCE_S)
        before = _indexes(database)
        with loader.loading() as put:
            put(_difficult()[:100])
            put(_difficult()[100:])
        loader.close()
        assert _tables(database) == as_json
        assert _indexes(database) == before

    @pytest.mark.parametrize("role", ["url", "owner_url"])
    def test_loading_into_a_filled_index(
        self, database: Database, index: PostgresqlIndex, as_json: dict[str, object], role: str
    ) -> None:
        index.put(_difficult()[:150])
        loader = PostgresqlIndex(getattr(database, role), timeout_s=PATIENCE_S)
        with loader.loading() as put:
            put(_difficult())
        loader.close()
        assert _tables(database) == as_json


def _indexes(database: Database) -> list[tuple[object, ...]]:
    with psycopg.connect(database.superuser_url) as connection:
        return connection.execute(
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
        ).fetchall()


class TestValues:
    """Nothing that a device sends keeps a batch from being written."""

    def test_longer_than_an_index_takes(self, index: PostgresqlIndex) -> None:
        pick = random.Random(2)
        noise = "".join(chr(pick.randrange(0x4E00, 0x9FFF)) for _ in range(6000))
        long = state("1.1", patient_name=noise, patient_id=noise, study_description=noise)
        index.put([long, state("1.2")])
        assert uids(search(index)) == ["1.1", "1.2"]
        (found,) = search(index, one("patient_id", "wildcard", f"{noise[:40]}*"))
        assert noise.startswith(found["patient_id"])

    def test_numbers_longer_than_32_bits(self, index: PostgresqlIndex) -> None:
        index.put([state(series_number=1 << 40), state("1.3", series_number=-(1 << 62))])
        assert uids(search(index, one("series_number", "single", str(1 << 40)))) == ["1.2"]
        assert search(index, one("series_number", "single", str(1 << 70))) == []


@pytest.fixture
def no_tables(server: object, request: pytest.FixtureRequest) -> Iterator[Database]:
    database = server.database(is_migrated=False)  # type: ignore[attr-defined]
    yield database
    server.drop(database)  # type: ignore[attr-defined]


Act = Callable[[PostgresqlIndex], object]


@pytest.mark.parametrize(
    "act",
    [
        lambda index: index.put([state()]),
        search,
        lambda index: index.awaiting_description(1),
    ],
    ids=["put", "search", "awaiting_description"],
)
def test_tables_that_are_missing_are_named(no_tables: Database, act: Act) -> None:
    index = PostgresqlIndex(no_tables.url, timeout_s=PATIENCE_S)
    with pytest.raises(Unavailable, match="wado init"):
        act(index)
    index.close()


class TestBeforeStatistics:
    """The planner does not know yet how many rows a tenant has; it must not take them for none."""

    @pytest.mark.parametrize("is_of_others", [False, True], ids=["new index", "new tenant"])
    def test_searches_end(
        self, database: Database, superuser: psycopg.Connection, is_of_others: bool
    ) -> None:
        for table in TENANT_TABLES:
            superuser.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
        index = PostgresqlIndex(database.url, timeout_s=20)
        states = archive(800)
        if is_of_others:
            index.put([replace(s, tenant_id=f"of {n % 3} others") for n, s in enumerate(states)])
            superuser.execute("ANALYZE")
        index.put(states)
        for level in (Level.STUDY, Level.SERIES):
            for matches in KEYS:
                index.search(Query("t", level, matches))  # raises when the server gives up
        index.close()


class TestMigration:
    def test_services_refuse_older_tables_and_bear_newer_ones(
        self, no_tables: Database, request: pytest.FixtureRequest
    ) -> None:
        said_first = prepare(no_tables.url, no_tables.owner_url, timeout_s=PATIENCE_S)
        assert migrations.HEAD in said_first[0]
        assert prepare(no_tables.url, no_tables.owner_url, timeout_s=PATIENCE_S) != said_first
        for revision, is_borne in (("0002", False), ("9999", True)):
            with psycopg.connect(no_tables.superuser_url) as connection:
                connection.execute("UPDATE alembic_version SET version_num = %s", [revision])
            index = PostgresqlIndex(no_tables.url, timeout_s=PATIENCE_S)
            request.addfinalizer(index.close)
            if is_borne:
                index.put([state()])
                told = prepare(no_tables.url, no_tables.owner_url, timeout_s=PATIENCE_S)
                assert "newer" in told[0]
            else:
                with pytest.raises(Unavailable, match="wado init"):
                    index.put([state()])

    def test_several_at_once_make_one_set_of_tables(
        self, no_tables: Database, tmp_path: Path
    ) -> None:
        urls = {"WADO_INDEX__URL": no_tables.url, "WADO_INDEX__OWNER_URL": no_tables.owner_url}
        with ExitStack() as stack:
            running = [
                stack.enter_context(
                    subprocess.Popen(
                        [sys.executable, "-m", "wado", "init", "--root", str(tmp_path / "data")],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT,
                        env={**os.environ, **urls},
                        cwd=tmp_path,
                        text=True,
                    )
                )
                for _ in range(3)
            ]
            for process in running:
                stack.callback(process.kill)  # before it is waited for
            told = [process.communicate(timeout=200)[0] for process in running]
        assert [process.returncode for process in running] == [0, 0, 0], told
        assert sum(f"from revision none to {migrations.HEAD}" in text for text in told) == 1, told
        index = PostgresqlIndex(no_tables.url, timeout_s=PATIENCE_S)
        index.put([state()])
        assert len(search(index)) == 1
        index.close()

    def test_from_revision_1_and_back(self, no_tables: Database) -> None:
        _alembic(no_tables, command.upgrade, "0001")
        with psycopg.connect(no_tables.owner_url) as owner:
            owner.execute("""INSERT INTO study (tenant_id, study_instance_uid, study_date,
                number_of_study_related_series) VALUES ('t', '1.2', '20240131', 1)""")
            owner.execute("""INSERT INTO series (tenant_id, study_instance_uid, series_instance_uid,
                modality, number_of_series_related_instances, version, awaits_description)
                VALUES ('t', '1.2', '1.2.1', 'CT', 1, 7, true)""")
        for _ in range(2):
            prepare(no_tables.url, no_tables.owner_url, timeout_s=PATIENCE_S)
            index = PostgresqlIndex(no_tables.url, timeout_s=PATIENCE_S)
            key = one("modalities_in_study", "single", "CT")
            assert uids(search(index, key)) == ["1.2"]
            assert [version for _, version in index.awaiting_description(9)] == [7]
            index.close()
            _alembic(no_tables, command.downgrade, "0001")


def _alembic(database: Database, run: Callable[..., object], revision: str) -> None:
    owner = Sessions(database.owner_url, timeout_s=PATIENCE_S, connections=1, is_bounded=False)
    with owner.begun("BEGIN") as connection:
        run(migrations.configuration(connection), revision)
        driver(connection).execute("COMMIT")
    owner.close()
