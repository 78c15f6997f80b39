"""The CT head in the viewer: the pixels are those of the files, and the tools do what they say."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, CDPSession, ViewportSize, expect
from pydicom import Dataset, dcmread

from browser.viewer_page import PATIENCE_MS, ViewerPage, even_places, patient_points, window_greys
from service import RunningArchive

LUNG = {"center": -600, "width": 1500}
"""Preset 2: wide enough that the phantom's air, plastic and bone are different greys."""


@pytest.fixture(scope="module")
def slices(head: list[Path]) -> list[Dataset]:
    return [dcmread(path) for path in head]


@pytest.fixture
def stack(viewer: ViewerPage, slices: list[Dataset]) -> ViewerPage:
    """The viewer with the first slice on the screen."""
    viewer.open_series(slices[0].StudyInstanceUID, slices[0].SeriesInstanceUID)
    return viewer


def assert_shows(viewer: ViewerPage, ds: Dataset, center: float, width: float) -> None:
    greys = window_greys(ds, center, width)
    places = even_places(greys)
    viewer.assert_greys(patient_points(ds, places), [greys[place] for place in places])


def test_a_click_on_the_study_shows_its_first_image(viewer: ViewerPage, slices: list[Dataset]):
    ds = slices[0]
    viewer.open_list()
    viewer.page.locator("tbody tr", has_text=str(ds.PatientID)).click()
    viewer.wait_drawn(0)
    assert viewer.instance() == ds.SOPInstanceUID
    viewer.wait_window_text(80, 40)  # the window of the file
    assert_shows(viewer, ds, 40, 80)
    expect(viewer.page.locator(".overlay")).to_contain_text("PLASTIC")
    expect(viewer.page.locator("[data-test=position]")).to_have_text("Image 1 / 140")
    expect(viewer.page).to_have_url(re.compile(f"/series/{ds.SeriesInstanceUID}$"))
    assert [viewer.page.locator(f".edge.{side}").inner_text() for side in ("top", "left")] == [
        "A",
        "R",
    ]


def test_every_image_is_fetched_once_and_ordered_by_position(
    viewer: ViewerPage, slices: list[Dataset]
):
    frames: list[str] = []
    viewer.page.on("request", lambda r: frames.append(r.url) if "/frames/" in r.url else None)
    viewer.open_series(slices[0].StudyInstanceUID, slices[0].SeriesInstanceUID)
    expect(viewer.page.locator(".corner.bottom.left")).to_have_text(
        "Image 1 / 140", timeout=120_000
    )
    assert len(frames) == len(set(frames)) == 140
    ids = [url.split("/instances/")[1] for url in viewer.ask("viewport.getImageIds()")]
    assert ids == [f"{ds.SOPInstanceUID}/frames/1" for ds in slices]


def test_scrolling_shows_the_slice_that_was_asked_for(stack: ViewerPage, slices: list[Dataset]):
    page = stack.page
    page.keyboard.press("2")
    assert_shows(stack, slices[0], **LUNG)
    page.locator(".canvas").hover()
    page.mouse.wheel(0, 120)
    stack.wait_drawn(1)
    page.keyboard.press("PageDown")
    stack.wait_drawn(11)
    page.keyboard.press("End")
    stack.wait_drawn(139)
    page.keyboard.press("ArrowUp")
    stack.wait_drawn(138)
    bar = page.locator(".scrollbar").bounding_box()
    assert bar is not None
    page.mouse.click(bar["x"] + bar["width"] / 2, bar["y"] + bar["height"] / 2)
    stack.wait_for("Math.abs(viewport.getCurrentImageIdIndex() - 69.5) < 2")
    stack.wait_drawn()
    index = stack.ask("viewport.getCurrentImageIdIndex()")
    assert stack.instance() == slices[index].SOPInstanceUID
    assert_shows(stack, slices[index], **LUNG)


def test_dragging_changes_the_window(stack: ViewerPage, slices: list[Dataset]):
    stack.drag(150, 0)  # half the width of 80 more, as the window is 300 steps wide
    stack.wait_window_text(120, 40)
    stack.drag(0, 50)
    stack.wait_window_text(120, 60)
    assert stack.window() == pytest.approx((60 - 0.5 - 59.5, 60 - 0.5 + 59.5), abs=0.5)
    assert_shows(stack, slices[0], 60, 120)


def test_number_keys_are_windows(stack: ViewerPage, slices: list[Dataset]):
    stack.page.keyboard.press("3")
    stack.wait_window_text(2500, 480)
    assert_shows(stack, slices[0], 480, 2500)
    stack.page.get_by_label("CT windows").select_option("4")
    stack.wait_window_text(80, 40)


def test_inverting_and_back(stack: ViewerPage, slices: list[Dataset]):
    stack.page.keyboard.press("2")
    greys = window_greys(slices[0], **LUNG)
    places = even_places(greys)
    points = patient_points(slices[0], places)
    stack.page.get_by_role("button", name="Invert").click()
    stack.assert_greys(points, [255 - greys[place] for place in places])
    expect(stack.page.locator(".corner.bottom.right")).to_contain_text("inverted")
    stack.page.keyboard.press("i")
    stack.assert_greys(points, [greys[place] for place in places])


