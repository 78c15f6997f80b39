"""Rendered images and thumbnails (PS3.18 §10.4.1.1.3, §10.4.1.1.4) as browsers and clients ask."""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from PIL import Image

from dicomweb_site import parts_of
from pictures import ImageFile
from service import RunningArchive
from wado.dicom.rendering.options import Window

pytestmark = pytest.mark.filterwarnings("ignore")
TENANT = {"x-tenant": "rendered"}
BROWSER = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"
FILES = {
    "ct": "syntaxes/pydicom__CT_small.dcm",
    "cine": "multiframe/pydicom__examples_ybr_color.dcm",
    "palette": "multiframe/dcm4che__US-PAL-8-10x-echo.dcm",
    "overlay": "color/pydicom__examples_overlay.dcm",
    "voi-lut": "color/pydicom-data__vlut_04.dcm",
    "modality-lut": "color/pydicom-data__mlut_18.dcm",
    "enhanced": "multiframe/pydicom-data__emri_small.dcm",
    "supplemental": "multiframe/pydicom-data__eCT_Supplemental.dcm",
    "segmentation": "nonimage/pydicom-data__liver.dcm",
    "float": "nonimage/pydicom-data__parametric_map_float.dcm",
    "dose": "nonimage/pydicom__rtdose.dcm",
    "deflated": "syntaxes/pydicom__image_dfl.dcm",
    "big-endian": "syntaxes/pydicom__ExplVR_BigEnd.dcm",
    "jpeg-2000": "syntaxes/pydicom__MR_small_jp2klossless.dcm",
    "presentation-state": "nonimage/pr/weasis-dicom-tools__prLUTs.dcm",
    "plan": "nonimage/pydicom__rtplan.dcm",
    "annotations": "nonimage/highdicom__sm_annotations.dcm",
}  # fmt: skip
APPEARANCES = (
    "ct", "palette", "overlay", "voi-lut", "modality-lut", "enhanced", "supplemental",
    "segmentation", "float", "dose", "deflated", "big-endian", "jpeg-2000", "cine",
)  # fmt: skip


class Stored(NamedTuple):
    """A file of the corpus in the archive."""

    path: Path
    study: str
    series: str
    instance: str


@pytest.fixture(scope="module")
def stored(running: RunningArchive, corpus: Path) -> dict[str, Stored]:
    slices = sorted((corpus / "ct-volume" / "head-1mm-std").glob("I10?0.dcm"))[:3]
    paths = {name: corpus / path for name, path in FILES.items()}
    paths |= {f"slice-{number}": path for number, path in enumerate(slices)}
    head = b"\r\n--guid\r\nContent-Type: application/dicom\r\n\r\n"
    body = b"".join(head + path.read_bytes() for path in paths.values()) + b"\r\n--guid--"
    kind = 'multipart/related; type="application/dicom"; boundary=guid'
    answer = requests.post(
        f"{running.dicomweb}/studies", body, headers={"content-type": kind, **TENANT}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    found = {}
    for name, path in paths.items():
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        study = f"{running.dicomweb}/studies/{ds.StudyInstanceUID}"
        series = f"{study}/series/{ds.SeriesInstanceUID}"
        found[name] = Stored(path, study, series, f"{series}/instances/{ds.SOPInstanceUID}")
    return found


def get(url: str, accept: str = "*/*", **headers: str) -> requests.Response:
    return requests.get(url, headers={**TENANT, "accept": accept, **headers}, timeout=60)


def image_of(answer: requests.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    image = Image.open(io.BytesIO(answer.content))
    image.load()
    return image


def frames_in(animation: Image.Image) -> int:
    return int(getattr(animation, "n_frames", 1))


def pixels(url: str) -> np.ndarray:
    return np.asarray(image_of(get(url, "image/png")), int)


# ------------------------------------------------------------------ what is shown


@pytest.mark.ps318("rendered-appearance", "rendered-png")
@pytest.mark.parametrize("name", APPEARANCES)
def test_the_picture_is_what_the_functions_make_of_the_file(name: str, stored: dict[str, Stored]):
    file = ImageFile(stored[name].path)
    number = file.image.number_of_frames
    shown = pixels(f"{stored[name].instance}/frames/{number}/rendered")
    assert (shown == file.picture(number)).all()


@pytest.mark.ps318("window")
@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("1000,400,linear", Window(1000, 400, "LINEAR")),
        ("1000,400,linear-exact", Window(1000, 400, "LINEAR_EXACT")),
        ("1000,400,sigmoid", Window(1000, 400, "SIGMOID")),
    ],
)
def test_a_window_stands_in_place_of_that_of_the_image(
    text: str, window: Window, stored: dict[str, Stored]
):
    shown = pixels(f"{stored['ct'].instance}/rendered?window={text}")
    assert (shown == ImageFile(stored["ct"].path).picture(window=window)).all()


