"""What only the index in a SQLite file promises."""

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text

from contract import child
from contract.index_data import KEYS, archive, one, said
from contract.indexes import Open, search, state, uids
from wado.adapters.index import finders, migrations, statements
from wado.adapters.index.matching import asked
from wado.adapters.index.migrations import configuration
from wado.adapters.index.sqlite import SqliteIndex
from wado.errors import Unavailable
from wado.ports import Index, Level, Match, Query


@pytest.fixture
def open_index(tmp_path: Path) -> Iterator[Open]:
    """Open the index; each call as another process would."""
    opened: list[Index] = []

    def open_it() -> Index:
        opened.append(SqliteIndex(tmp_path / "index" / "index.sqlite", durable=True))
        return opened[-1]

    yield open_it
    for index in opened:
        index.close()


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteIndex]:
    index = SqliteIndex(tmp_path_factory.mktemp("index") / "index.sqlite", durable=False)
    index.put(archive())
    yield index
    index.close()


class TestFile:
    """The file, and its tables."""

    def test_a_spoilt_file_is_unavailable(self, tmp_path: Path) -> None:
        (tmp_path / "index.sqlite").write_bytes(b"not a database" * 100)
        with pytest.raises(Unavailable, match=r"index\.sqlite"):
            SqliteIndex(tmp_path / "index.sqlite")

    def test_a_file_in_place_of_the_folder_is_unavailable(self, tmp_path: Path) -> None:
        (tmp_path / "index").write_text("")
        with pytest.raises(Unavailable, match="cannot make the folder"):
            SqliteIndex(tmp_path / "index" / "index.sqlite")

    def test_the_newest_revision_is_known_without_alembic(self) -> None:
        from alembic.script import ScriptDirectory  # noqa: PLC0415  # slow

        script = ScriptDirectory.from_config(migrations.configuration())
        assert script.get_heads() == [migrations.HEAD]

    def test_migrations_make_the_tables_of_the_code(self, index: Index) -> None:
        from alembic.autogenerate import compare_metadata  # noqa: PLC0415  # slow
        from alembic.migration import MigrationContext  # noqa: PLC0415  # slow

        from wado.adapters.index.tables import metadata  # noqa: PLC0415  # beside the others

        def is_ours(name: str | None, kind: str, _parents: object) -> bool:
            # Only SQLite has these, and the tables that they are made of.
            return kind != "table" or "_text" not in (name or "")

        assert isinstance(index, SqliteIndex)
        with index._engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"include_name": is_ours})
            assert compare_metadata(context, metadata) == []

    def test_every_key_and_index_begins_with_the_tenant(self) -> None:
        from wado.adapters.index.tables import metadata  # noqa: PLC0415  # slow

        for table in metadata.tables.values():
            for columns in (table.primary_key.columns, *(i.columns for i in table.indexes)):
                assert next(iter(columns)).name == "tenant_id"

    def test_a_vacuumed_file_is_mended_when_it_is_opened(
        self, open_index: Open, tmp_path: Path
    ) -> None:
        index = open_index()
        index.put([state(f"1.{n}", study_description=f"Region {n}") for n in range(9)])
        index.put([state("1.2", number_of_series_related_instances=0)])
        index.close()
        with closing(sqlite3.connect(tmp_path / "index" / "index.sqlite")) as file:
            file.execute("VACUUM")
        found = search(open_index(), one("study_description", "wildcard", "*gion 7*"))
        assert uids(found) == ["1.7"]

    def test_a_failed_load_leaves_its_indexes(self, index: Index) -> None:
        def fail() -> None:
            with index.loading() as put:
                put([state("1.1")])
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fail()
        assert isinstance(index, SqliteIndex)
        steps = plan(index, Query("t", Level.STUDY, (one("patient_id", "single", "1"),)))
        assert "study_patient_id" in "\n".join(steps)


def plan(index: SqliteIndex, query: Query) -> list[str]:
    """Say how SQLite runs the search that would be chosen if rows were many."""
    matches = asked(query.matches)
    ways = finders.finders(query, matches)
    finder = finders.exact(ways) or finders.choose(ways, lambda _: 1, keys=len(matches))
    if finder is not None and finder.pieces:
        finder = replace(finder, rows=(1, 2))
    split = statements.split(matches)
    page = statements.page(statements.Search(query, *split, finder or finders.walk(query)))
    with index._engine.connect() as connection:
        sql = page.compile(index._engine, compile_kwargs={"literal_binds": True})
        return [row.detail for row in connection.execute(text(f"EXPLAIN QUERY PLAN {sql}"))]


