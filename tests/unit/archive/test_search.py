"""Searches: the index and a naive filter find the same; instances are found in their journals."""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

import synthetic
from steps import catalogue_all, load_all, store
from wado.adapters.index.sqlite import SqliteIndex
from wado.archive import instance_search
from wado.archive.journal import Journals
from wado.archive.search import Found, search
from wado.archive.search_results import element
from wado.dicom.json_matching import fits
from wado.dicom.matching import KEY_OF_KEYWORD, KEYS, Level, Match, Query
from wado.dicom.names import fold
from wado.dicom.search_request import parse_search
from wado.errors import InvalidRequest, TooLarge
from wado.ports import Archive, Row
from wado.records import DicomStateMeta

BASE = "http://here/dicomweb"
TENANT = "clinic"
_EXAMPLES = 60
"""Of each property here: they search an index each time."""
NOWHERE: Mapping[str, str] = MappingProxyType({})

# ------------------------------------------------------------------ against a naive filter

_VALUES: dict[str, Sequence[str]] = {
    "PatientName": (
        "Doe^John", "doe^jane", "Müller^Jürgen", "Muller^Hans",
        "Yamada^Tarou=山田^太郎=やまだ^たろう", "Wang^XiaoDong=王^小东",
        "de la Cruz^Ana María", "Smith_100%^A", "O'Brien^Éva^^Dr.",
    ),
    "ReferringPhysicianName": ("House^Gregory", "Grey^Meredith=グレイ", "^Only"),
    "PatientID": ("1", "10", "A-1", "a-1", "A_1", "x*y"),
    "StudyDate": ("20231231", "20240101", "20240102", "20240201"),
    "StudyTime": ("08", "0830", "083000", "083000.5", "235959.999999", "000000"),
    "StudyDescription": ("CT Head", "ct head", "CT_Head", "CT%Head", "(x)?"),
    "AccessionNumber": ("7", "07", "A,7"),
    "TimezoneOffsetFromUTC": ("+0100", "-0500", "+0000"),
    "Modality": ("CT", "MR", "SR", "CTX"),
    "SeriesNumber": ("1", "2", "10", "-3"),
    "SeriesDescription": ("axial", "Axial", "scout*"),
    "SeriesDate": ("20240101", "20240103"),
    "SeriesTime": ("10", "1015", "101530"),
    "RequestedProcedureID": ("P1", "P2"),
}  # fmt: skip
_SERIES_LEVEL = {name for name in _VALUES if name.startswith(("Series", "Modality", "Requested"))}
_SNAKE = {name: KEY_OF_KEYWORD[snake].keyword for name, snake in (
    (name, next(k.keyword for k in KEYS if k.keyword.replace("_", "") == name.lower()))
    for name in _VALUES
)}  # fmt: skip


def _some_states() -> Iterator[DicomStateMeta]:
    """Rows with all kinds of values, and without; the same each time."""
    for study in range(40):
        of_study: dict[str, Any] = {
            _SNAKE[name]: (*values, None)[study * 7 // (i + 1) % (len(values) + 1)]
            for i, (name, values) in enumerate(_VALUES.items())
            if name not in _SERIES_LEVEL
        }
        for series in range(1 + study % 3):
            of_series: dict[str, Any] = {
                _SNAKE[name]: (*values, None)[(study + series * 5 + i) % (len(values) + 1)]
                for i, (name, values) in enumerate(_VALUES.items())
                if name in _SERIES_LEVEL
            }
            if of_series["series_number"] is not None:
                of_series["series_number"] = int(of_series["series_number"])
            yield DicomStateMeta(
                TENANT, f"1.2.{study}", f"1.2.{study}.{series}",
                **of_study, **of_series, number_of_series_related_instances=1,
            )  # fmt: skip


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteIndex]:
    index = SqliteIndex(tmp_path_factory.mktemp("index") / "index.sqlite")
    index.put(list(_some_states()))
    yield index
    index.close()


def _elements(row: Row) -> dict[str, Any]:
    return {key.tag: element(key.vr, row[key.keyword]) for key in KEYS if key.keyword in row}


def _as_path(match: Match) -> Match:
    """Make the match one that is evaluated on elements."""
    key = KEY_OF_KEYWORD[match.keyword]
    return replace(match, path=(key.tag,), parts=tuple(map(_as_path, match.parts)))