@pytest.mark.ps318("viewport")
def test_a_viewport_scales_cuts_and_flips(stored: dict[str, Stored]):
    url = f"{stored['ct'].instance}/rendered"
    whole = pixels(url)
    assert whole.shape == (128, 128)
    assert pixels(f"{url}?viewport=64,32").shape == (32, 32)
    assert pixels(f"{url}?viewport=300,500").shape == (300, 300)
    cut = pixels(f"{url}?viewport=20,30,10,40,20,30")
    assert (cut == whole[40:70, 10:30]).all()
    flipped = pixels(f"{url}?viewport=20,30,10,40,-20,-30")
    assert (flipped == cut[::-1, ::-1]).all()


@pytest.mark.ps318("quality", "rendered-jpeg")
def test_quality(stored: dict[str, Stored]):
    url = f"{stored['ct'].instance}/rendered"
    answers = [get(f"{url}?quality={q}") for q in (5, 50, 100)]
    sizes = [len(answer.content) for answer in answers]
    assert sizes == sorted(set(sizes))
    whole = pixels(url)
    assert np.abs(np.asarray(image_of(answers[-1]), int) - whole).max() <= 3


@pytest.mark.ps318("annotation")
def test_annotations_are_burned_in_and_unknown_ones_told(stored: dict[str, Stored]):
    url = f"{stored['ct'].instance}/rendered"
    plain, patient = (pixels(f"{url}{q}") for q in ("", "?annotation=patient"))
    changed = (plain != patient).any(axis=1)
    assert changed[:40].any()
    assert not changed[64:].any()
    both = pixels(f"{url}?annotation=patient,technique")
    assert (both != patient).any()
    warned = get(f"{url}?annotation=patient,weather")
    assert warned.status_code == 200
    assert warned.headers["warning"].startswith("299 ")
    assert "weather" in warned.headers["warning"]
    assert "warning" not in get(f"{url}?annotation=patient").headers


@pytest.mark.ps318("iccprofile")
def test_icc_profiles(stored: dict[str, Stored]):
    url = f"{stored['cine'].instance}/frames/1/rendered"
    assert "icc_profile" not in image_of(get(url)).info
    for name in ("yes", "srgb"):
        assert image_of(get(f"{url}?iccprofile={name}")).info["icc_profile"]
    other = get(f"{url}?iccprofile=adobergb")
    assert "adobergb" in other.headers["warning"]
    assert "icc_profile" not in image_of(other).info
    assert get(f"{url}?iccprofile=cmyk").status_code == 400


