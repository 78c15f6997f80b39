"""How `Index` finds: every way of beginning a search gives the same rows in the same order."""

import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from contract.indexes import Open, search, state, uids
from wado.adapters.index import finders, late_pages, positions, statements, text_search
from wado.adapters.index.finders import Finder
from wado.adapters.index.matching import asked
from wado.adapters.index.migrations import configuration
from wado.adapters.index.sqlite import SqliteIndex
from wado.dicom.matching import Order
from wado.ports import Index, Level, Match, Query, Row
from wado.records import DicomStateMeta

NAMES = ["Müller^Jörg", "Muller^Anna", "Doe^Jane", "Smith^John", "Smithers^Ed",
         "Yamada^Tarou=山田^太郎=やまだ^たろう", "=山田^花子", "", None]  # fmt: skip
DATES = ["20240101", "20240102", "20240103", "20240301", None]
TIMES = ["0815", "101530", "101530.25", "235959", "", None]
MODALITIES = ["CT", "MR", "SR", None]


def archive(count: int = 300) -> list[DicomStateMeta]:
    """Make series, one to three in a study, with few values each, so that many rows fit."""
    pick = random.Random(7)
    states = []
    for n in range(count):
        of_study = {
            "patient_id": f"P{n % 40:03}",
            "patient_name": pick.choice(NAMES),
            "study_date": pick.choice(DATES),
            "study_time": pick.choice(TIMES),
            "study_id": str(n),
            "accession_number": pick.choice([f"ACC{n:05}", "", None]),
            "study_description": pick.choice(["Chest PA", "Abdomen 50%", "Head_CT", None]),
            "patient_sex": pick.choice(["F", "M", None]),
            "referring_physician_name": pick.choice(["House^G", "Who^Dr", None]),
        }
        states += [
            state(
                f"1.2.{n}",
                str(s),
                modality=pick.choice(MODALITIES),
                series_number=pick.choice([1, 2, 30, None]),
                series_description=pick.choice(["Axial B30f", "Topogram", None]),
                performed_procedure_step_start_date=pick.choice(DATES),
                **of_study,
            )
            for s in range(1 + n % 3)
        ]
    return states


def one(keyword: str, kind: Any, *values: str) -> Match:
    return Match(keyword, kind, values)


KEYS: list[tuple[Match, ...]] = [
    (),
    (one("patient_id", "single", "P007"),),
    (one("patient_id", "wildcard", "P00*"),),
    (one("patient_id", "wildcard", "*007*"),),
    (one("patient_id", "wildcard", "*3"),),
    (one("patient_id", "any_of", "P001", "P030"),),
    (one("accession_number", "wildcard", "*0012*"),),
    (one("accession_number", "empty"),),
    (one("study_description", "wildcard", "*50%*"),),
    (one("study_description", "wildcard", "?hest*"),),
    (one("study_description", "wildcard", "Head_*"),),
    (one("study_description", "single", "Chest PA"),),
    (one("patient_name", "empty"),),
    (one("patient_name", "wildcard", "*MÜLL*"),),
    (one("patient_name", "wildcard", "smith*"),),
    (one("patient_name", "wildcard", "*山田^太*"),),
    (one("patient_name", "wildcard", "山田*"),),
    (one("referring_physician_name", "single", "house^g"),),
    (one("study_date", "range", "20240102", "20240301"),),
    (one("study_date", "date_time_range", "20240101", "0900", "20240102", "1015"),),
    (one("study_date", "empty"),),
    (one("study_time", "single", "10"),),
    (one("patient_sex", "single", "F"), one("study_time", "range", "08", "11")),
    (one("modalities_in_study", "single", "CT"),),
    (one("modalities_in_study", "single", "CT"), one("study_date", "range", "20240102", "")),
    (one("modalities_in_study", "single", "CT"), one("modalities_in_study", "single", "MR")),
    (one("modalities_in_study", "single", "CT"), one("patient_name", "wildcard", "*john*")),
    (one("modalities_in_study", "any_of", "SR", "MR"), one("patient_id", "wildcard", "P01*")),
    (one("modality", "single", "SR"),),
    (one("modality", "single", "CT"), one("study_date", "single", "20240103")),
    (one("modality", "any_of", "SR", "CT"), one("patient_sex", "single", "M")),
    (one("series_number", "single", "30"), one("modality", "single", "MR")),
    (one("series_description", "wildcard", "*B30*"),),
    (one("performed_procedure_step_start_date", "range", "20240102", ""),),
    (one("performed_procedure_step_start_date", "single", "20240301"),
     one("patient_name", "wildcard", "muller*")),
    (Match("patient_name", "any", (), (one("patient_name", "wildcard", "doe*"),
                                       one("patient_name", "wildcard", "*山田*"))),),
    (Match("study_date", "all", (), (one("study_date", "range", "20240102", ""),
                                     one("study_date", "range", "", "20240103"))),),
]  # fmt: skip


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteIndex]:
    index = SqliteIndex(tmp_path_factory.mktemp("index") / "index.sqlite", durable=False)
    index.put(archive())
    yield index
    index.close()


