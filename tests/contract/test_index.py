"""The contract of `Index`; every adapter runs it."""

import threading
from dataclasses import fields
from typing import Any

import pytest

from contract import child
from contract.indexes import Open, found, search, state, uids
from wado.adapters.index.statements import SEARCHABLE
from wado.dicom.matching import KEYS
from wado.dicom.uids import SeriesRef
from wado.errors import InvalidRequest, Unavailable
from wado.ports import Index, Level, Match
from wado.records import DicomStateMeta


class TestPut:
    def test_a_study_row_has_its_patient_and_its_counts(self, index: Index) -> None:
        index.put(
            [
                state(series="1", number_of_series_related_instances=3),
                state(series="2", number_of_series_related_instances=4, modality="SR"),
                state(series="3", modality="CT"),
                state(series="4", modality=None),
            ]
        )
        (row,) = search(index)
        assert row["patient_name"] == "Doe^Jane"
        assert row["modalities_in_study"] == r"CT\SR"
        assert row["number_of_study_related_series"] == 4
        assert row["number_of_study_related_instances"] == 9
        assert row["accession_number"] is None

    def test_what_is_put_without_flush_is_visible_at_once(self, index: Index) -> None:
        index.put([state()], flush=False)
        assert len(search(index)) == 1
        index.flush()
        index.put([state(series="2")])
        assert len(search(index)) == 1
        index.flush()

    def test_a_series_row_has_the_fields_of_its_state(self, index: Index) -> None:
        texts: dict[str, Any] = {f.name: f"<{f.name}>" for f in fields(DicomStateMeta)[3:]}
        numbers = {"series_number": 7, "number_of_series_related_instances": 2}
        whole = state(**{**texts, **numbers})
        index.put([whole])
        row = index.series(whole.series)
        assert row is not None
        assert {f.name: row[f.name] for f in fields(whole)} == {
            f.name: getattr(whole, f.name) for f in fields(whole)
        }
        assert list(index.all_series()) == [whole]

    def test_putting_again_changes_nothing(self, index: Index) -> None:
        states = [state(series="1"), state(series="2"), state("1.3", patient_id=None)]
        index.put(states)
        before = (search(index), list(index.all_series()), index.awaiting_description(9))
        index.put(states)
        assert (search(index), list(index.all_series()), index.awaiting_description(9)) == before

    def test_the_last_state_of_a_series_wins(self, index: Index) -> None:
        index.put([state(series_description="a"), state(series_description="b")])
        assert [s.series_description for s in index.all_series()] == ["b"]

    def test_the_study_attributes_put_last_win(self, index: Index) -> None:
        index.put([state(series="2", study_id="old"), state(series="1", study_id="new")])
        assert [row["study_id"] for row in search(index)] == ["new"]
        index.put([state(series="2", study_id="newer")])
        assert [row["study_id"] for row in search(index)] == ["newer"]

    def test_no_instances_removes_the_series(self, index: Index) -> None:
        index.put([state(series="1"), state(series="2", modality="MR")])
        gone = state(series="1", number_of_series_related_instances=0, study_id="gone")
        index.put([gone])
        (row,) = search(index)
        assert (row["number_of_study_related_series"], row["modalities_in_study"]) == (1, "MR")
        assert row["study_id"] is None
        assert index.series(gone.series) is None
        assert gone.series not in dict(index.awaiting_description(9))

    def test_a_study_without_series_is_removed(self, index: Index) -> None:
        index.put([state(), state("1.3")])
        index.put([state(number_of_series_related_instances=0)])
        assert uids(search(index)) == ["1.3"]
        index.put([state("1.4", number_of_series_related_instances=0)])
        assert uids(search(index)) == ["1.3"]

    def test_put_and_removed_in_one_batch_leaves_nothing(self, index: Index) -> None:
        index.put([])
        index.put([state(), state(number_of_series_related_instances=0)])
        assert not search(index)
        assert not index.awaiting_description(9)

    def test_tenants_do_not_meet(self, index: Index) -> None:
        index.put([state(), state(tenant_id="u", modality="MR")])
        for tenant, modality in (("t", "CT"), ("u", "MR")):
            rows = search(index, tenant_id=tenant)
            assert [row["modalities_in_study"] for row in rows] == [modality]
        index.put([state(number_of_series_related_instances=0)])
        assert not search(index)
        assert [s.tenant_id for s in index.all_series()] == ["u"]
        assert not list(index.all_series("t"))

    def test_a_batch_is_written_whole_or_not_at_all(self, index: Index) -> None:
        index.put([state("1.1")])
        broken = state("1.3", patient_name=None, modality=object())
        with pytest.raises(Unavailable):
            index.put([state("1.2"), broken])
        assert uids(search(index)) == ["1.1"]
        index.put([state("1.2")])
        assert uids(search(index)) == ["1.1", "1.2"]

    def test_is_kept_when_the_writer_is_killed(self, open_index: Open) -> None:
        open_index()

        def put(reached: child.Reached) -> None:
            open_index().put([state()])
            reached()

        child.crash(put)
        assert uids(search(open_index())) == ["1.2"]

    def test_many_writers_lose_nothing(self, open_index: Open) -> None:
        index = open_index()
        index.put([state()])

        def put() -> None:
            mine = open_index()
            number = threading.get_native_id()
            for n in range(10):
                mine.put([state(series=f"{number}.{n}"), state(f"2.{number}", series=str(n))])

        child.complete(put, processes=3)
        (row,) = search(index, Match("study_instance_uid", "single", ("1.2",)))
        assert row["number_of_study_related_series"] == 31
        assert [r["number_of_study_related_series"] for r in search(index)] == [31, 10, 10, 10]

    def test_opening_at_the_same_time_makes_one_index(self, open_index: Open) -> None:
        child.complete(lambda: open_index().put([state()]), processes=4)
        assert uids(search(open_index())) == ["1.2"]

    def test_an_index_is_usable_after_fork(self, index: Index) -> None:
        index.put([state("1.1")])
        child.complete(lambda: index.put([state("1.2")]))
        index.put([state("1.3")])
        assert uids(search(index)) == ["1.1", "1.2", "1.3"]


