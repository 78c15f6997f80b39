"""Query strings of real clients are read into matching keys."""

import contextlib
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wado.dicom.match_values import tag_of
from wado.dicom.matching import KEYS, Level, Match, Order
from wado.dicom.search_request import parse_search
from wado.errors import InvalidRequest


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
        "StudyDate=20241301", "StudyTime=2400", "TimezoneOffsetFromUTC=CET",
        "SeriesNumber=one", "multiplevaluematching=2", "fuzzymatching=yes",
        "emptyvaluematching=1", "PatientName=%FF", "limit=%D9%A3",
    ],
)  # fmt: skip
def test_wrong_values_are_refused(text):
    with pytest.raises(InvalidRequest):
        parse_search(text, Level.STUDY)


@pytest.mark.parametrize("text", ["", "&&", "foo=1", "_=123", "PatientID=*", "PatientID=", "a.b=1"])
def test_what_restricts_nothing(text):
    assert parse_search(text, Level.STUDY).matches == ()


@pytest.mark.parametrize("level", [Level.STUDY, Level.SERIES])
def test_what_only_instances_hold_is_passed_over_above_them(level):
    search = parse_search("SliceThickness=3&SOPInstanceUID=1.2&SeriesDescription=x", level)
    assert [match.keyword for match in search.matches] == ["series_description"]
    assert len(search.warnings) == 2
    assert "SliceThickness" in search.warnings[0]


def test_what_has_no_values_to_compare_is_passed_over():
    search = parse_search("PixelData=1&Nonsense=2", Level.INSTANCE)
    assert search.matches == ()
    assert len(search.warnings) == 2


@pytest.mark.parametrize("value", ["", "%22%22"])
def test_empty_values_on_request(value):
    assert one(f"PatientID={value}&emptyvaluematching=true").kind == "empty"
    assert one(f"emptyvaluematching=true&00100020={value}").kind == "empty"


def test_empty_values_are_not_matched_without_being_asked_for():
    search = parse_search("PatientID=%22%22", Level.STUDY)
    assert search.matches == ()
    assert "emptyvaluematching" in search.warnings[0]


def test_multiple_values_must_all_be_there():
    search = parse_search("ModalitiesInStudy=CT%5CPT&multiplevaluematching=true", Level.STUDY)
    assert search.matches == (
        Match("modalities_in_study", "single", ("CT",)),
        Match("modalities_in_study", "single", ("PT",)),
    )


def test_of_an_attribute_with_one_value_any_of_a_list_matches():
    search = parse_search("StudyID=A,B&multiplevaluematching=true", Level.STUDY)
    assert search.matches == (Match("study_id", "any_of", ("A", "B")),)
    assert one("StudyID=A,B") == Match("study_id", "single", ("A,B",))
    assert one("StudyID=A%5CB") == Match("study_id", "any_of", ("A", "B"))


def test_a_list_may_hold_patterns_and_ranges():
    match = one("StudyDate=20240101,20250101-")
    assert match.kind == "any"
    assert [part.kind for part in match.parts] == ["single", "range"]


@pytest.mark.parametrize("separator", [",", "%2C", "%5C", "%2c"])
def test_values_are_decoded_before_they_are_split(separator):
    assert one(f"StudyInstanceUID=1.2{separator}1.3").values == ("1.2", "1.3")


def test_parameters_are_split_before_they_are_decoded():
    assert one("StudyDescription=a%26b%3Dc") == Match("study_description", "single", ("a&b=c",))
    assert one("Patient%49D=x") == Match("patient_id", "single", ("x",))


def test_a_uid_that_comes_several_times_is_a_list():
    assert one("StudyInstanceUID=1.2&StudyInstanceUID=1.3").values == ("1.2", "1.3")


def test_date_and_time_ranges_are_one():
    match = one("StudyDate=20240101-20240102&StudyTime=10-1130")
    values = ("20240101", "100000", "20240102", "113060.999999")
    assert match == Match("study_date", "date_time_range", values)
    assert one("StudyDate=-20240102&StudyTime=10-1130").values[:2] == ("", "")


@pytest.mark.parametrize(
    "text", ["StudyDate=20240101&StudyTime=10-11", "StudyDate=20240101-20240102&StudyTime=10"]
)
def test_a_single_date_or_time_is_matched_by_itself(text):
    kinds = [match.kind for match in parse_search(text, Level.STUDY).matches]
    assert sorted(kinds) == ["range", "single"]


