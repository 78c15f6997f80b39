"""OPTIONS on every resource (PS3.18 §8.9), preflights, and answers to what is not there."""

from contextlib import closing
from http.client import HTTPConnection
from xml.etree import ElementTree as ET

import pytest
import requests

from service import RunningArchive
from wado.services.server.routes import DICOMWEB, ROOT, URI_SERVICE

WADL = "application/vnd.sun.wadl+xml"
_NS = {"w": "http://wadl.dev.java.net/2009/02"}
_VALUES = {
    "study": "1.2", "series": "1.3", "instance": "1.4", "frames": "1", "path": "7FE00010",
    "transaction": "1.5",
}  # fmt: skip
_PATHS = sorted({route.path for route in DICOMWEB})


def real(path: str) -> str:
    for name, value in _VALUES.items():
        path = path.replace(f"{{{name}:path}}", value).replace(f"{{{name}}}", value)
    assert "{" not in path, "give the variable a value above"
    return path


def options(url: str, accept: str = "*/*", **headers: str) -> requests.Response:
    return requests.options(url, headers={"accept": accept, **headers}, timeout=60)


@pytest.mark.ps318("capabilities")
@pytest.mark.parametrize("root", ["/dicomweb", "/dicomweb/", "/"])
def test_the_service_tells_all_its_resources_as_wadl(running: RunningArchive, root: str):
    answer = options(running.http + root)
    assert (answer.status_code, answer.headers["content-type"]) == (200, WADL)
    wadl = ET.fromstring(answer.content)
    assert wadl.tag == f"{{{_NS['w']}}}application"
    bases = {r.get("base"): r for r in wadl.findall("w:resources", _NS)}
    assert set(bases) == {f"{running.dicomweb}/", f"{running.http}{URI_SERVICE}/"}
    told = {r.get("path") for r in bases[f"{running.dicomweb}/"].findall("w:resource", _NS)}
    assert {p.removeprefix(f"{ROOT}/").replace(":path", "") for p in _PATHS} <= told
    names = [m.get("id") for m in wadl.iter(f"{{{_NS['w']}}}method")]
    assert len(set(names)) == len(names)
    assert {"SearchForStudies", "StoreInstances", "RetrieveStudyMetadata"} <= set(names)


@pytest.mark.ps318("capabilities")
def test_wadl_and_json_say_the_same(running: RunningArchive):
    url = f"{running.dicomweb}/studies"
    wadl = ET.fromstring(options(url, WADL).content)
    told = options(url, "application/json").json()["application"]
    (resource,) = told["resources"][0]["resource"]
    in_xml = wadl.findall("w:resources/w:resource/w:method", _NS)
    assert [m["name"] for m in resource["method"]] == [m.get("name") for m in in_xml] == [
        "GET", "POST",
    ]  # fmt: skip
    search, store = resource["method"]
    parameters = {p["name"] for p in search["request"]["param"]}
    assert {"limit", "offset", "includefield", "fuzzymatching"} <= parameters
    assert {p.get("name") for p in in_xml[0].findall("w:request/w:param", _NS)} == parameters
    media_types = {r["mediaType"] for r in store["request"]["representation"]}
    assert any("application/dicom" in media_type for media_type in media_types)
    statuses = " ".join(r["status"] for r in store["response"]).split()
    assert {"200", "202", "409"} <= set(statuses)


@pytest.mark.ps318("capabilities")
@pytest.mark.parametrize("path", [*_PATHS, URI_SERVICE, "/readyz", "/openapi.json"])
def test_each_resource_tells_of_itself(running: RunningArchive, path: str):
    url = running.http + real(path)
    answer = options(url, "application/json")
    assert answer.status_code == 200
    (root,) = answer.json()["application"]["resources"]
    (resource,) = root["resource"]
    assert f"{root['base']}{resource['path']}" == f"{running.http}{path.replace(':path', '')}"
    templates = {p["name"] for p in resource["param"]}
    assert templates == {name for name in _VALUES if f"{{{name}" in path}
    allowed = set(answer.headers["allow"].split(", "))
    assert {m["name"] for m in resource["method"]} | {"OPTIONS"} <= allowed
    assert ("HEAD" in allowed) == ("GET" in allowed)


def test_the_asterisk_means_the_whole_server(running: RunningArchive):
    with closing(HTTPConnection("127.0.0.1", running.http_port, timeout=60)) as connection:
        connection.request("OPTIONS", "*")
        answer = connection.getresponse()
        assert (answer.status, answer.headers["content-type"]) == (200, WADL)
        assert b"SearchForStudies" in answer.read()


def test_capabilities_in_another_form_are_406(running: RunningArchive):
    assert options(running.dicomweb, "text/html").status_code == 406
    assert options(running.dicomweb, "application/xml").status_code == 200


# ------------------------------------------------------------------ preflights


