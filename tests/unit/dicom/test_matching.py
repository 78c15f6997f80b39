"""Query strings of real clients are read into matching keys."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wado.dicom.matching import KEYS, Level, Match, parse_search, tag_of
from wado.errors import InvalidRequest
from wado.records import DicomStateMeta


def one(text, level=Level.STUDY):
    (match,) = parse_search(text, level).matches
    return match


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PatientID=HOLD-001", Match("patient_id", "single", ("HOLD-001",))),
        ("00100020=HOLD-001", Match("patient_id", "single", ("HOLD-001",))),
        ("PatientName=*Alpha*", Match("patient_name", "wildcard", ("*Alpha*",))),
        ("PatientName=M%C3%BCller%5EJ", Match("patient_name", "single", ("Müller^J",))),
        ("StudyDescription=a+b", Match("study_description", "single", ("a b",))),
        ("StudyDate=20240101", Match("study_date", "single", ("20240101",))),
        ("StudyDate=20240101-20240131", Match("study_date", "range", ("20240101", "20240131"))),
        ("StudyDate=-20240131", Match("study_date", "range", ("", "20240131"))),
        ("StudyDate=20240101-", Match("study_date", "range", ("20240101", ""))),
        ("StudyDate=2024-01-31", Match("study_date", "single", ("20240131",))),
        ("StudyDate=2024-01-01-2024-01-31", Match("study_date", "range", ("20240101", "20240131"))),
        ("StudyTime=10-113000.5", Match("study_time", "range", ("10", "113000.5"))),
        ("StudyInstanceUID=1.2", Match("study_instance_uid", "single", ("1.2",))),
        ("StudyInstanceUID=1.2,1.3", Match("study_instance_uid", "uid_list", ("1.2", "1.3"))),
        ("StudyInstanceUID=1.2%5C1.3", Match("study_instance_uid", "uid_list", ("1.2", "1.3"))),
        ("ModalitiesInStudy=CT%2CMR", Match("modalities_in_study", "any_of", ("CT", "MR"))),
        ("ModalitiesInStudy=CT", Match("modalities_in_study", "single", ("CT",))),
        ("Modality=MR", Match("modalities_in_study", "single", ("MR",))),
    ],
)
def test_values(text, expected):
    assert one(text) == expected


@pytest.mark.parametrize(
    ("text", "keyword"),
    [
        ("SeriesNumber=%2B007", "series_number"),
        ("RequestAttributesSequence.ScheduledProcedureStepID=7", "scheduled_procedure_step_id"),
        ("00400275.00401001=7", "requested_procedure_id"),
        ("PatientID=7", "patient_id"),
    ],
)
def test_keys_of_series(text, keyword):
    assert one(text, Level.SERIES) == Match(keyword, "single", ("7",))


@pytest.mark.parametrize(
    "text",
    [
        "StudyDate=yesterday", "StudyDate=2024", "StudyDate=-", "StudyTime=ten", "limit=-1",
        "StudyInstanceUID=1..2", "StudyInstanceUID=..%2F..", "limit=ten", "limit=", "offset=1.5",
        "fuzzymatching=yes", "emptyvaluematching=1", "PatientName=%FF", "limit=%D9%A3",
    ],
)  # fmt: skip
def test_wrong_values_are_refused(text):
    with pytest.raises(InvalidRequest):
        parse_search(text, Level.STUDY)


@pytest.mark.parametrize("text", ["", "&&", "foo=1", "_=123", "PatientID=*", "PatientID=", "a.b=1"])
def test_what_restricts_nothing(text):
    assert parse_search(text, Level.STUDY).matches == ()


def test_attributes_not_searched_by_are_named():
    search = parse_search("SliceThickness=3&SeriesDescription=x&00201208=4", Level.STUDY)
    assert search.matches == ()
    assert len(search.warnings) == 3


def test_empty_values_on_request():
    search = parse_search("PatientID=&emptyvaluematching=true", Level.STUDY)
    assert search.matches[0].kind == "empty"


def test_ohif_study_list():
    search = parse_search(
        "limit=101&offset=0&fuzzymatching=false"
        "&includefield=00081030%2C00080060%2C00080090%2C00100030&includefield=all",
        Level.STUDY,
    )
    assert (search.limit, search.offset, search.fuzzy, search.warnings) == (101, 0, False, ())
    assert search.include == {"00081030", "00080060", "00080090", "00100030", "all"}


def test_included_fields_by_keyword_tag_and_path():
    search = parse_search(
        "includefield=StudyDescription,0008103e,00400275.00400009,SliceThickness,Nonsense",
        Level.SERIES,
    )
    assert search.include == {"00081030", "0008103E", "00400275", "00180050"}
    assert len(search.warnings) == 1


def test_query_has_the_scope_of_the_path_and_a_limit():
    search = parse_search("limit=5000&offset=3", Level.SERIES)
    query = search.query("t", Level.SERIES, {"study_instance_uid": "1.2"}, limits=(100, 1000))
    assert query.matches == (Match("study_instance_uid", "single", ("1.2",)),)
    assert (query.limit, query.offset) == (1000, 3)
    assert (
        parse_search("", Level.STUDY).query("t", Level.STUDY, {}, limits=(100, 1000)).limit == 100
    )


def test_tags():
    assert tag_of("PatientID") == "00100020"
    assert tag_of("0010002a") == "0010002A"
    assert tag_of("patient_id") is None
    assert tag_of("Quux") is None


def test_keys_have_the_names_of_the_records():
    derived = {"modalities_in_study", "number_of_study_related_series",
               "number_of_study_related_instances", "sop_class_uid", "sop_instance_uid",
               "instance_number"}  # fmt: skip
    fields = set(DicomStateMeta.__dataclass_fields__)
    assert {key.keyword for key in KEYS} - fields == derived


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(InvalidRequest):
        parse_search(text, Level.STUDY)
