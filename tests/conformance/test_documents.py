"""Rendered instances that are no images: reports, PDF, CDA, models, video, electrocardiograms."""

from pathlib import Path
from typing import Any

import pydicom
import pytest
import requests
from pydicom.uid import MPEG4HP41, BasicTextSRStorage, KeyObjectSelectionDocumentStorage

import synthetic
from service import RunningArchive

TENANT = {"x-tenant": "documents"}
_CDA = b'<ClinicalDocument xmlns="urn:hl7-org:v3"><title>Seen</title></ClinicalDocument>'


def store(running: RunningArchive, data: bytes) -> None:
    answer = requests.post(
        f"{running.dicomweb}/studies", data=data, timeout=60,
        headers={"content-type": "application/dicom", **TENANT},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text


def address(running: RunningArchive, ds: pydicom.Dataset) -> str:
    return (
        f"{running.dicomweb}/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}"
        f"/instances/{ds.SOPInstanceUID}/rendered"
    )


def get(url: str, accept: str = "*/*", **headers: str) -> requests.Response:
    return requests.get(url, headers={**TENANT, "accept": accept, **headers}, timeout=60)


def stored(running: RunningArchive, ds: pydicom.Dataset) -> str:
    store(running, synthetic.part10(ds))
    return address(running, ds)


def document(media_type: str, content: bytes, name: str) -> pydicom.Dataset:
    """Wrap a document, padded to an even length as files are."""
    ds = synthetic.instance(
        "1.2.840.10008.5.1.4.1.1.104.1", study=f"document-{name}", MIMETypeOfEncapsulatedDocument=
        media_type, DocumentTitle=name, EncapsulatedDocumentLength=len(content),
    )  # fmt: skip
    ds.EncapsulatedDocument = content + b"\0" * (len(content) % 2)
    return ds


# ------------------------------------------------------------------ reports


@pytest.fixture(scope="module")
def report(running: RunningArchive) -> str:
    return stored(running, synthetic.structured_report(study="documents-report"))


@pytest.mark.ps318("rendered-text")
def test_a_report_is_a_page_by_default(report: str):
    for accept in ("*/*", "text/html", "text/*", "image/jpeg,text/html;q=0.5"):
        answer = get(report, accept)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "<h1>Summary</h1>" in answer.text
        assert "Synthetic, Person" in answer.text
    assert "script" not in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    assert "script-src" not in policy


@pytest.mark.ps318("rendered-text")
def test_a_report_is_plain_text_and_xml_too(report: str):
    plain = get(report, "text/plain")
    assert plain.headers["content-type"] == "text/plain; charset=utf-8"
    assert "Finding: No abnormality was made up." in plain.text
    xml = get(report, "text/xml")
    assert xml.headers["content-type"] == "text/xml; charset=utf-8"
    assert "<NativeDicomModel" in xml.text
    assert get(report, "image/jpeg").status_code == 406
    assert get(f"{report}?accept=text/plain").text == plain.text


def test_a_report_is_asked_for_again_with_304(report: str):
    answer = get(report)
    assert answer.headers["cache-control"].endswith("no-cache")
    assert get(report, **{"if-none-match": answer.headers["etag"]}).status_code == 304


def test_every_real_report_is_rendered(running: RunningArchive, corpus: Path):
    names = ("dcmqi__sr", "dicomparser__report_dfl", "highdicom__sr_document", "pydicom__test-SR",
             "pydicom__reportsi", "highdicom__sr_document_with_multiple_groups")  # fmt: skip
    for name in names:
        path = corpus / "nonimage" / f"{name}.dcm"
        store(running, path.read_bytes())
        url = address(running, pydicom.dcmread(path, stop_before_pixels=True))
        for accept in ("text/html", "text/plain", "text/xml"):
            answer = get(url, accept)
            assert answer.status_code == 200, (name, answer.text)
            assert len(answer.content) > 500


@pytest.mark.parametrize("sop_class_uid", [BasicTextSRStorage, KeyObjectSelectionDocumentStorage])
def test_links_lead_to_the_images(running: RunningArchive, sop_class_uid: str):
    """They are of the default tenant: a browser that follows a link sends none."""
    study = f"documents-linked-{sop_class_uid}"
    image = synthetic.ct(study=study, series="image")
    ds = synthetic.structured_report(study=study, series="report", SOPClassUID=sop_class_uid)
    key, sop = pydicom.Dataset(), pydicom.Dataset()
    sop.ReferencedSOPClassUID, sop.ReferencedSOPInstanceUID = (
        image.SOPClassUID,
        image.SOPInstanceUID,
    )
    key.RelationshipType, key.ValueType, key.ReferencedSOPSequence = "CONTAINS", "IMAGE", [sop]
    ds.ContentSequence.append(key)
    series, evidence = pydicom.Dataset(), pydicom.Dataset()
    series.SeriesInstanceUID, series.ReferencedSOPSequence = image.SeriesInstanceUID, [sop]
    evidence.StudyInstanceUID, evidence.ReferencedSeriesSequence = image.StudyInstanceUID, [series]
    ds.CurrentRequestedProcedureEvidenceSequence = [evidence]
    for each in (image, ds):
        requests.post(f"{running.dicomweb}/studies", data=synthetic.part10(each), timeout=60,
                      headers={"content-type": "application/dicom"}).raise_for_status()  # fmt: skip
    page = requests.get(address(running, ds), timeout=60)
    (link,) = [text.partition('"')[0] for text in page.text.split('<a href="')[1:]]
    seen = requests.get(link.replace("&amp;", "&"), timeout=60)
    assert (seen.status_code, seen.headers["content-type"]) == (200, "image/jpeg")
    assert running.http in page.headers["content-security-policy"]


# ------------------------------------------------------------------ documents


@pytest.mark.ps318("rendered-pdf")
def test_a_pdf_is_the_bytes_that_were_wrapped(running: RunningArchive):
    content = b"%PDF-1.7 " + bytes(range(256)) * 9
    url = stored(running, document("application/pdf", content, "odd"))
    for accept in ("*/*", "application/pdf", "text/html,application/pdf;q=0.9"):
        answer = get(url, accept)
        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["content-type"] == "application/pdf"
        assert "sandbox" not in answer.headers.get("content-security-policy", "")
    part = get(url, range="bytes=5-20")
    assert (part.status_code, part.content) == (206, content[5:21])
    assert part.headers["content-range"] == f"bytes 5-20/{len(content)}"
    assert get(url, "image/jpeg").status_code == 406


@pytest.mark.parametrize("level", ["/series/", "/instances/"])
def test_a_document_alone_in_its_series_or_study_is_rendered(running: RunningArchive, level: str):
    content = b"%PDF-1.7 " + bytes(range(256)) * 9
    url = stored(running, document("application/pdf", content, f"alone{level.strip('/')}"))
    for _ in range(2):
        answer = get(f"{url.partition(level)[0]}/rendered")
        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["cache-control"] == "private, no-cache"  # others may join it


def test_a_short_document_is_whole(running: RunningArchive):
    url = stored(running, document("application/pdf", b"%PDF-1", "short"))
    assert get(url).content == b"%PDF-1"


def test_a_real_pdf(running: RunningArchive, corpus: Path):
    path = corpus / "derived" / "encapsulated_pdf.dcm"
    store(running, path.read_bytes())
    ds = pydicom.dcmread(path)
    assert get(address(running, ds)).content == ds.EncapsulatedDocument[:1734]


@pytest.mark.parametrize(
    ("media_type", "content"),
    [
        ("text/XML", _CDA), ("model/stl", b"solid x"), ("model/obj", b"v 0 0 0"),
        ("text/html", b"<script>alert(1)</script>"),
    ],
)  # fmt: skip
def test_other_documents_keep_their_type_and_run_nothing(
    running: RunningArchive, media_type: str, content: bytes
):
    url = stored(running, document(media_type, content, media_type))
    answer = get(url)
    assert (answer.status_code, answer.content) == (200, content)
    assert answer.headers["content-type"] == media_type.lower()
    assert answer.headers["content-security-policy"].startswith("sandbox;")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_type_that_is_none_is_not_sent_as_a_header(running: RunningArchive):
    url = stored(running, document("te xt/<b>", b"some bytes", "odd type"))
    assert get(url).headers["content-type"] == "application/octet-stream"


# ------------------------------------------------------------------ video


def video(content: bytes, syntax: str, *, fragments: int = 1) -> pydicom.Dataset:
    ds = synthetic.multi_frame(3, study=f"video-{syntax}-{fragments}")
    made = synthetic.encapsulated(
        ds, syntax, [content], fragments_per_frame=fragments, offset_table="none"
    )
    made.NumberOfFrames = 3
    return made


@pytest.mark.ps318("rendered-video")
@pytest.mark.parametrize("fragments", [1, 3])
def test_a_video_is_one_stream_in_which_players_seek(running: RunningArchive, fragments: int):
    content = b"\0\0\0\x20ftypisom" + bytes(range(240)) * 50
    url = stored(running, video(content, MPEG4HP41, fragments=fragments))
    whole = get(url, "video/mp4")
    assert (whole.headers["content-type"], whole.content) == ("video/mp4", content)
    assert whole.headers["accept-ranges"] == "bytes"
    first = get(url, "*/*", range="bytes=0-")
    assert (first.status_code, first.content) == (206, content)
    middle = get(url, "*/*", range="bytes=4000-4100")
    assert middle.content == content[4000:4101]
    assert get(url, "*/*", range="bytes=99999-").status_code == 416
    assert get(url, "image/jpeg").status_code == 406


def test_video_in_another_container_says_so(running: RunningArchive):
    url = stored(running, video(b"\x47" + bytes(187), "1.2.840.10008.1.2.4.100"))
    assert get(url).headers["content-type"] == "video/mp2t"
    assert get(url, "video/mpeg").headers["content-type"] == "video/mpeg"


@pytest.mark.ps318("rendered-video")
def test_a_real_video(running: RunningArchive, corpus: Path):
    path = corpus / "derived" / "video_h264.dcm"
    store(running, path.read_bytes())
    answer = get(address(running, pydicom.dcmread(path, stop_before_pixels=True)))
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.content[4:8] == b"ftyp"
    assert path.read_bytes().find(answer.content) > 0


# ------------------------------------------------------------------ waveforms, and the rest


def test_an_electrocardiogram_is_drawn(running: RunningArchive, corpus: Path):
    for name in ("pydicom__waveform_ecg", "dicomparser__wave_dfl"):
        path = corpus / "nonimage" / f"{name}.dcm"
        store(running, path.read_bytes())
        url = address(running, pydicom.dcmread(path))
        answer = get(url, "text/html")
        assert answer.text.count("<polyline") >= 12
        assert "Lead" in answer.text
        assert get(url, "text/plain").status_code == 406
        assert "<NativeDicomModel" in get(url, "text/xml").text


@pytest.mark.parametrize(
    "attributes", [{}, {"RTPlanLabel": "x"}, {"ContentLabel": "SHOWN"}],
)  # fmt: skip
def test_what_nobody_can_look_at_is_406(running: RunningArchive, attributes: dict[str, Any]):
    ds = synthetic.instance(
        "1.2.840.10008.5.1.4.1.1.481.5", study=f"plan-{attributes}", **attributes
    )
    answer = get(stored(running, ds))
    assert answer.status_code == 406
    assert "no rendered form" in answer.json()["reason"]
