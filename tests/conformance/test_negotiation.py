"""Negotiation over HTTP: mixed series, damaged frames, strictness (PS3.18 §8.7, §10.4.3)."""

import http.client
import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pydicom
import pydicom.encaps
import pytest
import requests

from backing.program import free_port
from dicomweb_site import parts_of
from service import RunningArchive
from serving import serving
from wado.archive.pixel_workers import PixelWorkers

pytestmark = pytest.mark.filterwarnings("ignore")

ELE, JLS = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.80"
STUDY = "1.2.826.0.1.3680043.8.498.7001"
DICOM = 'multipart/related; type="application/dicom"'
TENANT = {"x-tenant": "negotiation"}
FILES = {
    1: "syntaxes/wg04/dicom-test-files__CT1_UNC.dcm",
    2: "syntaxes/wg04/dicom-test-files__CT1_JLSL.dcm",
    3: "syntaxes/pydicom__MR_small_implicit.dcm",
    4: "derived/video_h264.dcm",
    5: "color/pydicom__SC_rgb_jpeg_lossy_gdcm.dcm",
}


def under_our_uids(path: Path, number: int, *, study: str = STUDY) -> bytes:
    ds = pydicom.dcmread(path)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, f"{study}.1"
    ds.SOPInstanceUID = pydicom.uid.UID(f"{STUDY}.1.{number}")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


def store(base: str, data: bytes) -> None:
    answer = requests.post(
        f"{base}/studies",
        data=b"--guid\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--guid--",
        headers={
            **TENANT,
            "content-type": 'multipart/related; type="application/dicom"; boundary=guid',
        },
        timeout=60,
    )
    assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def mixed(running: RunningArchive, corpus: Path) -> str:
    """A series of instances in five transfer syntaxes; its URL."""
    for number, name in FILES.items():
        store(running.dicomweb, under_our_uids(corpus / name, number))
    return f"{running.dicomweb}/studies/{STUDY}/series/{STUDY}.1"


def get(url: str, accept: str, **headers: str) -> requests.Response:
    return requests.get(url, headers={**TENANT, "accept": accept, **headers}, timeout=60)


def syntaxes(answer: requests.Response) -> list[str]:
    return sorted(kind.partition("transfer-syntax=")[2] for kind, _ in parts_of(answer))


@pytest.mark.ps318("retrieve-series", "instance-multipart", "default-explicit-little-endian")
def test_a_mixed_series_has_each_part_in_the_best_form_for_it(mixed: str):
    stored = get(mixed, f"{DICOM}; transfer-syntax=*")
    assert stored.status_code == 200
    assert syntaxes(stored) == sorted(
        [ELE, JLS, ELE, "1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.50"]
    )
    default = get(mixed, DICOM)
    assert default.status_code == 200
    assert syntaxes(default) == sorted(
        [ELE, ELE, ELE, "1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.50"]
    )
    for kind, data in parts_of(default):
        ds = pydicom.dcmread(io.BytesIO(data))
        assert kind.endswith(f"={ds.file_meta.TransferSyntaxUID}")


@pytest.mark.ps318("partial-content", "retrieve-study", "retrieve-series", "not-acceptable")
def test_what_can_not_be_had_in_the_form_asked_for_is_left_out_with_a_warning(mixed: str):
    for url in (mixed, mixed.rpartition("/series")[0]):
        answer = get(url, f"{DICOM}; transfer-syntax={ELE}")
        assert answer.status_code == 206
        assert syntaxes(answer) == [ELE] * 4
        assert answer.headers["warning"].startswith("299 ")
    none = get(mixed, f"{DICOM}; transfer-syntax=1.2.840.10008.1.2")
    assert none.status_code == 406
    assert JLS in none.json()["reason"]


@pytest.mark.ps318("conditional")
def test_whoever_has_the_transcoded_series_gets_304(mixed: str):
    etag = get(mixed, DICOM).headers["etag"]
    assert get(mixed, DICOM, **{"if-none-match": etag}).status_code == 304
    other = get(mixed, f"{DICOM}; transfer-syntax=*", **{"if-none-match": etag})
    assert other.status_code == 200


