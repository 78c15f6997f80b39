"""The Native DICOM Model: what DCMTK writes of the same files, and all of it back again."""

import subprocess
import xml.etree.ElementTree as ET
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from math import isclose

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import real
from wado.dicom.describe import describe
from wado.dicom.elements import MAX_DEPTH
from wado.dicom.xml_model import NAMESPACE, from_xml, to_xml
from wado.errors import CannotUnderstand, InvalidRequest

NS = f"{{{NAMESPACE}}}"
DCMTK_READS_OTHERWISE = {"00083002", "00080005", "FFFCFFFC"}
"""What we add, what is UTF-8's, and padding, which we leave out."""


def document(inner):
    return f'<NativeDicomModel xmlns="{NAMESPACE}">{inner}</NativeDicomModel>'.encode()


def attribute(inner, tag="00100020", vr="LO", more=""):
    return document(f'<DicomAttribute tag="{tag}" vr="{vr}" {more}>{inner}</DicomAttribute>')


def reader(whole):
    return lambda offset, length: whole[offset : offset + length]


# ------------------------------------------------------------------ there and back


@pytest.fixture(scope="module")
def real_metadata(real_files):
    found = {}
    for path in real_files:
        whole = path.read_bytes()
        try:
            metadata = describe(reader(whole), len(whole)).metadata
        except CannotUnderstand:
            continue
        found[path] = orjson.loads(orjson.dumps(metadata))
    return found


def test_metadata_of_real_files_comes_back_whole(real_metadata):
    for path, metadata in real_metadata.items():
        assert from_xml(to_xml(metadata)) == metadata, path
    assert len(real_metadata) > 330


TEXT = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\ufffe\uffff")
)
TEXT = TEXT.map(str.strip).filter(bool)
NUMBERS = {
    "US": st.integers(0, 65535), "SL": st.integers(-(1 << 31), (1 << 31) - 1),
    "UV": st.integers(0, (1 << 64) - 1), "IS": st.integers(-(1 << 31), (1 << 31) - 1),
    "FD": st.floats(allow_nan=False, allow_infinity=False),
    "DS": st.floats(allow_nan=False, allow_infinity=False),
}  # fmt: skip
NUMERIC = {*NUMBERS, "SS", "UL", "SV", "FL"}
NAME = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("Alphabetic", "Ideographic", "Phonetic"), TEXT)
)
TAGS = st.integers(8, 0x7FDF).flatmap(
    lambda g: st.integers(0x100, 0xFFFF).map(lambda e: f"{g:04X}{e:04X}")
)


def values_of(vr, one):
    several = st.lists(st.none() | one, min_size=1, max_size=3)
    return several.map(lambda values: {"vr": vr, "Value": values})


