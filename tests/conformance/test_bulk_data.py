"""Bulk data of PS3.18 §10.4.1.1.5, by HTTP: one value, or all of an instance, series or study."""

from collections.abc import Iterator

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import (
    MPEG4HP41,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    JPEGLSLossless,
    RLELossless,
)

from service import RunningArchive
from synthetic import (
    ct,
    encapsulated,
    instance,
    multi_frame,
    structured_report,
    uid,
    with_transfer_syntax,
)
from tenant_site import Stored, TenantSite, parts_of

OCTETS = 'multipart/related; type="application/octet-stream"'
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
STUDY, OTHER_STUDY = uid("bulk data"), uid("other bulk data")
PRIVATE, NESTED = "00091002", "54000100/1/54001010"
FRAMES = [bytes([n]) * 1500 for n in range(1, 4)]
PDF = b"%PDF-1.4 of some length" + bytes(3000)


@pytest.fixture(scope="module")
def site(running: RunningArchive) -> TenantSite:
    return TenantSite(running, "bulk-data")


def _image(**common: object) -> Dataset:
    ds = ct(study=STUDY, rows=64, columns=64, **common)
    ds.add_new(0x00090010, "LO", "ACME")
    ds.add_new(0x00091002, "OB", b"\3" * 5001)
    ds.WaveformSequence = [Dataset(), Dataset()]
    ds.WaveformSequence[1].WaveformBitsAllocated = 16
    ds.WaveformSequence[1].add_new(0x54001010, "OW", bytes(range(256)) * 10)
    return ds


def _pdf() -> Dataset:
    ds = instance(EncapsulatedPDFStorage, study=STUDY, series="pdf", Modality="DOC")
    ds.MIMETypeOfEncapsulatedDocument, ds.EncapsulatedDocument = "application/pdf", PDF
    return ds


@pytest.fixture(scope="module")
def stored(site: TenantSite) -> dict[str, Stored]:
    big_endian = with_transfer_syntax(ct(study=STUDY, series="big", rows=64), ExplicitVRBigEndian)
    compressed = encapsulated(
        multi_frame(study=STUDY, series="compressed"), JPEGLSLossless, FRAMES, fragments_per_frame=2
    )
    report = structured_report(study=STUDY)
    made = {"image": _image(), "big": big_endian, "compressed": compressed, "pdf": _pdf(),
            "report": report}  # fmt: skip
    taken = site.store(made.values())
    assert len(taken) == len(made)
    return dict(zip(made, taken, strict=True))


@pytest.fixture
def url(stored: dict[str, Stored]) -> str:
    return f"{stored['image'].path}/bulkdata"


# ------------------------------------------------------------------ one value


@pytest.mark.ps318("bulk-data-uri", "bulk-data-octet-stream")
@pytest.mark.parametrize("path", [PRIVATE, NESTED, "7FE00010", "7fe00010", "7FE00010/"])
def test_a_value_comes_as_one_part_or_in_an_envelope(
    site: TenantSite, stored: dict[str, Stored], url: str, path: str
):
    ds = stored["image"].ds
    value = {
        PRIVATE: bytes(ds[0x00091002].value),
        NESTED: bytes(range(256)) * 10,
    }.get(path, ds.PixelData)
    location = f"{site.base}{url}/{path.upper().strip('/')}"
    for accept in ("*/*", "application/octet-stream", BROWSER, None, "image/avif, */*;q=0.1"):
        answer = site.get(f"{url}/{path}", accept)
        assert answer.headers["content-type"].startswith("application/octet-stream")
        assert answer.headers["content-location"] == location
        assert answer.content == value
    ((headers, body),) = parts_of(site.get(f"{url}/{path}", OCTETS))
    assert headers["content-location"] == location
    assert body == value


def test_values_are_little_endian_whatever_is_stored(site: TenantSite, stored: dict[str, Stored]):
    one = stored["big"]
    answer = site.get(f"{one.path}/bulkdata/7FE00010", "*/*")
    swapped = bytearray(one.ds.PixelData)
    swapped[::2], swapped[1::2] = swapped[1::2], swapped[::2]
    assert answer.content == bytes(swapped)


def test_a_document_comes_as_what_it_is(site: TenantSite, stored: dict[str, Stored]):
    path = f"{stored['pdf'].path}/bulkdata/00420011"
    for accept, kind in (("*/*", "application/pdf"), ("application/pdf", "application/pdf"),
                         ("application/octet-stream", "application/octet-stream")):  # fmt: skip
        answer = site.get(path, accept)
        assert answer.headers["content-type"] == kind
        assert answer.content.startswith(PDF)
    assert site.get(path, "image/jpeg").status_code == 406