def _holds(row: Row, match: Match, *, fuzzy: bool) -> bool:
    """Evaluate a match on a row; of those in several zones each part is of another attribute."""
    if match.kind == "any":
        return any(_holds(row, part, fuzzy=fuzzy) for part in match.parts)
    if match.kind == "all":
        return all(_holds(row, part, fuzzy=fuzzy) for part in match.parts)
    return fits(_elements(row), [_as_path(match)], fuzzy=fuzzy)


def _pattern(value: str) -> st.SearchStrategy[str]:
    """Values as people search for them: whole, cut, with wildcards."""
    cut = st.integers(0, len(value))
    return st.one_of(
        st.just(value),
        st.just(value.upper()),
        cut.map(lambda at: value[:at] + "*"),
        cut.map(lambda at: "*" + value[at:]),
        cut.map(lambda at: value[:at] + "?" + value[at + 1 :]),
        st.tuples(cut, cut).map(lambda c: f"{value[: min(c)]}*{value[max(c) :]}"),
    )


def _term(name: str) -> st.SearchStrategy[tuple[str, str]]:
    values = st.sampled_from(_VALUES[name])
    if name.endswith(("Date", "Time")):
        low_high = st.tuples(values, values).map(sorted).map("-".join)
        one = st.one_of(
            values, low_high, values.map(lambda v: f"-{v}"), values.map(lambda v: f"{v}-")
        )
    elif name == "SeriesNumber":
        one = st.one_of(values, st.lists(values, min_size=1, max_size=3).map(",".join))
    elif name == "TimezoneOffsetFromUTC":
        one = values
    else:
        one = st.one_of(values.flatmap(_pattern), st.lists(values, max_size=3).map("\\".join))
    return st.tuples(st.just(name), st.one_of(one, st.just('""')))


def _queries(names: Sequence[str]) -> st.SearchStrategy[str]:
    options = {
        "fuzzymatching": st.sampled_from(["true", "false"]),
        "emptyvaluematching": st.sampled_from(["true", "false"]),
        "multiplevaluematching": st.sampled_from(["true", "false"]),
    }
    terms = st.lists(st.sampled_from(names).flatmap(_term), min_size=1, max_size=3)
    return st.tuples(terms, st.fixed_dictionaries({}, optional=options)).map(
        lambda pair: urlencode([*pair[0], *pair[1].items()])
    )


def _compare(index: SqliteIndex, text: str, level: Level) -> None:
    try:
        parsed = parse_search(text, level)
    except InvalidRequest:
        assume(condition=False)
    query = parsed.query(TENANT, level, {}, limits=(1000, 1000))
    everything = index.search(Query(TENANT, level, limit=1000))
    expected = [
        row
        for row in everything
        if all(_holds(row, match, fuzzy=query.fuzzy) for match in query.matches)
    ]
    uid = "study_instance_uid" if level is Level.STUDY else "series_instance_uid"
    assert [row[uid] for row in index.search(query)] == [row[uid] for row in expected]
    page = index.search(replace(query, limit=3, offset=2))
    assert [row[uid] for row in page] == [row[uid] for row in expected][2:5]


@settings(max_examples=_EXAMPLES, deadline=None)
@given(text=_queries([name for name in _VALUES if name not in _SERIES_LEVEL]))
def test_studies_are_those_of_a_naive_filter(index: SqliteIndex, text: str) -> None:
    _compare(index, text, Level.STUDY)


@settings(max_examples=_EXAMPLES, deadline=None)
@given(text=_queries(list(_VALUES)))
def test_series_are_those_of_a_naive_filter(index: SqliteIndex, text: str) -> None:
    _compare(index, text, Level.SERIES)