def said(matches: tuple[Match, ...]) -> str:
    return "+".join(f"{m.keyword}-{m.kind}-{'-'.join(m.values)}" for m in matches) or "all"


class TestEveryWay:
    """Where a search begins decides how long it takes, never what it finds."""

    @pytest.mark.parametrize("level", [Level.STUDY, Level.SERIES])
    @pytest.mark.parametrize("matches", KEYS, ids=said)
    def test_finds_the_same(
        self,
        full: SqliteIndex,
        matches: tuple[Match, ...],
        level: Level,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        query = Query("t", level, matches, limit=1000)
        walked = every_way(full, query, monkeypatch)
        pages = [full.search(replace(query, limit=7, offset=o)) for o in range(0, len(walked), 7)]
        assert [row for page in pages for row in page] == walked
        assert walked == sorted(walked, key=newest_first)

    @pytest.mark.parametrize("words", ["jorg muller", "smi", "tar yam", "太郎", "doe jane x"])
    def test_finds_the_same_when_fuzzy(
        self, full: SqliteIndex, words: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        match = one("patient_name", "single", words)
        every_way(full, Query("t", Level.STUDY, (match,), limit=1000, fuzzy=True), monkeypatch)

    @pytest.mark.parametrize("level", [Level.STUDY, Level.SERIES])
    @pytest.mark.parametrize("descending", [False, True])
    @pytest.mark.parametrize(
        "keyword", ["patient_name", "patient_id", "study_date", "study_description",
                    "modalities_in_study", "number_of_study_related_series"],
    )  # fmt: skip
    def test_sorts_by_what_is_asked(
        self, full: SqliteIndex, keyword: str, descending: bool, level: Level
    ) -> None:
        query = Query("t", level, limit=1000, order=(Order(keyword, descending),))
        rows = list(full.search(query))
        assert len(rows) == len(full.search(replace(query, order=())))
        values = [row[keyword] or None for row in rows]
        present = [v for v in values if v is not None]
        assert values[: len(present)] == present  # those without come last
        if keyword != "patient_name":
            assert present == sorted(present, reverse=descending)
        for value in set(values):
            alike = [row for row in rows if (row[keyword] or None) == value]
            assert alike == sorted(alike, key=newest_first)
        pages = [full.search(replace(query, limit=50, offset=o)) for o in range(0, len(rows), 50)]
        assert [row for page in pages for row in page] == rows

    def test_tells_an_order_it_does_not_know(self, full: SqliteIndex) -> None:
        with pytest.raises(Exception, match="rows"):
            full.search(Query("t", Level.STUDY, order=(Order("rows"),)))


def newest_first(row: Row) -> tuple[Any, ...]:
    def latest(value: str | None) -> tuple[int, list[int]]:
        return (value is None, [-ord(c) for c in value or ""] + [1])

    uid = (row["study_instance_uid"], row.get("series_instance_uid", ""))
    return (latest(row["study_date"]), latest(row["study_time"]), *uid)


def every_way(index: SqliteIndex, query: Query, patch: pytest.MonkeyPatch) -> list[Row]:
    """Search in each way that there is, and in the one that is chosen."""
    chosen = list(index.search(query))
    ways: list[Callable[[Sequence[Finder]], Finder | None]] = [lambda _: None]
    count = len(finders.finders(query, asked(query.matches)))
    ways += [itemgetter(at) for at in range(count)]
    for way in ways:
        with patch.context() as inside:
            inside.setattr("wado.adapters.index.search.exact", lambda _: None)
            inside.setattr("wado.adapters.index.search.choose", lambda f, *_, way=way, **__: way(f))
            assert list(index.search(query)) == chosen
    return chosen


class TestPaging:
    def test_a_late_page_of_all_is_entered_by_date(
        self, index: Index, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(late_pages, "_LATE", 1)
        index.put(archive(100))
        dates = one("study_date", "range", "20240102", "20240301")
        for level in (Level.STUDY, Level.SERIES):
            for matches in ((), (dates,)):
                whole = search(index, *matches, level=level, limit=1000)
                for offset in range(1, len(whole) + 2, 7):
                    page = search(index, *matches, level=level, limit=9, offset=offset)
                    assert page == whole[offset : offset + 9]

    def test_counts_of_dates_follow_every_change(
        self, index: Index, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(late_pages, "_LATE", 1)
        index.put([state(f"1.{n}", study_date="20240101") for n in range(1, 6)])
        index.put([state("1.2", study_date="20250101"), state("1.3", study_date=None)])
        index.put([state("1.4", number_of_series_related_instances=0)])
        whole = uids(search(index))
        assert whole == ["1.2", "1.1", "1.5", "1.3"]
        assert [uids(search(index, offset=o)) for o in range(1, 4)] == [
            whole[o:] for o in range(1, 4)
        ]

    @pytest.mark.parametrize("level", [Level.STUDY, Level.SERIES])
    def test_the_next_page_goes_on_where_the_last_one_ended(
        self, index: Index, level: Level, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(positions, "_EARLY", 1)
        index.put([state(f"1.{n}", study_date=f"202401{n}") for n in range(10, 20)])
        key = one("patient_name", "wildcard", "d*")
        whole = search(index, key, level=level)
        first = search(index, key, level=level, limit=4)
        index.put([state("2.1", study_date="20250101")])  # arrives before the next page is read
        pages = [search(index, key, level=level, limit=4, offset=o) for o in (4, 8)]
        assert [*first, *pages[0], *pages[1]] == whole

    def test_positions_are_forgotten_after_a_while(self) -> None:
        now = [0.0]
        known = positions.Positions(lambda: now[0])
        query = Query("t", Level.STUDY, limit=200)
        row = {"study_date": "20240101", "study_time": "10", "study_instance_uid": "1"}
        known.note(query, [row] * 200)
        later = replace(query, offset=200, limit=5)
        found = known.before(later)
        assert found is not None
        assert found.rows == 200
        now[0] = 61.0
        assert known.before(later) is None


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


class TestText:
    def test_changes_and_deletions_are_followed(self, index: Index) -> None:
        key = one("study_description", "wildcard", "*olum*")
        index.put([state("1.1", study_description="Column"), state("1.2")])
        assert uids(search(index, key)) == ["1.1"]
        index.put(
            [state("1.1", study_description="Head"), state("1.2", study_description="Volume")]
        )
        assert uids(search(index, key)) == ["1.2"]
        index.put([state("1.2", number_of_series_related_instances=0)])
        assert not search(index, key)

    @pytest.mark.parametrize("value", ['a"b"c', "x' OR 1", "NOT ab", "(*)^", "ab\0c", "a*b?cde"])
    def test_no_text_is_a_command(self, index: Index, value: str) -> None:
        index.put([state("1.1", study_description=f"<{value}>"), state("1.2")])
        found = uids(search(index, one("study_description", "wildcard", f"*{value}*")))
        assert found == ["1.1"] or "\0" in value

    def test_common_pieces_are_left_out(self) -> None:
        match = one("study_description", "wildcard", "*Chest 12*?ab*")
        assert text_search.pieces(match, fuzzy=False) == ("Che", "st ", " 12")
        assert text_search.pieces(one("patient_name", "wildcard", "*ü*"), fuzzy=False) == ()

    def test_a_vacuumed_file_is_mended_when_it_is_opened(
        self, open_index: Open, tmp_path: Path
    ) -> None:
        index = open_index()
        index.put([state(f"1.{n}", study_description=f"Region {n}") for n in range(9)])
        index.put([state("1.2", number_of_series_related_instances=0)])
        index.close()
        with sqlite3.connect(tmp_path / "index" / "index.sqlite") as file:
            file.execute("VACUUM")
        found = search(open_index(), one("study_description", "wildcard", "*gion 7*"))
        assert uids(found) == ["1.7"]


class TestLoading:
    def test_is_like_put_but_nothing_waits(self, index: Index) -> None:
        states = archive(50)
        with index.loading() as put:
            put(states[:30])
            put(states[30:])
        assert not index.awaiting_description(9)
        assert sorted(index.all_series(), key=str) == sorted(states, key=str)
        key = one("patient_name", "wildcard", "*smith*")
        smiths = [r for r in search(index, limit=999) if "Smith" in (r["patient_name"] or "")]
        assert search(index, key, limit=999) == smiths
        index.put([state("9.9", patient_name="Blacksmith^A")])
        assert "9.9" in uids(search(index, key))

    def test_into_a_filled_index(self, index: Index) -> None:
        index.put([state("1.1")])
        with index.loading() as put:
            put([state("1.2"), state("1.1", study_id="7")])
        assert uids(search(index)) == ["1.1", "1.2"]

    def test_leaves_nothing_after_an_exception(self, index: Index) -> None:
        def fail() -> None:
            with index.loading() as put:
                put([state("1.1")])
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fail()
        assert not search(index)
        index.put([state("1.2", patient_name="Abcd")])
        assert uids(search(index, one("patient_name", "wildcard", "*bcd*"))) == ["1.2"]
        assert isinstance(index, SqliteIndex)
        assert "study_patient_id" in "\n".join(
            plan(index, Query("t", Level.STUDY, (one("patient_id", "single", "1"),)))
        )


class TestMigration:
    """An index of an earlier revision is brought up to date with what it holds."""

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