@pytest.mark.ps318("bulk-data-octet-stream")
def test_compressed_pixel_data_comes_frame_by_frame(site: TenantSite, stored: dict[str, Stored]):
    path = f"{stored['compressed'].path}/bulkdata/7FE00010"
    for accept in ("*/*", 'multipart/related; type="image/jls"', f"{OCTETS}; transfer-syntax=*"):
        parts = parts_of(site.get(path, accept))
        assert [body for _, body in parts] == FRAMES
        for headers, _ in parts:
            assert headers["content-location"] == site.base + path
            assert headers["content-type"].endswith(f";transfer-syntax={JPEGLSLossless}")


def test_a_video_is_one_part(site: TenantSite):
    stream = [bytes([n]) * 1000 for n in range(2)]
    video = encapsulated(
        multi_frame(frames=7, study=OTHER_STUDY, series="video"), MPEG4HP41, stream
    )
    video.NumberOfFrames = 7
    (one,) = site.store([video])
    path = f"{one.path}/bulkdata/7FE00010"
    for accept in ("*/*", "video/mp4", "application/octet-stream"):
        answer = site.get(path, accept)
        assert answer.content == b"".join(stream)
    assert site.get(path, "video/mp4").headers["content-type"].startswith("video/mp4")
    ((_, body),) = parts_of(site.get(f"{one.path}/pixeldata", OCTETS))
    assert body == b"".join(stream)


@pytest.mark.ps318("range-single", "range-multipart", "conditional", "head")
@pytest.mark.parametrize("accept", ["*/*", OCTETS])
def test_ranges_conditions_and_head(site: TenantSite, url: str, accept: str):
    path = f"{url}/7FE00010"
    whole = site.get(path, accept)
    parts = []
    for wanted in ("0-99", "100-999", "1000-"):
        answer = site.get(path, accept, range=f"bytes={wanted}")
        assert answer.status_code == 206
        assert answer.headers["content-range"].endswith(f"/{len(whole.content)}")
        parts.append(answer.content)
    assert b"".join(parts) == whole.content
    assert site.get(path, accept, range=f"bytes={len(whole.content)}-").status_code == 416
    etag = whole.headers["etag"]
    assert site.get(path, accept, if_none_match=etag).status_code == 304
    assert "immutable" in whole.headers["cache-control"]
    head = site.ask("HEAD", path, accept)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", etag)
    assert head.headers["content-length"] == str(len(whole.content))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("7FE00011", 404), ("54000100/0/54001010", 404), ("54000100/2/54001010", 404),
        ("54000100/1/54001010/0/54001010", 404), ("00100010", 404), ("54000100/1", 400),
        ("54000100", 404), ("7FE0001", 400), ("7FE0001G", 400), ("PixelData", 400),
        ("7FE00010/../7FE00010", 400), ("..%2F..%2F7FE00010", 400), ("%00", 400),
        ("54000100/-1/54001010", 400), ("54000100/%31/54001010", 200), ("7FE00010%0A", 400),
        ("54000100/\u0661/54001010", 400), ("54000100/1e0/54001010", 400), ("/" * 50, 400),
        ("54000100/1/" * 300 + "54001010", 400), ("a" * 30_000, 400),
    ],
)  # fmt: skip
def test_hostile_paths(site: TenantSite, url: str, path: str, status: int):
    from http.client import HTTPConnection  # noqa: PLC0415 - sends a path as it is
    from urllib.parse import quote  # noqa: PLC0415

    connection = HTTPConnection("127.0.0.1", site.archive.http_port, timeout=60)
    connection.request(
        "GET", quote(f"/dicomweb{url}/{path}", safe="/%."), headers={"x-tenant": site.tenant_id}
    )
    answer = connection.getresponse()
    assert answer.status == status, answer.read()
    connection.close()


# ------------------------------------------------------------------ collections


def _expected(stored: dict[str, Stored], *names: str) -> dict[str, list[bytes]]:
    found = {}
    for name in names:
        one = stored[name]
        if name == "image":
            found[f"{one.path}/bulkdata/{PRIVATE}"] = [bytes(one.ds[0x00091002].value)]
            found[f"{one.path}/bulkdata/{NESTED}"] = [bytes(range(256)) * 10]
        if name == "compressed":
            found[f"{one.path}/bulkdata/7FE00010"] = FRAMES
        elif name == "pdf":
            found[f"{one.path}/bulkdata/00420011"] = [PDF + b"\0" * (len(PDF) % 2)]
        elif name == "big":
            swapped = bytearray(one.ds.PixelData)
            swapped[::2], swapped[1::2] = swapped[1::2], swapped[::2]
            found[f"{one.path}/bulkdata/7FE00010"] = [bytes(swapped)]
        elif name == "image":
            found[f"{one.path}/bulkdata/7FE00010"] = [one.ds.PixelData]
    return found