@settings(max_examples=_EXAMPLES, deadline=None)
@given(
    level=st.sampled_from([Level.STUDY, Level.SERIES]),
    names=st.lists(st.sampled_from(list(_VALUES)), min_size=1, max_size=2, unique=True),
    signs=st.lists(st.sampled_from(["", "-"]), min_size=2, max_size=2),
)
def test_rows_are_sorted(
    index: SqliteIndex, level: Level, names: list[str], signs: list[str]
) -> None:
    if level is Level.STUDY:
        assume(not set(names) & _SERIES_LEVEL)
    text = ",".join(sign + name for sign, name in zip(signs, names, strict=False))
    query = parse_search(f"orderby={text}", level).query(TENANT, level, {}, limits=(1000, 1000))
    expected = list(index.search(Query(TENANT, level, limit=1000)))
    for name, sign in reversed(list(zip(names, signs, strict=False))):
        keyword = _SNAKE[name]
        is_name = KEY_OF_KEYWORD[keyword].vr == "PN"
        with_value = [row for row in expected if row[keyword] is not None]
        values = {id(row): fold(row[keyword]) if is_name else row[keyword] for row in with_value}
        with_value.sort(key=lambda row, of=values: of[id(row)], reverse=sign == "-")  # type: ignore[misc]
        expected = with_value + [row for row in expected if row[keyword] is None]
    uid = "study_instance_uid" if level is Level.STUDY else "series_instance_uid"
    assert [row[uid] for row in index.search(query)] == [row[uid] for row in expected]


# ------------------------------------------------------------------ instances


def _series(number: int, slices: int = 3, **common: Any) -> list[Dataset]:
    """Make a series of a study of its own; the newest has the lowest number."""
    day = dt.date(2024, 12, 31) - dt.timedelta(days=number)
    series = synthetic.ct_series(slices, StudyDate=day.strftime("%Y%m%d"), **common)
    for slice_number, ds in enumerate(series):
        ds.StudyInstanceUID = f"1.9.{number}"
        ds.SeriesInstanceUID = f"1.9.{number}.1"
        ds.SOPInstanceUID = f"1.9.{number}.1.{slice_number + 1}"
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.PatientID = f"P{number}"
    return series


def _find(
    archive: Archive, text: str, scope: Mapping[str, str] = NOWHERE, level: Level = Level.INSTANCE
) -> Found:
    query = parse_search(text, level).query(TENANT, level, scope, limits=(100, 1000))
    return search(archive, Journals(archive.store), query, base_url=BASE)


def _uids(found: Found, tag: str = "00080018") -> list[str]:
    return [row[tag]["Value"][0] for row in found.objects]


@pytest.fixture
def three(archive: Archive) -> Archive:
    """Three studies of one series of three instances each."""
    store(archive, *_series(1), *_series(2), *_series(3))
    catalogue_all(archive)
    return archive


def test_instances_come_by_study_then_number(three: Archive) -> None:
    everything = _uids(_find(three, ""))
    assert everything == [f"1.9.{study}.1.{n}" for study in (1, 2, 3) for n in (1, 2, 3)]
    pages = [_uids(_find(three, f"limit=2&offset={at}")) for at in range(0, 10, 2)]
    assert [uid for page in pages for uid in page] == everything
    assert _find(three, "limit=8").more
    assert not _find(three, "limit=9").more
    assert _find(three, "limit=0").objects == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SOPInstanceUID=1.9.2.1.3", ["1.9.2.1.3"]),
        ("SOPInstanceUID=1.9.3.1.1,1.9.1.1.2", ["1.9.1.1.2", "1.9.3.1.1"]),
        ("InstanceNumber=2&StudyInstanceUID=1.9.2", ["1.9.2.1.2"]),
        ("InstanceNumber=02,3&PatientID=P1", ["1.9.1.1.2", "1.9.1.1.3"]),
        ("PatientID=P1&orderby=-InstanceNumber", ["1.9.1.1.3", "1.9.1.1.2", "1.9.1.1.1"]),
        ("InstanceNumber=1&orderby=StudyDate", ["1.9.3.1.1", "1.9.2.1.1", "1.9.1.1.1"]),
        (
            "InstanceNumber=1,2&orderby=-InstanceNumber,StudyDate&limit=4",
            ["1.9.3.1.2", "1.9.2.1.2", "1.9.1.1.2", "1.9.3.1.1"],
        ),
        ("Rows=16&PatientID=P2&limit=1&offset=1", ["1.9.2.1.2"]),
        ("Rows=17", []),
        ('InstanceNumber="",3&PatientID=P1&emptyvaluematching=true', ["1.9.1.1.3"]),
        ("PatientID=P1&InstanceNumber=3,*", ["1.9.1.1.1", "1.9.1.1.2", "1.9.1.1.3"]),
        ("SOPClassUID=1.2.3", []),
    ],
)
def test_instances(three: Archive, text: str, expected: list[str]) -> None:
    assert _uids(_find(three, text)) == expected


