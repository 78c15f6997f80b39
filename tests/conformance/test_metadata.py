"""Metadata of PS3.18 §10.4.1.1.2, by HTTP: what is in the files, in each form, at each level."""

import gzip
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from same_metadata import bulk_resolved, comparable_items, same_values, words_turned_round
from service import RunningArchive, wait_until
from synthetic import ct_series, mr_series, structured_report, uid
from tenant_site import Stored, TenantSite, parts_of
from wado.archive.paths import journal_path
from wado.dicom.uids import SeriesRef
from wado.dicom.xml_model import NAMESPACE, from_xml
from whole_corpus import Kept

NS = f"{{{NAMESPACE}}}"
JSON, XML = "application/dicom+json", 'multipart/related; type="application/dicom+xml"'
_OF_ODD_VALUES = "badVR"
"""Holds a Number of Frames that pydicom can't convert."""


@pytest.fixture(scope="module")
def site(running: RunningArchive) -> TenantSite:
    return TenantSite(running, "metadata-tests")


@pytest.fixture(scope="module")
def study(site: TenantSite) -> list[Stored]:
    """Two series of images with private and odd values, and a report."""
    images = ct_series(3, study=uid("metadata"))
    images[0].PatientName = "Doe^Jane^^Dr=\u5c71\u7530=x"
    images[0].SpecificCharacterSet = "ISO_IR 192"
    images[0].OtherPatientIDs = ["a", "", "c"]
    images[0].add_new(0x00090010, "LO", "ACME")
    images[0].add_new(0x00091001, "OB", b"\1\2")
    images[0].add_new(0x00091002, "OB", b"\3" * 5000)
    images[0].ReferencedStudySequence = [Dataset(), Dataset()]
    report = structured_report(study=uid("metadata"))
    return site.store([*images, *mr_series(2, study=uid("metadata")), report])


LEVELS = ["study_path", "series_path", "path"]


def levels(stored: Stored) -> Iterator[str]:
    return (f"{getattr(stored, level)}/metadata" for level in LEVELS)


def elements(metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for element in metadata.values():
        yield element
        if element["vr"] == "SQ":
            for item in element.get("Value", []):
                yield from elements(item)


# ------------------------------------------------------------------ content


@pytest.mark.ps318("metadata-complete", "bulk-data-uri", "metadata-instance", "metadata-json")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(900)  # a few thousand requests: a busy machine takes its time
def test_each_element_is_that_of_the_file(kept: list[Kept]):
    """Of every file, the bytes behind each BulkDataURI too."""
    fetched = 0
    for each in kept:
        if _OF_ODD_VALUES in each.path.name:
            continue

        def fetch(element: Mapping[str, Any], _: str, each: Kept = each) -> bytes:
            nonlocal fetched
            fetched += 1
            answer = each.get(element["BulkDataURI"])
            assert answer.status_code == 200, answer.text
            return answer.content

        (metadata,) = each.get("/metadata").json()
        assert metadata["00083002"]["Value"][0] == each.syntax  # then derived copies, if any
        assert not [tag for tag in metadata if tag.startswith("0002")]
        assert list(metadata) == sorted(metadata)
        theirs = each.ds.to_json_dict()
        if each.syntax == ExplicitVRBigEndian:
            theirs = words_turned_round(theirs)
        if "PixelData" in each.ds and each.ds["PixelData"].is_undefined_length:
            del metadata["7FE00010"], theirs["7FE00010"]  # its frames: see test_bulk_data.py
        ours = comparable_items(bulk_resolved(metadata, fetch), theirs=False)
        same_values(ours, comparable_items(theirs, theirs=True), each.path)
    assert fetched > 250


@pytest.mark.ps318("metadata-study", "metadata-series", "metadata-instance")
def test_levels_hold_the_same_of_each_instance(site: TenantSite, study: list[Stored]):
    of_study, of_series, _ = (site.get(path).json() for path in levels(study[0]))
    assert len(of_study) == len(study)
    assert len(of_series) == 3
    assert [item["00200013"]["Value"] for item in of_series] == [[1], [2], [3]]
    for stored in study:
        (item,) = site.get(f"{stored.path}/metadata").json()
        assert item in of_study
        assert item["00080018"]["Value"] == [stored.ds.SOPInstanceUID]


@pytest.mark.ps318("metadata-xml", "multipart-parts")
@pytest.mark.parametrize("level", LEVELS)
def test_xml_holds_what_json_holds(site: TenantSite, study: list[Stored], level: str):
    path = f"{getattr(study[0], level)}/metadata"
    answer = site.get(path, XML)
    assert answer.headers["content-type"].startswith(
        'multipart/related; type="application/dicom+xml"; boundary='
    )
    parts = parts_of(answer)
    assert [from_xml(body) for _, body in parts] == site.get(path).json()
    for headers, body in parts:
        assert headers["content-type"] == "application/dicom+xml"
        assert int(headers["content-length"]) == len(body)
        uid_of = {e.get("keyword"): e.findtext(f"{NS}Value") for e in ET.fromstring(body)}
        location = headers["content-location"]
        assert location.endswith(f"/instances/{uid_of['SOPInstanceUID']}/metadata")
        ((_, alone),) = parts_of(site.get(location, XML))
        assert alone == body


@pytest.mark.ps318("metadata-xml")
def test_one_instance_can_be_had_as_one_xml_document(site: TenantSite, study: list[Stored]):
    answer = site.get(f"{study[0].path}/metadata", "application/dicom+xml")
    assert answer.headers["content-type"] == "application/dicom+xml"
    assert [from_xml(answer.content)] == site.get(f"{study[0].path}/metadata").json()
    assert site.get(f"{study[0].series_path}/metadata", "application/dicom+xml").status_code == 406


@pytest.mark.ps318("bulk-data-uri")
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["json", "xml"])
def test_bulk_data_is_where_any_client_looks_for_it(
    site: TenantSite, study: list[Stored], level: str, kind: str
):
    """Taken as it is, as the clients do, and relative to the document (RFC 3986), too."""
    path = f"{getattr(study[0], level)}/metadata"
    if kind == "json":
        items = site.get(path).json()
    else:
        items = [from_xml(body) for _, body in parts_of(site.get(path, XML))]
    uris = [e["BulkDataURI"] for item in items for e in elements(item) if "BulkDataURI" in e]
    assert len(uris) == len({*uris})
    assert any(uri.endswith("/bulkdata/00091002") for uri in uris)
    for uri in uris:
        assert uri.startswith(f"{site.base}/studies/{study[0].ds.StudyInstanceUID}/series/")
        assert urljoin(site.base + path, uri) == uri
        assert site.get(uri, "*/*").status_code == 200