@pytest.mark.ps318("invalid-parameters", "window", "viewport", "quality")
@pytest.mark.parametrize(
    "query",
    [
        "window=40,400", "window=40,0,linear", "window=a,1,linear", "window=,,", "quality=0",
        "quality=101", "quality=x", "viewport=10", "viewport=0,5", "viewport=1.5,2",
        "viewport=10,10,200,0", "viewport=10,10,0,0,0,5", "viewport=10,10,0,0,1000,5",
    ],
)  # fmt: skip
def test_wrong_values_are_refused(query: str, stored: dict[str, Stored]):
    answer = get(f"{stored['ct'].instance}/rendered?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.json()["reason"]
    assert get(f"{stored['ct'].instance}/frames/1/rendered?{query}").status_code == 400


@pytest.mark.ps318("unknown-parameters")
def test_unknown_parameters_are_passed_over(stored: dict[str, Stored]):
    assert get(f"{stored['ct'].instance}/rendered?colour=blue").status_code == 200


# ------------------------------------------------------------------ in which form


@pytest.mark.ps318("rendered-instance", "rendered-jpeg", "quality-values")
@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "image/jpeg"),
        (BROWSER, "image/jpeg"),
        ("image/jpeg", "image/jpeg"),
        ("image/png", "image/png"),
        ("image/gif", "image/gif"),
        ("image/jp2", "image/jp2"),
        ("image/png;q=0.4, image/gif;q=0.6, application/dicom", "image/gif"),
        ("image/webp, image/png;q=0.1", "image/png"),
        ('multipart/related; type="image/jpeg"', "multipart/related"),
    ],
)
def test_media_types(accept: str, media_type: str, stored: dict[str, Stored]):
    answer = get(f"{stored['ct'].instance}/rendered", accept)
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == media_type
    if media_type == "multipart/related":
        ((kind, body),) = parts_of(answer)
        assert kind == "image/jpeg"
    else:
        body = answer.content
        assert answer.headers["content-location"] == f"{stored['ct'].instance}/rendered"
    assert Image.open(io.BytesIO(body)).size == (128, 128)


@pytest.mark.ps318("not-acceptable", "accept-parameter")
def test_what_cannot_be_had(stored: dict[str, Stored]):
    url = f"{stored['ct'].instance}/rendered"
    for accept in ("image/webp", "video/mp4", "application/dicom", "text/html"):
        answer = get(url, accept)
        assert answer.status_code == 406
        assert "image/jpeg" in answer.json()["reason"]
    assert get(f"{url}?accept=image/png", "image/jpeg").headers["content-type"] == "image/png"
    for name in ("plan", "presentation-state", "annotations"):
        answer = get(f"{stored[name].instance}/rendered")
        assert answer.status_code == 406
        assert answer.json()["reason"]


@pytest.mark.ps318("rendered-gif")
def test_frames_as_an_animation(stored: dict[str, Stored]):
    ds = pydicom.dcmread(stored["cine"].path, stop_before_pixels=True)
    found = image_of(get(f"{stored['cine'].instance}/rendered", "image/gif"))
    assert frames_in(found) == ds.NumberOfFrames == 30
    assert found.size == (ds.Columns, ds.Rows)
    rate = float(ds.get("RecommendedDisplayFrameRate", 0)) or float(ds.get("CineRate", 0))
    delay_ms = 1000 / rate if rate else float(ds.get("FrameTime", 100))
    assert abs(found.info["duration"] - delay_ms) <= 5
    few = image_of(get(f"{stored['cine'].instance}/frames/4,2/rendered", "image/gif"))
    assert frames_in(few) == 2
    few.seek(1)
    shown = np.asarray(few.convert("RGB"), int)
    second = pixels(f"{stored['cine'].instance}/frames/2/rendered")
    assert np.abs(shown - second).mean() < 4
    small = get(f"{stored['cine'].instance}/rendered?viewport=16,16", "image/gif")
    assert "content-length" in small.headers
    assert frames_in(image_of(small)) == 30


@pytest.mark.ps318("rendered-frames")
def test_frames(stored: dict[str, Stored]):
    at = f"{stored['cine'].instance}/frames"
    answer = get(f"{at}/3,1/rendered")
    parts = parts_of(answer)
    assert [kind for kind, _ in parts] == ["image/jpeg"] * 2
    for number, (_, body) in zip((3, 1), parts, strict=True):
        assert body == get(f"{at}/{number}/rendered").content
    many = get(f"{at}/{','.join(map(str, range(1, 11)))}/rendered", "multipart/related")
    assert [body for _, body in parts_of(many)][2] == parts[0][1]  # one after the other
    one = get(f"{at}/3,1/rendered", "image/jpeg")
    assert one.content == parts[0][1]
    assert "frame 3 of 2 asked for" in one.headers["warning"]
    assert get(f"{at}/31/rendered").status_code == 404
    assert get(f"{at}/0/rendered").status_code == 404
    assert get(f"{at}/x/rendered").status_code == 400