def test_what_the_path_leaves_open_is_returned(three: Archive) -> None:
    (row,) = _find(three, "SOPInstanceUID=1.9.1.1.1").objects
    assert {"00100020", "00201208", "00201209", "00080060", "00280010", "00083002"} <= row.keys()
    assert row["00081190"]["Value"] == [f"{BASE}/studies/1.9.1/series/1.9.1.1/instances/1.9.1.1.1"]
    scope = {"study_instance_uid": "1.9.1", "series_instance_uid": "1.9.1.1"}
    (row,) = _find(three, "InstanceNumber=1", scope).objects
    assert not {"00100020", "00201208", "00201209"} & row.keys()
    (row,) = _find(three, "", {"study_instance_uid": "1.9.1"}, Level.SERIES).objects
    assert "00100020" not in row
    (row,) = _find(three, "StudyInstanceUID=1.9.1", level=Level.SERIES).objects
    assert "00100020" in row


@pytest.mark.parametrize("include", ["", "&includefield=all"])
def test_what_is_counted_here_is_not_taken_from_a_data_set(archive: Archive, include: str) -> None:
    store(archive, *_series(1, NumberOfStudyRelatedInstances=99, ModalitiesInStudy="US"))
    catalogue_all(archive)
    (row,) = _find(archive, f"InstanceNumber=1{include}").objects
    assert row["00201208"]["Value"] == [3]
    assert row["00080061"]["Value"] == ["CT"]


def test_attributes_that_were_asked_for_are_returned(three: Archive) -> None:
    scope = {"study_instance_uid": "1.9.1"}
    (row,) = _find(three, "InstanceNumber=1&ImageType=PRIMARY", scope).objects
    assert "00080008" in row
    assert "00280030" not in row
    (row,) = _find(three, "InstanceNumber=1&includefield=PixelSpacing,PatientID", scope).objects
    assert {"00280030", "00100020"} <= row.keys()
    (row,) = _find(three, "InstanceNumber=1&includefield=all", scope).objects
    uri = row["7FE00010"]["BulkDataURI"]
    assert uri.startswith(f"{BASE}/studies/1.9.1/series/1.9.1.1/instances/1.9.1.1.1/bulkdata/")


def test_data_sets_are_not_read_for_what_entries_hold(
    three: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    metadata = Journals.metadata

    def counted(self: Journals, view: Any, entries: Any = None) -> Iterator[bytes]:
        for text in metadata(self, view, entries):
            read.append(len(text))
            yield text

    monkeypatch.setattr(Journals, "metadata", counted)
    assert len(_find(three, "InstanceNumber=1,2,3&limit=2&offset=4").objects) == 2
    assert len(read) == 2


def test_a_uid_is_found_among_many_series(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance_search, "_SERIES_PAGE", 2)
    monkeypatch.setattr(instance_search, "_MAX_SERIES", 4)
    store(archive, *(ds for number in range(8) for ds in _series(number, 1)))
    catalogue_all(archive)
    load_all(archive)
    for ref, version in archive.index.awaiting_description(100):
        archive.index.mark_described([(ref, version)])
    store(archive, *_series(9, 1))
    catalogue_all(archive)  # not in the warehouse yet
    text = "SOPInstanceUID=1.9.7.1.1,1.9.9.1.1,1.9.0.1.1,1.9.77.1"
    assert _uids(_find(archive, text)) == ["1.9.0.1.1", "1.9.7.1.1", "1.9.9.1.1"]
    assert _uids(_find(archive, f"{text}&PatientID=P7")) == ["1.9.7.1.1"]
    assert _uids(_find(archive, "SOPInstanceUID=1.9.77.1")) == []
    with pytest.raises(TooLarge):
        _find(archive, "InstanceNumber=77")
    with pytest.raises(TooLarge):
        _find(archive, "SOPClassUID=1.2.840.10008.5.1.4.1.1.2")
    assert _uids(_find(archive, "limit=2&offset=7")) == ["1.9.7.1.1", "1.9.9.1.1"]


def test_too_much_metadata_to_compare_is_refused(
    three: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance_search, "_MAX_READ_BYTES", 8000)
    with pytest.raises(TooLarge, match="name the study"):
        _find(three, "Rows=17")
    assert len(_find(three, "Rows=16&limit=1").objects) == 1
