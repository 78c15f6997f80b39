"""Rendered video: the copy that browsers play, what is stored to who asks for that, or why not."""

import io
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pydicom
import pytest

import copies_site
import real
import videos
from copies_site import LIMIT_S, CopiesSite, Sent
from videos import HEVC_MAIN, MPEG_2_HIGH, MPEG_2_MAIN
from wado.archive.retrieve import Item
from wado.archive.video import without_mp4
from wado.errors import NotAcceptable, Unavailable
from wado.transcode_settings import TranscodeSettings

MPEG_4 = videos.H264
AS_VIDEO = "video/mp4"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CopiesSite]:
    real.require("ffmpeg")
    with copies_site.copies_site(tmp_path_factory.mktemp("videos") / "data") as made:
        yield made


def stored(site: CopiesSite, kind: str, source: str, **attributes: Any) -> Sent:
    (sent,) = site.store(videos.instance(videos.content(kind), source, **attributes))
    return sent


def stream(file: bytes) -> bytes:
    """The stream in a file, without the byte that may pad its fragment."""
    return videos.stream_of(pydicom.dcmread(io.BytesIO(file)))


@pytest.mark.ps318("rendered-video")
@pytest.mark.parametrize(
    ("kind", "source", "target", "types"),
    [
        ("mpeg2.m2v", MPEG_2_MAIN, MPEG_4, ("video/mpeg",)),
        ("mpeg2.ts", MPEG_2_HIGH, MPEG_4, ("video/mp2t", "video/mpeg")),
        ("hevc.mp4", HEVC_MAIN, MPEG_4, ("video/H265",)),
        ("h264.ts", MPEG_4, MPEG_4, ("video/mp2t", "video/mpeg")),
        ("h264.264", MPEG_4, MPEG_4, ("video/H264",)),
    ],
)
def test_the_copy_is_what_is_shown(
    site: CopiesSite, kind: str, source: str, target: str, types: tuple[str, ...]
):
    sent = stored(site, kind, source, PatientID=f"{kind} shown")
    original = stream(sent.data)
    before = site.get(sent, "/rendered", "*/*")
    assert (before.status_code, before.headers["content-type"]) == (200, types[0])
    assert before.content == original
    assert before.headers["cache-control"] == "private, no-cache", "a copy may come"
    waits = site.get(sent, "/rendered", AS_VIDEO)
    assert waits.status_code == 503
    assert waits.json()["reason"] == "the video waits to be converted for browsers: try again"
    assert int(waits.headers["retry-after"]) > 0

    played = stream(site.copy(sent, target))
    for accept in ("*/*", AS_VIDEO, "video/*", "video/webm, video/*;q=0.9, */*;q=0.5"):
        answer = site.get(sent, "/rendered", accept)
        assert (answer.status_code, answer.headers["content-type"]) == (200, AS_VIDEO)
        assert answer.content == played
        assert answer.headers["cache-control"] == "private, no-cache"
    for media_type in types:
        answer = site.get(sent, "/rendered", media_type)
        assert (answer.headers["content-type"], answer.content) == (media_type, original)
    assert site.get(sent, "/rendered", "image/jpeg").status_code == 406


def test_players_seek_in_the_copy(site: CopiesSite):
    sent = stored(site, "hevc.mp4", HEVC_MAIN, PatientID="seek")
    played = stream(site.copy(sent, MPEG_4))
    part = site.get(sent, "/rendered", "*/*", range="bytes=100-199")
    assert (part.status_code, part.content) == (206, played[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(played)}"
    last = site.get(sent, "/rendered", "*/*", range="bytes=-10")
    assert (last.status_code, last.content) == (206, played[-10:])
    assert site.get(sent, "/rendered", "*/*", range="bytes=9999999-").status_code == 416
    head = site.ask("HEAD", f"/{sent.ref.path}/rendered", AS_VIDEO)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(played))
    assert head.headers["accept-ranges"] == "bytes"
    tag = head.headers["etag"]
    assert site.get(sent, "/rendered", AS_VIDEO, if_none_match=tag).status_code == 304
    stays = site.get(sent, "/rendered", "video/H265")
    assert stays.headers["etag"] != tag


