"""Pages of another origin that show what is in the archive: pictures, video, reports."""

import threading
from collections.abc import Iterator
from html import escape, unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

import pytest
import requests
from playwright.sync_api import Page, expect
from pydicom import dcmread

import synthetic
import videos
from service import RunningArchive, wait_until


@pytest.fixture
def elsewhere() -> Iterator["_Elsewhere"]:
    """A site of its own, on ``localhost`` where the archive is on ``127.0.0.1``."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Pages) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield _Elsewhere(server)
        server.shutdown()
        thread.join()


class _Pages(BaseHTTPRequestHandler):
    body = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html; charset=utf-8")
        # As viewers with shared memory do: then only what allows it may be embedded.
        self.send_header("cross-origin-embedder-policy", "require-corp")
        self.send_header("cross-origin-opener-policy", "same-origin")
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


class _Elsewhere:
    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.address = f"http://localhost:{server.server_address[1]}/"

    def show(self, page: Page, html: str) -> None:
        _Pages.body = html.encode()
        page.goto(self.address)


def wado_uri(archive: RunningArchive, path: Path) -> str:
    """Store a file, and give its address in the URI service, as a page has it."""
    answer = requests.post(
        f"{archive.dicomweb}/studies", data=path.read_bytes(), timeout=60,
        headers={"content-type": "application/dicom"},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    ds = dcmread(path, stop_before_pixels=True)
    uids = {
        "requestType": "WADO", "studyUID": ds.StudyInstanceUID,
        "seriesUID": ds.SeriesInstanceUID, "objectUID": ds.SOPInstanceUID,
    }  # fmt: skip
    return escape(f"{archive.http}/wado?{urlencode(uids)}")


@pytest.mark.ps318("uri-instance", "cors")
def test_an_image_element_shows_an_image(
    page: Page, elsewhere: "_Elsewhere", running: RunningArchive, head: list[Path], corpus: Path
):
    slice_ = wado_uri(running, head[70])
    movie = wado_uri(running, corpus / "multiframe" / "pydicom-data__emri_small.dcm")
    elsewhere.show(
        page,
        f'<img id="plain" src="{slice_}"><img id="cors" crossorigin src="{slice_}">'
        f'<img id="movie" src="{movie}">',
    )
    for name in ("plain", "cors", "movie"):
        expect(page.locator(f"#{name}")).to_have_js_property("complete", value=True)
    sizes = page.evaluate("[...document.images].map(i => [i.naturalWidth, i.naturalHeight])")
    assert sizes == [[512, 512], [512, 512], [64, 64]]
    # The page may read the pixels of the one it asked for with CORS.
    assert page.evaluate(
        """() => { const c = document.createElement("canvas").getContext("2d");
        c.drawImage(document.getElementById("cors"), 0, 0);
        return new Set(c.getImageData(0, 0, 512, 512).data).size; }"""
    ) > 2  # fmt: skip


_SEEK = """() => new Promise((done, failed) => {
    const video = document.querySelector("video");
    video.onerror = () => failed(video.error.message);
    video.onseeked = () => done([video.currentTime, video.videoWidth, video.duration]);
    const seek = () => { video.currentTime = video.duration / 2; };
    video.readyState ? seek() : video.onloadedmetadata = seek; })"""


@pytest.mark.ps318("rendered-video")
def test_a_video_element_plays_and_seeks(
    page: Page, elsewhere: "_Elsewhere", running: RunningArchive, corpus: Path
):
    video = wado_uri(running, corpus / "derived" / "video_h264.dcm")
    elsewhere.show(page, f'<video muted preload="auto" src="{video}"></video>')
    seen = page.evaluate(_SEEK)
    assert seen[0] == pytest.approx(2.0, abs=0.1)
    assert seen[1] > 100


@pytest.mark.ps318("rendered-video")
@pytest.mark.parametrize(
    ("kind", "syntax"),
    [
        ("mpeg2.ts", videos.MPEG_2_MAIN),
        ("hevc-10.mp4", videos.HEVC_MAIN_10),
        ("h264.ts", videos.H264),
    ],
)
def test_video_of_other_kinds_plays_once_it_is_converted(
    page: Page,
    elsewhere: "_Elsewhere",
    running: RunningArchive,
    tmp_path: Path,
    kind: str,
    syntax: str,
):
    stream = videos.content(kind, frames=50, sound=kind.endswith(".ts"))
    path = tmp_path / "video.dcm"
    path.write_bytes(synthetic.part10(videos.instance(stream, syntax, frames=50)))
    url = unescape(wado_uri(running, path)) + "&contentType=video/mp4"

    def is_converted() -> bool:
        status = requests.get(url, timeout=60).status_code
        assert status in (200, 503), status
        return status == 200

    wait_until(is_converted, timeout_s=200, reason="it is converted")
    elsewhere.show(page, f'<video muted preload="auto" src="{escape(url)}"></video>')
    seen = page.evaluate(_SEEK)
    assert seen[0] == pytest.approx(seen[2] / 2, abs=0.1)
    assert seen[1:] == [videos.COLUMNS, pytest.approx(50 / videos.RATE, abs=0.2)]
    # What is shown there is no blank picture.
    colours = """() => { const c = document.createElement("canvas").getContext("2d");
        c.drawImage(document.querySelector("video"), 0, 0);
        return new Set(new Uint32Array(c.getImageData(0, 0, 96, 64).data.buffer)).size > 100; }"""
    page.evaluate("""() => new Promise(done => {
        const video = document.querySelector("video");
        video.crossOrigin = "anonymous"; video.onloadeddata = done; video.load(); })""")
    page.wait_for_function(colours)


@pytest.mark.ps318("rendered-text")
def test_a_report_is_a_page_that_runs_nothing(page: Page, running: RunningArchive, corpus: Path):
    wado_uri(running, corpus / "nonimage" / "pydicom__test-SR.dcm")
    ds = dcmread(corpus / "nonimage" / "pydicom__test-SR.dcm")
    page.goto(
        f"{running.dicomweb}/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}"
        f"/instances/{ds.SOPInstanceUID}/rendered"
    )
    expect(page.locator("h1")).to_have_text("Diagnosis")
    expect(page.get_by_text("Riesmeier, Jörg").first).to_be_visible()
    blocked = """() => new Promise(done => {
        addEventListener("securitypolicyviolation", e => done(e.violatedDirective));
        const script = document.createElement("script");
        script.textContent = "window.ran = true"; document.body.append(script); })"""
    assert page.evaluate(blocked).startswith("script-src")
    assert page.evaluate("window.ran") is None
