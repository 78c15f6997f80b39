"""The page of conversions: what was made, what failed and why, and nothing at all."""

import json
import re

import requests
from playwright.sync_api import expect

from browser.viewer_page import ViewerPage
from every_syntax import Example
from service import RunningArchive, wait_until

PART_2_LOSSLESS = "1.2.840.10008.1.2.4.92"
HIERARCHICAL = "1.2.840.10008.1.2.4.59"
FAILURES = "[data-test=failures] tbody tr"


def test_conversions_and_failures_stand_in_tables(
    every_viewer: ViewerPage, every_one: RunningArchive, examples: dict[str, Example]
):
    made = sum(e.transfer_syntax_uid == PART_2_LOSSLESS for e in examples.values())
    wait_until(
        lambda: has_converted(every_one, PART_2_LOSSLESS, made, HIERARCHICAL),
        timeout_s=240,
        reason="the queue is through, and the warehouse knows",
    )
    page = every_viewer.page
    every_viewer.open_list()
    page.get_by_role("link", name="Conversions").click()
    expect(page).to_have_url(re.compile(r"#/statistics$"))
    row = page.locator("[data-test=conversions] tbody tr", has_text="JPEG 2000 Part 2 Lossless")
    expect(row).to_contain_text("HTJ2K Lossless RPCL")
    expect(row.locator("td.number").first).to_have_text(str(made))
    failed = page.locator(FAILURES, has_text="JPEG Extended, hierarchical (Process 16 and 18)")
    expect(failed).to_contain_text("no decoder")
    failed.get_by_role("link", name="Open study").click()
    sentence = page.locator(".sentence", has_text="This image cannot be shown.")
    expect(sentence).to_be_visible(timeout=60_000)


def has_converted(archive: RunningArchive, made_of: str, made: int, failed_of: str) -> bool:
    answer = requests.get(f"{archive.http}/statistics/transcoding", timeout=60)
    if answer.status_code != 200:
        return False
    rows = answer.json()["conversions"]
    sums = {row["transfer_syntax_uid"]: (row["succeeded"], row["failed"]) for row in rows}
    return bool(sums.get(made_of, (0, 0))[0] >= made and sums.get(failed_of, (0, 0))[1] > 0)


def test_without_conversions_it_says_so(viewer: ViewerPage):
    empty = {"waiting": 0, "since": "2026-11-01T00:00:00+00:00", "conversions": [], "failures": []}
    viewer.page.route(
        "**/statistics/transcoding*", lambda route: route.fulfill(body=json.dumps(empty))
    )
    viewer.open_list("#/statistics")
    expect(viewer.page.locator(".notice h1")).to_have_text("Nothing has been converted yet")
    expect(viewer.page.locator("[data-test=waiting] dd")).to_have_text("0")
    viewer.page.keyboard.press("Escape")
    expect(viewer.page.locator(".worklist")).to_be_visible()


def test_a_warehouse_that_is_away_is_a_sentence(viewer: ViewerPage):
    page, body = viewer.page, json.dumps({"reason": "the warehouse can't be asked"})
    page.route("**/statistics/transcoding*", lambda route: route.fulfill(status=503, body=body))
    viewer.open_list("#/statistics")
    expect(page.locator(".alarm")).to_contain_text("503 (the warehouse can't be asked)")
    page.unroute("**/statistics/transcoding*")
    expect(page.locator(".sums")).to_be_visible(timeout=60_000)
    expect(page.locator(".alarm")).to_have_count(0)
