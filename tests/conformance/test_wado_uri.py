"""The URI service of PS3.18 ch. 9 at ``/wado``, as browsers, old viewers and scripts use it."""

import io
from pathlib import Path
from typing import Any

import pydicom
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import synthetic
from service import RunningArchive
from serving import serving

TENANT = {"x-tenant": "wado-uri"}
_CHROME_IMG = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"
_CHROME_PAGE = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
)

_WINDOW = {"windowCenter": "-900", "windowWidth": "300"}
"""Of what the synthetic CT shows."""


class Stored:
    """An instance in the archive, and its address."""

    def __init__(self, running: RunningArchive, ds: pydicom.Dataset, **headers: str) -> None:
        self.ds, self.data = ds, synthetic.part10(ds)
        self.headers = headers or TENANT
        self.address = f"{running.http}/wado"
        answer = requests.post(
            f"{running.dicomweb}/studies", data=self.data, timeout=60,
            headers={"content-type": "application/dicom", **self.headers},
        )  # fmt: skip
        assert answer.status_code == 200, answer.text

    def parameters(self, **more: Any) -> dict[str, Any]:
        return {
            "requestType": "WADO", "studyUID": self.ds.StudyInstanceUID,
            "seriesUID": self.ds.SeriesInstanceUID, "objectUID": self.ds.SOPInstanceUID, **more,
        }  # fmt: skip

    def get(self, accept: str | None = "*/*", **more: Any) -> requests.Response:
        headers: Any = {**self.headers, "accept": accept}  # None: no Accept at all
        return requests.get(
            self.address, params=self.parameters(**more), headers=headers, timeout=60
        )


@pytest.fixture(scope="module")
def ct(running: RunningArchive) -> Stored:
    return Stored(running, synthetic.ct_series(1, 16, 24, study="uri-ct")[0])


@pytest.fixture(scope="module")
def movie(running: RunningArchive) -> Stored:
    return Stored(running, synthetic.multi_frame(4, study="uri-movie"))


@pytest.fixture(scope="module")
def report(running: RunningArchive) -> Stored:
    return Stored(running, synthetic.structured_report(study="uri-report"))