def test_bulk_data_follows_the_address_that_the_client_used(site: TenantSite, study: list[Stored]):
    for path in levels(study[0]):
        for _ in range(2):  # composed, then given again
            here = site.get(path)
            there = site.get(path, x_forwarded_proto="https", x_forwarded_host="pacs.example")
            assert f'"BulkDataURI":"{site.base}/studies/'.encode() in here.content
            moved = here.content.replace(site.base.encode(), b"https://pacs.example/dicomweb")
            assert there.content == moved
            assert there.headers["etag"] != here.headers["etag"]
            assert there.headers["content-location"] == f"https://pacs.example/dicomweb{path}"


def test_dicomweb_client_retrieves_metadata_and_their_bulk_data(
    site: TenantSite, study: list[Stored]
):
    client = DICOMwebClient(site.base, headers={"x-tenant": site.tenant_id})
    ds = study[0].ds
    series = client.retrieve_series_metadata(ds.StudyInstanceUID, ds.SeriesInstanceUID)
    assert len(client.retrieve_study_metadata(ds.StudyInstanceUID)) == len(study)
    assert len(series) == 3
    (value,) = client.retrieve_bulkdata(series[0]["00091002"]["BulkDataURI"])
    assert value == b"\3" * 5000
    first = Dataset.from_json(series[0], bulk_data_uri_handler=_fetcher(client))
    assert first.PixelData == ds.PixelData
    assert first.PatientName == ds.PatientName


def _fetcher(client: DICOMwebClient) -> Any:
    return lambda _tag, _vr, uri: bytes(client.retrieve_bulkdata(uri)[0])


def test_ready_documents_say_the_same_as_the_journals(running: RunningArchive, site: TenantSite):
    """Before and after the webworker wrote them, and after the series grew."""
    images = ct_series(4, study=uid("documents"))
    stored = site.store(images[:2])[0]
    series = SeriesRef(
        site.tenant_id, str(stored.ds.StudyInstanceUID), str(stored.ds.SeriesInstanceUID)
    )
    folder = running.root / "metadata" / site.tenant_id / series.study_instance_uid
    before = [site.get(path) for path in levels(stored)]
    document = folder / f"{series.series_instance_uid}.json"
    journal, parts = running.root / journal_path(series), Path(f"{folder}.parts")

    def is_described() -> bool:
        """Whether it is written of all of them: it may be begun as soon as the first is there."""
        if not parts.exists():
            return False
        (length,) = json.loads(parts.read_bytes().partition(b"\n")[0]).values()
        return bool(length == journal.stat().st_size)

    wait_until(is_described, timeout_s=120, reason="the study is described")
    after = [site.get(path) for path in levels(stored)]
    assert [a.content for a in after] == [b.content for b in before]
    assert gzip.decompress(document.with_suffix(".json.gz").read_bytes()) == document.read_bytes()
    site.store(images[2:])
    grown = [site.get(path) for path in levels(stored)]
    assert [len(answer.json()) for answer in grown] == [4, 4, 1]
    assert grown[1].headers["etag"] != after[1].headers["etag"]


# ------------------------------------------------------------------ negotiation

OCTETS = "multipart/related; type=application/octet-stream; transfer-syntax=*"