class TestPlans:
    """Every key finds its place in an index; none reads a table from end to end."""

    @pytest.mark.parametrize("level", [Level.STUDY, Level.SERIES])
    @pytest.mark.parametrize("matches", KEYS, ids=said)
    def test_no_search_reads_a_whole_table(
        self, full: SqliteIndex, matches: tuple[Match, ...], level: Level
    ) -> None:
        steps = plan(full, Query("t", level, matches))
        scans = [s for s in steps if s.startswith("SCAN") and "page" not in s and "json" not in s]
        assert not scans, steps

    @pytest.mark.parametrize(
        ("match", "level", "name"),
        [
            (one("patient_id", "single", "1"), Level.STUDY, "study_patient_id"),
            (one("accession_number", "single", "1"), Level.STUDY, "study_accession_number"),
            (one("study_id", "single", "1"), Level.STUDY, "study_study_id"),
            (one("study_description", "single", "1"), Level.STUDY, "study_study_description"),
            (one("patient_birth_date", "single", "1"), Level.STUDY, "study_patient_birth_date"),
            (one("patient_sex", "single", "F"), Level.STUDY, "study_patient_sex"),
            (one("study_date", "range", "1", "2"), Level.STUDY, "study_newest"),
            (one("modalities_in_study", "single", "CT"), Level.STUDY, "study_modality_newest"),
            (one("modalities_in_study", "single", "CT"), Level.SERIES, "study_modality_newest"),
            (one("patient_id", "single", "1"), Level.SERIES, "study_patient_id"),
            (one("modality", "single", "CT"), Level.SERIES, "series_modality"),
            (one("series_number", "single", "1"), Level.SERIES, "series_series_number"),
            (one("scheduled_procedure_step_id", "single", "1"), Level.SERIES,
             "series_scheduled_procedure_step_id"),
            (one("requested_procedure_id", "single", "1"), Level.SERIES,
             "series_requested_procedure_id"),
            (one("performed_procedure_step_start_date", "single", "1"), Level.SERIES,
             "series_performed_procedure_step_start_date"),
        ],
    )  # fmt: skip
    def test_one_value_comes_in_order_out_of_its_index(
        self, full: SqliteIndex, match: Match, level: Level, name: str
    ) -> None:
        steps = plan(full, Query("t", level, (match,)))
        assert f"INDEX {name} " in "\n".join(steps), steps
        # The page itself is sorted once more; before it, nothing but rows of one study are.
        before = steps[: next((i for i, s in enumerate(steps) if "page" in s and "SCAN" in s), 99)]
        assert "USE TEMP B-TREE FOR ORDER BY" not in before[:-1] or level is Level.SERIES

    @pytest.mark.parametrize(
        ("match", "name"),
        [
            (one("patient_name", "wildcard", "doe*"), "study_patient_name"),
            (one("patient_name", "single", "Doe^Jane"), "study_patient_name"),
            (one("referring_physician_name", "wildcard", "w*"), "study_referring_physician_name"),
            (one("study_time", "range", "10", "11"), "study_study_time"),
            (one("study_description", "wildcard", "a*"), "study_study_description"),
            (one("accession_number", "empty"), "study_accession_number"),
            (one("study_instance_uid", "uid_list", "1", "2"), "sqlite_autoindex_study_1"),
            (one("series_instance_uid", "single", "1"), "series_uid"),
        ],
    )
    def test_a_range_is_found_by_its_index(
        self, full: SqliteIndex, match: Match, name: str
    ) -> None:
        assert f"INDEX {name} " in "\n".join(plan(full, Query("t", Level.STUDY, (match,))))


class TestMigration:
    """An index of an earlier revision is brought up to date with what it holds."""

    @pytest.mark.parametrize("after", [10, 25, 40])
    def test_a_kill_amid_its_statements_leaves_an_index_that_can_be_made(
        self, open_index: Open, after: int
    ) -> None:
        def make(reached: child.Reached) -> None:
            number = itertools.count(1)

            def done(*_: object) -> None:
                if next(number) == after:
                    reached()

            event.listen(Engine, "after_cursor_execute", done)
            open_index()

        child.crash(make)
        open_index().put([state()])
        assert uids(search(open_index())) == ["1.2"]

    def test_of_revision_1(self, tmp_path: Path) -> None:
        from alembic import command  # noqa: PLC0415  # slow

        path, states = tmp_path / "index.sqlite", archive(60)
        index = SqliteIndex(path)
        index.put(states)
        before = [index.search(Query("t", level, limit=999)) for level in list(Level)[:2]]
        with index._engine.connect() as connection:
            command.downgrade(configuration(connection), "0001")
        index.close()
        index = SqliteIndex(path)
        assert [index.search(Query("t", level, limit=999)) for level in list(Level)[:2]] == before
        rare = [m for m in KEYS if m]
        fresh = SqliteIndex(tmp_path / "fresh.sqlite")
        fresh.put(states)
        for matches in rare:
            for level in list(Level)[:2]:
                query = Query("t", level, matches, limit=999)
                assert index.search(query) == fresh.search(query)
        with index._engine.connect() as one_, fresh._engine.connect() as other:
            for table in ("study_count", "study_modality", "sqlite_stat1"):
                rows = text(f"SELECT * FROM {table}")
                assert set(one_.execute(rows)) == set(other.execute(rows))
        index.close()
        fresh.close()
