"""Series of every kind: compressed, in colour, of many frames, and no images at all."""

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Route, expect
from pydicom import dcmread
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import UID

from browser.conftest import COMPRESSED, Sent, send
from browser.viewer_page import (
    TOLERANCE,
    ViewerPage,
    even_places,
    patient_points,
    window_greys,
    windowed,
)
from service import RunningArchive, wait_until

CENTER, WIDTH = 40, 400
"""Window of the CT image that the corpus has in many transfer syntaxes."""

FUNCTIONS = ["LINEAR", "LINEAR_EXACT", "SIGMOID", "OF_OURS"]
"""VOI LUT functions of the Standard, and one that is none."""

HTJ2K_SHA256 = "9d87240604f5d7522c6a8056ace6cefc2c8d6d0b07bd6e7303d5e5b21af9a49e"
"""The red, green and blue bytes of the corpus's lossless HTJ2K image, as OpenJPEG decodes it."""


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_lossless_image_has_the_pixels_of_the_native_one(
    viewer: ViewerPage, sent: dict[str, Sent], name: str
):
    native = dcmread(sent["implicit"].path)
    viewer.open_series(sent[name].study_instance_uid, sent[name].series_instance_uid)
    greys = window_greys(native, CENTER, WIDTH)
    places = even_places(greys)
    viewer.assert_greys(patient_points(native, places), [greys[place] for place in places])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_window_has_its_voi_lut_function(
    viewer: ViewerPage,
    filled: RunningArchive,
    sent: dict[str, Sent],
    tmp_path: Path,
    function: str,
):
    ds = dcmread(sent["implicit"].path)
    number = 100 + FUNCTIONS.index(function)
    ds.StudyInstanceUID = f"1.2.826.0.1.3680043.8.498.7.{number}"
    ds.SeriesInstanceUID = f"{ds.StudyInstanceUID}.1"
    ds.SOPInstanceUID = f"{ds.StudyInstanceUID}.1.1"
    ds.file_meta.MediaStorageSOPInstanceUID = UID(ds.SOPInstanceUID)
    # Of nobody that other tests look for: it stays in the list.
    ds.PatientID, ds.PatientName, ds.StudyDate = "WINDOW", "WINDOW", "20200101"
    ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = CENTER, WIDTH, function
    ds.save_as(tmp_path / "window.dcm")
    send(filled, tmp_path / "window.dcm")
    viewer.open_series(ds.StudyInstanceUID, ds.SeriesInstanceUID)
    greys = windowed(ds, CENTER, WIDTH, function)
    places = even_places(greys)
    viewer.assert_greys(patient_points(ds, places), [greys[place] for place in places])
    viewer.wait_window_text(WIDTH, CENTER)


def test_a_palette_gives_its_colours(viewer: ViewerPage, sent: dict[str, Sent]):
    ds = dcmread(sent["palette"].path)
    viewer.open_series(sent["palette"].study_instance_uid, sent["palette"].series_instance_uid)
    colours = apply_color_lut(ds.pixel_array, ds) / 257  # palettes of 16 bits
    seen = viewer.page.evaluate(
        """step => {
          const pixels = __viewer.viewport.getCornerstoneImage().getPixelData();
          return Array.from(pixels.filter((_, index) => index % step === 0));
        }""",
        7,  # no multiple of three: every colour has its turn
    )
    np.testing.assert_allclose(seen, colours.reshape(-1)[::7], atol=TOLERANCE)
    assert len(set(seen)) > 20


def test_high_throughput_jpeg_2000_gives_every_byte(viewer: ViewerPage, sent: dict[str, Sent]):
    viewer.open_series(sent["htj2k"].study_instance_uid, sent["htj2k"].series_instance_uid)
    digest = viewer.page.evaluate("""async () => {
      const pixels = __viewer.viewport.getCornerstoneImage().getPixelData();
      const digest = await crypto.subtle.digest('SHA-256', new Uint8Array(pixels));
      const bytes = Array.from(new Uint8Array(digest));
      return bytes.map(byte => byte.toString(16).padStart(2, '0')).join('');
    }""")
    assert digest == HTJ2K_SHA256