def _values(site: TenantSite, path: str, accept: str | None = None) -> dict[str, list[bytes]]:
    answer = site.get(path, accept)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-location"] == site.base + path
    found: dict[str, list[bytes]] = {}
    for headers, body in parts_of(answer):
        location = headers["content-location"].removeprefix(site.base)
        found.setdefault(location, []).append(body)
    return found


@pytest.mark.ps318("bulk-data-collections", "multipart-parts")
def test_all_bulk_data_of_a_study_series_and_instance(site: TenantSite, stored: dict[str, Stored]):
    every = _expected(stored, "image", "big", "compressed", "pdf")
    one = stored["image"]
    assert _values(site, f"{one.study_path}/bulkdata") == every
    assert _values(site, f"{one.series_path}/bulkdata") == _expected(stored, "image")
    assert _values(site, f"{one.path}/bulkdata", "*/*") == _expected(stored, "image")
    for location in every:
        assert site.get(location, "*/*").status_code == 200


@pytest.mark.ps318("pixel-data-collections")
def test_pixel_data_of_a_study_series_and_instance(site: TenantSite, stored: dict[str, Stored]):
    pixels = {
        location: parts
        for location, parts in _expected(stored, "image", "big", "compressed").items()
        if location.endswith("/7FE00010")
    }
    one = stored["image"]
    assert _values(site, f"{one.study_path}/pixeldata", f"{OCTETS}; transfer-syntax=*") == pixels
    for path in (one.series_path, one.path):
        values = _values(site, f"{path}/pixeldata", OCTETS)
        assert values == {f"{one.path}/bulkdata/7FE00010": [one.ds.PixelData]}


def test_parts_in_the_asked_form_alone_and_a_warning(site: TenantSite, stored: dict[str, Stored]):
    path = f"{stored['image'].study_path}/pixeldata"
    accept = 'multipart/related; type="image/jls"'
    assert _values(site, path, accept) == _expected(stored, "compressed")
    assert "2 values are left out" in site.get(path, accept).headers["warning"]
    assert site.get(path, 'multipart/related; type="image/png"').status_code == 406


@pytest.mark.ps318("range-multipart", "conditional")
def test_ranges_and_conditions_of_a_collection(site: TenantSite, stored: dict[str, Stored]):
    path = f"{stored['image'].study_path}/bulkdata"
    whole = site.get(path)
    middle = len(whole.content) // 2
    first, second = (site.get(path, range=f"bytes={r}") for r in (f"0-{middle - 1}", f"{middle}-"))
    assert first.content + second.content == whole.content
    assert site.get(path, if_none_match=whole.headers["etag"]).status_code == 304


@pytest.mark.parametrize("kind", ["bulkdata", "pixeldata"])
def test_what_has_none_is_404(site: TenantSite, stored: dict[str, Stored], kind: str):
    report = stored["report"]
    for path in (report.path, report.series_path, "/studies/1.2.3", f"{report.path}1"):
        assert site.get(f"{path}/{kind}").status_code == 404
    if kind == "pixeldata":
        assert site.get(f"{stored['pdf'].path}/{kind}").status_code == 404


def test_run_length_encoded_frames_are_those_of_the_file(site: TenantSite):
    pixels = multi_frame(study=OTHER_STUDY, series="rle")
    pixels.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    (one,) = site.store([pixels])
    answer = site.get(f"{one.path}/pixeldata", 'multipart/related; type="image/dicom-rle"')
    assert [body for _, body in parts_of(answer)] == _frames(one.ds)


@pytest.mark.ps318("bulk-data-octet-stream", "default-explicit-little-endian")
def test_compressed_pixel_data_comes_native_to_who_names_no_syntax(site: TenantSite):
    pixels = multi_frame(study=OTHER_STUDY, series="decoded")
    native = bytes(pixels.PixelData)[: 3 * pixels.Rows * pixels.Columns]
    pixels.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    (one,) = site.store([pixels])
    path = f"{one.path}/bulkdata/7FE00010"
    ((headers, body),) = parts_of(site.get(path, OCTETS))
    assert body == native
    assert headers["content-type"].endswith(";transfer-syntax=1.2.840.10008.1.2.1")
    alone = site.get(path, "application/octet-stream")
    assert alone.content == native
    assert site.get(path, "application/octet-stream", range="bytes=80-99").content == native[80:100]
    ((_, body),) = parts_of(site.get(f"{one.path}/pixeldata", OCTETS))
    assert body == native


def test_damaged_frames_are_406_when_they_must_be_decoded(
    site: TenantSite, stored: dict[str, Stored]
):
    path = f"{stored['compressed'].path}/bulkdata/7FE00010"
    answer = site.get(path, "application/octet-stream")
    assert answer.status_code == 406
    assert answer.json()["reason"]


def _frames(ds: pydicom.Dataset) -> list[bytes]:
    frames: Iterator[bytes] = generate_frames(ds.PixelData, number_of_frames=3)
    return list(frames)