ELEMENT = st.one_of(
    *[values_of(vr, one) for vr, one in NUMBERS.items()],
    *[values_of(vr, TEXT) for vr in ("LO", "UT", "CS", "UI")],
    values_of("PN", NAME.filter(bool)),
    st.sampled_from(["LO", "SQ", "OW", "PN", "FD"]).map(lambda vr: {"vr": vr}),
    st.just({"vr": "OB", "InlineBinary": "AAEC"}),
    TEXT.map(lambda uri: {"vr": "OW", "BulkDataURI": uri}),
)
DATA_SET = st.recursive(
    st.dictionaries(TAGS, ELEMENT, max_size=4),
    lambda inner: st.dictionaries(
        TAGS, ELEMENT | st.lists(inner, min_size=1, max_size=3).map(
            lambda items: {"vr": "SQ", "Value": items}
        ), max_size=4,
    ),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(DATA_SET)
def test_any_data_set_comes_back_whole(data_set):
    xml = to_xml(data_set)
    ET.fromstring(xml)  # another parser takes it, too
    assert from_xml(xml) == dict(sorted(data_set.items()))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_any_text_makes_a_document_that_parsers_take(text):
    xml = to_xml({"00104000": {"vr": "LT", "Value": [text]}, "7FE00010": {"BulkDataURI": text}})
    value = ET.fromstring(xml).findtext(f"{NS}DicomAttribute/{NS}Value") or ""
    assert len(value) == len(text)
    assert all(b in {a, "\N{REPLACEMENT CHARACTER}"} for a, b in zip(text, value, strict=True))


def test_private_elements_name_their_creator_and_get_a_block_again():
    metadata = {
        "00090010": {"vr": "LO", "Value": ["ACME & SONS"]},
        "00091001": {"vr": "SH", "Value": ["of the first"]},
        "00091101": {"vr": "SH", "Value": ["of nobody"]},
    }
    xml = to_xml(metadata)
    assert b'tag="00090001" vr="SH" privateCreator="ACME &amp; SONS"' in xml
    assert b'tag="00091101" vr="SH">' in xml
    assert from_xml(xml) == metadata
    # The block is given anew where the creator was left out, or two share one group.
    one = '<DicomAttribute tag="00090001" vr="SH" privateCreator="{}"><Value>1</Value>'
    one += "</DicomAttribute>"
    other = from_xml(document(one.format("B") + one.format("A")))
    assert other["00090010"] == {"vr": "LO", "Value": ["B"]}
    assert other["00091101"] == {"vr": "SH", "Value": ["1"]}
    twice = {**metadata, "00090011": {"vr": "LO", "Value": ["ACME & SONS"]}}
    assert from_xml(to_xml(twice)) == twice


# ------------------------------------------------------------------ what others write


def test_real_files_are_written_as_dcmtk_writes_them(real_metadata):
    real.require("dcmtk")
    small = {p: m for p, m in real_metadata.items() if p.stat().st_size < 60_000}
    with ThreadPoolExecutor(2) as threads:
        written = list(threads.map(_dcm2xml, small))
    compared: Counter[str] = Counter()
    for (path, metadata), theirs in zip(small.items(), written, strict=True):
        if theirs is None:
            compared["not read by DCMTK"] += 1
            continue
        _compare(ET.fromstring(to_xml(metadata)), theirs, path, compared)
    assert compared["elements"] > 9000
    assert compared["files"] > 120
    assert compared["not read by DCMTK"] < compared["files"] / 10


def _dcm2xml(path):
    done = subprocess.run(
        ["dcm2xml", "-nat", "+U8", "+Ca", "latin-1", "-q", path], capture_output=True, check=False
    )
    try:
        return ET.fromstring(done.stdout) if done.returncode == 0 else None
    except ET.ParseError:  # it writes control characters that XML has not
        return None


def _by_tag(node):
    found = {}
    for at in node:
        tag, creator = at.get("tag"), at.get("privateCreator")
        if tag not in DCMTK_READS_OTHERWISE and not tag.endswith("0000"):
            # It takes the block away from private elements whose creator is missing, too.
            orphan = tag[3] in "13579BDF" and creator is None
            found[f"{tag[:4]}00{tag[6:]}" if orphan else tag, creator] = at
    return found


def _compare(ours, theirs, path, compared):
    ours_by_tag, theirs_by_tag = _by_tag(ours), _by_tag(theirs)
    assert set(ours_by_tag) == set(theirs_by_tag), path
    compared["files"] += 1
    for key, at in ours_by_tag.items():
        other = theirs_by_tag[key]
        compared["elements"] += 1
        assert at.get("vr") == other.get("vr") or "UN" in (at.get("vr"), other.get("vr")), key
        if at.get("keyword") and other.get("keyword"):
            assert at.get("keyword") == other.get("keyword"), (path, key)
        if at.get("vr") != other.get("vr"):
            continue
        if at.get("vr") == "SQ":
            items = [child for child in other if child.tag == "Item"]
            for mine, item in zip(at, items, strict=True):
                assert mine.get("number") == item.get("number")
                _compare(mine, item, path, compared)
        elif "BulkData" not in {child.tag.removeprefix(NS) for child in (*at, *other)}:
            mine, others = _values(at), _values(other)
            assert set(mine) == set(others), (path, key)
            for where, value in mine.items():
                assert _same(value, others[where], at.get("vr")), (path, key, value, others[where])


def _values(at):
    """Texts of an attribute with where they stand; empty ones left out."""
    return {
        f"{child.get('number')} {leaf.tag.removeprefix(NS)}": leaf.text.strip()
        for child in at
        for leaf in child.iter()
        if leaf.text and leaf.text.strip()
    }


def _same(mine, other, vr):
    if mine == other or vr not in NUMERIC:
        return mine == other
    return isclose(float(mine), float(other), rel_tol=1e-6)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
def test_encodings_and_prefixes_are_read(encoding):
    text = (
        f'<?xml version="1.0" encoding="{encoding}"?><n:NativeDicomModel xmlns:n="{NAMESPACE}">'
        '<n:DicomAttribute tag="0010000d" vr="lo"><n:Value number="2"> \xe9 </n:Value>'
        "</n:DicomAttribute></n:NativeDicomModel>"
    )
    assert from_xml(text.encode(encoding)) == {"0010000D": {"vr": "LO", "Value": [None, " \xe9 "]}}


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        (attribute("<Value>1_0</Value>", vr="IS"), {"vr": "IS", "Value": ["1_0"]}),
        (attribute("<Value> 1.0 </Value>", vr="IS"), {"vr": "IS", "Value": [1]}),
        (attribute("<Value>0</Value>", vr="US"), {"vr": "US", "Value": [0]}),
        (attribute("<Value>1.50</Value>", vr="DS"), {"vr": "DS", "Value": [1.5]}),
        (attribute("<Value>nan</Value>", vr="FD"), {"vr": "FD", "Value": ["nan"]}),
        (attribute("<Value>0020000d</Value>", vr="AT"), {"vr": "AT", "Value": ["0020000D"]}),
        (attribute("", vr=""), {"vr": "LO"}),
        (attribute("<Item/>", vr="SQ"), {"vr": "SQ", "Value": [{}]}),
        (attribute('<BulkData uuid="1-2"/>'), {"vr": "LO", "BulkDataURI": "1-2"}),
        (attribute("<InlineBinary> AA\nE= </InlineBinary>"), {"vr": "LO", "InlineBinary": "AAE="}),
        (attribute("<PersonName/>", vr="PN"), {"vr": "PN", "Value": [None]}),
    ],
)  # fmt: skip
def test_what_clients_write(xml, expected):
    assert from_xml(xml) == {"00100020": expected}


