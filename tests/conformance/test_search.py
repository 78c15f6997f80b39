"""Search (PS3.18 §10.6) over HTTP, in tenants of its own."""

import gzip
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from pydicom.dataset import Dataset
from pydicom.uid import UID

import synthetic
from dicomweb_site import parts_of
from searched import Searched
from service import RunningArchive, wait_until
from serving import serving
from wado.archive import instance_search

pytestmark = pytest.mark.filterwarnings("ignore")

TENANT = "search-tests"
STUDY, SERIES = "2.25.710", "2.25.710.1"
_FRAMES = "multipart/related; type=application/octet-stream; transfer-syntax=*"
_OTHER_STUDIES = 3


def _dressed(number: int, **common: Any) -> list[Dataset]:
    """Make a series that has a value for each key of PS3.18 Table 10.6.1-5."""
    series = synthetic.ct_series(2, **common)
    for at, ds in enumerate(series, start=1):
        ds.SpecificCharacterSet = "ISO_IR 192"
        study = f"2.25.71{number}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = UID(study), UID(f"{study}.1")
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(f"{study}.1.{at}")
        ds.StudyDate, ds.StudyTime = f"2024010{1 + number}", f"1{number}3000"
        ds.AccessionNumber, ds.StudyID = "" if number == 2 else f"ACC{number}", f"ID{number}"
        if number == 3:
            ds.TimezoneOffsetFromUTC = "-0500"
        ds.ReferringPhysicianName = f"Refer{number}^Rita"
        ds.PatientName, ds.PatientID = f"Such{number}^Ädäm", f"PID{number}"
        ds.Modality, ds.SeriesNumber = ("CT", "MR", "PT", "US")[number], number + 40
        ds.PerformedProcedureStepStartDate = f"2024020{1 + number}"
        ds.PerformedProcedureStepStartTime = f"0{number}1500"
        request = Dataset()
        request.ScheduledProcedureStepID, request.RequestedProcedureID = f"S{number}", f"R{number}"
        ds.RequestAttributesSequence = [request]
        ds.InstanceNumber = number * 10 + at
    return series


@pytest.fixture(scope="module")
def searched(running: RunningArchive) -> Searched:
    searched = Searched(running.dicomweb, TENANT)
    for number in range(1 + _OTHER_STUDIES):
        for ds in _dressed(number):
            assert searched.store(synthetic.part10(ds)) == 200
    expected = 2 * (1 + _OTHER_STUDIES)
    wait_until(
        lambda: len(searched.rows("instances")) == expected, timeout_s=120, reason="catalogued"
    )
    return searched


# ------------------------------------------------------------------ matching

_KEYS = {
    "study": [
        ("StudyDate", "00080020", "20240101"), ("StudyTime", "00080030", "103000"),
        ("AccessionNumber", "00080050", "ACC0"), ("ModalitiesInStudy", "00080061", "CT"),
        ("ReferringPhysicianName", "00080090", "Refer0^Rita"),
        ("PatientName", "00100010", "Such0^Ädäm"), ("PatientID", "00100020", "PID0"),
        ("StudyInstanceUID", "0020000D", STUDY), ("StudyID", "00200010", "ID0"),
    ],
    "series": [
        ("Modality", "00080060", "CT"), ("SeriesInstanceUID", "0020000E", SERIES),
        ("SeriesNumber", "00200011", "40"),
        ("PerformedProcedureStepStartDate", "00400244", "20240201"),
        ("PerformedProcedureStepStartTime", "00400245", "001500"),
        ("RequestAttributesSequence.ScheduledProcedureStepID", "00400275.00400009", "S0"),
        ("RequestAttributesSequence.RequestedProcedureID", "00400275.00401001", "R0"),
    ],
    "instance": [
        ("SOPClassUID", "00080016", "1.2.840.10008.5.1.4.1.1.2"),
        ("SOPInstanceUID", "00080018", f"{SERIES}.1"), ("InstanceNumber", "00200013", "1"),
    ],
}  # fmt: skip
_RESOURCES = {
    "studies": ("study", "series"),
    "series": ("study", "series"),
    f"studies/{STUDY}/series": ("series",),
    "instances": ("study", "series", "instance"),
    f"studies/{STUDY}/instances": ("series", "instance"),
    f"studies/{STUDY}/series/{SERIES}/instances": ("instance",),
}