class TestAwaitingDescription:
    def test_each_series_put_awaits_description(self, index: Index) -> None:
        index.put([state(series="1"), state(tenant_id="u")])
        waiting = index.awaiting_description(9)
        assert [ref.tenant_id for ref, _ in waiting] == ["t", "u"]
        index.mark_described(waiting)
        assert not index.awaiting_description(9)

    def test_oldest_change_first_over_all_tenants(self, index: Index) -> None:
        for tenant in ("u", "t", "v"):
            index.put([state(tenant_id=tenant)])
        index.put([state(tenant_id="u", number_of_series_related_instances=2)])
        assert [ref.tenant_id for ref, _ in index.awaiting_description(2)] == ["t", "v"]
        assert [ref.tenant_id for ref, _ in index.awaiting_description(9)] == ["t", "v", "u"]

    def test_a_change_after_the_version_keeps_it_waiting(self, index: Index) -> None:
        index.put([state()])
        old = index.awaiting_description(9)
        index.put([state(number_of_series_related_instances=2)])
        index.mark_described(old)
        new = index.awaiting_description(9)
        assert [ref for ref, _ in new] == [ref for ref, _ in old]
        index.mark_described(new)
        assert not index.awaiting_description(9)

    @pytest.mark.parametrize(
        "change",
        [
            {"number_of_series_related_instances": 2},
            {"series_description": "new"},
            {"updated_at": "later"},
        ],
    )
    def test_a_change_makes_it_wait_again(self, index: Index, change: dict[str, Any]) -> None:
        index.put([state()])
        index.mark_described(index.awaiting_description(9))
        index.put([state()])
        assert not index.awaiting_description(9)
        index.put([state(**change)])
        assert len(index.awaiting_description(9)) == 1

    def test_a_series_is_put_on_the_list_again(self, index: Index) -> None:
        index.put([state(series=s, tenant_id=t) for s in "12" for t in "tu"])
        first = dict(index.awaiting_description(9))
        index.mark_described(list(first.items()))
        wanted = [state(series="2").series, state(series="1", tenant_id="u").series]
        index.await_description(wanted)
        again = dict(index.awaiting_description(9))
        assert set(again) == set(wanted)
        index.mark_described([(ref, first[ref]) for ref in wanted])
        assert set(dict(index.awaiting_description(9))) == set(wanted), "of an older version"
        index.mark_described(list(again.items()))
        assert not index.awaiting_description(9)

    def test_who_describes_meanwhile_does_not_take_it_off_the_list(self, index: Index) -> None:
        index.put([state()])
        old = index.awaiting_description(9)
        index.await_description([ref for ref, _ in old])
        index.mark_described(old)
        assert [ref for ref, _ in index.awaiting_description(9)] == [ref for ref, _ in old]

    def test_what_is_not_there_does_not_wait(self, index: Index) -> None:
        index.await_description([])
        index.put([state()])
        index.put([state(number_of_series_related_instances=0)])
        index.await_description([SeriesRef("t", "9", "9.9"), state().series])
        assert not index.awaiting_description(9)

    def test_marking_unknown_series_is_harmless(self, index: Index) -> None:
        index.mark_described([])
        index.mark_described([(SeriesRef("t", "9", "9.9"), 1)])
        assert not index.awaiting_description(9)