@pytest.mark.parametrize(
    "xml",
    [
        b"", b"not xml", b"<other/>", document("")[:-3], document("<Value/>"),
        b'<!DOCTYPE NativeDicomModel [<!ENTITY a "aaaa">]>' + document("&a;"),
        b'<!DOCTYPE a SYSTEM "file:///etc/hostname">' + document(""),
        attribute("", tag="0010"), attribute("", tag="0010002G"),
        attribute('<Value number="0"/>'), attribute('<Value number="999999999"/>'),
        attribute("<Value number='2'/><Value number='2'/>"), attribute("<Item/>"),
        attribute("<Value>1</Value><InlineBinary>AA==</InlineBinary>"),
        attribute("<InlineBinary>AA==</InlineBinary><Value>1</Value>"),
        attribute("<InlineBinary>A</InlineBinary>"), attribute("<BulkData/>"),
        attribute("<PersonName/>"), attribute('<BulkData uri="x"/>', vr="SQ"),
        document('<DicomAttribute tag="00100020" vr="LO"/>' * 2),
        document('<DicomAttribute tag="00081140" vr="SQ"><Item>' * 70),
        document("<DicomAttribute/>"),
    ],
)  # fmt: skip
def test_what_is_no_native_model_is_refused(xml):
    with pytest.raises(InvalidRequest):
        from_xml(xml)


@pytest.mark.parametrize("encoding", ["shift_jis", "gb18030", "idna", "base64", "no-such"])
def test_encodings_that_expat_does_not_know_are_refused(encoding):
    with pytest.raises(InvalidRequest):
        from_xml(f'<?xml version="1.0" encoding="{encoding}"?><NativeDicomModel/>'.encode())


def test_sequences_nest_as_deep_as_in_files():
    data_set: dict[str, object] = {}
    for _ in range(MAX_DEPTH):
        data_set = {"00081140": {"vr": "SQ", "Value": [data_set]}}
    assert from_xml(to_xml(data_set)) == data_set
    deeper = to_xml({"00081140": {"vr": "SQ", "Value": [data_set]}})
    with pytest.raises(InvalidRequest, match="deeper"):
        from_xml(deeper)


def test_long_documents_are_refused():
    with pytest.raises(InvalidRequest, match="bytes"):
        from_xml(attribute("<Value>12345</Value>"), max_bytes=50)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 300))
def test_damaged_documents_never_crash(noise, at):
    whole = to_xml({"00100010": {"vr": "PN", "Value": [{"Alphabetic": "A^B"}]}})
    try:
        from_xml(whole[:at] + noise + whole[at:])
    except InvalidRequest as e:
        reason = str(e)
        assert reason


def test_numbers_are_text_that_keeps_their_value():
    values = [1.0, 0.1, 1e300, -0.0, 1e-7, 123456789012345680.0]
    back = from_xml(to_xml({"00720074": {"vr": "FD", "Value": values}}))["00720074"]["Value"]
    assert all(isclose(a, b, rel_tol=0) for a, b in zip(values, back, strict=True))
    assert b">1</Value>" in to_xml({"00720074": {"vr": "FD", "Value": values}})