@pytest.mark.ps318("rendered-instance")
def test_one_frame_stands_for_an_instance_with_many(stored: dict[str, Stored]):
    url = stored["cine"].instance
    one = get(f"{url}/rendered", "image/jpeg")
    assert "16 of 30" in one.headers["warning"]
    assert one.content == get(f"{url}/frames/16/rendered", "image/jpeg").content
    every = get(f"{url}/rendered", "multipart/related; type=image/jpeg")
    assert len(parts_of(every)) == 30


@pytest.mark.ps318("rendered-series", "rendered-study")
@pytest.mark.parametrize("level", ["series", "study"])
def test_all_images_of_a_series_and_a_study(level: str, stored: dict[str, Stored]):
    slices = [stored[f"slice-{i}"] for i in range(3)]
    url = getattr(slices[0], level)
    answer = get(f"{url}/rendered", 'multipart/related; type="image/png"')
    parts = parts_of(answer)
    assert [kind for kind, _ in parts] == ["image/png"] * 3
    wanted = {get(f"{at.instance}/rendered", "image/png").content for at in slices}
    assert {body for _, body in parts} == wanted
    assert get(f"{url}/rendered").headers["content-type"].startswith("multipart/related")
    one = get(f"{url}/rendered", BROWSER.replace("*/*", "text/html"))
    assert one.headers["content-type"] == "image/jpeg"
    assert "of 3 images" in one.headers["warning"]
    assert answer.headers["cache-control"] == "private, no-cache"
    assert get(f"{url}/rendered", "*/*", **{"if-none-match": answer.headers["etag"]}).ok


@pytest.mark.ps318("rendered-series")
def test_series_without_images(stored: dict[str, Stored]):
    assert get(f"{stored['annotations'].series}/rendered").status_code == 406
    assert get(f"{stored['ct'].study}/series/1.2.3/rendered").status_code == 404
    assert get(f"{stored['ct'].study}9/rendered").status_code == 404


# ------------------------------------------------------------------ HTTP


