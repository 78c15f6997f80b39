"""Reports as pages and as text: every value type, escaped; links; order; real documents."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wado.dicom.describe import describe
from wado.dicom.report import (
    Reference,
    code,
    date,
    date_time,
    is_report,
    person,
    read_report,
    time,
)
from wado.dicom.report_page import to_html, to_text

Json = dict[str, Any]


def sequence(*items: Json) -> Json:
    return {"vr": "SQ", "Value": list(items)}


def coded(meaning: str, value: str = "1", scheme: str = "99T") -> Json:
    return {
        "00080100": {"vr": "SH", "Value": [value]},
        "00080102": {"vr": "SH", "Value": [scheme]},
        "00080104": {"vr": "LO", "Value": [meaning]},
    }


def item(value_type: str, name: str, *children: Json, **elements: Json) -> Json:
    made: Json = {
        "0040A010": {"vr": "CS", "Value": ["CONTAINS"]},
        "0040A040": {"vr": "CS", "Value": [value_type]},
        "0040A043": sequence(coded(name)),
        **{tag.removeprefix("t"): value for tag, value in elements.items()},
    }
    if children:
        made["0040A730"] = sequence(*children)
    return made


def text(name: str, value: str, *children: Json) -> Json:
    return item("TEXT", name, *children, t0040A160={"vr": "UT", "Value": [value]})


def sop(uid: str, **elements: Json) -> Json:
    return {
        "00081150": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
        "00081155": {"vr": "UI", "Value": [uid]},
        **{tag.removeprefix("t"): value for tag, value in elements.items()},
    }


def report(*children: Json, **elements: Json) -> Json:
    return {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane^^Dr"}]},
        "00080020": {"vr": "DA", "Value": ["20240229"]},
        "0040A491": {"vr": "CS", "Value": ["COMPLETE"]},
        **item("CONTAINER", "Findings", *children, **elements),
    }


def link(reference: Reference) -> str:
    return f"/at?s={reference.study_instance_uid}&f={reference.frames}"


def number(value: float, unit: str, scheme: str = "UCUM") -> Json:
    measured = {
        "0040A30A": {"vr": "DS", "Value": [value]},
        "004008EA": sequence(coded("its meaning", unit, scheme)),
    }
    return item("NUM", "Length", t0040A300=sequence(measured))


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (text("Finding", "a\r\nb"), "Finding: a\n  b"),
        (number(1.5, "mm"), "Length: 1.5 mm"),
        (number(3.0, "1"), "Length: 3"),
        (number(3.0, "{beats}"), "Length: 3 its meaning"),
        (number(3.0, "x", "99T"), "Length: 3 its meaning"),
        (item("NUM", "Length", t0040A301=sequence(coded("Not a number"))), "Length: Not a number"),
        (item("CODE", "Site", t0040A168=sequence(coded("Liver"))), "Site: Liver"),
        (item("DATE", "On", t0040A121={"vr": "DA", "Value": ["20240229"]}), "On: 2024-02-29"),
        (item("TIME", "At", t0040A122={"vr": "TM", "Value": ["101112.5"]}), "At: 10:11:12"),
        (
            item("DATETIME", "At", t0040A120={"vr": "DT", "Value": ["20240229101112+0200"]}),
            "At: 2024-02-29 10:11:12 +02:00",
        ),
        (
            item("PNAME", "By", t0040A123={"vr": "PN", "Value": [{"Alphabetic": "A^B"}]}),
            "By: A, B",
        ),
        (item("UIDREF", "Id", t0040A124={"vr": "UI", "Value": ["1.2"]}), "Id: 1.2"),
        (item("COMPOSITE", "Is", t00081199=sequence(sop("1.9"))), "Is: object 1.9"),
        (
            item(
                "IMAGE",
                "Seen",
                t00081199=sequence(sop("1.9", t00081160={"vr": "IS", "Value": [2, 5]})),
            ),
            "Seen: image 1.9 frame 2, 5",
        ),
        (
            item(
                "WAVEFORM",
                "Lead",
                t00081199=sequence(sop("1.9", t0040A0B0={"vr": "US", "Value": [1, 2]})),
            ),
            "Lead: channels 1, 2; object 1.9",
        ),
        (
            item(
                "SCOORD",
                "Region",
                t00700023={"vr": "CS", "Value": ["POINT"]},
                t00700022={"vr": "FL", "Value": [1.5, 2.0]},
            ),
            "Region: point (1.5, 2)",
        ),
        (
            item(
                "TCOORD",
                "When",
                t0040A130={"vr": "CS", "Value": ["POINT"]},
                t0040A132={"vr": "UL", "Value": [7]},
            ),
            "When: point, samples 7",
        ),
        ({"0040DB73": {"vr": "UL", "Value": [1, 3]}}, "see 1.3"),
    ],
)
def test_each_value_type_is_written(node: Json, expected: str):
    assert expected in to_text(read_report(report(node)))


def test_the_header_names_patient_and_document():
    written = to_text(read_report(report()))
    for line in ("Findings\n====", "Patient: Doe, Dr Jane", "Study date: 2024-02-29",
                 "Completion: Complete"):  # fmt: skip
        assert line in written


def test_items_keep_their_order_and_nesting():
    tree = report(
        text("A", "1", text("B", "2")), item("CONTAINER", "C", text("D", "4")), text("E", "5")
    )
    written = to_text(read_report(tree))
    at = [written.index(x) for x in ("A: 1", "  B: 2", "C:", "  D: 4", "E: 5")]
    assert at == sorted(at)


def test_a_continuous_container_is_running_text():
    tree = report(
        item("CONTAINER", "Text", text("a", "A mass of"), number(3.0, "mm"), text("b", "was seen."),
             t0040A050={"vr": "CS", "Value": ["CONTINUOUS"]}),
    )  # fmt: skip
    assert "A mass of 3 mm was seen." in to_text(read_report(tree))
    page = to_html(read_report(tree), link, "1.2")
    assert page.index("A mass of") < page.index("3 mm") < page.index("was seen.")
    assert "<li" not in page


def test_references_lead_to_where_the_evidence_says_that_they_are():
    evidence = {
        "0020000D": {"vr": "UI", "Value": ["1.5"]},
        "00081115": sequence(
            {"0020000E": {"vr": "UI", "Value": ["1.6"]}, "00081199": sequence(sop("1.7"))}
        ),
    }
    frames = {"vr": "IS", "Value": [4]}
    known = item("IMAGE", "Key", t00081199=sequence(sop("1.7", t00081160=frames)))
    unknown = item("IMAGE", "Other", t00081199=sequence(sop("1.8")))
    seen = []

    def note(reference: Reference) -> str:
        seen.append(reference)
        return link(reference) if reference.study_instance_uid else ""

    page = to_html(read_report(report(known, unknown, t0040A375=sequence(evidence))), note, "1.2")
    assert [(r.study_instance_uid, r.series_instance_uid, r.frames) for r in seen] == [
        ("1.5", "1.6", (4,)),
        ("", "", ()),
    ]
    assert '<a href="/at?s=1.5&amp;f=(4,)"><img' in page
    assert page.count("<a ") == 1


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not [name for name, _ in attrs if name.startswith("on")]
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


_OURS = {"html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "table", "tr",
         "th", "td", "section", "ul", "li", "span", "a", "img", "footer", "p"}  # fmt: skip
_HOSTILE = "</title></style><script>alert(1)</script><img onerror=x src=y>\"'&amp;"


def test_nothing_of_a_data_set_becomes_markup():
    tree = report(
        text(_HOSTILE, _HOSTILE, item("CODE", _HOSTILE, t0040A168=sequence(coded(_HOSTILE)))),
        item("CONTAINER", _HOSTILE, text("a", _HOSTILE), t0040A050={"vr": "CS",
             "Value": ["CONTINUOUS"]}),
        item("IMAGE", "x", t00081199=sequence(sop(_HOSTILE))),
        {"0040DB73": {"vr": "UL", "Value": [_HOSTILE]}},
        t0008103E={"vr": "LO", "Value": [_HOSTILE]},
    )  # fmt: skip
    tree["00100020"] = {"vr": "LO", "Value": [_HOSTILE]}
    page = Tags()
    page.feed(to_html(read_report(tree), lambda _: _HOSTILE, _HOSTILE))
    assert page.tags <= _OURS
    assert _HOSTILE in page.text


def test_what_is_deep_or_empty_is_written_too():
    node = text("deepest", "bottom")
    for _ in range(60):
        node = item("CONTAINER", "down", node)
    for tree in (report(node), {"0040A730": {"vr": "SQ"}}, {"0040A730": sequence({}, {})}):
        assert is_report(tree)
        assert to_html(read_report(tree), link, "").startswith("<!doctype html>")
    assert "deepest: bottom" in to_text(read_report(report(node)))


_values = st.none() | st.integers() | st.floats() | st.text(max_size=9) | st.dictionaries(
    st.sampled_from(["Alphabetic", "Ideographic"]), st.text(max_size=9)
)  # fmt: skip


@given(
    st.sampled_from(["NUM", "CODE", "SCOORD", "TCOORD", "TEXT", "PNAME", "DATETIME", "IMAGE"]),
    st.dictionaries(
        st.sampled_from(["0040A160", "0040A123", "0040A120", "00700022", "0040A132", "0040A010"]),
        st.fixed_dictionaries(
            {"vr": st.sampled_from(["PN", "DT", "FL", "UT"])},
            optional={"Value": st.lists(_values, max_size=3)},
        ),
    ),
)
def test_any_value_is_written_somehow(value_type: str, elements: Json):
    tree = report(item(value_type, "any", **elements))
    to_text(read_report(tree))
    to_html(read_report(tree), link, "")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (date("20240229"), "2024-02-29"), (date("2024.02.29"), "2024.02.29"), (date(""), ""),
        (time("10"), "10"), (time("101112.25"), "10:11:12"), (time("1:2"), "1:2"),
        (date_time("20240229"), "2024-02-29"),
        (date_time("20240229101112-0500"), "2024-02-29 10:11:12 -05:00"),
        (person({"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎"}),
         "Yamada, Tarou (山田, 太郎)"),
        (person({}), ""), (person({"Alphabetic": "^^^"}), ""),
        (code({"00080119": {"vr": "UC", "Value": ["long"]}}), "long"), (code({}), ""),
    ],
)  # fmt: skip
def test_values_as_people_write_them(made: str, expected: str):
    assert made == expected


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nonimage/pydicom__test-SR.dcm", ["Verified by: Riesmeier, Jörg", "&%$§"]),
        ("nonimage/highdicom__sr_document.dcm", ["Area of defined region: 1.7 cm2"]),
        ("nonimage/dcmqi__sr.dcm", ["Procedure reported: PET whole body"]),
    ],
)
def test_real_reports(corpus: Path, name: str, says: list[str]):
    data = (corpus / name).read_bytes()
    metadata = describe(lambda at, length: data[at : at + length], len(data)).metadata
    assert is_report(metadata)
    written = to_text(read_report(metadata))
    assert all(words in written for words in says)
    page = Tags()
    page.feed(to_html(read_report(metadata), link, "1.2"))
    assert page.tags <= _OURS | {"h3", "h4", "h5", "h6"}