@pytest.mark.ps318(
    "search-studies",
    "search-series-of-study",
    "search-instances-of-study",
    "search-series",
    "search-instances-of-series",
    "search-instances",
    "match-names",
    "match-study-keys",
    "match-series-keys",
    "match-instance-keys",
    "search-204",
)
@pytest.mark.parametrize("path", _RESOURCES)
def test_every_key_at_every_resource(searched: Searched, path: str):
    for level in _RESOURCES[path]:
        for keyword, tag, value in _KEYS[level]:
            for name in (keyword, tag, tag.lower()):
                found = searched.found(f"{path}?{name}={quote(value)}")
                if keyword != "SOPClassUID":
                    assert set(found) == {STUDY}, (path, name)
                assert found, (path, name)
            wrong = "1.2.3" if value[0] in "12" and "UID" in keyword else "19000101"
            wrong = {"StudyTime": "0001", "InstanceNumber": "999"}.get(keyword, wrong)
            wrong = "2359" if keyword.endswith("StartTime") else wrong
            assert searched.get(f"{path}?{keyword}={wrong}").status_code == 204, keyword


@pytest.mark.ps318(
    "match-wildcards",
    "match-ranges",
    "match-date-time",
    "match-uid-list",
    "match-timezone",
    "fuzzymatching",
    "emptyvaluematching",
    "multiplevaluematching",
)
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("PatientName=such*", {0, 1, 2, 3}),
        ("PatientName=SUCH1^ADAM", {1}),
        ("PatientName=Such%3F^*", {0, 1, 2, 3}),
        ("PatientID=pid1", set()),
        ("PatientID=%20PID1%20", {1}),
        ("PatientID=PID1%5CPID2", {1, 2}),
        ("PatientID=PID1,PID2&multiplevaluematching=true", {1, 2}),
        (f"StudyInstanceUID={STUDY}%2C2.25.712", {0, 2}),
        (f"StudyInstanceUID={STUDY}%5C2.25.712", {0, 2}),
        ("ModalitiesInStudy=CT%2CPT", {0, 2}),
        ("ModalitiesInStudy=CT%5CPT&multiplevaluematching=true", set()),
        ("StudyDate=20240102-20240103", {1, 2}),
        ("StudyDate=20240103-", {2, 3}),
        ("StudyDate=-20240102", {0, 1}),
        ("StudyDate=20240102-20240104&StudyTime=1230-1230", {2}),
        ("StudyDate=20240102-20240104&StudyTime=1131-1229", {2}),
        ("StudyDate=20240102-20240103&StudyTime=1131-1229", set()),
        ("StudyDate=20240101-20240103&StudyTime=1031-1230", {1, 2}),
        ("StudyTime=11-12", {1, 2}),
        ("SeriesNumber=041", {1}),
        ("AccessionNumber=%22%22&emptyvaluematching=true", {2}),
        ("AccessionNumber=&emptyvaluematching=true", {2}),
        ("AccessionNumber=", {0, 1, 2, 3}),
        ("PatientID=%22%22&emptyvaluematching=true", set()),
        ("StudyDate=20240105&TimezoneOffsetFromUTC=%2B1400", {3}),
        ("StudyDate=20240104&TimezoneOffsetFromUTC=+1400", set()),
        ("StudyDate=20240103-20240104&StudyTime=1920-1940&00080201=%2B0100", {3}),
        ("StudyDate=20240104&StudyTime=1920-1940&00080201=%2B0100", {3}),
        ("StudyDate=20240104&StudyTime=1320-1340&00080201=%2B0100", set()),
        ("PatientName=adam&fuzzymatching=true", {0, 1, 2, 3}),
        ("PatientName=adam%20such2&fuzzymatching=true", {2}),
        ("foo=bar&_=1&PatientID=PID3", {3}),
        ("PatientID=*", {0, 1, 2, 3}),
        ("PatientID=", {0, 1, 2, 3}),
    ],
)
def test_matching(searched: Searched, query: str, expected: set[int]):
    found = searched.found(f"studies?{query}")
    assert sorted(found) == sorted(f"2.25.71{number}" for number in expected)


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("Rows=16", 8),
        ("ImageType=AXIAL&InstanceNumber=1", 1),
        ("RequestAttributesSequence.RequestedProcedureID=R2", 2),
        ("SOPInstanceUID=2.25.711.1.2,2.25.713.1.1", 2),
        ("00280010=17", 0),
    ],
)
def test_attributes_of_instances(searched: Searched, query: str, count: int):
    assert len(searched.rows(f"instances?{query}")) == count