class TestAllSeries:
    def test_come_in_the_order_of_their_keys(self, index: Index) -> None:
        states = [state(f"1.{n:04}", tenant_id=t) for t in ("a", "b") for n in range(1100)]
        index.put(list(reversed(states)))
        assert list(index.all_series()) == states
        assert list(index.all_series("b")) == states[1100:]


class TestOrderAndPaging:
    def test_newest_first_then_by_uid(self, index: Index) -> None:
        index.put(
            [
                state("1.1", study_date=None, study_time=None),
                state("1.2", study_date="20200101"),
                state("1.4", study_date="20230101", study_time="0900"),
                state("1.3", study_date="20230101", study_time="0900"),
                state("1.5", study_date="20230101", study_time="1000"),
                state("1.6", study_date="20230101", study_time=None),
            ]
        )
        expected = ["1.5", "1.3", "1.4", "1.6", "1.2", "1.1"]
        assert uids(search(index)) == expected
        assert [uid[:3] for uid in uids(search(index, level=Level.SERIES))] == expected

    @pytest.mark.parametrize("level", [Level.STUDY, Level.SERIES])
    def test_pages_join_without_gap(self, index: Index, level: Level) -> None:
        index.put([state(f"1.{n}", series=s) for n in range(1, 8) for s in "12"])
        whole = uids(search(index, level=level))
        pages = [uids(search(index, level=level, limit=3, offset=o)) for o in range(0, 21, 3)]
        assert [uid for page in pages for uid in page] == whole
        assert search(index, level=level, limit=0) == []


STUDIES = [
    state("1.1", patient_name="Müller^Jörg^^Dr.", patient_id="A_1", study_date="20240101",
          study_time="0815", accession_number="acc-1", series_number=1,
          referring_physician_name="House^Gregory", series_description="Chest 50%",
          body_part_examined="CHEST"),
    state("1.1", "2", patient_name="Müller^Jörg^^Dr.", patient_id="A_1", study_date="20240101",
          study_time="0815", accession_number="acc-1", modality="SR",
          referring_physician_name="House^Gregory", series_number=2),
    state(
        "1.2",
        patient_name="Yamada^Tarou=山田^太郎=やまだ^たろう",
        patient_id="AX1",
        study_date="20240215",
        study_time="101530.25",
        accession_number="",
        modality="MR",
    ),
    state("1.3", patient_name="muller", patient_id="a_1", study_date=None, study_time=None,
          accession_number="ACC-1", modality="CTX"),
]  # fmt: skip


