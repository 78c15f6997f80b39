"""Series of every kind: compressed, in colour, of many frames, and no images at all."""

import numpy as np
import pytest
from playwright.sync_api import expect
from pydicom import dcmread
from pydicom.pixels.processing import apply_color_lut

from browser.conftest import COMPRESSED, UNDECODABLE, Sent
from browser.viewer_page import (
    TOLERANCE,
    ViewerPage,
    even_places,
    patient_points,
    window_greys,
)

CENTER, WIDTH = 40, 400
"""Window of the CT image that the corpus has in many transfer syntaxes."""


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_lossless_image_has_the_pixels_of_the_native_one(
    viewer: ViewerPage, sent: dict[str, Sent], name: str
):
    native = dcmread(sent["implicit"].path)
    viewer.open_series(sent[name].study_instance_uid, sent[name].series_instance_uid)
    greys = window_greys(native, CENTER, WIDTH)
    places = even_places(greys)
    viewer.assert_greys(patient_points(native, places), [greys[place] for place in places])


def test_a_palette_gives_its_colours(viewer: ViewerPage, sent: dict[str, Sent]):
    ds = dcmread(sent["palette"].path)
    viewer.open_series(sent["palette"].study_instance_uid, sent["palette"].series_instance_uid)
    colours = apply_color_lut(ds.pixel_array, ds) / 257  # palettes of 16 bits
    seen = viewer.page.evaluate(
        "() => Array.from(__viewer.viewport.getCornerstoneImage().getPixelData())"
    )
    shown = np.array(seen).reshape(*colours.shape)
    assert np.abs(shown - colours).max() <= TOLERANCE
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 20


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


def test_what_cannot_be_decoded_is_a_sentence(viewer: ViewerPage, sent: dict[str, Sent]):
    series = sent[UNDECODABLE]
    viewer.open_list(f"#/study/{series.study_instance_uid}/series/{series.series_instance_uid}")
    expect(viewer.page.locator(".sentence")).to_have_text(
        "The viewer has no decoder for this image "
        "(JPEG 2000 Part 2 Lossless, 1.2.840.10008.1.2.4.92).",
        timeout=10_000,
    )


def test_a_report_is_said_to_be_no_image(viewer: ViewerPage, sent: dict[str, Sent]):
    viewer.open_list(f"#/study/{sent['report'].study_instance_uid}")
    expect(viewer.page.locator(".sentence")).to_have_text(
        "This series holds a structured report, not images."
    )


def test_a_study_that_is_not_there_is_a_sentence(viewer: ViewerPage):
    viewer.open_list("#/study/1.2.3.4")
    expect(viewer.page.locator(".sentence")).to_have_text("The archive holds no such study.")
