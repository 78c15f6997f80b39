"""Store of PS3.18 by an independent client (dicomweb-client), and the rest of the server."""

import hashlib
import io
from pathlib import Path

import pydicom
import pytest
import requests
from dicomweb_client.api import DICOMwebClient

from dicomweb_site import Sent, Site, parts_of
from serving import serving

pytestmark = pytest.mark.filterwarnings("ignore")

# ------------------------------------------------------------------ store


def test_the_client_stores_and_finds_at_once(tmp_path: Path, ct: list[Sent]):
    with serving(tmp_path / "data") as url:
        client = DICOMwebClient(f"{url}/dicomweb")
        answer = client.store_instances([sent.ds for sent in ct[:3]])
        assert len(answer.ReferencedSOPSequence) == 3
        assert len(client.search_for_instances(ct[0].uids[0])) == 3
        assert len(client.retrieve_series_metadata(*ct[0].uids[:2])) == 3


def test_storing_again_is_harmless_and_other_bytes_are_refused(site: Site, ct: list[Sent]):
    again = site.store(ct[0].data)
    assert again.status_code == 200
    assert len(again.json()["00081199"]["Value"]) == 1
    changed = site.store(ct[0].data[:-2] + b"\x01\x01")
    assert changed.status_code == 409
    (failed,) = changed.json()["00081198"]["Value"]
    assert failed["00081155"]["Value"] == [ct[0].uids[2]]
    assert failed["00081197"]["Value"] == [0x0111]
    assert "other bytes" in changed.headers["warning"]


def test_some_stored_is_202_and_each_is_told(site: Site, ct: list[Sent]):
    head = b"--guid\r\nContent-Type: application/dicom\r\n\r\n"
    body = head + ct[0].data + b"\r\n" + head + b"no DICOM at all\r\n--guid--\r\n"
    answer = requests.post(
        f"{site.base}/studies",
        data=body,
        headers={"content-type": "multipart/related; type=application/dicom; boundary=guid"},
        timeout=60,
    )
    assert answer.status_code == 202
    module = answer.json()
    assert len(module["00081199"]["Value"]) == 1
    assert module["0008119A"]["Value"][0]["00081197"]["Value"] == [0xC000]
    assert module["00081190"]["Value"] == [f"{site.base}/studies/{ct[0].uids[0]}"]


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("text/plain", b"x", 415),
        ('multipart/related; type="application/dicom"', b"x", 400),
        ('multipart/related; type="application/dicom"; boundary=b', b"--b\r\n\r\nDICM", 400),
        ('multipart/related; type="application/dicom"; boundary=b', b"--b--", 400),
        ('multipart/related; type="application/pdf"; boundary=b', b"--b--", 415),
        ("application/dicom", b"no DICOM", 409),
        ("application/dicom", b"", 409),
        ('multipart/related; type="application/dicom"; boundary=b',
         b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--", 415),
    ],
)  # fmt: skip
def test_uploads_that_are_refused(site: Site, kind: str, body: bytes, status: int):
    answer = requests.post(
        f"{site.base}/studies", data=body, headers={"content-type": kind}, timeout=60
    )
    assert answer.status_code == status


def test_a_single_instance_chunked_and_the_study_of_the_path(site: Site, ct: list[Sent]):
    sent = ct[0]
    pieces = (sent.data[i : i + 1000] for i in range(0, len(sent.data), 1000))
    answer = requests.post(
        f"{site.base}/studies/{sent.uids[0]}",
        data=pieces,
        headers={"content-type": "application/dicom"},
        timeout=60,
    )
    assert answer.status_code == 200
    wrong = site.store(sent.data, study="/1.2.3")
    assert wrong.status_code == 409
    reasons = {
        item["00081197"]["Value"][0]
        for tag in ("00081198", "0008119A")
        for item in wrong.json().get(tag, {}).get("Value", [])
    }
    assert reasons == {0xA900}


def test_many_parts_in_one_request(tmp_path: Path, ct: list[Sent]):
    head = b"\r\n--guid\r\nContent-Type: application/dicom\r\n\r\n"
    small = min(ct, key=lambda sent: len(sent.data))
    parts = []
    for i in range(150):
        uid = pydicom.uid.UID(f"2.25.{i + 1}")
        ds = pydicom.dcmread(io.BytesIO(small.data))
        ds.PixelData = b"\0\0"
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
        out = io.BytesIO()
        ds.save_as(out)
        parts.append(out.getvalue())
    with serving(tmp_path / "data") as url:
        answer = requests.post(
            f"{url}/dicomweb/studies",
            data=head + head.join(parts) + b"\r\n--guid--",
            headers={"content-type": "multipart/related; type=application/dicom; boundary=guid"},
            timeout=60,
        )
        assert answer.status_code == 200
        assert len(answer.json()["00081199"]["Value"]) == 150
        study, series, _ = small.uids
        metadata = f"{url}/dicomweb/studies/{study}/series/{series}/metadata"
        assert len(requests.get(metadata, timeout=60).json()) == 150
        got = requests.get(f"{url}/dicomweb/studies/{study}", timeout=60)
        digests = {hashlib.sha256(body).digest() for _, body in parts_of(got)}
        assert digests == {hashlib.sha256(part).digest() for part in parts}


# ------------------------------------------------------------------ the rest of the server


def test_pages_documents_and_metrics(site: Site):
    assert requests.get(f"{site.url}/livez", timeout=60).json() == {"status": "alive"}
    document = requests.get(f"{site.url}/openapi.json", timeout=60).json()
    frames = "/dicomweb/studies/{study}/series/{series}/instances/{instance}/frames/{frames}"
    assert frames in document["paths"]
    assert document["paths"]["/dicomweb/studies"].keys() == {"get", "post"}
    assert "<title>wado" in requests.get(f"{site.url}/docs", timeout=60).text
    assert requests.get(f"{site.url}/dicomweb/nothing", timeout=60).status_code == 404
    metrics = requests.get(f"{site.url}/metrics", timeout=60).text
    assert 'wado_http_requests_total{method="GET",route="/livez",status="200"}' in metrics