def test_panning_moves_and_zooming_magnifies(stack: ViewerPage, slices: list[Dataset]):
    stack.page.keyboard.press("2")
    before = stack.ask("viewport.worldToCanvas(viewport.getCamera().focalPoint)")
    middle = stack.ask("viewport.getCamera().focalPoint")
    stack.drag(60, -40, button="middle")
    x, y = before[0] + 60, before[1] - 40
    stack.wait_for(f"distance(viewport.worldToCanvas({middle}), [{x}, {y}]) <= 1.5")
    stack.drag(0, -87, button="right")  # 1.008 to the power of 87 is 2
    stack.wait_for("Math.abs(viewport.getZoom() - 2) < 0.04")
    expect(stack.page.locator("[data-test=zoom]")).not_to_have_text("Zoom 140 %")
    assert_on_screen(stack, slices[0])
    stack.page.get_by_role("button", name="Reset").click()
    stack.wait_window_text(80, 40)
    assert stack.ask("viewport.getZoom()") == pytest.approx(1)
    assert_shows(stack, slices[0], 40, 80)


def assert_on_screen(viewer: ViewerPage, ds: Dataset) -> None:
    """Compare the part of the image that a magnified view still shows: the middle."""
    greys = window_greys(ds, **LUNG)
    middle = slice(ds.Rows * 3 // 8, ds.Rows * 5 // 8)
    places = [(r + middle.start, c + middle.start) for r, c in even_places(greys[middle, middle])]
    viewer.assert_greys(patient_points(ds, places), [greys[place] for place in places])


def test_the_left_button_does_what_is_chosen(stack: ViewerPage):
    stack.page.get_by_role("button", name="Scroll").click()
    stack.drag(0, 100)
    stack.wait_for("viewport.getCurrentImageIdIndex() > 5")
    stack.page.keyboard.press("z")
    stack.drag(0, -87)
    stack.wait_for("Math.abs(viewport.getZoom() - 2) < 0.04")


def test_one_finger_scrolls_and_two_magnify(
    browser: Browser, filled: RunningArchive, slices: list[Dataset]
):
    screen: ViewportSize = {"width": 390, "height": 780}
    with browser.new_context(viewport=screen, has_touch=True, is_mobile=True) as context:
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        viewer = ViewerPage(page, filled.http)
        viewer.open_series(slices[0].StudyInstanceUID, slices[0].SeriesInstanceUID)
        _touch(viewer, context.new_cdp_session(page))
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390


def _touch(viewer: ViewerPage, device: CDPSession) -> None:
    """Scroll with one finger, then magnify with two."""

    def touch(kind: str, *fingers: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(fingers)]
        device.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (200, 300))
    for step in range(1, 6):
        touch("touchMove", (200, 300 + 20 * step))
    touch("touchEnd")
    expect(viewer.page.locator("[data-test=position]")).not_to_have_text("Image 1 / 140")
    viewer.wait_drawn()
    touch("touchStart", (150, 400), (250, 400))
    for step in range(1, 11):
        touch("touchMove", (150 - 5 * step, 400), (250 + 5 * step, 400))
    touch("touchEnd")
    # The browser hands moves over frame by frame, the last ones a moment after they were made.
    viewer.wait_for("Math.abs(viewport.getZoom() - 2) < 0.2")


def test_window_and_place_stay_while_scrolling(stack: ViewerPage):
    stack.page.keyboard.press("3")
    stack.drag(0, -87, button="right")
    stack.wait_for("Math.abs(viewport.getZoom() - 2) < 0.04")
    x, y = stack.ask("viewport.getPan()")
    stack.drag(30, 30, button="middle")
    stack.wait_for(f"distance(viewport.getPan(), [{x + 30}, {y + 30}]) <= 1.5")
    pan, zoom = stack.ask("[viewport.getPan(), viewport.getZoom()]")
    stack.page.keyboard.press("PageDown")
    stack.wait_drawn(10)
    stack.wait_window_text(2500, 480)
    assert stack.ask("viewport.getZoom()") == pytest.approx(zoom)
    assert stack.ask("viewport.getPan()") == pytest.approx(pan, abs=0.5)


def test_the_back_button_leads_to_the_list(viewer: ViewerPage, slices: list[Dataset]):
    viewer.open_list("#/?PatientID=PLASTIC")
    viewer.page.locator("tbody a").click()
    viewer.wait_drawn(0)
    viewer.page.go_back()
    expect(viewer.page.locator("input[name=PatientID]")).to_have_value("PLASTIC")
    viewer.wait_left()
    viewer.page.go_forward()
    viewer.wait_drawn(0)
    assert viewer.instance() == slices[0].SOPInstanceUID
    viewer.page.keyboard.press("Escape")
    expect(viewer.page.locator(".worklist")).to_be_visible()


def test_the_series_list_shows_a_picture(stack: ViewerPage):
    entry = stack.page.locator(".series a")
    expect(entry).to_have_attribute("aria-current", "true")
    expect(entry).to_contain_text("140 images")
    canvas = entry.locator("canvas")
    expect(canvas).to_be_visible()
    bright = canvas.evaluate(
        "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data"
        ".filter((v, i) => i % 4 === 0 && v > 128).length"
    )
    assert bright > 100