@pytest.mark.ps318("not-acceptable")
def test_a_damaged_frame_is_406_and_harms_no_other(running: RunningArchive, corpus: Path):
    path = corpus / "multiframe/pydicom-data__emri_small_jpeg_ls_lossless.dcm"
    study = f"{STUDY}.9"
    data = bytearray(under_our_uids(path, 20, study=study))
    at = data.rindex(b"\xff\xd8\xff")  # the last frame loses its frame header
    data[at + 2 : at + 6] = b"\0\0\0\0"
    store(running.dicomweb, bytes(data))
    url = f"{running.dicomweb}/studies/{study}/series/{study}.1/instances/{STUDY}.1.20"
    damaged = get(f"{url}/frames/10", "application/octet-stream")
    assert damaged.status_code == 406
    assert JLS in damaged.json()["reason"]
    assert get(f"{url}/frames/1", "application/octet-stream").status_code == 200
    assert get(f"{url}/frames/10", "image/jls").status_code == 200, "as stored"
    assert get(url, f"application/dicom; transfer-syntax={ELE}").status_code == 406
    for accept in ("application/dicom; transfer-syntax=*", "application/dicom"):
        answer = get(url, accept)
        assert answer.content == bytes(data), "as stored: it can't be had otherwise"
        assert answer.headers["content-type"] == f"application/dicom;transfer-syntax={JLS}"
    assert "no-cache" in answer.headers["cache-control"], "next time it may be made"


def test_a_frame_that_is_far_too_long_is_not_read(running: RunningArchive, corpus: Path):
    study = f"{STUDY}.8"
    path = corpus / "color/pydicom__SC_rgb_small_odd_jpeg.dcm"
    ds = pydicom.dcmread(io.BytesIO(under_our_uids(path, 8, study=study)))
    (frame,) = pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1)
    ds.PixelData = pydicom.encaps.encapsulate([frame + bytes(3 << 20)])
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    store(running.dicomweb, out.getvalue())
    url = f"{running.dicomweb}/studies/{study}/series/{study}.1/instances/{STUDY}.1.8"
    answer = get(f"{url}/frames/1", "application/octet-stream")
    assert answer.status_code == 406
    assert "too many for its pixels" in answer.json()["reason"]
    rendered = get(f"{url}/frames/1/rendered", "image/png")
    assert rendered.status_code == 406
    assert "too many for its pixels" in rendered.json()["reason"]
    assert get(f"{url}/frames/1", "image/jpeg").status_code == 200


@pytest.mark.ps318("accept-parameter", "mixed-categories")
@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("*/*", 400),
        ("image/*", 400),
        ("application/dicom, image/png", 400),
        ("application/dicom", 200),
        (f'{DICOM}; transfer-syntax="*"', 200),
        ("text/html", 406),
    ],
)
def test_the_accept_parameter(mixed: str, accept: str, status: int):
    url = f"{mixed}/instances/{STUDY}.1.1?accept={quote(accept)}"
    assert get(url, "text/html").status_code == status