def test_every_frame_of_a_multi_frame_object_is_an_image(viewer: ViewerPage, sent: dict[str, Sent]):
    ds = dcmread(sent["multiframe"].path)
    viewer.open_series(
        sent["multiframe"].study_instance_uid, sent["multiframe"].series_instance_uid
    )
    expect(viewer.page.locator("[data-test=position]")).to_have_text("Image 1 / 10")
    for index in (0, 9):
        viewer.wait_drawn(index)
        number = int(viewer.ask("viewport.getCurrentImageId()").rsplit("/", 1)[1])
        pixels = viewer.ask("Array.from(viewport.getCornerstoneImage().getPixelData())")
        np.testing.assert_array_equal(
            np.array(pixels).reshape(ds.Rows, ds.Columns), ds.pixel_array[number - 1]
        )
        viewer.page.keyboard.press("End")


GROWING = "1.2.826.0.1.3680043.8.498.9"


def growing(study: str, head: list[Path], numbers: range, folder: Path) -> Path:
    """Write slices of the head as part of a series of its own; their folder."""
    folder.mkdir()
    for number in numbers:
        ds = dcmread(head[number])
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study, f"{study}.1"
        ds.SOPInstanceUID = f"{study}.1.{number}"
        # Of nobody that other tests look for: it stays in the list.
        ds.PatientID, ds.PatientName, ds.StudyDate = "GROWS", "GROWS", "20200101"
        ds.file_meta.MediaStorageSOPInstanceUID = UID(ds.SOPInstanceUID)
        ds.save_as(folder / f"{number}.dcm")
    return folder


def magnified(viewer: ViewerPage, study: str) -> float:
    """Show the last of four images in another window and magnified; the zoom."""
    viewer.open_series(study, f"{study}.1")
    viewer.page.keyboard.press("End")
    viewer.wait_drawn(3)
    viewer.page.keyboard.press("3")
    viewer.drag(0, -87, button="right")
    viewer.wait_for("Math.abs(viewport.getZoom() - 2) < 0.04")
    return float(viewer.ask("viewport.getZoom()"))


def assert_still_magnified(viewer: ViewerPage, study: str, zoom: float) -> None:
    viewer.wait_drawn(3)
    viewer.wait_window_text(2500, 480)
    assert viewer.instance() == f"{study}.1.3"
    viewer.wait_for(f"Math.abs(viewport.getZoom() - {zoom}) < 1e-6")


def test_a_series_that_grows_keeps_its_window_and_image(
    viewer: ViewerPage, filled: RunningArchive, head: list[Path], tmp_path: Path
):
    study = f"{GROWING}.1"
    send(filled, growing(study, head, range(4), tmp_path / "early"))
    zoom = magnified(viewer, study)
    send(filled, growing(study, head, range(4, 6), tmp_path / "late"))
    expect(viewer.page.locator("[data-test=position]")).to_have_text("Image 4 / 6")
    assert_still_magnified(viewer, study, zoom)


def test_one_that_grows_again_before_it_is_shown_keeps_them_too(
    viewer: ViewerPage, filled: RunningArchive, head: list[Path], tmp_path: Path
):
    study, page, held, released = f"{GROWING}.2", viewer.page, list[Route](), list[bool]()
    send(filled, growing(study, head, range(4), tmp_path / "early"))
    zoom = magnified(viewer, study)
    expect(page.locator(".corner.bottom.left")).to_have_text("Image 4 / 4")  # all are loaded
    frame = f"**/instances/{study}.1.3/frames/1"

    def hold(route: Route) -> None:
        if released:
            route.continue_()
        else:
            held.append(route)

    page.route(frame, hold)
    page.evaluate("() => __viewer.cache.purgeCache()")  # as when memory does not hold them all
    for number in (4, 5):
        send(filled, growing(study, head, range(number, number + 1), tmp_path / f"{number}"))
        expect(page.locator("[data-test=position]")).to_have_text(f"Image 4 / {number + 1}")
    wait_until(lambda: bool(held), timeout_s=60, reason="the image is asked for again")
    released.append(True)
    for route in held:
        route.continue_()
    assert_still_magnified(viewer, study, zoom)


def test_a_report_is_said_to_be_no_image(viewer: ViewerPage, sent: dict[str, Sent]):
    viewer.open_list(f"#/study/{sent['report'].study_instance_uid}")
    expect(viewer.page.locator(".sentence")).to_have_text(
        "This series holds a structured report, not images."
    )


def test_a_study_that_is_not_there_is_a_sentence(viewer: ViewerPage):
    viewer.open_list("#/study/1.2.3.4")
    expect(viewer.page.locator(".sentence")).to_have_text("The archive holds no such study.")
