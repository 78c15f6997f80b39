"""Data sets of the DICOM JSON Model are written so that pydicom reads what was meant."""

import io
import struct
from typing import Any

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from synthetic import colour, ct, multi_frame, structured_report
from wado.dicom.dataset_writer import Place, encode, keys_of, length_of
from wado.errors import CannotUnderstand


def no_bulk(uri: str) -> Place:
    raise AssertionError(uri)


def written(metadata, bulk=no_bulk, ready=None) -> bytes:
    pieces = encode(keys_of(metadata), bulk, ready or {})
    data = b"".join(p if isinstance(p, bytes) else b"".join(p.read()) for p in pieces)
    assert len(data) == length_of(pieces)
    return data


_FIRST = b"\x08\0\1\0UL\4\0\0\0\0\0"
"""An element by which pydicom tells the transfer syntax."""


def read(data: bytes) -> Dataset:
    ds = pydicom.dcmread(io.BytesIO(_FIRST + data), force=True)
    del ds[0x00080001]
    return ds


@pytest.mark.parametrize("make", [ct, colour, multi_frame, structured_report])
def test_what_pydicom_took_apart_it_reads_again(make):
    ds = make()
    assert read(written(ds.to_json_dict())).to_json_dict() == {
        k: v for k, v in ds.to_json_dict().items() if not k.startswith("0002")
    }


@pytest.mark.parametrize(
    ("key", "element", "value"),
    [
        ("00281050", {"vr": "DS", "Value": [1.23456789012345678, -1e-300, 40]}, None),
        ("00180088", {"vr": "DS", "Value": ["1.50 ", None]}, b"1.50 \\"),
        ("00200013", {"vr": "IS", "Value": [7.0, "8", None]}, b"7\\8\\"),
        ("0020930A", {"vr": "FD", "Value": [1.5, None]}, struct.pack("<2d", 1.5, float("nan"))),
        ("00280009", {"vr": "AT", "Value": ["00181063"]}, b"\x18\0\x63\x10"),
        ("00100010", {"vr": "PN", "Value": [{"Alphabetic": "A^B", "Phonetic": "C"}]}, b"A^B==C"),
        ("00100010", {"vr": "PN", "Value": ["A^B"]}, b"A^B "),
        ("00080018", {"vr": "UI", "Value": ["1.2.3"]}, b"1.2.3\0"),
        ("00081195", {"vr": "UI", "Value": [None]}, b""),
        ("7FE00001", {"vr": "OV", "InlineBinary": "AQ=="}, b"\1\0"),
        ("00041234", {"vr": "UV", "Value": ["18446744073709551615"]}, None),
        ("00289001", {"Value": [5]}, b"\5\0\0\0"),
        ("00101001", {"vr": "LO"}, b""),
        ("001021b0", {"vr": "LT", "Value": ["a\\b"]}, b"a\\b "),
    ],
)
def test_values(key, element, value):
    if key.startswith("0004"):
        with pytest.raises(CannotUnderstand):
            written({key: element})
        key = f"0009{key[4:]}"
    data = written({key: element})
    got = read(data).get_item(int(key, 16))
    if value is not None:
        assert got.value == value or (got.value is None and not value)
    else:
        assert len(data) % 2 == 0
        assert all(len(v) <= 16 for v in (got.value or b"").split(b"\\")) or got.VR == "UV"


def test_long_values_of_short_vrs_become_unknown():
    data = written({"00281053": {"vr": "DS", "Value": ["1.000000000"] * 7000}})
    assert data[4:6] == b"UN"
    assert len(read(data)[0x00281053].value) == 7000 * len("1.000000000/")


def test_what_no_data_set_holds_is_left_out():
    kept = written(
        {
            "00020010": {"vr": "UI", "Value": ["1.2"]},
            "00080000": {"vr": "UL", "Value": [9]},
            "FFFCFFFC": {"vr": "OB", "InlineBinary": "AAAA"},
            "00081140": {"vr": "SQ", "Value": [{"00080005": {"vr": "CS", "Value": ["x"]}}, None]},
        }
    )
    ds = read(kept)
    assert len(ds) == 1
    assert [len(item) for item in ds[0x00081140].value] == [0, 0]


def test_bulk_data_is_placed_and_not_read():
    place = Place(3, lambda: (b"ab", b"c"))
    item = {"00420011": {"vr": "OB", "BulkDataURI": "here"}}
    data = written({"00081140": {"vr": "SQ", "Value": [item]}}, lambda _uri: place)
    assert read(data)[0x00081140].value[0][0x00420011].value == b"abc\0"


def nested(depth: int):
    metadata: dict[str, Any] = {"00100020": {"vr": "LO", "Value": ["x"]}}
    for _ in range(depth):
        metadata = {"00081140": {"vr": "SQ", "Value": [metadata]}}
    return metadata


@pytest.mark.parametrize(
    "metadata",
    [
        nested(65), [], None, {"1": {}}, {"00100020": 1}, {"00100020": {"vr": "LO", "Value": "x"}},
        {"00100020": {"vr": "LO", "Value": ["a\\b"]}}, {"00100020": {"vr": "LO", "Value": [1]}},
        {"00080060": {"vr": "CS", "Value": ["ü"]}}, {"00080018": {"vr": "UI", "Value": ["1..2"]}},
        {"00280010": {"vr": "US", "Value": [-1]}}, {"00280010": {"vr": "US", "Value": [True]}},
        {"00280010": {"vr": "US", "Value": [1 << 80]}}, {"00280010": {"vr": "US", "Value": [None]}},
        {"00281050": {"vr": "DS", "Value": ["x"]}}, {"00281050": {"vr": "DS", "Value": [{}]}},
        {"0020930A": {"vr": "FD", "Value": [[1]]}}, {"00280009": {"vr": "AT", "Value": ["x"]}},
        {"00420011": {"vr": "OB", "Value": [1]}}, {"00420011": {"vr": "OB", "InlineBinary": 5}},
        {"00100020": {"vr": "LO", "InlineBinary": "AA=="}},
        {"00100010": {"vr": "PN", "Value": [{"Roman": "x"}]}},
        {"001021B0": {"vr": "LT", "Value": ["a", "b"]}},
        {"00081140": {"vr": "SQ", "Value": ["x"]}}, {"00010010": {"vr": "LO"}},
    ],
)  # fmt: skip
def test_what_is_no_data_set_is_refused_with_a_reason(metadata):
    with pytest.raises(CannotUnderstand, match=r"\w"):
        written(metadata)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["vr", "Value", "00081140", "Alphabetic"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)
_VRS = ("AE AS AT CS DA DS DT FD FL IS LO LT OB OW", "PN SH SL SQ UI UN US UV")
_VR = st.sampled_from(" ".join(_VRS).split())
_ELEMENT = st.fixed_dictionaries({"vr": _VR, "Value": st.lists(_JSON, max_size=3)})


@given(st.dictionaries(st.sampled_from(["00100020", "00091001", "00281050"]), _ELEMENT, max_size=3))
def test_any_json_is_written_or_refused(metadata):
    try:
        data = written(metadata)
    except CannotUnderstand:
        return
    assert len(data) % 2 == 0
    read(data)
