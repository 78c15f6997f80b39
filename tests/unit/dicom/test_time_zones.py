"""Dates and times in the time zone of a query."""

from datetime import timedelta

import pytest

from wado.dicom.matching import Level, Match
from wado.dicom.search_request import parse_search
from wado.dicom.time_zones import ZONES, offset_of, read_zone, shifted
from wado.errors import InvalidRequest


def moments(*values: str) -> Match:
    return Match("study_date", "date_time_range", values)


def test_a_range_is_moved_over_midnight_and_new_year():
    match = moments("20231231", "233000", "20240101", "003060.999999")
    moved = shifted(match, timedelta(hours=1))
    assert moved.values == ("20240101", "003000", "20240101", "013060.999999")
    assert shifted(moved, timedelta(hours=-1)) == match


def test_open_ends_stay_open():
    moved = shifted(moments("", "", "20240101", "100000"), timedelta(hours=14))
    assert moved.values == ("", "", "20240102", "000000")


@pytest.mark.parametrize("date", ["20240231", "99991231", "00000101"])
def test_what_is_no_day_is_refused(date: str):
    with pytest.raises(InvalidRequest):
        shifted(moments(date, "230000", date, "235959"), timedelta(hours=2))


def test_a_search_in_a_zone_looks_at_the_clocks_of_each():
    bound, choice = parse_search("StudyDate=20240101&00080201=+0100", Level.STUDY).matches
    assert bound == Match("study_date", "range", ("20231230", "20240103"))
    assert choice.kind == "any"
    of_zone = {part.parts[0].values: part.parts[1].values for part in choice.parts[:-1]}
    assert of_zone[("-0500",)] == ("20231231", "180000", "20240101", "175960.999999")
    assert of_zone[("+0100",)] == ("20240101", "000000", "20240101", "235960.999999")
    assert choice.parts[-1].parts == (
        Match("timezone_offset_from_utc", "empty"),
        moments("20240101", "000000", "20240101", "235960.999999"),
    )
    assert len(choice.parts) == len(ZONES) + 1


def test_other_keys_are_not_moved():
    search = parse_search("PatientBirthDate=20240101&00080201=%2B0100&PatientID=1", Level.STUDY)
    assert [match.kind for match in search.matches] == ["single", "single"]


@pytest.mark.parametrize(
    ("text", "zone"), [("+0100", "+0100"), (" 0530", "+0530"), ("-0330", "-0330")]
)
def test_zones_are_read(text: str, zone: str):
    assert read_zone(text) == zone
    assert f"{zone}" in ZONES


def test_offsets():
    assert offset_of("-0330") == timedelta(hours=-3, minutes=-30)
    assert offset_of("") == timedelta(0)