@pytest.mark.ps318(
    "search-400",
)
@pytest.mark.parametrize(
    "query",
    [
        "StudyDate=yesterday", "StudyDate=2024", "StudyTime=2500", "StudyInstanceUID=1..2",
        "limit=-1", "limit=ten", "offset=-1", "offset=1.5", "limit=", "fuzzymatching=maybe",
        "emptyvaluematching=2", "multiplevaluematching=x", "orderby=Nonsense",
        "TimezoneOffsetFromUTC=CET", "PatientName=%FF", "SeriesNumber=one",
    ],
)  # fmt: skip
def test_wrong_values_are_400(searched: Searched, query: str):
    answer = searched.get(f"studies?{query}")
    assert answer.status_code == 400
    assert answer.json()["reason"]


@pytest.mark.ps318("search-413")
def test_what_would_read_too_much_is_413(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(instance_search, "_SERIES_PAGE", 1)
    monkeypatch.setattr(instance_search, "_MAX_SERIES", 2)
    with serving(tmp_path / "data") as url:
        few = Searched(f"{url}/dicomweb", TENANT)
        for number in range(3):
            assert few.store(synthetic.part10(_dressed(number)[0])) == 200
        wait_until(lambda: len(few.rows("studies")) == 3, timeout_s=120, reason="catalogued")
        answer = few.get("instances?InstanceNumber=77")
        assert answer.status_code == 413
        assert "name the study" in answer.json()["reason"]
        assert few.get(f"studies/{STUDY}/instances?InstanceNumber=77").status_code == 204


# ------------------------------------------------------------------ results and pages

_STUDY_TAGS = {
    "00080020", "00080030", "00080050", "00080056", "00080061", "00080090", "00081190", "00100010",
    "00100020", "00100030", "00100040", "0020000D", "00200010", "00201206", "00201208",
}  # fmt: skip
_SERIES_TAGS = {
    "00080060", "00081190", "0020000D", "0020000E", "00200011", "00201209", "00400244", "00400245",
    "00400275", "00080056",
}  # fmt: skip
_INSTANCE_TAGS = {
    "00080016", "00080018", "00080056", "00081190", "0020000D", "0020000E", "00200013", "00280010",
    "00280011", "00280100", "00083002",
}  # fmt: skip


@pytest.mark.ps318(
    "search-return-study",
    "search-return-series",
    "search-return-instance",
    "search-json",
)
@pytest.mark.parametrize(
    ("path", "tags"),
    [
        ("studies", _STUDY_TAGS),
        ("series", _SERIES_TAGS | _STUDY_TAGS),
        (f"studies/{STUDY}/series", _SERIES_TAGS),
        ("instances", _INSTANCE_TAGS | _SERIES_TAGS | _STUDY_TAGS),
        (f"studies/{STUDY}/instances", _INSTANCE_TAGS | _SERIES_TAGS),
        (f"studies/{STUDY}/series/{SERIES}/instances", _INSTANCE_TAGS),
    ],
)
def test_required_attributes(searched: Searched, path: str, tags: set[str]):
    for row in searched.rows(path):
        assert tags <= row.keys(), tags - row.keys()
        assert list(row) == sorted(row)
        for item in row.values():
            assert "vr" in item
    request = searched.rows(f"studies/{STUDY}/series")[0]["00400275"]["Value"]
    assert request == [
        {"00400009": {"vr": "SH", "Value": ["S0"]}, "00401001": {"vr": "SH", "Value": ["R0"]}}
    ]


@pytest.mark.ps318(
    "includefield",
)
@pytest.mark.parametrize("form", ["{0}&includefield={1}", "{0},{1}", "{0}%2C{1}", "{0}, {1}"])
@pytest.mark.parametrize("names", [("PixelSpacing", "ImageType"), ("00280030", "00080008")])
def test_included_fields(searched: Searched, form: str, names: tuple[str, str]):
    path = f"studies/{STUDY}/instances?includefield=" + form.format(*names)
    for row in searched.rows(path):
        assert {"00280030", "00080008"} <= row.keys()
        assert "00200032" not in row


@pytest.mark.ps318(
    "includefield",
)
def test_included_fields_of_other_kinds(searched: Searched):
    path = f"studies/{STUDY}/series/{SERIES}/instances?includefield="
    assert "00400275" in searched.rows(path + "00400275.00400009")[0]
    assert "7FE00010" in searched.rows(path + "all")[0]
    answer = searched.get("studies?includefield=Nonsense,SliceThickness,00080061")
    assert answer.headers["warning"].count("299 wado") == 2
    assert "00180050" not in answer.json()[0]


def test_bulk_data_of_all_fields_can_be_had(searched: Searched):
    row = searched.rows("instances?SOPInstanceUID=2.25.710.1.1&includefield=all")[0]
    uri = row["7FE00010"]["BulkDataURI"]
    assert requests.get(uri, headers=searched.headers, timeout=60).status_code == 200


@pytest.mark.ps318(
    "paging",
    "search-more",
)
def test_pages(searched: Searched):
    for resource in ("studies", "series", "instances"):
        tag = (
            "00080018"
            if resource == "instances"
            else "0020000E"
            if resource == "series"
            else "0020000D"
        )
        everything = searched.found(resource, tag)
        assert len(set(everything)) == len(everything)
        for size in (1, 3):
            pages = [
                searched.found(f"{resource}?limit={size}&offset={at}", tag)
                for at in range(0, len(everything) + size, size)
            ]
            assert [uid for page in pages for uid in page] == everything
    answer = searched.get("studies?limit=2")
    assert "additional results that can be requested" in answer.headers["warning"]
    assert "warning" not in searched.get("studies?limit=4").headers
    assert searched.get("studies?limit=0").status_code == 204
    assert searched.get("studies?offset=99").status_code == 204
    assert searched.get("studies?limit=100000").status_code == 200


@pytest.mark.ps318(
    "orderby",
)
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("studies?orderby=StudyDate", [0, 1, 2, 3]),
        ("studies?orderby=-StudyDate", [3, 2, 1, 0]),
        ("studies?orderby=ModalitiesInStudy%20desc", [3, 2, 1, 0]),
        ("series?orderby=-SeriesNumber,PatientName", [3, 2, 1, 0]),
        ("instances?InstanceNumber=1,12,21&orderby=-InstanceNumber", [2, 1, 0]),
    ],
)
def test_order(searched: Searched, path: str, expected: list[int]):
    assert searched.found(path) == [f"2.25.71{number}" for number in expected]


