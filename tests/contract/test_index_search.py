"""How `Index` finds: every way of beginning a search gives the same rows in the same order."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from contract.conftest import ADAPTERS
from contract.index_data import KEYS, archive, one, said
from contract.indexes import PATIENCE_S, search, state, uids
from wado.adapters.index import finders, late_pages, positions, text_search
from wado.adapters.index.finders import Finder
from wado.adapters.index.matching import asked
from wado.adapters.index.postgresql import PostgresqlIndex
from wado.adapters.index.sqlite import SqliteIndex
from wado.dicom.matching import Order
from wado.ports import Index, Level, Match, Query, Row


@pytest.fixture(scope="module", params=ADAPTERS)
def full(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Index]:
    """An index with some hundred series, made once."""
    index: Index
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("index") / "index.sqlite"
        index = SqliteIndex(path, durable=False)
    else:
        server = request.getfixturevalue("server")
        database = server.database()
        request.addfinalizer(lambda: server.drop(database))  # noqa: PT021 - only here
        index = PostgresqlIndex(database.url, timeout_s=PATIENCE_S)
    index.put(archive())
    yield index
    index.close()


class TestEveryWay:
    """Where a search begins decides how long it takes, never what it finds."""

    @pytest.mark.parametrize("level", [Level.STUDY, Level.SERIES])
    @pytest.mark.parametrize("matches", KEYS, ids=said)
    def test_finds_the_same(
        self,
        full: Index,
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
        self, full: Index, words: str, monkeypatch: pytest.MonkeyPatch
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
        self, full: Index, keyword: str, descending: bool, level: Level
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

    def test_tells_an_order_it_does_not_know(self, full: Index) -> None:
        with pytest.raises(Exception, match="rows"):
            full.search(Query("t", Level.STUDY, order=(Order("rows"),)))


def newest_first(row: Row) -> tuple[Any, ...]:
    def latest(value: str | None) -> tuple[int, list[int]]:
        return (value is None, [-ord(c) for c in value or ""] + [1])

    uid = (row["study_instance_uid"], row.get("series_instance_uid", ""))
    return (latest(row["study_date"]), latest(row["study_time"]), *uid)


def _way(at: int, found: Sequence[Finder]) -> Finder | None:
    return found[at] if found[at].few else None


def every_way(index: Index, query: Query, patch: pytest.MonkeyPatch) -> list[Row]:
    """Search in each way that there is, and in the one that is chosen."""
    chosen = list(index.search(query))
    ways: list[Callable[[Sequence[Finder]], Finder | None]] = [lambda _: None]
    count = len(finders.finders(query, asked(query.matches)))
    ways += [partial(_way, at) for at in range(count)]
    for way in ways:
        with patch.context() as inside:
            inside.setattr("wado.adapters.index.search.exact", lambda _: None)
            # A text that is common, as all are in a small index, is looked up, too.
            inside.setattr("wado.adapters.index.postgresql_texts._COMMON", 1 << 30)
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