class TestMatching:
    @pytest.fixture
    def index(self, open_index: Open) -> Index:
        index = open_index()
        index.put(STUDIES)
        return index

    @pytest.mark.parametrize(
        ("keyword", "kind", "values", "expected"),
        [
            ("study_instance_uid", "single", ["1.2"], ["1.2"]),
            ("study_instance_uid", "uid_list", ["1.2", "1.3", "9"], ["1.2", "1.3"]),
            ("patient_id", "single", ["A_1"], ["1.1"]),
            ("patient_id", "wildcard", ["A_*"], ["1.1"]),
            ("patient_id", "wildcard", ["A?1"], ["1.1", "1.2"]),
            ("patient_id", "wildcard", ["*1"], ["1.1", "1.2", "1.3"]),
            ("patient_id", "any_of", ["A_1", "a_1"], ["1.1", "1.3"]),
            ("accession_number", "single", ["acc-1"], ["1.1"]),
            ("accession_number", "empty", [], ["1.2"]),
            ("study_date", "empty", [], ["1.3"]),
            ("study_date", "single", ["20240101"], ["1.1"]),
            ("study_date", "range", ["20240101", "20240215"], ["1.1", "1.2"]),
            ("study_date", "range", ["20240102", ""], ["1.2"]),
            ("study_date", "range", ["", "20240214"], ["1.1"]),
            ("study_date", "range", ["", ""], ["1.1", "1.2", "1.3"]),
            ("study_date", "universal", ["*"], ["1.1", "1.2", "1.3"]),
            ("study_date", "single", [""], ["1.1", "1.2", "1.3"]),
            ("study_time", "single", ["10"], ["1.2"]),
            ("study_time", "single", ["101530.25"], ["1.2"]),
            ("study_time", "range", ["08", "10"], ["1.1", "1.2"]),
            ("study_time", "range", ["0816", ""], ["1.2"]),
            ("modalities_in_study", "single", ["CT"], ["1.1"]),
            ("modalities_in_study", "any_of", ["SR", "MR"], ["1.1", "1.2"]),
            ("modalities_in_study", "wildcard", ["CT*"], ["1.1", "1.3"]),
            ("modalities_in_study", "single", ["R"], []),
            ("number_of_study_related_series", "single", ["2"], ["1.1"]),
            ("number_of_study_related_series", "single", ["two"], []),
            ("modality", "single", ["SR"], ["1.1"]),
            ("series_instance_uid", "single", ["1.2.1"], ["1.2"]),
            ("series_number", "single", ["2"], ["1.1"]),
            ("series_description", "wildcard", ["*50%"], ["1.1"]),
            ("series_description", "wildcard", ["?hest*"], ["1.1"]),
            ("series_description", "wildcard", ["%"], []),
        ],
    )
    def test_studies(
        self, index: Index, keyword: str, kind: Any, values: list[str], expected: list[str]
    ) -> None:
        assert found(index, keyword, kind, *values) == expected

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("Müller^Jörg^^Dr.", ["1.1"]),
            ("MULLER^JORG^^DR.", ["1.1"]),
            ("muller*", ["1.1", "1.3"]),
            ("Muller", ["1.3"]),
            ("muller^", ["1.3"]),
            ("m?LLer^*", ["1.1"]),
            ("*jorg*", ["1.1"]),
            ("yamada^tarou", ["1.2"]),
            ("yamada^t*u", ["1.2"]),
            ("yam*", ["1.2"]),
            ("山田^太郎", ["1.2"]),
            ("山*", ["1.2"]),
            ("やまだ*", ["1.2"]),
            ("Yamada^Tarou=山田^太郎=やまだ^たろう", ["1.2"]),
            ("Yamada^Tarou=山田*", ["1.2"]),
            ("amada*", []),
        ],
    )
    def test_person_names(self, index: Index, value: str, expected: list[str]) -> None:
        kind = "wildcard" if "*" in value or "?" in value else "single"
        assert found(index, "patient_name", kind, value) == expected

    def test_other_person_names_too(self, index: Index) -> None:
        assert found(index, "referring_physician_name", "wildcard", "HOUSE*") == ["1.1"]

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("jorg muller", ["1.1"]),
            ("Mull", ["1.1", "1.3"]),
            ("ull", []),
            ("tar yam", ["1.2"]),
            ("太郎", ["1.2"]),
        ],
    )
    def test_fuzzy_person_names(self, index: Index, value: str, expected: list[str]) -> None:
        assert found(index, "patient_name", "single", value, fuzzy=True) == expected

    def test_all_keys_must_match(self, index: Index) -> None:
        both = (Match("modality", "single", ("SR",)), Match("patient_id", "single", ("A_1",)))
        assert uids(search(index, *both)) == ["1.1"]
        assert not search(index, both[0], Match("patient_id", "single", ("AX1",)))

    def test_series_keys_of_a_study_search_hold_for_one_series(self, index: Index) -> None:
        keys = Match("modality", "single", ("SR",)), Match("series_number", "single", ("1",))
        assert not search(index, *keys)

    @pytest.mark.parametrize(
        ("keyword", "kind", "values", "expected"),
        [
            ("study_instance_uid", "single", ["1.1"], ["1.1.1", "1.1.2"]),
            ("series_instance_uid", "uid_list", ["1.1.2", "1.2.1"], ["1.1.2", "1.2.1"]),
            ("modality", "single", ["SR"], ["1.1.2"]),
            ("patient_name", "wildcard", ["MUL*"], ["1.1.1", "1.1.2", "1.3.1"]),
            ("series_number", "empty", [], ["1.2.1", "1.3.1"]),
            ("body_part_examined", "single", ["CHEST"], ["1.1.1"]),
        ],
    )
    def test_series(
        self, index: Index, keyword: str, kind: Any, values: list[str], expected: list[str]
    ) -> None:
        assert found(index, keyword, kind, *values, level=Level.SERIES) == expected

    def test_a_series_row_of_a_search_is_that_of_its_key(self, index: Index) -> None:
        for row in search(index, level=Level.SERIES):
            ref = SeriesRef("t", row["study_instance_uid"], row["series_instance_uid"])
            assert index.series(ref) == row

    @pytest.mark.parametrize("level", [Level.STUDY, Level.SERIES])
    def test_every_key_said_to_be_searchable_is(self, index: Index, level: Level) -> None:
        for keyword in SEARCHABLE[level]:
            kinds: list[Any] = ["single", "wildcard", "range", "uid_list", "any_of", "empty"]
            for kind in kinds:
                found(index, keyword, kind, "1", "2", level=level)

    @pytest.mark.parametrize("level", [Level.STUDY, Level.SERIES])
    def test_every_key_that_the_web_knows_is_searchable(self, level: Level) -> None:
        known = {key.keyword for key in KEYS if key.level is not Level.INSTANCE}
        assert known <= SEARCHABLE[level]

    @pytest.mark.parametrize(
        ("level", "keyword"),
        [
            (Level.STUDY, "rows"),
            (Level.STUDY, "tenant_id"),
            (Level.SERIES, "version"),
            (Level.INSTANCE, "study_instance_uid"),
        ],
    )
    def test_other_keys_are_refused(self, index: Index, level: Level, keyword: str) -> None:
        with pytest.raises(InvalidRequest):
            search(index, Match(keyword, "single", ("1",)), level=level)
        with pytest.raises(InvalidRequest):
            search(index, level=Level.INSTANCE)
