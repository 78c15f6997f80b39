"""Large images: seen coarsely at once, and by way of the copy that is decoded sooner."""

import imagecodecs
import numpy as np
import pytest
import requests
from playwright.sync_api import Route, expect
from pydicom.uid import SecondaryCaptureImageStorage

import synthetic
from browser.conftest import RPCL, available
from browser.test_every_syntax import accept_of, frame_of, open_example, shown
from browser.viewer_page import TOLERANCE, ViewerPage
from every_syntax import Example
from service import RunningArchive, wait_until

JPEG_2000 = "1.2.840.10008.1.2.4.90"
ROWS, COLUMNS = 1040, 1280
GREYS = (20, 90, 160, 230)
"""Of four quarters, which can be told apart in a preview, too."""


@pytest.fixture(scope="module", params=[RPCL, JPEG_2000])
def large(request: pytest.FixtureRequest, every_one: RunningArchive) -> Example:
    """An image of more than a million pixels, in the archive."""
    example = made(request.param)
    answer = requests.post(
        f"{every_one.dicomweb}/studies", data=example.data, timeout=60,
        headers={"content-type": "application/dicom"},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    return example


def made(uid: str) -> Example:
    """An image whose quarters have four greys, with some noise to code."""
    quarters = np.array(GREYS, np.uint8).reshape(2, 2)
    pixels = quarters.repeat(ROWS // 2, 0).repeat(COLUMNS // 2, 1)
    pixels += np.random.default_rng(1).integers(0, 3, pixels.shape, np.uint8)
    ds = synthetic.instance(SecondaryCaptureImageStorage, study="large", series=uid, patient_id="L")
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    ds.WindowCenter, ds.WindowWidth = 128, 256
    if uid == RPCL:
        parts = imagecodecs.HTJ2K.TILEPART.RESOLUTIONS
        coded = imagecodecs.htj2k_encode(
            pixels, reversible=True, tlm=True, tilepart=parts, resolutions=6
        )
    else:
        coded = imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", reversible=True, level=0)
    frame = bytes(coded) + b"\0" * (len(coded) % 2)
    return Example(uid, synthetic.encapsulated(ds, uid, [frame]), pixels=[pixels])


@pytest.mark.parametrize("large", [RPCL], indirect=True)
def test_something_is_seen_before_the_image_is_there(every_viewer: ViewerPage, large: Example):
    page, held, released = every_viewer.page, list[Route](), list[bool]()

    def hold(route: Route) -> None:
        if released:
            route.continue_()
        else:
            held.append(route)

    page.route(f"**{frame_of(large)}", hold)
    open_example(every_viewer, large)
    preview = page.locator("canvas.preview")
    expect(preview).to_be_visible(timeout=60_000)
    expect(page.locator(".corner.bottom.left")).to_contain_text("coarse preview")
    greys = preview.evaluate(
        """canvas => {
        const [c, w, h] = [canvas.getContext('2d'), canvas.width, canvas.height];
        const places = [[1, 1], [3, 1], [1, 3], [3, 3]];
        const grey = ([x, y]) => c.getImageData(x * w / 4, y * h / 4, 1, 1).data[0];
        return [w, h, ...places.map(grey)]; }"""
    )
    assert greys[:2] == [COLUMNS // 8, ROWS // 8]
    np.testing.assert_allclose(greys[2:], GREYS, atol=TOLERANCE)
    wait_until(lambda: bool(held), timeout_s=60, reason="the image itself is asked for")
    released.append(True)
    for route in held:
        route.continue_()
    expect(preview).to_have_count(0)
    np.testing.assert_array_equal(shown(every_viewer, large), np.ravel(large.pixels[0]))


@pytest.mark.parametrize("large", [JPEG_2000], indirect=True)
def test_the_copy_that_is_decoded_sooner_is_shown(
    every_viewer: ViewerPage, every_one: RunningArchive, large: Example
):
    wait_until(
        lambda: RPCL in available(every_one, large), timeout_s=200, reason="the copy is there"
    )
    with every_viewer.page.expect_response(f"**{frame_of(large)}", timeout=120_000) as answer:
        seen = shown(every_viewer, large)
    np.testing.assert_array_equal(seen, np.ravel(large.pixels[0]))
    assert accept_of(answer.value.request).endswith(f"transfer-syntax={RPCL}")


def test_small_images_are_asked_for_once(every_viewer: ViewerPage, examples: dict[str, Example]):
    asked: list[str] = []
    every_viewer.page.on(
        "request", lambda r: asked.append(r.url) if "/instances/" in r.url else None
    )
    shown(every_viewer, examples[f"{RPCL} gray-12"])
    expect(every_viewer.page.locator(".series a[aria-current=true] canvas")).to_be_visible(
        timeout=60_000
    )
    mine = [url for url in asked if examples[f"{RPCL} gray-12"].uids[2] in url]
    assert len(mine) == 1