def test_by_parameter_and_by_wado_uri(site: CopiesSite):
    sent = stored(site, "mpeg2.ts", f"{MPEG_2_HIGH}.1", PatientID="uri", fragments=3)
    at = f"/{sent.ref.path}/rendered?accept=video/mp4"
    uri = (
        f"{site.url}/wado?requestType=WADO&studyUID={sent.ref.study_instance_uid}"
        f"&seriesUID={sent.ref.series_instance_uid}&objectUID={sent.ref.sop_instance_uid}"
        f"&contentType=video/mp4"
    )
    assert site.ask("GET", at).status_code == 503
    assert site.session.get(uri, timeout=LIMIT_S).status_code == 503
    played = stream(site.copy(sent, MPEG_4))
    for answer in (site.ask("GET", at), site.session.get(uri, timeout=LIMIT_S)):
        assert (answer.status_code, answer.headers["content-type"]) == (200, AS_VIDEO)
        assert answer.content == played


def test_what_can_not_be_converted_is_said_with_the_reason(site: CopiesSite):
    sent = stored(site, "mpeg2.m2v", MPEG_2_MAIN, PatientID="fails")
    site.fail(sent, MPEG_4, "ffmpeg is not installed")
    answer = site.get(sent, "/rendered", AS_VIDEO)
    assert answer.status_code == 406
    assert answer.json()["reason"] == (
        "the video can't be had as video/mp4: ffmpeg is not installed; it can be had as video/mpeg"
    )
    assert site.get(sent, "/rendered", "*/*").content == stream(sent.data)


def test_who_asks_for_frames_is_told_what_to_ask_for(site: CopiesSite):
    sent = stored(site, "h264.mp4", MPEG_4, PatientID="frames")
    for path, accept in (("/frames/1", "*/*"), ("/frames/1", AS_VIDEO), ("/htj2k/1", "*/*")):
        answer = site.get(sent, path, accept)
        assert answer.status_code == 404
        assert "no frames to be decoded one by one: ask for …/pixeldata" in answer.json()["reason"]
    assert stream(sent.data) in site.get(sent, "/pixeldata", "*/*").content


def test_an_mp4_file_with_h264_stays_as_it_is(site: CopiesSite):
    sent = stored(site, "h264.mp4", MPEG_4)
    answer = site.get(sent, "/rendered", "*/*")
    assert (answer.headers["content-type"], answer.content) == (AS_VIDEO, stream(sent.data))
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"


def test_the_original_is_given_as_before_and_the_copy_to_who_names_it(site: CopiesSite):
    sent = stored(site, "hevc.mp4", HEVC_MAIN, PatientID="original")
    copy = site.copy(sent, MPEG_4)
    for syntax, file in (("*", sent.data), (HEVC_MAIN, sent.data), (MPEG_4, copy)):
        accept = f'multipart/related; type="application/dicom"; transfer-syntax={syntax}'
        assert file in site.get(sent, "", accept).content
    (metadata,) = site.get(sent, "/metadata", "application/dicom+json").json()
    assert metadata["00083002"]["Value"] == [HEVC_MAIN], "by it viewers tell that it is a video"


def test_a_copy_in_the_syntax_of_the_original_does_not_stand_for_it(site: CopiesSite):
    sent = stored(site, "h264.ts", MPEG_4, PatientID="the same syntax")
    site.copy(sent, MPEG_4)
    for syntax in ("*", MPEG_4):
        accept = f'multipart/related; type="application/dicom"; transfer-syntax={syntax}'
        assert sent.data in site.get(sent, "", accept).content
    (metadata,) = site.get(sent, "/metadata", "application/dicom+json").json()
    assert metadata["00083002"]["Value"] == [MPEG_4]
    (part,) = site.get(sent, "/bulkdata/7FE00010", "video/mp4").iter_content(None)
    assert stream(sent.data) in part


@pytest.mark.parametrize(
    ("settings", "age", "error", "words"),
    [
        ({}, timedelta(0), Unavailable, "waits to be converted"),
        ({"video_timeout_s": 60}, timedelta(minutes=50), Unavailable, "try again"),
        ({"video_timeout_s": 60}, timedelta(minutes=62), NotAcceptable, "`wado transcode` does it"),
        ({"enabled": False}, timedelta(0), NotAcceptable, "`wado transcode` does it"),
    ],
)
def test_who_waits_in_vain_is_told_so(
    site: CopiesSite,
    settings: dict[str, object],
    age: timedelta,
    error: type[Exception],
    words: str,
):
    sent = stored(site, "mpeg2.m2v", MPEG_2_MAIN, PatientID="waits")
    view = site.journals.view(sent.ref.series)
    assert view is not None
    entry = replace(site.item(sent).entry, received_at=(datetime.now(UTC) - age).isoformat())
    found = Item(sent.ref, entry, view)
    answer = without_mp4(TranscodeSettings.model_validate(settings), found, "video/mpeg")
    assert isinstance(answer, error)
    assert words in str(answer)
