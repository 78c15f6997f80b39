"""Store of PS3.18 §10.5 by HTTP: what is stored is read back by pydicom and compared."""

import http.client
import io
import json
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import real
import stow
from service import RunningArchive
from synthetic import ct, instance, multi_frame, part10, structured_report

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="session")
def client(running: RunningArchive) -> stow.Client:
    return stow.Client(running.dicomweb, "stow")


# ------------------------------------------------------------------ instances


@pytest.mark.ps318("store-studies", "store-dicom", "store-content-length", "store-200",
                   "store-referenced", "store-response-json", "store-then-search")  # fmt: skip
def test_another_client_stores_and_finds_at_once(running: RunningArchive):
    made = [part10(ct(study=("client", n))) for n in range(3)]
    files = [pydicom.dcmread(io.BytesIO(data)) for data in made]
    client = DICOMwebClient(running.dicomweb, headers={"x-tenant": "stow"})
    answer = client.store_instances(files)
    assert {item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence} == {
        ds.SOPInstanceUID for ds in files
    }
    for ds in files:
        assert client.search_for_instances(ds.StudyInstanceUID)[0]["00080018"]["Value"] == [
            ds.SOPInstanceUID
        ]


@pytest.mark.ps318("store-referenced", "store-200", "store-response-json", "store-study")
@pytest.mark.parametrize("of_the_study", [False, True])
def test_the_answer_says_where_each_instance_is(client: stow.Client, of_the_study: bool):
    files = [ct(study=("named", of_the_study), series=n) for n in range(2)]
    study = f"/studies/{files[0].StudyInstanceUID}"
    parts = [({"Content-Type": "application/dicom"}, part10(ds)) for ds in files]
    path = study.removeprefix("/studies") if of_the_study else ""
    answer = client.store(*parts, kind="application/dicom", study=path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == stow.DICOM_JSON
    module = answer.json()
    assert module["00081190"]["Value"] == [f"{client.base}{study}"]
    assert "00081198" not in module
    items = {item["00081155"]["Value"][0]: item for item in module["00081199"]["Value"]}
    assert len(items) == 2
    for ds in files:
        item = items[ds.SOPInstanceUID]
        assert item["00081150"]["Value"] == [ds.SOPClassUID]
        (url,) = item["00081190"]["Value"]
        series = f"{client.base}{study}/series/{ds.SeriesInstanceUID}"
        assert url == f"{series}/instances/{ds.SOPInstanceUID}"
        assert client.session.get(url).status_code == 200


@pytest.mark.ps318("store-chunked", "store-study")
@pytest.mark.parametrize("kind", ["application/dicom", stow.content_type("application/dicom")])
def test_chunked_bodies_and_the_study_of_the_path(client: stow.Client, kind: str):
    ds = ct(study=("chunked", kind))
    data = part10(ds)
    body = stow.message([({"Content-Type": "application/dicom"}, data)])
    body = body if kind.startswith("multipart") else data
    pieces = (body[i : i + 777] for i in range(0, len(body), 777))
    answer = client.post(pieces, kind, study=f"/{ds.StudyInstanceUID}")
    assert answer.status_code == 200
    assert answer.json()["00081190"]["Value"] == [f"{client.base}/studies/{ds.StudyInstanceUID}"]
    assert client.fetch(ds) == pydicom.dcmread(io.BytesIO(data))


@pytest.mark.ps318("store-other-study", "store-failed", "store-202")
def test_an_instance_of_another_study_fails_alone(client: stow.Client):
    right, wrong = ct(study="right"), ct(study="wrong")
    parts = [({"Content-Type": "application/dicom"}, part10(ds)) for ds in (right, wrong)]
    answer = client.store(*parts, kind="application/dicom", study=f"/{right.StudyInstanceUID}")
    assert answer.status_code == 202
    failed = stow.only(answer, "00081198")
    assert failed["00081155"]["Value"] == [wrong.SOPInstanceUID]
    assert failed["00081197"]["Value"] == [0xA900]
    assert wrong.StudyInstanceUID in answer.headers["warning"]
    assert stow.only(answer, "00081199")["00081155"]["Value"] == [right.SOPInstanceUID]


@pytest.mark.ps318("store-failed", "store-409")
@pytest.mark.parametrize(
    ("data", "expected", "known"),
    [
        (part10(instance("1.2.3.4", study="unknown")), 0x0122, True),
        (part10(ct(study="cut"))[:-9], 0xC000, True),
        (b"no DICOM", 0xC000, False),
    ],
)
def test_failures_have_their_reason(client: stow.Client, data: bytes, expected: int, known: bool):
    answer = client.post(data, "application/dicom")
    assert (answer.status_code, stow.reason(answer)) == (409, expected)
    assert ("00081198" in answer.json()) is known


@pytest.mark.ps318("store-again")
def test_the_same_again_is_harmless_and_other_bytes_are_refused(client: stow.Client):
    ds = ct(study="again")
    for status in (200, 200):
        assert client.post(part10(ds), "application/dicom").status_code == status
    ds.PatientID = "OTHER"
    answer = client.post(part10(ds), "application/dicom")
    assert (answer.status_code, stow.reason(answer)) == (409, 0x0111)


@pytest.mark.ps318("store-response-xml")
def test_the_response_module_as_xml(client: stow.Client):
    ds = ct(study="xml answer")
    parts = [({"Content-Type": "application/dicom"}, data) for data in (part10(ds), b"junk")]
    answer = client.store(*parts, kind="application/dicom", Accept=stow.DICOM_XML)
    assert answer.status_code == 202
    assert answer.headers["content-type"] == stow.DICOM_XML
    name = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"
    attributes = ET.fromstring(answer.content).iter(f"{name}DicomAttribute")
    values = {a.get("keyword"): a.findtext(f"{name}Value") for a in attributes}
    assert values["ReferencedSOPInstanceUID"] == ds.SOPInstanceUID
    assert values["FailureReason"] == str(0xC000)
    assert client.post(b"", Accept="text/html").status_code == 406


@pytest.mark.parametrize(
    ("kind", "part_headers"),
    [
        ('multipart/related; type=application/dicom; boundary="{}"',
         {"Content-Type": "application/dicom"}),
        ("multipart/related; boundary={}", {}),
        ('multipart/related; type="application/octet-stream"; boundary={}',
         {"Content-Type": "application/octet-stream"}),
        ('Multipart/Related; TYPE="Application/DICOM"; boundary={}; start=x',
         {"content-type": "Application/DICOM; transfer-syntax=1.2.840.10008.1.2.1",
          "Content-Length": "12", "Content-Transfer-Encoding": "binary", "MIME-Version": "1.0"}),
    ],
)  # fmt: skip
@pytest.mark.ps318("multipart-type")
def test_what_clients_write_differently(
    client: stow.Client, kind: str, part_headers: dict[str, str]
):
    ds = ct(study=("forms", kind))
    body = b"preamble" + stow.message([(part_headers, part10(ds))]) + b"\r\nepilogue"
    answer = client.post(body, kind.format(stow.BOUNDARY), Accept="*/*")
    assert answer.status_code == 200, answer.text


def test_a_client_that_waits_for_100_continue(running: RunningArchive):
    data = part10(ct(study="continue"))
    connection = http.client.HTTPConnection("127.0.0.1", running.http_port, timeout=60)
    connection.putrequest("POST", "/dicomweb/studies")
    for name, value in (("content-type", "application/dicom"), ("expect", "100-continue"),
                        ("content-length", str(len(data))), ("x-tenant", "stow")):  # fmt: skip
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.sock.recv(100).startswith(b"HTTP/1.1 100 Continue")
    connection.send(data)
    assert connection.getresponse().status == 200
    connection.close()


# ------------------------------------------------------------------ metadata with bulk data


@pytest.mark.ps318("store-metadata-json", "store-then-search")
def test_metadata_and_bulk_data_become_the_instance(client: stow.Client):
    files = [
        multi_frame(study="bulk", patient_name="Буковски^Чарльз=井上^俊",
                    PatientName="Буковски^Чарльз=井上^俊"),
        structured_report(study="bulk", series="sr"),
        ct(study="bulk", series="ct", RescaleSlope="1.0000000000001"),
        ct(study="bulk", series="inline", rows=5, columns=5),
    ]  # fmt: skip
    models = [stow.json_of(ds, f"b{n}") for n, ds in enumerate(files)]
    answer = client.store(
        stow.metadata(*(model for model, _ in models)),
        *(part for _, parts in models for part in parts),
    )
    assert answer.status_code == 200, answer.text
    for ds in files:
        got = client.fetch(ds)
        assert got.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        if "SpecificCharacterSet" not in ds:
            got.pop("SpecificCharacterSet", None)
        assert got.to_json_dict() == {
            k: v for k, v in ds.to_json_dict().items() if not k.startswith("0002")
        }


@pytest.mark.ps318("store-metadata-json")
def test_real_files_go_in_as_metadata_and_come_back(client: stow.Client, corpus: Path):
    seen = 0
    for path in sorted((corpus / "charset").glob("*.dcm"))[::3]:
        ds = pydicom.dcmread(path)
        if not all(ds.get(key) for key in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID",
                                           "SeriesInstanceUID")):  # fmt: skip
            continue
        ds.decode()
        model, parts = stow.json_of(ds)
        answer = client.store(stow.metadata(model), *parts)
        assert answer.status_code in (200, 202), (path.name, answer.text)
        got = client.fetch(ds)
        got.pop("OriginalAttributesSequence", None)
        assert str(got.PatientName) == str(ds.PatientName), path.name
        tags = [[e.tag for e in d if e.tag.elem and e.tag != 0x00080005] for d in (got, ds)]
        assert tags[0] == tags[1], path.name
        seen += 1
    assert seen >= 5


