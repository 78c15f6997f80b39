"""Videos in the viewer: played, wound, waited for, and explained when they can't be."""

import json

import pytest
from playwright.sync_api import Page, Route, expect

from browser.viewer_page import ViewerPage
from every_syntax import Example

JPEG = "1.2.840.10008.1.2.4."
H264 = "1.2.840.10008.1.2.4.102"
PLAYS = "() => document.querySelector('video')?.readyState >= 2"
FILLS_THE_STAGE = """() => {
    const [a, b] = ['video', '.viewport'].map(
        place => document.querySelector(place).getBoundingClientRect());
    return ['x', 'y', 'width', 'height'].every(side => a[side] === b[side]) && a.width > 0; }"""


def open_video(viewer: ViewerPage, example: Example) -> None:
    study, series, _ = example.uids
    viewer.open_list(f"#/study/{study}/series/{series}")


def seen_size(page: Page) -> list[float]:
    """Wait until a picture of the video is there; its width, height and length in seconds."""
    page.wait_for_function(PLAYS, timeout=180_000)
    size: list[float] = page.locator("video").evaluate(
        "v => [v.videoWidth, v.videoHeight, v.duration]"
    )
    return size


@pytest.mark.parametrize("number", ["100", "101", "102", "104", "107"])
def test_a_video_plays_and_seeks(
    every_viewer: ViewerPage, examples: dict[str, Example], number: str
):
    page = every_viewer.page
    # What browsers don't play is shown once the copy that they do is made.
    open_video(every_viewer, examples[f"{JPEG}{number} video"])
    assert seen_size(page) == [64, 48, pytest.approx(0.4, abs=0.15)]
    page.wait_for_function(FILLS_THE_STAGE)
    moment = page.locator("video").evaluate(
        """video => new Promise(done => {
        video.onseeked = () => done(video.currentTime);
        video.currentTime = video.duration / 2; })"""
    )
    assert moment == pytest.approx(0.2, abs=0.08)
    page.keyboard.press("Space")
    expect(page.locator("video")).to_have_js_property("ended", value=True)


def test_a_video_that_is_being_converted_comes_by_itself(
    every_viewer: ViewerPage, examples: dict[str, Example]
):
    page, waiting = every_viewer.page, [True]

    def answer(route: Route) -> None:
        if waiting[0]:
            body = json.dumps({"reason": "the video waits to be converted"})
            route.fulfill(status=503, body=body, headers={"retry-after": "5"})
        else:
            route.continue_()

    page.route("**/rendered*", answer)
    open_video(every_viewer, examples[f"{H264} video"])
    sentence = page.locator(".sentence")
    expect(sentence).to_contain_text("is being converted for browsers")
    expect(sentence.get_by_role("link")).to_have_count(0)
    waiting[0] = False
    assert seen_size(page)[0] == 64
    expect(sentence).to_have_count(0)


def test_a_video_that_is_ready_by_the_time_it_is_asked_for_again_plays(
    every_viewer: ViewerPage, examples: dict[str, Example]
):
    page, asked = every_viewer.page, list[str]()

    def answer(route: Route) -> None:
        asked.append(route.request.resource_type)
        if len(asked) == 1:
            route.fulfill(status=503, body="{}")
        else:
            route.continue_()

    page.route("**/rendered*", answer)
    open_video(every_viewer, examples[f"{H264} video"])
    assert seen_size(page)[0] == 64
    assert asked[:2] == ["media", "fetch"]  # the viewer learns what the player keeps to itself
    expect(page.locator(".sentence")).to_have_count(0)


def test_a_video_that_no_browser_plays_says_so(
    every_viewer: ViewerPage, examples: dict[str, Example]
):
    page = every_viewer.page
    page.route("**/rendered*", lambda route: route.fulfill(content_type="video/mp4", body="none"))
    open_video(every_viewer, examples[f"{H264} video"])
    expect(page.locator(".sentence")).to_contain_text("of a kind that this browser cannot play")


def test_a_video_that_cannot_be_converted_says_why(
    every_viewer: ViewerPage, examples: dict[str, Example]
):
    page = every_viewer.page
    body = json.dumps(
        {"reason": "the video can't be had as video/mp4: ffmpeg is not there; it can be had as x/y"}
    )
    page.route("**/rendered*", lambda route: route.fulfill(status=406, body=body))
    open_video(every_viewer, examples[f"{JPEG}107 video"])
    sentence = page.locator(".sentence")
    expect(sentence).to_contain_text("This video (HEVC Main Level 5.1) cannot be played (the video")
    expect(sentence).to_contain_text("ffmpeg is not there).")
    link = sentence.get_by_role("link", name="Download")
    expect(link).to_have_attribute("href", f"{address(every_viewer, examples)}")


def address(viewer: ViewerPage, examples: dict[str, Example]) -> str:
    """Give the address of the HEVC video as it is stored."""
    study, series, instance = examples[f"{JPEG}107 video"].uids
    path = f"studies/{study}/series/{series}/instances/{instance}"
    return f"{viewer.base}/dicomweb/{path}?accept=application%2Fdicom%3B%20transfer-syntax%3D*"


def test_the_series_list_says_that_it_is_a_video(
    every_viewer: ViewerPage, examples: dict[str, Example]
):
    open_video(every_viewer, examples[f"{H264} video"])
    thumbnail = every_viewer.page.locator(".series a[aria-current=true] .thumbnail")
    expect(thumbnail).to_have_attribute("title", "1 video")
    expect(thumbnail.locator("svg")).to_be_visible()
