"""Parameters of rendered resources: what the Standard allows, and nothing else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wado.dicom.rendering.options import (
    MAX_VIEWPORT,
    Parameter,
    RenderOptions,
    Viewport,
    Window,
    read_options,
    read_thumbnail_options,
)
from wado.dicom.rendering.placement import place
from wado.errors import InvalidRequest


def given_by(parameters: dict[str, str]) -> Parameter:
    def value(name: str) -> str | None:
        return parameters.get(name)

    return value


def options(**parameters: str) -> RenderOptions:
    return read_options(given_by(parameters))[0]


def test_nothing_asked_leaves_all_to_the_image():
    assert options() == RenderOptions()
    assert read_options(given_by({}))[1] == ()


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("40,400,linear", Window(40, 400, "LINEAR")),
        ("-600.5,1.5e3,linear-exact", Window(-600.5, 1500, "LINEAR_EXACT")),
        ("0,0.25,sigmoid", Window(0, 0.25, "SIGMOID")),
        (" 1 , 1 , LINEAR ", Window(1, 1, "LINEAR")),
    ],
)
def test_windows(text: str, window: Window):
    assert options(window=text).window == window


@pytest.mark.parametrize(
    "text",
    [
        "", "40", "40,400", "40,400,", "40,400,cubic", "40,400,linear,1", ",400,linear",
        "a,b,linear", "40,0.5,linear", "40,0,linear-exact", "40,-1,sigmoid", "nan,1,linear",
        "inf,1,linear",
        "1,1e99,linear,", "1,0x10,linear",
    ],
)  # fmt: skip
def test_windows_that_are_none(text: str):
    with pytest.raises(InvalidRequest):
        options(window=text)


@pytest.mark.parametrize("text", ["0", "101", "-1", "50.5", "", "high", "1e1", "²"])
def test_quality_is_1_to_100(text: str):
    with pytest.raises(InvalidRequest, match="quality"):
        options(quality=text)


def test_quality():
    assert [options(quality=q).quality for q in ("1", "75", "100")] == [1, 75, 100]


@pytest.mark.parametrize(
    ("text", "viewport"),
    [
        ("64,32", Viewport(64, 32)),
        ("64,32,10,20", Viewport(64, 32, 10, 20)),
        ("64,32,10,20,30,40", Viewport(64, 32, 10, 20, 30, 40)),
        ("64,32,,,30.5,-40", Viewport(64, 32, 0, 0, 30.5, -40)),
        ("64,32,-10,20,-30", Viewport(64, 32, 10, 20, -30)),
    ],
)
def test_viewports(text: str, viewport: Viewport):
    assert options(viewport=text).viewport == viewport


@pytest.mark.parametrize(
    "text",
    [
        "", "64", "64,", ",64", "0,64", "64,-64", "6.4,64", "99999,64", "64,32,a", "64,32,0,0,0,5",
        "64,32,0,0,5,0", "64,32,0,0,5,5,5", "64,32,nan",
    ],
)  # fmt: skip
def test_viewports_that_are_none(text: str):
    with pytest.raises(InvalidRequest, match="viewport"):
        options(viewport=text)


def test_annotations_that_nobody_knows_are_told():
    asked = {"annotation": "technique,patient,weather,x"}
    found, warnings = read_options(given_by(asked))
    assert found.annotations == ("patient", "technique")
    assert warnings == ("The following annotation values are not supported: weather, x",)


def test_icc_profiles():
    assert [options(iccprofile=p).icc_profile for p in ("no", "yes", "srgb")] == [
        "no", "yes", "srgb",
    ]  # fmt: skip
    found, warnings = read_options(given_by({"iccprofile": "adobergb"}))
    assert found.icc_profile == "no"
    assert "adobergb" in warnings[0]
    with pytest.raises(InvalidRequest, match="iccprofile"):
        options(iccprofile="cmyk")


def test_thumbnails_fit_in_a_square_and_show_no_overlays():
    found = read_thumbnail_options(given_by({}))
    assert found.viewport == Viewport(128, 128, enlarge=False)
    assert not found.overlays
    assert read_thumbnail_options(given_by({"viewport": "64,32"})).viewport == Viewport(64, 32)


@pytest.mark.parametrize("text", ["64", "64,32,0", "64,32,,,1,1", "0,0", ""])
def test_thumbnails_take_no_region(text: str):
    with pytest.raises(InvalidRequest, match="viewport"):
        read_thumbnail_options(given_by({"viewport": text}))


NUMBERS = st.text("0123456789.,-+e ", max_size=24) | st.text(max_size=12)
NAMES = st.sampled_from(["window", "viewport", "quality", "annotation", "iccprofile"])


@given(st.dictionaries(NAMES, NUMBERS), st.integers(1, 5000), st.integers(1, 5000))
@settings(max_examples=300, deadline=None)
def test_whatever_is_asked(parameters: dict[str, str], columns: int, rows: int):
    for read in (lambda p: read_options(p)[0], read_thumbnail_options):
        try:
            found = read(given_by(parameters))
            placed = place(found.viewport, columns, rows)
        except InvalidRequest:
            continue
        assert 1 <= placed.width <= MAX_VIEWPORT or found.viewport is None
        assert 1 <= placed.height <= MAX_VIEWPORT or found.viewport is None
        left, top, right, bottom = placed.box
        assert 0 <= left < right <= columns
        assert 0 <= top < bottom <= rows