@pytest.mark.ps318("cors")
@pytest.mark.parametrize("path", ["/dicomweb/studies", "/wado", "/dicomweb/nothing/here"])
def test_browsers_may_ask_first(running: RunningArchive, path: str):
    answer = options(
        running.http + path,
        origin="https://viewer.example",
        **{"access-control-request-method": "GET",
           "access-control-request-headers": "authorization,x-tenant"},
    )  # fmt: skip
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "*"
    allowed = {h.strip().lower() for h in answer.headers["access-control-allow-headers"].split(",")}
    assert {"authorization", "accept", "range", "content-type", "if-match", "if-none-match",
            "x-tenant"} <= allowed  # fmt: skip
    assert {"GET", "POST", "PUT", "DELETE"} <= set(
        answer.headers["access-control-allow-methods"].split(", ")
    )
    assert int(answer.headers["access-control-max-age"]) > 600


@pytest.mark.ps318("cors")
@pytest.mark.parametrize("path", ["/dicomweb/studies", "/dicomweb/studies/1.2/metadata", "/wado"])
def test_pages_may_read_the_headers_that_clients_need(running: RunningArchive, path: str):
    answer = requests.get(running.http + path, headers={"x-tenant": "none"}, timeout=60)
    exposed = {h.strip() for h in answer.headers["access-control-expose-headers"].split(",")}
    assert {
        "Content-Range", "Content-Length", "Content-Type", "Content-Location", "Location",
        "Warning", "ETag", "Retry-After", "Accept-Ranges", "WWW-Authenticate",
    } <= exposed  # fmt: skip


# ------------------------------------------------------------------ what is not there


def test_the_root_leads_on(running: RunningArchive):
    for url in (running.dicomweb, f"{running.dicomweb}/"):
        links = requests.get(url, timeout=60).json()["links"]
        assert requests.get(links["studies"], timeout=60).status_code in (200, 204)
        assert requests.get(links["openapi"], timeout=60).status_code == 200
        browser = requests.get(url, headers={"accept": "text/html,*/*"}, timeout=60)
        assert (browser.status_code, browser.url) == (200, f"{running.http}/docs")


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS", "HEAD"])
def test_unknown_paths_are_404_for_all_methods(running: RunningArchive, method: str):
    for path in ("/nothing", "/studies/1.2/nothing", "/studies//series", "/%2e%2e/x"):
        answer = requests.request(method, running.dicomweb + path, timeout=60)
        assert answer.status_code == 404, path
        if method != "HEAD":
            assert answer.json()["reason"]


@pytest.mark.ps318("method-not-allowed")
def test_other_methods_are_405_with_allow(running: RunningArchive):
    for method, path, allow in (
        ("PUT", "/studies", "GET, HEAD, OPTIONS, POST"),
        ("PATCH", "/studies/1.2/metadata", "GET, HEAD, OPTIONS"),
        ("POST", "/studies/1.2/series/1.3/metadata", "GET, HEAD, OPTIONS"),
    ):
        answer = requests.request(method, running.dicomweb + path, timeout=60)
        assert (answer.status_code, answer.headers["allow"]) == (405, allow)
        assert answer.json()["status"] == 405


@pytest.mark.ps318("not-implemented", "rendered-mpr-3d")
@pytest.mark.parametrize(
    "path",
    [
        "/workitems", "/workitems/1.2/state", "/modality-scheduled-procedure-steps",
        "/color-palettes/1.2", "/hanging-protocols", "/implant-templates", "/inventories",
        "/defined-procedure-protocols", "/studies/1.2/renderedmpr",
        "/studies/1.2/series/1.3/rendered3d", "/studies/1.2/series/1.3/instances/1.4/rendered3d",
    ],
)  # fmt: skip
def test_services_that_are_not_offered_are_501_by_name(running: RunningArchive, path: str):
    for method in ("GET", "POST", "OPTIONS"):
        answer = requests.request(method, running.dicomweb + path, timeout=60)
        assert answer.status_code == 501, method
    named = requests.get(running.dicomweb + path, timeout=60).json()["reason"]
    assert any(part in named for part in path.split("/") if part)


@pytest.mark.ps318("charset")
def test_character_sets(running: RunningArchive):
    url = f"{running.dicomweb}/studies"
    for charset, header, status in (
        ("utf-8", None, 204), (None, "utf-8", 204), ("iso-8859-1", None, 406),
        (None, "iso-8859-1", 406), (None, "iso-8859-1,*;q=0.1", 204), ("utf-8", "latin1", 204),
    ):  # fmt: skip
        headers = {"x-tenant": "charsets", **({"accept-charset": header} if header else {})}
        answer = requests.get(
            url, params={"charset": charset} if charset else {}, headers=headers, timeout=60
        )
        assert answer.status_code == status, (charset, header)