def test_attributes_of_instances_have_their_path():
    search = parse_search(
        "SliceThickness=3.0&00081140.00081155=1.2&RequestAttributesSequence.RequestedProcedureID=7",
        Level.INSTANCE,
    )
    assert search.matches == (
        Match("slice_thickness", "single", ("3.0",), path=("00180050",), vr="DS"),
        Match(
            "00081140.referenced_sop_instance_uid", "single", ("1.2",),
            path=("00081140", "00081155"), vr="UI",
        ),
        Match("requested_procedure_id", "single", ("7",)),
    )  # fmt: skip


def test_a_sequence_has_no_value_of_its_own():
    with pytest.raises(InvalidRequest):
        parse_search("RequestAttributesSequence=x", Level.INSTANCE)
    search = parse_search("RequestAttributesSequence=", Level.SERIES)
    assert not search.matches
    assert search.include == {"00400275"}


def test_a_key_inside_another_sequence_is_not_the_series_own():
    (match,) = parse_search(
        "ReferencedSeriesSequence.SeriesInstanceUID=1.2", Level.INSTANCE
    ).matches
    assert match.path == ("00081115", "0020000E")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("StudyDate", [Order("study_date")]),
        ("-00080020", [Order("study_date", descending=True)]),
        (
            "StudyDate desc,PatientName",
            [Order("study_date", descending=True), Order("patient_name")],
        ),
        ("StudyTime%20ASC", [Order("study_time")]),
        ("+PatientID", [Order("patient_id")]),
        (
            "PatientID,-StudyDate,-PatientID",
            [Order("patient_id"), Order("study_date", descending=True)],
        ),
    ],
)
def test_orders(text, expected):
    assert list(parse_search(f"orderby={text}", Level.STUDY).order) == expected


@pytest.mark.parametrize(
    "text", ["Nonsense", "SeriesNumber", "SliceThickness", "StudyDate down", "-"]
)
def test_wrong_orders_are_refused(text):
    with pytest.raises(InvalidRequest):
        parse_search(f"orderby={text}", Level.STUDY)


def test_many_warnings_are_cut_short():
    search = parse_search("&".join(f"Unknown{n}=1" for n in range(500)), Level.STUDY)
    assert len(search.warnings) == 11
    assert search.warnings[-1].startswith("490 other")


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
        "includefield=StudyDescription,0008103e,00400275.00400009&includefield=SliceThickness"
        "&includefield=Nonsense,00080060",
        Level.SERIES,
    )
    assert search.include == {"00081030", "0008103E", "00400275", "00080060"}
    assert len(search.warnings) == 2


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


@pytest.mark.parametrize(
    "text",
    [
        "PatientID=" + ",".join("1" * 300) + "&multiplevaluematching=true",
        "StudyDate=" + ",".join(["20240101-"] * 300),
        "&".join(["PatientName=a*"] * 300),
        "fuzzymatching=true&PatientName=" + "%20".join("a" * 300),
        "StudyInstanceUID=" + ",".join(["1.2"] * 5000),
    ],
)
def test_too_many_conditions_are_refused(text):
    with pytest.raises(InvalidRequest):
        parse_search(text, Level.STUDY)


def test_many_uids_are_one_condition():
    uids = [f"1.2.{number}" for number in range(4000)]
    assert one("StudyInstanceUID=" + ",".join(uids)).values == tuple(uids)


_NAMES = [key.tag for key in KEYS] + [
    "PatientName", "ContentDate", "AcquisitionDateTime", "SliceThickness", "0040A730.0040A160",
    "limit", "offset", "fuzzymatching", "includefield", "orderby", "TimezoneOffsetFromUTC",
]  # fmt: skip


@settings(deadline=None)  # the first one loads the dictionary
@given(st.text(max_size=200), st.sampled_from(Level))
def test_any_text_is_read_or_refused(text, level):
    with contextlib.suppress(InvalidRequest):
        parse_search(text, level)


@settings(deadline=None)  # the first one loads the dictionary
@given(
    st.lists(st.tuples(st.sampled_from(_NAMES), st.text("0123456789-+*?,\\.^:= aä", max_size=30))),
    st.sampled_from(Level),
)
def test_any_value_is_read_or_refused(pairs, level):
    with contextlib.suppress(InvalidRequest):
        parse_search(urlencode(pairs), level)