# ------------------------------------------------------------------ representations


@pytest.mark.ps318(
    "client-accept-headers",
    "search-json",
)
@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("application/dicom+json", "application/dicom+json"),
        ("application/json", "application/json"),
        ("*/*", "application/dicom+json"),
        ("application/*", "application/dicom+json"),
        ("", "application/dicom+json"),
        (
            f"application/dicom+json, {_FRAMES}",
            "application/dicom+json",
        ),
        ("application/dicom+json;q=0.1, application/json", "application/json"),
        (
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
            "application/dicom+json",
        ),
        ("multipart/related; type=*/*", "multipart/related"),
        ('multipart/related; type="application/dicom+xml"', "multipart/related"),
        ("multipart/related; type=application/dicom+xml", "multipart/related"),
    ],
)
def test_accepted(searched: Searched, accept: str, media_type: str):
    answer = searched.get("studies", accept=accept)
    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] == media_type


@pytest.mark.ps318(
    "not-acceptable",
)
@pytest.mark.parametrize(
    "accept",
    [
        "image/jpeg", _FRAMES,
        "video/mp4", "application/pdf", 'multipart/related; type="image/jls"',
    ],
)  # fmt: skip
def test_not_acceptable(searched: Searched, accept: str):
    assert searched.get("studies", accept=accept).status_code == 406


@pytest.mark.ps318(
    "accept-parameter",
)
def test_accept_parameter(searched: Searched):
    answer = searched.get("studies?accept=application/dicom%2Bjson", accept="image/jpeg")
    assert answer.headers["content-type"] == "application/dicom+json"


@pytest.mark.ps318(
    "search-xml",
)
@pytest.mark.parametrize("resource", ["studies", "series", "instances"])
def test_xml_says_what_json_says(searched: Searched, resource: str):
    rows = searched.rows(resource)
    answer = searched.get(resource, accept='multipart/related; type="application/dicom+xml"')
    parts = parts_of(answer)
    assert {kind for kind, _ in parts} == {"application/dicom+xml"}
    assert len(parts) == len(rows)
    for row, (_, document) in zip(rows, parts, strict=True):
        tags = {node.attrib["tag"] for node in ET.fromstring(document) if "tag" in node.attrib}
        assert tags == row.keys()
        assert row["0020000D"]["Value"][0] in document.decode()


def test_large_answers_are_packed(searched: Searched):
    url = f"{searched.base}/instances?includefield=all"
    headers = {**searched.headers, "accept-encoding": "gzip"}
    packed = requests.get(url, headers=headers, timeout=60, stream=True)
    assert packed.headers["content-encoding"] == "gzip"
    assert "accept-encoding" in packed.headers["vary"]
    data = packed.raw.read()
    headers["accept-encoding"] = "identity"
    plain = requests.get(url, headers=headers, timeout=60)
    assert "content-encoding" not in plain.headers
    assert gzip.decompress(data) == plain.content
    assert len(data) * 4 < len(plain.content)