@pytest.mark.ps318("store-metadata-xml")
def test_metadata_as_xml_of_another_toolkit(client: stow.Client, tmp_path: Path):
    real.require("dcmtk")
    ds = ct(study="xml metadata")
    (tmp_path / "in.dcm").write_bytes(part10(ds))
    document = subprocess.run(
        ["dcm2xml", "--native-format", str(tmp_path / "in.dcm")], check=True, capture_output=True
    ).stdout
    start = document.index(b'<DicomAttribute tag="7FE00010"')
    pixels = b'<DicomAttribute tag="7FE00010" vr="OW" keyword="PixelData"><BulkData uri="p"/>'
    document = document[:start] + pixels + document[document.index(b"</DicomAttribute>", start) :]
    answer = client.store(
        ({"Content-Type": stow.DICOM_XML}, document), stow.bulk("p", ds.PixelData),
        kind=stow.DICOM_XML,
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    assert client.fetch(ds) == ds


@pytest.mark.ps318("store-coercion")
def test_what_is_changed_is_recorded(client: stow.Client):
    ds = stow.bare("coerced", Rows=99, Columns=32)
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.PatientName = "Müller^Jörg"
    image = stow.as_file(stow.picture(), "JPEG")
    answer = client.wrapped(ds, image, media_type="image/jpeg")
    assert answer.status_code == 202
    assert stow.only(answer, "00081199")["00081196"]["Value"] == [0xB000]
    assert "(0028,0010) was changed" in answer.headers["warning"]
    got = client.fetch(ds)
    assert (got.Rows, got.SpecificCharacterSet, got.PatientName) == (
        24,
        "ISO_IR 192",
        ds.PatientName,
    )
    (item,) = got.OriginalAttributesSequence
    assert item.ReasonForTheAttributeModification == "COERCE"
    (original,) = item.ModifiedAttributesSequence
    assert original.Rows == 99
    assert "text is stored in UTF-8" in answer.headers["warning"]
    again = client.wrapped(ds, image, media_type="image/jpeg")
    assert again.status_code == 202, "the same again gives the same file"
    assert "00081198" not in again.json()


@pytest.mark.ps318("store-failed")
@pytest.mark.parametrize(
    ("change", "expected", "says"),
    [
        ({"7FE00010": {"vr": "OW", "BulkDataURI": "nowhere"}}, 0xC000, "Content-Location nowhere"),
        ({"00080018": {"vr": "UI"}}, 0xC000, "SOP Instance UID"),
        ({"0020000D": {"vr": "UI", "Value": ["../../x"]}}, 0xC000, "not a UID"),
        ({"00280010": {"vr": "US", "Value": ["many"]}}, 0xC000, "(0028,0010)"),
        ({"00280106": {"vr": "US", "Value": [70000]}}, 0xC000, "(0028,0106)"),
        ({"00280010": {"vr": "US", "Value": [99]}}, 0xC000, "of 512 bytes; it must be 3168"),
        ({"00280106": {"vr": "XX", "Value": [99]}}, 0xC000, "XX"),
        ({"00280010": 7}, 0xC000, "(0028,0010)"),
        ({"nonsense": {}}, 0xC000, "nonsense"),
        ({"00420011": {"vr": "OB", "InlineBinary": "?"}}, 0xC000, "base64"),
        ({"00081140": {"vr": "SQ", "Value": [7]}}, 0xC000, "not an object"),
        ({"FFFEE000": {"vr": "SQ"}}, 0xC000, "can't stand"),
        ({"00080016": {"vr": "UI", "Value": ["1.2.3"]}}, 0x0122, "1.2.3"),
    ],
)  # fmt: skip
def test_metadata_that_can_not_be_stored(
    client: stow.Client, change: dict[str, Any], expected: int, says: str
):
    good, bad = (instance(stow.SECONDARY_CAPTURE, study=("bad", says, n)) for n in (1, 2))
    for keyword, value in (("Rows", 16), ("Columns", 16), ("BitsAllocated", 16), ("BitsStored", 16),
                           ("HighBit", 15), ("SamplesPerPixel", 1), ("PixelRepresentation", 0),
                           ("PhotometricInterpretation", "MONOCHROME2")):  # fmt: skip
        setattr(bad, keyword, value)
    del bad.file_meta
    model = {**stow.described(bad), **change}
    answer = client.store(
        stow.metadata(stow.json_of(good)[0], model), stow.bulk("pixels", bytes(512))
    )
    assert answer.status_code == 202, answer.text
    assert stow.only(answer, "00081199")["00081155"]["Value"] == [good.SOPInstanceUID]
    assert stow.reason(answer) == expected
    assert says in answer.headers["warning"]


def test_metadata_alone_as_the_body(client: stow.Client):
    ds = structured_report(study="alone")
    model, parts = stow.json_of(ds)
    assert not parts
    answer = client.post(json.dumps(model), stow.DICOM_JSON)
    assert answer.status_code == 200, answer.text
    assert client.fetch(ds).ContentSequence == ds.ContentSequence


def test_bulk_data_that_nobody_names_is_told(client: stow.Client):
    ds = instance(stow.SECONDARY_CAPTURE, study="unused")
    answer = client.store(stow.metadata(stow.json_of(ds)[0]), stow.bulk("lost", b"x"))
    assert answer.status_code == 200
    assert "lost" in answer.headers["warning"]


@pytest.mark.ps318("store-400", "store-413", "store-415", "unsupported-media-type")
@pytest.mark.parametrize(
    ("kind", "body", "status", "says"),
    [
        (stow.content_type(), stow.message([({"Content-Type": stow.DICOM_JSON}, b"[{")]),
         400, "not JSON"),
        (stow.content_type(stow.DICOM_XML),
         stow.message([({"Content-Type": stow.DICOM_XML}, b"<!DOCTYPE a [<!ENTITY b 'c'>]><a/>")]),
         400, ""),
        (stow.content_type(), stow.message([({"Content-Type": stow.DICOM_JSON}, b"[]")]), 400,
         "no instances"),
        (stow.content_type(), stow.message([stow.bulk("x", b"y")]), 400, "no instances"),
        (stow.content_type(), stow.message([({"Content-Type": "?"}, b"y")]), 400, "media type"),
        (stow.content_type(), stow.message([({"Content-Type": stow.DICOM_JSON}, b"[" * 5000)]),
         400, "not JSON"),
        (stow.content_type(), stow.message([({"Content-Type": stow.DICOM_JSON}, bytes(40 << 20))]),
         413, "part of metadata"),
        (stow.content_type(),
         stow.message([({"Content-Type": stow.DICOM_JSON}, b"[" + b"{}," * 2_100_000 + b"{}]")]),
         413, "objects and arrays"),
        ("application/pdf", b"%PDF-1.4", 415, "first the metadata"),
        ("image/jpeg", b"\xff\xd8", 415, "first the metadata"),
        ("application/zip", b"PK", 415, "application/dicom"),
        (stow.content_type("image/jpeg"), b"", 415, "first the metadata"),
        ("", b"", 415, ""),
    ],
)  # fmt: skip
def test_bodies_that_are_refused_whole(
    client: stow.Client, kind: str, body: bytes, status: int, says: str
):
    answer = client.post(body, kind) if kind else client.session.post(f"{client.base}/studies")
    assert answer.status_code == status, answer.text
    assert says in answer.text + answer.headers.get("warning", "")


# ------------------------------------------------------------------ anything at all

_FRAGMENTS = st.sampled_from(
    [
        f"--{stow.BOUNDARY}\r\n".encode(), f"--{stow.BOUNDARY}--".encode(), b"\r\n", b"\r\n\r\n",
        b"Content-Type: application/dicom+json\r\n\r\n", b"Content-Location: x\r\n",
        b"Content-Type: application/dicom\r\n\r\n", b"Content-Type: image/png\r\n",
        b"Content-Type: application/dicom+xml\r\n\r\n", b'[{"00080018":{"vr":"UI"}}]', b"<a/>",
        b'[{"7FE00010":{"BulkDataURI":"x"}}]', b"[null,7]", b"\xff\x00",
    ]
)  # fmt: skip


@pytest.mark.ps318("never-5xx", "store-400")
@settings(
    max_examples=60, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(st.lists(_FRAGMENTS, max_size=12).map(b"".join), st.sampled_from(
    [stow.content_type(), stow.content_type("application/dicom"), stow.content_type(stow.DICOM_XML)]
))  # fmt: skip
def test_no_body_is_an_error_of_ours(client: stow.Client, body: bytes, kind: str):
    answer = client.post(body, kind)
    assert answer.status_code in (400, 409, 413, 415), (answer.status_code, answer.text)
    json.loads(answer.text)
