"""The study list on the built page: what it shows, finds, and notices by itself."""

import json
import re
from pathlib import Path

from playwright.sync_api import Route, expect
from pydicom import dcmread

from browser.conftest import Sent, send
from browser.viewer_page import ViewerPage
from service import RunningArchive


def test_a_study_stands_in_the_list_with_its_counts(viewer: ViewerPage, head: list[Path]):
    ds = dcmread(head[0], stop_before_pixels=True)
    viewer.open_list()
    row = viewer.page.locator("tbody tr", has_text=str(ds.PatientID))
    expect(row).to_contain_text("HEAD")
    expect(row).to_contain_text("2015-02-06")
    expect(row).to_contain_text(str(ds.StudyDescription))
    expect(row.locator("td.number")).to_have_text(["1", "140"])
    expect(row.locator("a")).to_have_attribute("href", f"#/study/{ds.StudyInstanceUID}")


def test_the_newest_study_stands_first(viewer: ViewerPage):
    viewer.open_list()
    expect(viewer.page.locator("tbody tr")).not_to_have_count(0)
    dates = viewer.page.locator("tbody td:nth-child(3)").all_inner_texts()
    assert dates == sorted(dates, reverse=True)


def test_the_filter_narrows_and_is_kept_in_the_address(viewer: ViewerPage):
    viewer.open_list()
    page, rows = viewer.page, viewer.page.locator("tbody tr")
    page.locator("input[name=PatientID]").fill("PLAS")
    expect(rows).to_have_count(1)
    expect(page).to_have_url(re.compile(r"#/\?PatientID=PLAS$"))
    page.reload()
    expect(rows).to_have_count(1)
    page.locator("input[name=PatientName]").fill("nobody of that name")
    expect(page.locator(".notice")).to_have_text("No study matches this filter.")
    page.get_by_role("button", name="Clear").click()
    expect(rows).not_to_have_count(1)
    expect(page.locator("input[name=PatientID]")).to_have_value("")


def test_dates_and_modality_are_matched(viewer: ViewerPage):
    viewer.open_list()
    page, rows = viewer.page, viewer.page.locator("tbody tr")
    page.locator("input[aria-label=from]").fill("2015-02-06")
    page.locator("input[aria-label=to]").fill("2015-02-06")
    expect(rows).to_have_count(1)
    page.locator("select[name=ModalitiesInStudy]").select_option("SR")
    expect(page.locator(".notice")).to_be_visible()


def test_a_study_that_comes_in_appears_by_itself(
    viewer: ViewerPage, filled: RunningArchive, sent: dict[str, Sent], tmp_path: Path
):
    viewer.open_list()
    rows = viewer.page.locator("tbody tr")
    expect(rows).not_to_have_count(0)
    before = rows.count()
    ds = dcmread(sent["report"].path)
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = (
        f"1.2.826.0.1.3680043.8.498.8{level}" for level in ("", ".1", ".1.1")
    )
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.PatientName, ds.StudyDate = "NEW^ARRIVAL", "20991231"
    ds.save_as(tmp_path / "new.dcm")
    send(filled, tmp_path / "new.dcm")
    expect(rows).to_have_count(before + 1)
    expect(rows.first).to_contain_text("NEW, ARRIVAL")
    expect(rows.first).to_have_class("arrived")


def test_the_list_works_by_keys(viewer: ViewerPage):
    viewer.open_list()
    page = viewer.page
    expect(page.locator("tbody tr")).not_to_have_count(0)
    page.keyboard.press("/")
    expect(page.locator("input[name=PatientName]")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    second = page.locator("tbody a").nth(1)
    expect(second).to_be_focused()
    link = second.get_attribute("href")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(re.escape(str(link))))


def test_the_list_does_not_wait_for_the_image_code(viewer: ViewerPage):
    requests: list[str] = []
    viewer.page.on("request", lambda request: requests.append(request.url))
    viewer.open_list()
    rows = viewer.page.locator("tbody tr")
    expect(rows).not_to_have_count(0)
    assert not [url for url in requests if "cornerstone" in url]
    with viewer.page.expect_request(re.compile("cornerstone")):
        rows.first.hover()


def test_an_empty_archive_says_how_to_send(viewer: ViewerPage):
    viewer.page.route("**/dicomweb/studies?*", lambda route: route.fulfill(status=204))
    viewer.open_list()
    expect(viewer.page.locator(".notice")).to_contain_text("wado send")
    expect(viewer.page.locator(".notice")).to_contain_text("AE title WADO")


def test_an_error_is_a_sentence_and_goes_away(viewer: ViewerPage):
    page = viewer.page
    error = json.dumps({"reason": "no index"})
    page.route("**/dicomweb/studies?*", lambda route: route.fulfill(status=503, body=error))
    viewer.open_list()
    expect(page.locator(".alarm")).to_contain_text("The archive answered 503 (no index).")
    page.unroute("**/dicomweb/studies?*")
    expect(page.locator("tbody tr")).not_to_have_count(0)
    expect(page.locator(".alarm")).to_have_count(0)


def test_pages_lead_to_older_studies(viewer: ViewerPage):
    def answer(route: Route) -> None:
        offset = int(route.request.url.split("offset=")[1].split("&")[0])
        rows = [
            {"0020000D": {"vr": "UI", "Value": [f"1.2.{n}"]}}
            for n in range(offset, min(offset + 101, 150))
        ]
        route.fulfill(status=200, content_type="application/dicom+json", body=json.dumps(rows))

    viewer.page.route("**/dicomweb/studies?*", answer)
    viewer.open_list()
    rows = viewer.page.locator("tbody tr")
    expect(rows).to_have_count(100)
    viewer.page.get_by_role("button", name="Older").click()
    expect(rows).to_have_count(50)
    viewer.page.go_back()
    expect(rows).to_have_count(100)