@pytest.mark.ps318("quality-values", "not-acceptable", "accept-parameter", "multipart-type")
@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JSON), ("*/*", JSON), ("application/*", JSON), (JSON, JSON), ("", JSON),
        ("application/json", "application/json"),
        (f"application/dicom+json, {OCTETS}", JSON),
        (f"{OCTETS}, application/dicom+json", JSON),
        ("text/html, image/avif, */*;q=0.8", JSON),
        (XML, XML), ("multipart/related; type=application/dicom+xml", XML),
        ("multipart/related", XML), (f"{JSON};q=0.5, {XML};q=0.6", XML),
        (f"{JSON};q=0.6, {XML};q=0.5", JSON), (f"{JSON};q=0, {XML};q=0.1", XML),
        (OCTETS, None), ("image/jpeg", None), ("text/html", None), (f"{JSON};q=0", None),
        ('multipart/related; type="application/dicom"', None), ("application/dicom", None),
    ],
)  # fmt: skip
def test_the_client_chooses_the_form(
    site: TenantSite, study: list[Stored], accept: str | None, expected: str | None
):
    for path in levels(study[0]):
        answer = site.get(path, accept)
        if expected is None:
            assert answer.status_code == 406
            assert "application/dicom+json" in answer.json()["reason"]
        else:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith(expected)
        if accept:
            query = site.get(f"{path}?accept={quote(accept)}", "image/png")
            assert query.status_code in {answer.status_code, 400}  # wildcards are refused there


@pytest.mark.ps318("charset")
@pytest.mark.parametrize(
    ("charset", "status"),
    [("utf-8", 200), ("UTF-8, iso-8859-1;q=0.5", 200), ("iso-8859-1, *;q=0.1", 200),
     ("iso-8859-1", 406), ("utf-8;q=0", 406)],
)  # fmt: skip
def test_text_is_utf_8_or_refused(site: TenantSite, study: list[Stored], charset: str, status: int):
    for path in levels(study[0]):
        for answer in (
            requests.get(site.base + path, params={"charset": charset}, timeout=60,
                         headers={"x-tenant": site.tenant_id}),
            site.get(path, accept_charset=charset),
        ):  # fmt: skip
            assert answer.status_code == status
            if status == 200:
                name = next(i for i in answer.json() if "00090010" in i)["00100010"]["Value"][0]
                assert name["Ideographic"] == "\u5c71\u7530"


@pytest.mark.ps318("content-encoding")
@pytest.mark.parametrize(
    ("encodings", "expected"),
    [
        ("gzip", True), ("gzip, deflate, br", True), ("*", True), ("gzip;q=0.5", True),
        ("br, GZIP;q=1.0", True), ("x-gzip", True), ("identity, gzip", True),
        ("", False), ("identity", False), ("gzip;q=0", False), ("gzip;q=0, *", False),
        ("*;q=0", False), ("br", False), ("identity;q=1, gzip;q=0.5", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("accept", [JSON, XML])
def test_gzip_is_sent_to_who_takes_it(
    site: TenantSite, study: list[Stored], encodings: str, expected: bool, accept: str
):
    for path in levels(study[0]):
        plain = site.get(path, accept)
        answer = site.get(path, accept, accept_encoding=encodings)
        assert answer.headers.get("content-encoding") == ("gzip" if expected else None)
        assert "accept-encoding" in answer.headers["vary"]
        assert answer.headers["etag"] != plain.headers["etag"] or not expected
        if accept == JSON:
            assert answer.content == plain.content
        else:  # the boundary tells the two apart
            assert [b for _, b in parts_of(answer)] == [b for _, b in parts_of(plain)]


# ------------------------------------------------------------------ HTTP


@pytest.mark.ps318("conditional", "head", "content-location")
@pytest.mark.parametrize("accept", [JSON, XML])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_what_has_not_changed_is_not_sent_again(
    site: TenantSite, study: list[Stored], accept: str, encoding: str
):
    for path in levels(study[0]):
        answer = site.get(path, accept, accept_encoding=encoding)
        head = site.ask("HEAD", path, accept, accept_encoding=encoding)
        etag = answer.headers["etag"]
        again = site.get(path, accept, accept_encoding=encoding, if_none_match=f'"x", W/{etag}')
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
        assert site.get(path, accept, accept_encoding=encoding, if_none_match='"x"').content
        assert (head.status_code, head.content) == (200, b"")
        assert answer.headers["content-location"] == site.base + path
        assert answer.headers["cache-control"] == "private, no-cache"
        for name in ("etag", "content-type", "content-location", "content-encoding", "vary"):
            assert head.headers.get(name) == answer.headers.get(name)
        assert head.headers.get("content-length") in {None, answer.headers.get("content-length")}


@pytest.mark.ps318("no-uid")
@pytest.mark.ps318("not-found")
def test_what_is_not_there_is_404_and_what_is_no_uid_400(site: TenantSite, study: list[Stored]):
    for path in ("/studies/1.2.3", "/studies/1.2.3/series/1.2", f"{study[0].series_path}1",
                 f"{study[0].path}1"):  # fmt: skip
        for accept in (JSON, XML):
            assert site.get(f"{path}/metadata", accept).status_code == 404
    assert site.get("/studies/1..2/metadata").status_code == 400
    assert site.get(f"{study[0].path}x/metadata").status_code == 400
    other = TenantSite(site.archive, "metadata-others")
    assert other.get(f"{study[0].path}/metadata").status_code == 404
