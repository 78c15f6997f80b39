"""Derived copies over HTTP: who gets them, who does not, and what happens without them."""

import io
import json
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import imagecodecs
import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset

import real
import synthetic
import videos
from coded_streams import streams_of
from copies_site import LIMIT_S, MULTIPART_DICOM, CopiesSite, Sent, copies_site
from dicomweb_site import parts_of
from service import wait_until

JPEG = "1.2.840.10008.1.2.4."
ELE, JLS, J2K = "1.2.840.10008.1.2.1", f"{JPEG}80", f"{JPEG}90"
BASELINE, LOSSLESS, HTJ2K, RPCL = (f"{JPEG}{n}" for n in (50, 70, 201, 202))
OCTETS, DICOM = "application/octet-stream", "application/dicom"
AVAILABLE = "00083002"
VIEWER = f"multipart/related; type={OCTETS}; transfer-syntax=*"
"""As Cornerstone3D asks for frames."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CopiesSite]:
    with copies_site(tmp_path_factory.mktemp("copies") / "data") as site:
        yield site


def picture(rows: int, columns: int, number: int = 1) -> np.ndarray:
    rng = np.random.default_rng(rows * columns + number)
    ramp = np.add.outer(np.arange(rows) ** 2, 7 * np.arange(columns)) % 200
    return (ramp + rng.integers(0, 50, (rows, columns))).astype(np.uint8)


def jpeg_2000(study: str, frames: int = 1, rows: int = 90, columns: int = 70) -> Dataset:
    """Make an image whose stored form takes long to decode."""
    ds = synthetic.multi_frame(frames=frames, rows=rows, columns=columns, study=study)
    pixels = [picture(rows, columns, number) for number in range(frames)]
    coded = [imagecodecs.jpeg2k_encode(p, codecformat="j2k", reversible=True) for p in pixels]
    return synthetic.encapsulated(ds, J2K, [bytes(c) for c in coded])


def natives(sent: Sent) -> list[bytes]:
    frames = streams_of(sent.ds)
    return [imagecodecs.jpeg2k_decode(frame).tobytes() for frame in frames]


def alone(uid: str, name: str = "image/jphc") -> str:
    return f"{name}; transfer-syntax={uid}"


# ------------------------------------------------------------------ frames


def test_frames_in_the_syntax_of_a_copy_are_ranges_of_its_file(site: CopiesSite):
    (sent,) = site.store(jpeg_2000("ranges", frames=3))
    before = site.get(sent, "/frames/2", alone(RPCL))
    assert before.status_code == 200
    file = site.copy(sent, RPCL)
    frames = streams_of(file)
    answer = site.get(sent, "/frames/2", alone(RPCL), accept_encoding="gzip")
    assert answer.headers["content-type"] == f"image/jphc;transfer-syntax={RPCL}"
    assert answer.content == frames[1]
    assert "content-encoding" not in answer.headers
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert answer.headers["etag"] != before.headers["etag"]
    accept = f'multipart/related; type="image/jphc"; transfer-syntax={RPCL}'
    parts = parts_of(site.get(sent, "/frames/3,1", accept))
    assert [data for _, data in parts] == [frames[2], frames[0]]


def test_answers_of_copies_are_conditional_and_cut_to_ranges(site: CopiesSite):
    (sent,) = site.store(jpeg_2000("conditional"))
    (frame,) = streams_of(site.copy(sent, RPCL))
    first = site.get(sent, "/frames/1", alone(RPCL))
    etag = first.headers["etag"]
    assert site.get(sent, "/frames/1", alone(RPCL), if_none_match=etag).status_code == 304
    head = site.ask("HEAD", f"/{sent.ref.path}/frames/1", alone(RPCL))
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(frame))
    assert head.headers["etag"] == etag
    part = site.get(sent, "/frames/1", alone(RPCL), range="bytes=10-29")
    assert (part.status_code, part.content) == (206, frame[10:30])
    assert part.headers["content-range"] == f"bytes 10-29/{len(frame)}"
    stale = site.get(sent, "/frames/1", alone(RPCL), range="bytes=10-29", if_range='"other"')
    assert (stale.status_code, stale.content) == (200, frame)


def test_native_frames_come_from_a_native_copy_without_decoding(site: CopiesSite):
    (sent,) = site.store(jpeg_2000("native", frames=2))
    file = site.copy(sent, ELE)
    for number, native in enumerate(natives(sent), 1):
        answer = site.get(sent, f"/frames/{number}", OCTETS)
        assert answer.content == native
        assert answer.headers["content-type"] == f"{OCTETS};transfer-syntax={ELE}"
    # The file is what is read: it is changed under the hands of the archive.
    (changed,) = site.store(jpeg_2000("native-changed"))
    file = site.copy(changed, ELE)
    site.archive.store.put_document(site.path_of(changed, ELE), [file[:-8] + b"\7" * 8])
    answer = site.get(changed, "/frames/1", OCTETS)
    assert answer.content == natives(changed)[0][:-8] + b"\7" * 8


def test_what_is_acceptable_as_stored_goes_out_as_stored(site: CopiesSite):
    (sent,) = site.store(jpeg_2000("stored", frames=2))
    stored = streams_of(sent.ds)
    for uid in (RPCL, ELE):
        site.copy(sent, uid)
    site.copy(sent, BASELINE, quality=80)
    for accept in ("", "*/*", "image/*", "image/jp2", alone("*", OCTETS)):
        answer = site.get(sent, "/frames/1", accept)
        single = not answer.headers["content-type"].startswith("multipart/")
        assert (answer.content if single else parts_of(answer)[0][1]) == stored[0], accept
    assert [data for _, data in parts_of(site.get(sent, "/frames/1,2", VIEWER))] == stored
    for accept in (alone("*", DICOM), alone(J2K, DICOM)):
        assert site.get(sent, "", accept).content == sent.data, accept


def test_a_copy_of_the_plain_syntax_serves_by_its_wider_name(site: CopiesSite):
    """A frame of 202 is one of 201: `image/jphc` without transfer syntax means the latter."""
    (sent,) = site.store(jpeg_2000("wider"))
    (frame,) = streams_of(site.copy(sent, RPCL))
    answer = site.get(sent, "/frames/1", "image/jphc")
    assert answer.headers["content-type"] == f"image/jphc;transfer-syntax={HTJ2K}"
    assert answer.content == frame
    assert answer.headers["etag"] != site.get(sent, "/frames/1", alone(RPCL)).headers["etag"]


def test_a_lossy_copy_is_for_who_names_it(site: CopiesSite):
    (sent,) = site.store(jpeg_2000("lossy"))
    file = site.copy(sent, BASELINE, quality=60)
    (frame,) = streams_of(file)
    assert site.get(sent, "/frames/1", alone(BASELINE, "image/jpeg")).content == frame
    assert site.get(sent, "/frames/1", alone(BASELINE, OCTETS)).content == frame
    assert site.get(sent, "", alone(BASELINE, DICOM)).content == file
    exact = site.get(sent, "/frames/1", "image/jpeg")
    assert exact.headers["content-type"] == f"image/jpeg;transfer-syntax={LOSSLESS}"
    assert site.get(sent, "/frames/1", OCTETS).content == natives(sent)[0]
    whole = pydicom.dcmread(io.BytesIO(site.get(sent, "", DICOM).content))
    assert whole.PixelData[: 90 * 70] == natives(sent)[0]
    (other,) = site.store(jpeg_2000("no-lossy"))
    refused = site.get(other, "/frames/1", alone(BASELINE, "image/jpeg"))
    assert refused.status_code == 406


def test_a_video_is_had_in_the_form_of_its_copy_by_who_names_it(site: CopiesSite):
    real.require("ffmpeg")
    stream = videos.content("mpeg2.m2v")
    (sent,) = site.store(videos.instance(stream, videos.MPEG_2_MAIN))
    stored = f"{DICOM};transfer-syntax={videos.MPEG_2_MAIN}"
    assert site.get(sent, "", alone(videos.H264, DICOM)).status_code == 406
    file = site.copy(sent, videos.H264)
    answer = site.get(sent, "", alone(videos.H264, DICOM))
    assert answer.headers["content-type"] == f"{DICOM};transfer-syntax={videos.H264}"
    assert answer.content == file
    for accept in (DICOM, alone("*", DICOM)):
        answer = site.get(sent, "", accept)
        assert (answer.headers["content-type"], answer.content) == (stored, sent.data)
    assert site.get(sent, "/metadata").json()[0][AVAILABLE]["Value"] == [videos.MPEG_2_MAIN]
    refused = site.get(sent, "", alone(JLS, DICOM))
    assert refused.status_code == 406
    assert "it is video (MPEG-2)" in refused.json()["reason"]
    assert f"transfer-syntax={videos.H264}" in refused.json()["reason"]


# ------------------------------------------------------------------ whole instances


def test_instances_series_and_studies_take_copies_where_there_are_some(site: CopiesSite):
    first, second = (jpeg_2000("several") for _ in range(2))
    second.SOPInstanceUID = synthetic.uid("second")
    second.file_meta.MediaStorageSOPInstanceUID = second.SOPInstanceUID
    second.InstanceNumber = 2
    sent = site.store(first, second)
    file = site.copy(sent[0], RPCL)
    assert site.get(sent[0], "", alone(RPCL, DICOM)).content == file
    accept = f"{MULTIPART_DICOM}; transfer-syntax={RPCL}"
    series = f"/{sent[0].ref.series.path}"
    for path in (series, f"/studies/{sent[0].ref.study_instance_uid}"):
        parts = parts_of(site.ask("GET", path, accept))
        assert [kind for kind, _ in parts] == [f"{DICOM};transfer-syntax={RPCL}"] * 2
        assert parts[0][1] == file
        made = pydicom.dcmread(io.BytesIO(parts[1][1]))
        assert made.SOPInstanceUID == second.SOPInstanceUID
        assert made.file_meta.TransferSyntaxUID == RPCL
    site.copy(sent[1], RPCL)
    whole = site.ask("GET", series, accept)
    assert len(parts_of(whole)) == 2
    assert "content-length" in whole.headers
    again = site.ask("GET", series, accept, if_none_match=whole.headers["etag"])
    assert again.status_code == 304


def test_an_independent_client_reads_copies(site: CopiesSite):
    (sent,) = site.store(jpeg_2000("client"))
    site.copy(sent, ELE)
    site.copy(sent, JLS)
    client = DICOMwebClient(site.base)
    ref = sent.ref
    uids = (ref.study_instance_uid, ref.series_instance_uid, ref.sop_instance_uid)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for uid in (ELE, JLS):
            ds = client.retrieve_instance(*uids, media_types=((DICOM, uid),))
            assert ds.file_meta.TransferSyntaxUID == uid
            assert ds.pixel_array.tobytes() == natives(sent)[0]
        (frame,) = client.retrieve_instance_frames(*uids, [1], media_types=(("image/jls", JLS),))
        assert imagecodecs.jpegls_decode(frame).tobytes() == natives(sent)[0]
        (frame,) = client.retrieve_instance_frames(*uids, [1], media_types=((OCTETS, ELE),))
        assert frame == natives(sent)[0]


# ------------------------------------------------------------------ pixels of a copy


def test_what_is_made_of_a_copy_has_the_same_pixels(site: CopiesSite):
    """Colour of JPEG 2000 has another Photometric Interpretation once it is decoded."""
    ds = synthetic.colour(rows=60, columns=50, study="made-of-a-copy")
    rng = np.random.default_rng(7)
    pixels = rng.integers(0, 255, (60, 50, 3)).astype(np.uint8)
    coded = imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", reversible=True, mct=True)
    ds = synthetic.encapsulated(ds, J2K, [bytes(coded)])
    ds.PhotometricInterpretation = "YBR_RCT"
    (sent,) = site.store(ds)
    before = [site.get(sent, "/frames/1/rendered", "image/png").content]
    for uid in (RPCL, ELE):  # each is decoded faster than the one before
        site.copy(sent, uid)
        frame = site.get(sent, "/frames/1", "image/jls")
        assert np.array_equal(imagecodecs.jpegls_decode(frame.content), pixels), uid
        whole = pydicom.dcmread(io.BytesIO(site.get(sent, "", alone(JLS, DICOM)).content))
        assert whole.PhotometricInterpretation == "RGB"
        assert np.array_equal(whole.pixel_array, pixels), uid
        before.append(site.get(sent, "/frames/1/rendered", "image/png").content)
    assert len(set(before)) == 1
    thumbnail = site.get(sent, "/thumbnail", "image/png")
    assert thumbnail.status_code == 200


def test_pictures_come_from_a_copy_if_that_is_quicker(site: CopiesSite):
    (sent,) = site.store(jpeg_2000("picture", rows=64, columns=64))
    file = site.copy(sent, ELE)
    black = file[: -64 * 64] + bytes(64 * 64)
    site.archive.store.put_document(site.path_of(sent, ELE), [black])
    shown = site.get(sent, "/rendered?window=128,256,linear", "image/png")
    assert np.asarray(imagecodecs.png_decode(shown.content)).max() == 0
    ref = sent.ref
    by_uri = site.session.get(
        f"{site.url}/wado?requestType=WADO&studyUID={ref.study_instance_uid}"
        f"&seriesUID={ref.series_instance_uid}&objectUID={ref.sop_instance_uid}"
        "&contentType=image/png&windowCenter=128&windowWidth=256",
        timeout=LIMIT_S,
    )
    assert np.asarray(imagecodecs.png_decode(by_uri.content)).max() == 0


# ------------------------------------------------------------------ without copies


def test_a_copy_whose_file_is_gone_is_made_at_once(site: CopiesSite):
    (sent,) = site.store(jpeg_2000("gone", frames=2))
    for uid in (RPCL, ELE):
        site.copy(sent, uid)
        site.lose(sent, uid)
    for number, native in enumerate(natives(sent), 1):
        assert site.get(sent, f"/frames/{number}", OCTETS).content == native
        answer = site.get(sent, f"/frames/{number}", alone(RPCL))
        assert answer.status_code == 200
        assert imagecodecs.htj2k_decode(answer.content).tobytes() == native
    head = site.ask("HEAD", f"/{sent.ref.path}/frames/1", alone(RPCL))
    assert head.status_code == 200
    for uid in (RPCL, ELE):
        whole = site.get(sent, "", alone(uid, DICOM))
        assert pydicom.dcmread(io.BytesIO(whole.content)).file_meta.TransferSyntaxUID == uid
        accept = f"{MULTIPART_DICOM}; transfer-syntax={uid}"
        assert len(parts_of(site.ask("GET", f"/{sent.ref.series.path}", accept))) == 1
    assert site.get(sent, "/rendered", "image/png").status_code == 200
    assert site.get(sent, "/frames/2", "image/jls").status_code == 200
    assert site.get(sent, "/htj2k/1?level=1", "image/jphc").status_code == 200


def test_a_copy_that_goes_while_it_is_served_is_made_at_once(site: CopiesSite):
    """Its answer was kept, and is found to hold no more; a long frame is seen before it is sent."""
    for name, rows in (("going", 40), ("going-large", 500)):
        (sent,) = site.store(jpeg_2000(name, rows=rows, columns=400))
        (native,) = natives(sent)
        file = site.copy(sent, ELE)
        assert site.get(sent, "/frames/1", OCTETS).content == native
        site.lose(sent, ELE)
        for headers in ({}, {"range": "bytes=0-"}, {"range": "bytes=1-"}):
            answer = site.get(sent, "/frames/1", OCTETS, **headers)
            assert native.endswith(answer.content), (name, headers)
        site.archive.store.put_document(site.path_of(sent, ELE), [file[: len(file) // 3]])
        assert site.get(sent, "/frames/1", OCTETS, range="bytes=2-").content == native[2:]


def test_a_recorded_failure_says_why_at_once(site: CopiesSite):
    (sent,) = site.store(jpeg_2000("failed"))
    assert site.get(sent, "/frames/1", alone(JLS, "image/jls")).status_code == 200
    site.fail(sent, ELE, "its code stream ends in the middle")  # it would be decoded well
    for path, accept in (
        ("/frames/1", OCTETS), ("/frames/1", "image/jls"), ("/rendered", "image/png"),
        ("", alone(ELE, DICOM)),
    ):  # fmt: skip
        answer = site.get(sent, path, accept)
        assert answer.status_code == 406, path
        assert "its code stream ends in the middle" in answer.json()["reason"], path
    assert site.get(sent, "/frames/1", VIEWER).status_code == 200
    assert site.get(sent, "", alone("*", DICOM)).content == sent.data
    assert site.get(sent, "", DICOM).content == sent.data


def test_a_failure_of_the_whole_leaves_single_frames(site: CopiesSite):
    (sent,) = site.store(jpeg_2000("half-failed", frames=2))
    site.fail(sent, ELE, "frame 2 is damaged")
    assert site.get(sent, "/frames/1", OCTETS).content == natives(sent)[0]
    answer = site.get(sent, "", alone(ELE, DICOM))
    assert (answer.status_code, "frame 2 is damaged" in answer.text) == (406, True)


# ------------------------------------------------------------------ who else is concerned


def test_another_tenant_has_its_own_copies(site: CopiesSite):
    ds = jpeg_2000("tenants")
    (mine,), (theirs,) = site.store(ds), site.store(ds, tenant_id="other")
    site.copy(mine, RPCL)
    assert site.get(mine, "/metadata").json()[0][AVAILABLE]["Value"] == [J2K, RPCL]
    assert site.get(theirs, "/metadata").json()[0][AVAILABLE]["Value"] == [J2K]
    file = site.copy(theirs, ELE)
    assert site.get(theirs, "", alone(ELE, DICOM)).content == file
    assert site.get(mine, "/metadata").json()[0][AVAILABLE]["Value"] == [J2K, RPCL]
    nobody = site.ask("GET", f"/{mine.ref.path}/frames/1", alone(RPCL), tenant_id="nobody")
    assert nobody.status_code == 404


def test_who_deletes_an_instance_deletes_its_copies(site: CopiesSite):
    (sent,) = site.store(jpeg_2000("deleted"))
    site.copy(sent, RPCL)
    assert site.get(sent, "/frames/1", alone(RPCL)).status_code == 200
    assert site.ask("DELETE", f"/{sent.ref.path}").status_code in (202, 204)
    wait_until(lambda: not site.has(sent), timeout_s=LIMIT_S, reason="the instance is deleted")
    wait_until(
        lambda: site.get(sent, "/frames/1", alone(RPCL)).status_code == 410,
        timeout_s=LIMIT_S, reason="who asks sees it",
    )  # fmt: skip
    for path in ("", "/htj2k/1", "/metadata", "/rendered"):
        assert site.get(sent, path).status_code == 410, path
    site.store_file(sent)  # stored anew: it has no copies, whatever lay there
    assert site.get(sent, "/metadata").json()[0][AVAILABLE]["Value"] == [J2K]
    assert site.get(sent, "/frames/1", alone(RPCL)).status_code == 200


def test_who_asks_while_copies_come_and_go_gets_the_right_pixels(site: CopiesSite):
    """And at the end, when the instance is deleted, that it is gone; never an error of ours."""
    (sent,) = site.store(jpeg_2000("come-and-go"))
    (native,) = natives(sent)
    stop, seen, wrong = Event(), {"": set[int](), "/frames/1": set[int]()}, []

    def ask(path: str, accept: str) -> None:
        session = CopiesSite(site.url, site.archive, site.pixels)
        while not stop.is_set():
            answer = session.get(sent, path, accept)
            seen[path].add(answer.status_code)
            if answer.status_code == 200 and native not in answer.content:
                wrong.append(path)

    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(ask, "/frames/1", OCTETS), pool.submit(ask, "", alone(ELE, DICOM))]

        def have_seen(status: int) -> bool:
            assert not any(each.done() for each in asked), "who asks has stopped"
            return all(status in statuses for statuses in seen.values())

        try:
            file = site.copy(sent, ELE)
            wait_until(lambda: have_seen(200), timeout_s=LIMIT_S, reason="both have pixels")
            for _ in range(5):
                site.lose(sent, ELE)
                site.get(sent, "/frames/1", OCTETS)
                site.archive.store.put_document(site.path_of(sent, ELE), [file])
                site.get(sent, "/frames/1", OCTETS)
            site.ask("DELETE", f"/{sent.ref.path}")
            wait_until(lambda: have_seen(410), timeout_s=LIMIT_S, reason="both see that it is gone")
        finally:
            stop.set()
        assert [each.result(LIMIT_S) for each in asked] == [None, None]
    assert wrong == []
    assert set().union(*seen.values()) <= {200, 404, 410}


def test_a_replaced_instance_has_no_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WADO_STORAGE__DUPLICATES", "replace")
    with copies_site(tmp_path / "data") as site:
        (sent,) = site.store(jpeg_2000("replaced"))
        site.copy(sent, ELE)
        site.copy(sent, RPCL)
        first = site.get(sent, "/frames/1", OCTETS)
        assert "no-cache" in first.headers["cache-control"]
        other = jpeg_2000("replaced")
        pixels = np.full((90, 70), 9, np.uint8)
        coded = imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", reversible=True)
        (new,) = (Sent(synthetic.part10(synthetic.encapsulated(other, J2K, [bytes(coded)]))),)
        old = site.item(sent).entry.digest
        site.store_file(new)
        wait_until(
            lambda: site.item(sent).entry.digest != old, timeout_s=LIMIT_S, reason="it is replaced"
        )
        site.refresh(new)
        etag = first.headers["etag"]
        answer = site.get(sent, "/frames/1", OCTETS, if_none_match=etag)
        assert (answer.status_code, answer.content) == (200, pixels.tobytes())
        made = site.get(sent, "/frames/1", alone(RPCL))
        assert np.array_equal(imagecodecs.htj2k_decode(made.content), pixels)
        assert site.get(sent, "/metadata").json()[0][AVAILABLE]["Value"] == [J2K]
        file = site.copy(sent, ELE)
        assert site.get(sent, "", alone(ELE, DICOM)).content == file
        assert site.get(sent, "/frames/1", OCTETS).content == pixels.tobytes()


# ------------------------------------------------------------------ metadata


def test_metadata_and_searches_name_the_copies(site: CopiesSite):
    (sent,) = site.store(jpeg_2000("named"))
    series = f"/{sent.ref.series.path}"
    study = f"/studies/{sent.ref.study_instance_uid}"
    paths = [f"/{sent.ref.path}/metadata", f"{series}/metadata", f"{study}/metadata"]
    before = [site.ask("GET", path) for path in paths]
    assert all(answer.json()[0][AVAILABLE]["Value"] == [J2K] for answer in before)
    site.copy(sent, BASELINE, quality=90)
    site.copy(sent, RPCL)
    site.copy(sent, ELE)
    expected = [J2K, ELE, RPCL, BASELINE]
    for path, old in zip(paths, before, strict=True):
        etag = old.headers["etag"]
        answer = site.ask("GET", path, if_none_match=etag)
        assert (answer.status_code, answer.headers["etag"] != etag) == (200, True)
        assert answer.json()[0][AVAILABLE] == {"vr": "UI", "Value": expected}
        assert {**answer.json()[0], AVAILABLE: 0} == {**old.json()[0], AVAILABLE: 0}
        xml = site.ask("GET", path, 'multipart/related; type="application/dicom+xml"').text
        assert [uid in xml for uid in expected] == [True] * 4
    for path in (
        f"{series}/instances",
        f"{study}/instances",
        f"{study}/instances?includefield=all",
    ):
        assert site.ask("GET", path).json()[0][AVAILABLE]["Value"] == expected, path


def test_ready_documents_name_the_copies(site: CopiesSite):
    from wado.archive.describe import describe_series, describe_study  # noqa: PLC0415
    from wado.archive.metadata import ready_document, series_metadata  # noqa: PLC0415

    (sent,) = site.store(
        synthetic.structured_report(study="documents"),
    )
    (image,) = site.store(jpeg_2000("documents"))
    site.copy(image, RPCL)
    ref = image.ref.series
    wait_until(
        lambda: describe_series(site.archive, site.journals, ref) is not None,
        timeout_s=LIMIT_S, reason="the series is described",
    )  # fmt: skip
    found = series_metadata(site.journals, ref)
    assert found.document
    with site.archive.store.open(f"{found.document}.json") as file:
        assert json.loads(file.read())[0][AVAILABLE]["Value"] == [J2K, RPCL]
    answer = site.ask("GET", f"/{ref.path}/metadata")
    assert answer.json()[0][AVAILABLE]["Value"] == [J2K, RPCL]
    site.copy(image, ELE)  # the document is stale now
    assert ready_document(site.archive, series_metadata(site.journals, ref), gzip=False) is None
    answer = site.ask("GET", f"/{ref.path}/metadata")
    assert answer.json()[0][AVAILABLE]["Value"] == [J2K, ELE, RPCL]
    assert describe_series(site.archive, site.journals, ref) is not None
    assert describe_series(site.archive, site.journals, sent.ref.series) is not None
    assert describe_study(site.archive, site.journals, image.ref.series.study)
    study = site.ask("GET", f"/studies/{ref.study_instance_uid}/metadata").json()
    assert [J2K, ELE, RPCL] in [each[AVAILABLE]["Value"] for each in study]