@pytest.mark.ps318("conditional", "head", "range-single", "content-location")
def test_conditional_head_and_range(stored: dict[str, Stored]):
    url = f"{stored['ct'].instance}/rendered?quality=61"
    whole = get(url)
    assert whole.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert get(url).content == whole.content
    unchanged = get(url, "*/*", **{"if-none-match": whole.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert get(url.replace("quality=61", "quality=62")).headers["etag"] != whole.headers["etag"]
    assert get(url, "image/png").headers["etag"] != whole.headers["etag"]
    part = get(url, "*/*", range="bytes=10-19")
    assert part.status_code == 206
    assert part.content == whole.content[10:20]
    head = requests.head(url, headers=TENANT, timeout=60)
    assert head.headers["content-length"] == str(len(whole.content))
    assert head.headers["etag"] == whole.headers["etag"]


@pytest.mark.ps318("range-multipart")
def test_ranges_of_an_envelope_fit(stored: dict[str, Stored]):
    url = f"{stored['cine'].instance}/frames/1,2/rendered?viewport=40,40"
    whole = get(url).content
    halves = [get(url, "*/*", range=f"bytes={r}") for r in ("0-799", "800-")]
    assert [half.status_code for half in halves] == [206, 206]
    assert b"".join(half.content for half in halves) == whole


def test_tenants_do_not_meet(stored: dict[str, Stored]):
    for what in ("rendered", "thumbnail"):
        url = f"{stored['ct'].instance}/{what}"
        assert get(url).status_code == 200
        assert requests.get(url, headers={"x-tenant": "others"}, timeout=60).status_code == 404


@pytest.mark.ps318("rendered-instance")
def test_an_independent_client(running: RunningArchive, stored: dict[str, Stored]):
    client = DICOMwebClient(running.dicomweb, headers=TENANT)
    uids = stored["ct"].instance.split("/")[-5::2]
    study, series, instance = uids

    def picture(params: dict[str, Any] | None = None) -> bytes:
        data: bytes = client.retrieve_instance_rendered(
            study, series, instance, media_types=("image/png",), params=params
        )
        return data

    assert Image.open(io.BytesIO(picture())).size == (128, 128)
    assert picture({"window": "1000,400,linear"}) != picture()
    study, series, instance = stored["cine"].instance.split("/")[-5::2]
    frame = client.retrieve_instance_frames_rendered(
        study, series, instance, [2, 3], media_types=("image/jpeg",)
    )
    assert Image.open(io.BytesIO(frame)).size == (320, 240)


# ------------------------------------------------------------------ thumbnails


@pytest.mark.ps318("thumbnails")
@pytest.mark.parametrize("level", ["study", "series", "instance"])
@pytest.mark.parametrize("name", ["slice-0", "cine", "palette"])
def test_thumbnails(name: str, level: str, stored: dict[str, Stored]):
    url = f"{getattr(stored[name], level)}/thumbnail"
    answer = get(url, BROWSER)
    image = image_of(answer)
    assert image.format == "JPEG"
    assert max(image.size) == 128
    unchanged = get(url, BROWSER, **{"if-none-match": answer.headers["etag"]})
    assert unchanged.status_code == 304


@pytest.mark.ps318("thumbnails")
def test_the_middle_of_a_series_stands_for_it(stored: dict[str, Stored]):
    slices = [stored[f"slice-{i}"] for i in range(3)]
    slices.sort(key=lambda at: pydicom.dcmread(at.path, stop_before_pixels=True).InstanceNumber)
    middle = get(f"{slices[1].instance}/thumbnail").content
    assert get(f"{slices[0].series}/thumbnail").content == middle
    assert get(f"{slices[0].study}/thumbnail").content == middle
    assert get(f"{slices[0].instance}/thumbnail").content != middle


@pytest.mark.ps318("thumbnail-viewport", "thumbnails")
def test_thumbnails_of_frames_and_sizes(stored: dict[str, Stored]):
    at = stored["cine"].instance
    first, second = (get(f"{at}/frames/{n}/thumbnail").content for n in (1, 16))
    assert first != second
    assert get(f"{at}/thumbnail").content == second
    assert image_of(get(f"{at}/thumbnail?viewport=40,10", "image/png")).size == (13, 10)
    assert image_of(get(f"{stored['enhanced'].instance}/thumbnail")).size == (64, 64)
    for wrong in ("40", "40,10,0,0", "0,10", ","):
        assert get(f"{at}/thumbnail?viewport={wrong}").status_code == 400
    assert get(f"{at}/frames/31/thumbnail").status_code == 404


@pytest.mark.ps318("thumbnails")
def test_thumbnails_show_no_text(stored: dict[str, Stored]):
    at = stored["overlay"].instance
    plain, asked = (get(f"{at}/thumbnail{q}").content for q in ("", "?annotation=patient"))
    assert plain == asked
    drawn = pixels(f"{at}/rendered?viewport=128,128")
    shown = np.asarray(image_of(get(f"{at}/thumbnail", "image/png")), int)
    assert drawn.shape == shown.shape
    assert (drawn != shown).any()  # overlays may hold a name


@pytest.mark.ps318("thumbnails", "not-acceptable")
def test_no_thumbnail_of_what_is_no_image(stored: dict[str, Stored]):
    assert get(f"{stored['plan'].instance}/thumbnail").status_code == 406
    assert get(f"{stored['annotations'].series}/thumbnail").status_code == 406
    assert get(f"{stored['ct'].instance}/thumbnail", "video/mp4").status_code == 406