_OCTETS = "multipart/related; type=application/octet-stream; transfer-syntax=*"
_QUOTED = 'multipart/related; type="application/octet-stream"; transfer-syntax="*"'
_TWO_SYNTAXES = f'multipart/related; type="image/jls"; transfer-syntax="{JLS}"; transfer-syntax="*"'
_BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.ps318("client-accept-headers")
@pytest.mark.parametrize(
    ("number", "resource", "accept", "kind"),
    [
        (1, "/frames/1", _OCTETS, f"application/octet-stream;transfer-syntax={ELE}"),
        (2, "/frames/1", _OCTETS, f"application/octet-stream;transfer-syntax={JLS}"),
        (1, "/frames/1", _QUOTED, f"application/octet-stream;transfer-syntax={ELE}"),
        (2, "/frames/1", _QUOTED, f"application/octet-stream;transfer-syntax={JLS}"),
        (2, "/frames/1", _TWO_SYNTAXES, f"image/jls;transfer-syntax={JLS}"),
        (1, "/frames/1", _TWO_SYNTAXES, f"image/jls;transfer-syntax={JLS}"),
        (5, "/frames/1", 'multipart/related; type="image/dicom+jpeg"; transfer-syntax="*"',
         "image/jpeg;transfer-syntax=1.2.840.10008.1.2.4.50"),
        (2, "/frames/1", "image/jls", f"image/jls;transfer-syntax={JLS}"),
        (1, "/metadata", f"application/dicom+json, {_OCTETS}", "application/dicom+json"),
        (1, "/bulkdata/7FE00010", _BROWSER, "application/octet-stream"),
        (1, "/rendered", "*/*", "image/jpeg"),
        (1, "/rendered", "image/jpeg", "image/jpeg"),
        (1, "/thumbnail", "image/avif,image/webp,image/*,*/*;q=0.8", "image/jpeg"),
        (4, "/rendered", "video/mp4", "video/mp4"),
    ],
)  # fmt: skip
def test_headers_of_clients_in_use(mixed: str, number: int, resource: str, accept: str, kind: str):
    answer = get(f"{mixed}/instances/{STUDY}.1.{number}{resource}", accept)
    assert answer.status_code == 200, answer.text
    if answer.headers["content-type"].startswith("multipart/"):
        assert [part for part, _ in parts_of(answer)] == [kind]
    else:
        assert answer.headers["content-type"].partition(";transfer")[0] == kind.partition(";")[0]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Iterator[str]:
    """A server that follows §8.7.5 by the letter, with one instance; the instance's URL."""
    folder = tmp_path_factory.mktemp("strict") / "data"
    with serving(folder, strict_accept=True, port=free_port()) as url:
        store(f"{url}/dicomweb", under_our_uids(corpus / FILES[1], 1))
        yield f"{url}/dicomweb/studies/{STUDY}/series/{STUDY}.1/instances/{STUDY}.1.1"


@pytest.mark.ps318("no-accept", "mixed-categories")
def test_a_strict_server_wants_an_accept(strict: str):
    host = strict.partition("/dicomweb")[0].removeprefix("http://")
    levels = [strict, strict.rpartition("/instances")[0], strict.partition("/series")[0]]
    resources = [
        f"{url}{of}"
        for url in levels
        for of in ("", "/metadata", "/rendered", "/thumbnail", "/bulkdata", "/pixeldata")
    ]
    resources += [
        f"{strict}/frames/1",
        f"{levels[2]}/series",
        f"{levels[1]}/instances",
        strict.partition("/studies")[0] + "/studies",
    ]
    with closing(http.client.HTTPConnection(host, timeout=60)) as asking:
        for url in resources:
            asking.request("GET", url.partition(host)[2], headers=TENANT)
            refused = asking.getresponse()
            assert (refused.status, b"media type" in refused.read()) == (406, True), url


@pytest.mark.ps318("no-accept", "mixed-categories")
def test_a_strict_server_does_not_take_a_mixture(strict: str):
    address = strict.partition("/dicomweb")
    connection = http.client.HTTPConnection(address[0].removeprefix("http://"), timeout=60)
    for headers, status in (
        ({}, 406),
        ({"accept": "application/dicom"}, 200),
        ({"accept": "application/dicom, text/html"}, 400),
    ):
        connection.request("GET", "".join(address[1:]), headers={**TENANT, **headers})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
    connection.close()


@pytest.mark.parametrize("resource", ["/frames/1", ""])
def test_who_asks_the_same_again_costs_no_work(
    strict: str, resource: str, monkeypatch: pytest.MonkeyPatch
):
    jobs: list[object] = []
    run = PixelWorkers.run

    def counted(self: PixelWorkers, *job: Any) -> Any:
        jobs.append(job)
        return run(self, *job)

    monkeypatch.setattr(PixelWorkers, "run", counted)
    accept = ("image/jls" if resource else "application/dicom") + f";transfer-syntax={JLS}"
    first = get(strict + resource, accept)
    assert first.status_code == 200
    again = get(strict + resource, accept)
    assert again.content == first.content
    assert len(jobs) == 1
