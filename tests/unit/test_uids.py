"""UIDs and tenant ids: what may become a path, and what never does (PS3.5 §9)."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wado.dicom.uids import (
    MAX_UID_LENGTH,
    RESERVED_NAMES,
    InstanceRef,
    SeriesRef,
    StudyRef,
    validate_tenant_id,
    validate_uid,
)
from wado.errors import InvalidRequest, InvalidUID

LONGEST = "1." + "2" * (MAX_UID_LENGTH - 2)


@pytest.mark.parametrize(
    ("given_value", "uid"),
    [
        ("1.2.840.10008.1.2", "1.2.840.10008.1.2"),
        (b"1.2.840.10008.1.2\0", "1.2.840.10008.1.2"),
        ("1.2.3 ", "1.2.3"),
        ("1.02.003", "1.02.003"),  # real devices write leading zeros
        ("0", "0"),
        (LONGEST, LONGEST),
        (LONGEST + "\0", LONGEST),
    ],
)
def test_a_uid_is_taken_and_its_padding_cut(given_value, uid):
    assert validate_uid(given_value) == uid


@pytest.mark.parametrize(
    "value",
    [
        "", "\0", " ", ".", "..", "1..2", ".1", "1.", "1.2.3/..", "../1.2", "1.2\n", "1.2\0.3",
        "1.2.a", "-1.2", "1,2", " 1.2", LONGEST + "2", "\u0661.\u0662", "1.2\u200b",
        b"1.\xb2", b"\xff",
    ],
)  # fmt: skip
def test_what_is_no_uid_is_refused(value):
    with pytest.raises(InvalidUID):
        validate_uid(value)


@given(st.text() | st.binary())
def test_whatever_passes_is_digits_and_single_dots(value):
    try:
        uid = validate_uid(value)
    except InvalidUID:
        return
    assert set(uid) <= set(string.digits + ".")
    assert ".." not in uid
    assert 1 <= len(uid) <= MAX_UID_LENGTH


@pytest.mark.parametrize("value", ["default", "A", "clinic-1_b", "x" * 64])
def test_a_tenant_id_is_taken(value: str):
    assert validate_tenant_id(value) == value


@pytest.mark.parametrize(
    "value",
    ["", ".", "..", "a/b", "a b", "x" * 65, "ä", "a\n", "Metadata", *sorted(RESERVED_NAMES)],
)
def test_what_is_no_tenant_id_is_refused(value: str):
    with pytest.raises(InvalidRequest):
        validate_tenant_id(value)


def test_references_contain_each_other_and_give_paths():
    instance = InstanceRef.of("default", "1.2", b"1.2.3\0", "1.2.3.4")
    assert instance.series == SeriesRef.of("default", "1.2", "1.2.3")
    assert instance.study == instance.series.study == StudyRef.of("default", "1.2")
    assert instance.study.study is not None
    assert instance.path == "studies/1.2/series/1.2.3/instances/1.2.3.4"
    assert instance.series.path == "studies/1.2/series/1.2.3"
    assert instance.study.path == "studies/1.2"


@pytest.mark.parametrize("broken", range(4))
def test_every_part_of_a_reference_is_validated(broken: int):
    parts = ["default", "1.2", "1.2.3", "1.2.3.4"]
    parts[broken] = "../x"
    with pytest.raises(InvalidRequest):
        InstanceRef.of(*parts)
