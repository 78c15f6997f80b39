"""Rules of PS3.18 §8 that hold for every resource: the route table names the resources."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPResponse

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomweb_site import parts_of
from service import RunningArchive
from synthetic import multi_frame, part10
from tenant_site import Stored, TenantSite
from wado.services.server.routes import DICOMWEB, Route

pytestmark = pytest.mark.filterwarnings("ignore")

_GETS = tuple(route for route in DICOMWEB if route.method == "GET" and route.section != "13")
_RETRIEVE = tuple(route for route in _GETS if route.section == "10.4")
_SEARCH = tuple(route for route in _GETS if route.section == "10.6")
_NEVER_STORED = {"study": "1.2.3.4", "series": "1.2.3.5", "instance": "1.2.3.6"}
_HTTP_TIMEOUT_S = 60


@pytest.fixture(scope="session")
def rules(running: RunningArchive) -> TenantSite:
    return TenantSite(running, "common-rules")


@pytest.fixture(scope="session")
def image(rules: TenantSite) -> Stored:
    ds = multi_frame(study="common rules")
    ds.add_new(0x00090010, "LO", "ACME")
    ds.add_new(0x00091002, "OB", b"\3" * 5000)
    (stored,) = rules.store([ds])
    return stored


def path_of(route: Route, image: Stored, **others: str) -> str:
    """Path of a resource of the image."""
    ds = image.ds
    values = {
        "study": str(ds.StudyInstanceUID), "series": str(ds.SeriesInstanceUID),
        "instance": str(ds.SOPInstanceUID), "frames": "1", "path:path": "00091002", **others,
    }  # fmt: skip
    path = route.path.removeprefix("/dicomweb")
    for name, value in values.items():
        path = path.replace(f"{{{name}}}", value)
    assert "{" not in path
    return path


def named(routes: tuple[Route, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("route", routes, ids=[route.path for route in routes])


# ------------------------------------------------------------------ parameters


@pytest.mark.ps318("unknown-parameters")
@named(_GETS)
def test_unknown_parameters_change_nothing(rules: TenantSite, image: Stored, route: Route):
    path = path_of(route, image)
    plain, asked = rules.get(path), rules.get(f"{path}?colour=blue&_=17&x")
    assert (plain.status_code, asked.status_code) == (200, 200)
    kinds = [a.headers["content-type"].partition("boundary=")[0] for a in (plain, asked)]
    assert kinds[0] == kinds[1]
    assert len(asked.content) == len(plain.content)


@pytest.mark.ps318("mixed-categories", "accept-parameter")
@named(_RETRIEVE)
def test_dicom_and_rendered_types_are_not_mixed(rules: TenantSite, image: Stored, route: Route):
    for accept in ("application/dicom,image/png", "text/html,application/dicom%2Bjson"):
        answer = rules.get(f"{path_of(route, image)}?accept={accept}", "*/*")
        assert answer.status_code == 400
        assert "mixes" in answer.json()["reason"]


@pytest.mark.ps318("accept-parameter")
@named(_GETS)
def test_the_accept_parameter_stands_before_the_header(
    rules: TenantSite, image: Stored, route: Route
):
    path = path_of(route, image)
    assert rules.get(f"{path}?accept=application/x-nothing", "*/*").status_code == 406
    assert rules.get(f"{path}?accept=*/*", "*/*").status_code == 400


@pytest.mark.ps318("no-accept")
@named(_GETS)
def test_without_accept_there_is_a_default(rules: TenantSite, image: Stored, route: Route):
    answer = rules.get(path_of(route, image))
    assert answer.status_code == 200
    kind = answer.headers["content-type"].partition(";")[0]
    assert any(offer.partition(";")[0] in (kind, "*/*") for offer in route.produces)


@pytest.mark.ps318("not-acceptable")
@named(_GETS)
def test_what_can_not_be_had_is_406_with_a_reason(rules: TenantSite, image: Stored, route: Route):
    answer = rules.get(path_of(route, image), "application/x-nothing")
    assert (answer.status_code, answer.json()["status"]) == (406, 406)
    assert "/" in answer.json()["reason"], "it names a media type that can be had"


# ------------------------------------------------------------------ headers and statuses


@pytest.mark.ps318("content-location")
@named(_RETRIEVE)
def test_each_answer_says_where_it_is_from(rules: TenantSite, image: Stored, route: Route):
    path = path_of(route, image)
    answer = rules.get(path)
    location = answer.headers["content-location"]
    if path.endswith(("/rendered", "/thumbnail")):  # one frame may stand for all of them
        assert location.startswith(rules.base + image.study_path)
        assert location.endswith(path[path.rindex("/") :])
    else:
        assert location == rules.base + path
    assert rules.get(location).content == answer.content


@pytest.mark.ps318("conditional", "head")
@named(_RETRIEVE)
def test_head_and_conditions(rules: TenantSite, image: Stored, route: Route):
    path = path_of(route, image)
    whole, head = rules.get(path), rules.ask("HEAD", path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "etag", "content-location", "cache-control", "vary"):
        assert head.headers.get(name) == whole.headers[name]
    again = rules.get(path, if_none_match=whole.headers["etag"])
    assert (again.status_code, again.content) == (304, b"")
    assert rules.get(path, if_none_match='"another"').status_code == 200


@pytest.mark.ps318("head")
@named(_SEARCH)
def test_head_of_a_search(rules: TenantSite, image: Stored, route: Route):
    path = path_of(route, image)
    head = rules.ask("HEAD", path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == "application/dicom+json"


@pytest.mark.ps318("method-not-allowed")
@named(_GETS)
def test_other_methods(rules: TenantSite, image: Stored, route: Route):
    path = path_of(route, image)
    answer = rules.ask("PATCH", path)
    assert answer.status_code == 405
    others = {other.method for other in DICOMWEB if other.path == route.path}
    assert set(answer.headers["allow"].split(", ")) == {*others, "HEAD", "OPTIONS"}


@pytest.mark.ps318("not-found", "no-uid")
@named(_RETRIEVE)
def test_what_was_never_here(rules: TenantSite, image: Stored, route: Route):
    names = [name for name in _NEVER_STORED if f"{{{name}}}" in route.path]
    for name in names:
        unknown = rules.get(path_of(route, image, **{name: _NEVER_STORED[name]}))
        assert unknown.status_code == 404, name
        for text in ("1..2", "x", "1." * 40 + "1"):
            assert rules.get(path_of(route, image, **{name: text})).status_code == 400, text


@pytest.mark.ps318("instance-octet-stream", "multipart-parts")
@pytest.mark.parametrize("level", ["study_path", "series_path", "path"])
def test_instances_as_octets_are_their_bulk_data(rules: TenantSite, image: Stored, level: str):
    path, accept = getattr(image, level), 'multipart/related; type="application/octet-stream"'
    answer = rules.get(path, accept)
    assert answer.status_code == 200
    assert [data for _, data in parts_of(answer)] == [
        image.ds[0x00091002].value, image.ds.PixelData,
    ]  # fmt: skip
    assert answer.content.count(b"Content-Location: ") == 2
    assert (
        rules.get(path, f"{accept}, application/dicom;q=0.1")
        .headers["content-type"]
        .startswith(("application/dicom", "multipart/related"))
    )
    assert rules.get(path, "application/octet-stream").status_code == 406


@pytest.mark.ps318("unavailable")
def test_what_can_not_be_done_now_can_be_tried_again(rules: TenantSite):
    """A link to itself lies where the folder of a tenant has to be."""
    blocked = TenantSite(rules.archive, "blocked")
    obstacle = rules.archive.root / blocked.tenant_id
    body, kind = part10(multi_frame(study="blocked")), {"content-type": "application/dicom"}
    url = f"{blocked.base}/studies"
    obstacle.symlink_to(obstacle)
    try:
        refused = blocked.session.post(url, data=body, headers=kind, timeout=_HTTP_TIMEOUT_S)
    finally:
        obstacle.unlink()
    assert refused.status_code == 503, refused.text
    assert int(refused.headers["retry-after"]) > 0
    stored = blocked.session.post(url, data=body, headers=kind, timeout=_HTTP_TIMEOUT_S)
    assert stored.status_code == 200


# ------------------------------------------------------------------ anything at all


@contextmanager
def raw(site: TenantSite) -> Iterator[HTTPConnection]:
    """A connection that sends what it is given, as no client library does."""
    with closing(
        HTTPConnection("127.0.0.1", site.archive.http_port, timeout=_HTTP_TIMEOUT_S)
    ) as connection:
        yield connection


def ask(
    connection: HTTPConnection, path: str, headers: dict[str, str]
) -> tuple[HTTPResponse, bytes]:
    connection.putrequest("GET", path, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value.encode("latin-1"))
    connection.endheaders()
    answer = connection.getresponse()
    return answer, answer.read()


_ACCEPTS = st.lists(
    st.sampled_from(
        [
            "multipart/related", "application/dicom", "application/dicom+json", "image/jpeg",
            "application/octet-stream", "application/dicom+xml", "*/*", "image/*", "*", "/", "",
            "; type=", '"', "'", ";", ",", " ", "=", "; q=0", ";q=1e400", "; q=nan", ";q=-1",
            "; transfer-syntax=*", "; transfer-syntax=1.2.840.10008.1.2", "type", "\t", "\xff",
            '; type="application/dicom"', "; boundary=x", ";;;;", "multipart/*", "\\",
        ]
    ),
    max_size=14,
).map("".join)  # fmt: skip
_FUZZ = settings(
    max_examples=100, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@pytest.mark.ps318("never-5xx", "quality-values")
def test_no_accept_header_is_an_error_of_ours(rules: TenantSite, image: Stored):
    paths = [path_of(route, image) for route in _GETS]

    @_FUZZ
    @given(path=st.sampled_from(paths), accept=_ACCEPTS)
    def check(path: str, accept: str) -> None:
        with raw(rules) as connection:  # of its own: one that is idle for long is closed
            answer, body = ask(
                connection, f"/dicomweb{path}", {"accept": accept, "x-tenant": rules.tenant_id}
            )
        assert answer.status in {200, 206, 400, 406}, (answer.status, body)

    check()


_SEGMENTS = st.sampled_from(
    [
        "studies", "series", "instances", "frames", "metadata", "bulkdata", "rendered", "1", "0",
        "1.2", "1.2.840.10008.1.1", "01.02", "1..2", ".", "..", "%2e%2e", "%00", "%", "%zz", "%ff",
        "%C3%A4", "9" * 65, "1,2", "1-2", "7FE00010", "%2F", "{study}", "*", "~", ":", "@", "&",
        "commitment-requests", "thumbnail", "pixeldata", "+", "a" * 300, "", ";", "1.2%20",
        "1.2%0A", "-1", "2.25." + "1" * 40, "workitems",
    ]
)  # fmt: skip


@pytest.mark.ps318("never-5xx", "no-uid")
def test_no_path_is_an_error_of_ours(rules: TenantSite):
    @_FUZZ
    @given(segments=st.lists(_SEGMENTS, max_size=9))
    def check(segments: list[str]) -> None:
        path = "/".join(["/dicomweb", *segments])
        with raw(rules) as connection:
            answer, body = ask(connection, path, {"x-tenant": "nobody"})
        assert answer.status < 500 or answer.status == 501, (path, body)
        if answer.status == 501:
            assert "workitems" in path

    check()


_QUERIES = st.lists(
    st.sampled_from(
        [
            "PatientName=", "StudyDate=", "00100020=", "ModalitiesInStudy=", "limit=", "offset=",
            "includefield=", "fuzzymatching=", "orderby=", "accept=", "charset=", "true", "all",
            "20240101-20240102", "-", "*", "?", "%2A", "%5C", ",", "&", "=", "%", "%FF", "%00",
            "9" * 30, "a.b.c", "00400275.00401001=", "Modality=CT", "emptyvaluematching=true", '""',
            "multiplevaluematching=true", "TimezoneOffsetFromUTC=", "+0100", "Rows=", "1e9",
            "StudyInstanceUID=", "1.2", "PixelData=", "application/dicom%2Bjson", "[", "(", "'",
        ]
    ),
    max_size=12,
).map("".join)  # fmt: skip


@pytest.mark.ps318("never-5xx", "invalid-parameters")
def test_no_query_is_an_error_of_ours(rules: TenantSite, image: Stored):
    paths = [path_of(route, image) for route in _GETS]

    @_FUZZ
    @given(path=st.sampled_from(paths), query=_QUERIES)
    def check(path: str, query: str) -> None:
        with raw(rules) as connection:
            answer, body = ask(
                connection, f"/dicomweb{path}?{query}", {"x-tenant": rules.tenant_id}
            )
        assert answer.status in {200, 204, 206, 400, 406, 413}, (path, query, body)

    check()