def picture(answer: requests.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


# ------------------------------------------------------------------ the instance


@pytest.mark.ps318("uri-instance", "uri-rendered")
def test_four_parameters_give_a_picture(ct: Stored):
    for accept in ("*/*", None, _CHROME_IMG, _CHROME_PAGE):
        answer = ct.get(accept)
        assert answer.headers["content-type"] == "image/jpeg"
        assert picture(answer).size == (24, 16)


@pytest.mark.ps318("uri-dicom")
def test_content_type_gives_dicom(ct: Stored):
    for more in ({}, {"transferSyntax": "1.2.840.10008.1.2.1"}, {"transferSyntax": "*"}):
        answer = ct.get(contentType="application/dicom", **more)
        assert answer.headers["content-type"].startswith("application/dicom")
        assert answer.content == ct.data
    for syntax in ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"):
        named = {"contentType": "application/dicom", "transferSyntax": syntax}
        assert ct.get(**named).status_code == 406
    packed = ct.get(contentType="application/dicom", transferSyntax="1.2.840.10008.1.2.5")
    assert packed.headers["content-type"].endswith("=1.2.840.10008.1.2.5")
    ds = pydicom.dcmread(io.BytesIO(packed.content))
    assert (ds.pixel_array == ct.ds.pixel_array).all()


@pytest.mark.ps318("uri-instance")
def test_study_and_series_are_those_of_the_instance(ct: Stored, movie: Stored):
    for name in ("studyUID", "seriesUID", "objectUID"):
        other = {name: movie.parameters()[name]}
        assert requests.get(
            ct.address, params={**ct.parameters(), **other}, headers=TENANT, timeout=60
        ).status_code == 404, name  # fmt: skip
    elsewhere = requests.get(
        ct.address, params=ct.parameters(), headers={"x-tenant": "another"}, timeout=60
    )
    assert elsewhere.status_code == 404


@pytest.mark.ps318("uri-400")
@pytest.mark.parametrize(
    "wrong",
    [
        {"requestType": None}, {"requestType": "MORE"}, {"studyUID": None}, {"seriesUID": None},
        {"objectUID": None}, {"objectUID": "1.2.x"}, {"objectUID": "../../etc"},
        {"frameNumber": "x"}, {"frameNumber": "-1"}, {"rows": "0"}, {"columns": "a"},
        {"rows": "99999999999"}, {"region": "0,0,1"}, {"region": "0,0,2,1"},
        {"region": "0.5,0.5,0.5,1"}, {"region": "a,b,c,d"}, {"region": "0,0,nan,1"},
        {"windowCenter": "40"}, {"windowWidth": "400"},
        {"windowCenter": "40", "windowWidth": "none"}, {"imageQuality": "0"},
        {"imageQuality": "101"}, {"contentType": "nonsense"}, {"anonymize": "maybe"},
        {"contentType": "application/dicom", "rows": "5"},
        {"contentType": "application/dicom", "frameNumber": "1"},
        {"contentType": "application/dicom", "transferSyntax": "not a uid"},
    ],
)  # fmt: skip
def test_wrong_parameters_are_refused_with_a_reason(ct: Stored, wrong: dict[str, str | None]):
    answer = ct.get(**wrong)
    assert answer.status_code == 400, answer.text
    assert len(answer.json()["reason"]) > 10


_NAMES = (
    "requestType", "contentType", "charset", "transferSyntax", "frameNumber", "rows", "columns",
    "region", "windowCenter", "windowWidth", "imageQuality", "annotation", "anonymize", "objectUID",
)  # fmt: skip


@settings(
    max_examples=60, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(more=st.dictionaries(st.sampled_from(_NAMES), st.text(max_size=12), max_size=3))
def test_any_values_are_answered(ct: Stored, more: dict[str, str]):
    answer = ct.get(**more)
    assert answer.status_code in (200, 400, 404, 406), answer.text
    assert answer.status_code == 200 or answer.json()["reason"]


@pytest.mark.ps318("uri-presentation")
def test_presentation_states_are_refused(ct: Stored):
    answer = ct.get(presentationUID="1.2.3", presentationSeriesUID="1.2.4")
    assert answer.status_code == 400
    assert "presentation" in answer.json()["reason"]


@pytest.mark.ps318("uri-charset", "not-acceptable")
def test_what_can_not_be_had_is_406(ct: Stored, report: Stored):
    for stored, wanted in ((ct, "text/html"), (ct, "video/mp4"), (report, "image/jpeg")):
        assert stored.get(contentType=wanted).status_code == 406
    assert report.get(charset="iso-8859-1").status_code == 406
    assert report.get(charset="iso-8859-1,utf-8").status_code == 200


def test_unknown_parameters_are_passed_over_and_the_first_of_several_counts(ct: Stored):
    assert ct.get(whatever="1", contentType=["image/png", "image/jpeg"]).headers[
        "content-type"
    ] == "image/png"  # fmt: skip


# ------------------------------------------------------------------ rendering


@pytest.mark.ps318("uri-rendering")
def test_content_types_are_taken_by_their_order_and_weight(ct: Stored):
    for wanted, got in (
        ("image/png", "image/png"), ("image/gif", "image/gif"),
        ("video/mp4,image/png,image/jpeg", "image/png"),
        ("image/jpeg;q=0.5,image/png;q=0.9", "image/png"), ("image/*", "image/jpeg"),
    ):  # fmt: skip
        answer = ct.get(contentType=wanted)
        assert answer.headers["content-type"] == got
        assert picture(answer).size == (24, 16)


@pytest.mark.ps318("uri-rendering")
@pytest.mark.parametrize(
    ("more", "size"),
    [
        ({"rows": 8}, (12, 8)), ({"columns": 48}, (48, 32)), ({"rows": 8, "columns": 48}, (12, 8)),
        ({"region": "0,0,0.5,1"}, (12, 16)), ({"region": "0.5,0.5,1,1", "rows": 16}, (24, 16)),
    ],
)  # fmt: skip
def test_size_and_region(ct: Stored, more: dict[str, Any], size: tuple[int, int]):
    assert picture(ct.get(contentType="image/png", **more)).size == size


@pytest.mark.ps318("uri-rendering")
def test_a_region_is_that_part_of_the_picture(ct: Stored):
    whole = picture(ct.get(contentType="image/png", **_WINDOW))
    part = picture(ct.get(contentType="image/png", region="0.5,0.25,1,0.75", **_WINDOW))
    assert len(set(part.convert("L").tobytes())) > 10
    assert part.convert("L").tobytes() == whole.convert("L").crop((12, 4, 24, 12)).tobytes()


@pytest.mark.ps318("uri-rendering")
def test_window_quality_and_annotation_change_the_picture(ct: Stored):
    shades = [
        len(set(picture(ct.get(contentType="image/png", **window)).convert("L").tobytes()))
        for window in (_WINDOW, {**_WINDOW, "windowWidth": "2"})
    ]
    assert shades[0] > 10
    assert shades[1] == 2
    low, high = (ct.get(imageQuality=q, rows=256, **_WINDOW) for q in (5, 95))
    assert len(low.content) < len(high.content)
    told = ct.get(contentType="image/png", rows=256, annotation="patient")
    assert told.content != ct.get(contentType="image/png", rows=256).content


@pytest.mark.ps318("uri-rendering")
def test_frames_of_a_movie(movie: Stored):
    window = {"windowCenter": "128", "windowWidth": "256"}
    pictures = {
        picture(movie.get(contentType="image/png", frameNumber=n, **window)).tobytes()
        for n in range(1, 5)
    }
    assert len(pictures) == 4
    assert movie.get(frameNumber=1).headers["content-type"] == "image/jpeg"
    assert movie.get(frameNumber=0).status_code == 404
    assert movie.get(frameNumber=5).status_code == 404
    animated = picture(movie.get(contentType="image/gif"))
    assert getattr(animated, "n_frames", 1) == 4


def test_a_movie_as_a_whole_is_dicom_unless_it_is_to_be_shown(movie: Stored):
    assert movie.get().content == movie.data
    shown = movie.get(_CHROME_IMG)
    assert shown.headers["content-type"] == "image/jpeg"
    assert "stands for all" in shown.headers["warning"]


def test_a_report_is_a_page_text_or_dicom(report: Stored):
    for accept, more, got in (
        ("*/*", {}, "text/html"), (_CHROME_PAGE, {}, "text/html"), (None, {}, "text/html"),
        ("*/*", {"contentType": "text/plain"}, "text/plain"),
        ("*/*", {"contentType": "text/xml"}, "text/xml"),
        ("*/*", {"contentType": "application/dicom"}, "application/dicom"),
        ("*/*", {"contentType": "image/jpeg,text/plain"}, "text/plain"),
    ):  # fmt: skip
        answer = report.get(accept, **more)
        assert answer.headers["content-type"].partition(";")[0] == got, (accept, more)
        assert b"No abnormality was made up." in answer.content


def test_what_has_no_picture_is_dicom(running: RunningArchive):
    plan = Stored(running, synthetic.instance("1.2.840.10008.5.1.4.1.1.481.5", study="uri-plan"))
    assert plan.get().content == plan.data
    assert plan.get(_CHROME_PAGE).content == plan.data
    assert plan.get(contentType="text/html").status_code == 406


# ------------------------------------------------------------------ anonymize


@pytest.mark.ps318("uri-anonymize")
def test_anonymize_is_refused_where_no_key_is_set(ct: Stored):
    for more in ({}, {"contentType": "application/dicom"}, {"contentType": "image/jpeg"}):
        answer = ct.get(anonymize="yes", **more)
        assert answer.status_code == 400
        assert "deidentification_key" in answer.json()["reason"]


@pytest.mark.ps318("uri-anonymize")
def test_anonymize_gives_the_image_without_who_it_is_of(tmp_path: Path):
    ds = synthetic.ct(study="uri-anonymous", OperatorsName="Synthetic^Operator")
    ds.add_new(0x00190010, "LO", "MAKER")
    ds.add_new(0x00191001, "LO", "Synthetic^Private")
    with serving(tmp_path / "data", deidentification_key="sixteen letters, or more") as url:
        data = synthetic.part10(ds)
        stored = requests.post(f"{url}/dicomweb/studies", data=data, timeout=60,
                               headers={"content-type": "application/dicom"})  # fmt: skip
        assert stored.status_code == 200
        asked = {
            "requestType": "WADO", "studyUID": ds.StudyInstanceUID, "anonymize": "yes",
            "seriesUID": ds.SeriesInstanceUID, "objectUID": ds.SOPInstanceUID,
        }  # fmt: skip
        dicom = {**asked, "contentType": "application/dicom"}
        answer = requests.get(f"{url}/wado", params=dicom, timeout=60)
        assert answer.status_code == 200, answer.text
        refused = [
            requests.get(f"{url}/wado", params={**asked, **more}, timeout=60).status_code
            for more in ({}, {"contentType": "image/jpeg"},
                         {**dicom, "transferSyntax": "1.2.840.10008.1.2.5"})
        ]  # fmt: skip
    assert refused == [400, 400, 400]
    assert answer.headers["cache-control"] == "no-store"
    for told in (b"Synthetic", b"SYN-1", b"19700101", b"A-1", b"20240229", b"Refers",
                 ds.StudyInstanceUID.encode(), ds.SOPInstanceUID.encode()):  # fmt: skip
        assert told not in answer.content
        assert told.decode() not in str(answer.headers)
    made = pydicom.dcmread(io.BytesIO(answer.content))
    assert made.PatientIdentityRemoved == "YES"
    assert made.PatientName == ""
    assert (made.pixel_array == ds.pixel_array).all()
    assert (made.PixelSpacing, made.SOPClassUID) == (ds.PixelSpacing, ds.SOPClassUID)


# ------------------------------------------------------------------ HTTP


def test_answers_are_cached_and_have_heads(ct: Stored):
    for more in ({}, {"contentType": "application/dicom"}):
        answer = ct.get(**more)
        assert "immutable" in answer.headers["cache-control"]
        tag = answer.headers["etag"]
        parameters = ct.parameters(**more)
        again = requests.get(
            ct.address, params=parameters, timeout=60,
            headers={**TENANT, "accept": "*/*", "if-none-match": tag},
        )  # fmt: skip
        assert (again.status_code, again.content) == (304, b"")
        head = requests.head(ct.address, params=parameters, headers=TENANT, timeout=60)
        assert head.headers["content-length"] == str(len(answer.content))
        assert not head.content


def test_a_page_from_elsewhere_may_show_it(running: RunningArchive):
    """An ``<img>`` can't send a tenant: it sees that of who sends none."""
    shown = Stored(running, synthetic.ct(study="uri-img"), accept="*/*")
    answer = requests.get(
        shown.address, params=shown.parameters(), timeout=60,
        headers={"origin": "https://elsewhere.example", "accept": _CHROME_IMG,
                 "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
    )  # fmt: skip
    assert picture(answer).size == (shown.ds.Columns, shown.ds.Rows)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"


def test_other_methods_are_refused_and_options_tell(ct: Stored):
    refused = requests.post(ct.address, data=b"", timeout=60)
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    told = requests.options(ct.address, headers={"accept": "application/json"}, timeout=60).json()
    (root,) = told["application"]["resources"]
    (method,) = root["resource"][0]["method"]
    assert {"studyUID", "frameNumber"} <= {p["name"] for p in method["request"]["param"]}
