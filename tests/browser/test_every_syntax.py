"""Every transfer syntax in the viewer: right pixels, or a sentence that says why there are none."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from playwright.sync_api import Request, Route, expect
from pydicom.pixels.processing import apply_color_lut, convert_color_space

import coded_streams
from browser.conftest import RPCL, available
from browser.viewer_page import ViewerPage
from every_syntax import Example
from service import RunningArchive, wait_until

JPEG = "1.2.840.10008.1.2.4."
SHOWN = (
    *("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"),
    *("1.2.840.10008.1.2.1.98", "1.2.840.10008.1.2.8.1", "1.2.840.10008.1.2.5"),
    *(f"{JPEG}{n}" for n in (50, 51, 52, 53, 54, 55, 56, 57, 70, 80, 81, 90, 91, 92, 93)),
    *(f"{JPEG}{n}" for n in (110, 111, 112, 201, 202, 203)),
    "3.2.840.10008.1.2.4.96",
)
"""Transfer syntaxes whose images must be seen; the others have no decoder, or no pixels."""

CONVERTED = frozenset(f"{JPEG}{n}" for n in (51, 52, 53, 54, 55, 56, 92, 93))
"""Those that the viewer does not decode, or not rightly: the archive does it."""

ARITHMETIC = frozenset(f"{JPEG}{n}" for n in (52, 54, 56))
PART_2 = f"{JPEG}92 gray-12"
NO_DECODER = f"{JPEG}59 gray-8"
DIFFERS = 1.0
"""Rounding of colour spaces and palettes, beyond what the coding loses."""


def open_example(viewer: ViewerPage, example: Example) -> None:
    study, series, _ = example.uids
    viewer.open_list(f"#/study/{study}/series/{series}")


def shown(viewer: ViewerPage, example: Example) -> npt.NDArray[np.float64]:
    """Wait for the image, and give the values that are drawn."""
    open_example(viewer, example)
    viewer.page.wait_for_function(
        "uid => window.__viewer?.viewport.getCornerstoneImage()?.imageId.includes(uid)",
        arg=example.uids[2],
        timeout=120_000,
    )
    viewer.wait_drawn(0)
    return np.array(
        viewer.ask("Array.from(viewport.getCornerstoneImage().getPixelData())"), dtype=float
    )


def expected(example: Example) -> npt.NDArray[np.float64]:
    """Give the first frame as it must be drawn: colours as RGB."""
    pixels, colour = np.asarray(example.pixels[0]), example.ds.PhotometricInterpretation
    if colour == "YBR_FULL" and example.bound == 0:  # coded without loss: still what it is called
        pixels = convert_color_space(pixels, "YBR_FULL", "RGB")
    if colour == "PALETTE COLOR":
        pixels = np.asarray(apply_color_lut(pixels, example.ds))
        pixels = pixels / 257 if pixels.dtype == np.uint16 else pixels
    return np.asarray(pixels, dtype=float).reshape(-1)


@pytest.mark.parametrize("uid", SHOWN)
def test_images_have_the_right_pixels(
    every_viewer: ViewerPage, examples: dict[str, Example], uid: str
):
    of_syntax = [e for e in examples.values() if e.transfer_syntax_uid == uid and e.pixels]
    images = [e for e in of_syntax if e.kind == "image" and "frames" not in e.name]
    if uid in ARITHMETIC and not coded_streams.has_cjpeg():
        pytest.skip("there is no cjpeg, which makes such images")
    assert images
    asked: list[tuple[str, str]] = []
    every_viewer.page.on("request", lambda r: asked.append((r.url, accept_of(r))))
    for example in images:
        seen = shown(every_viewer, example)
        np.testing.assert_allclose(
            seen, expected(example), atol=example.bound + DIFFERS, err_msg=example.name
        )
    for example in images:
        as_stored = {
            a.endswith("transfer-syntax=*") for url, a in asked if frame_of(example) in url
        }
        assert as_stored == {uid not in CONVERTED}, example.name


def frame_of(example: Example) -> str:
    """Give the end of the address of its first frame."""
    return f"/instances/{example.uids[2]}/frames/1"


def accept_of(request: Request) -> str:
    """What a request accepts."""
    return request.headers.get("accept", "")


def test_a_copy_that_the_archive_has_is_asked_for(
    every_viewer: ViewerPage, every_one: RunningArchive, examples: dict[str, Example]
):
    example = examples[PART_2]
    wait_until(
        lambda: RPCL in available(every_one, example), timeout_s=200, reason="the copy is there"
    )
    with every_viewer.page.expect_response(f"**{frame_of(example)}", timeout=120_000) as answer:
        seen = shown(every_viewer, example)
    np.testing.assert_array_equal(seen, expected(example))
    assert accept_of(answer.value.request).endswith(f"type=image/jphc; transfer-syntax={RPCL}")
    assert every_viewer.ask("viewport.getCornerstoneImage().transferSyntaxUID") == RPCL


def test_what_the_viewer_fails_to_decode_the_archive_decodes(
    every_viewer: ViewerPage, examples: dict[str, Example]
):
    example = examples[f"{JPEG}90 signed-16"]
    damaged: list[str] = []

    def damage(route: Route) -> None:
        if not accept_of(route.request).endswith("transfer-syntax=*"):
            route.continue_()
            return
        damaged.append(route.request.url)
        kind = f"image/jp2;transfer-syntax={example.transfer_syntax_uid}"
        route.fulfill(status=200, content_type=kind, body=b"no code stream")

    every_viewer.page.route(f"**{frame_of(example)}", damage)
    np.testing.assert_array_equal(shown(every_viewer, example), expected(example))
    assert damaged


def test_what_nobody_decodes_is_a_sentence_and_a_file(
    every_viewer: ViewerPage, examples: dict[str, Example], tmp_path: Path
):
    example, page = examples[NO_DECODER], every_viewer.page
    open_example(every_viewer, example)
    sentence = page.locator(".sentence")
    expect(sentence).to_contain_text("This image cannot be shown.")
    expect(sentence).to_contain_text("JPEG Extended, hierarchical (Process 16 and 18), retired")
    expect(sentence).to_contain_text("there is no decoder for")
    expect(sentence).not_to_contain_text("it can be had as")
    entry = page.locator(".series a[aria-current=true]")
    expect(entry.locator(".thumbnail")).to_have_attribute(
        "title", re.compile("cannot be shown.*no decoder"), timeout=60_000
    )
    expect(entry.locator("canvas")).to_be_hidden()
    with page.expect_download() as download:
        sentence.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == f"{example.uids[2]}.dcm"
    download.value.save_as(tmp_path / "stored.dcm")
    stored = pydicom.dcmread(tmp_path / "stored.dcm")
    assert stored.PixelData == example.ds.PixelData
    assert stored.file_meta.TransferSyntaxUID == example.transfer_syntax_uid
    # The rest of the study is not touched by it.
    other = next(e for e in examples.values() if e.kind == "image" and e.uids[0] == example.uids[0])
    page.locator(f".series a[href$='{other.uids[1]}']").click()
    every_viewer.wait_drawn(0)
    assert every_viewer.instance() == other.uids[2]


def test_pixels_on_another_server_are_said_to_be_there(
    every_viewer: ViewerPage, examples: dict[str, Example]
):
    example, asked = examples[f"{JPEG}204 without pixels"], list[str]()
    every_viewer.page.on("request", lambda r: asked.append(r.url))
    open_example(every_viewer, example)
    expect(every_viewer.page.locator(".sentence")).to_have_text(
        "This series holds images whose pixels lie on another server "
        "(JPIP HTJ2K Referenced, 1.2.840.10008.1.2.4.204), which is not asked for them.",
        timeout=60_000,
    )
    assert not [url for url in asked if frame_of(example) in url]
