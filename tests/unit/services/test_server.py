"""The web server's own rules: addresses, ranges, tags, routes, pages; no network."""

from collections.abc import Iterator

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wado.errors import NotFound, Unavailable
from wado.services.server import pages
from wado.services.server.calls import Answer, Call, matches_etag, one_range, warning
from wado.services.server.dispatch import error_answer
from wado.services.server.openapi import document
from wado.services.server.routes import ROUTES, find
from wado.services.server.service import Service, open_service
from web import fetch


def body_of(answer: Answer) -> bytes:
    (piece,) = answer.pieces
    assert isinstance(piece, bytes)
    return piece


def call(path: str = "/", **headers: str) -> Call:
    return Call("GET", path, "", headers, "default", server="127.0.0.1:8080", root="/dicomweb")


@pytest.fixture
def service(archive, settings) -> Iterator[Service]:
    with open_service(archive, settings.server, default_tenant="default") as service:
        yield service


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"host": "pacs:8080"}, "http://pacs:8080/dicomweb"),
        ({"host": "[::1]:8080"}, "http://[::1]:8080/dicomweb"),
        ({"host": "127.0.0.1"}, "http://127.0.0.1:8080/dicomweb"),
        ({"host": "a", "x-forwarded-proto": "https", "x-forwarded-host": "b, c"},
         "https://b/dicomweb"),
        ({"host": "a", "x-forwarded-prefix": "/pacs/"}, "http://a/pacs/dicomweb"),
        ({"host": "a", "forwarded": 'for=1;proto=https;host="b:1", host=c'},
         "https://b:1/dicomweb"),
        ({"host": 'a"><script>'}, "http://127.0.0.1:8080/dicomweb"),
        ({"host": "a", "x-forwarded-proto": "javascript"}, "http://a/dicomweb"),
    ],
)  # fmt: skip
def test_addresses_follow_the_client(headers: dict[str, str], expected: str):
    assert call(**headers).base_url == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-9", (0, 10)), ("bytes=90-", (90, 100)), ("bytes=90-500", (90, 100)),
        ("bytes=-5", (95, 100)), ("bytes=-500", (0, 100)), ("bytes=200-", (200, 100)),
        ("bytes=5-4", None), ("bytes=-", None), ("bytes=0-1,5-6", None), ("lines=1-2", None),
    ],
)  # fmt: skip
def test_ranges(header: str, expected: tuple[int, int] | None):
    assert one_range(header, 100) == expected


@given(st.text(max_size=40))
def test_any_text_is_a_range_header(text: str):
    one_range(text, 100)


@pytest.mark.parametrize(
    ("header", "expected"),
    [('"a"', True), ('"b", W/"a"', True), ("*", True), ('"b"', False), (None, False), ("", False)],
)
def test_entity_tags(header: str | None, expected: bool):
    assert matches_etag(header, '"a"') is expected


def test_warnings_are_plain_ascii():
    assert warning('a "b"\r\nX: ü')[1] == '299 wado "a ?b???X: ?"'


def test_the_accept_parameter_keeps_its_plus():
    at = call()
    at.query = "limit=1&accept=application/dicom+json"
    assert at.accept_parameter == "application/dicom+json"


def test_errors_of_ours_give_their_reason_and_others_none():
    ours = error_answer(NotFound("no such study"), "t1")
    assert (ours.status, orjson.loads(body_of(ours))) == (
        404,
        {"status": 404, "reason": "no such study", "trace_id": "t1"},
    )
    assert ("retry-after", "5") in error_answer(Unavailable("x"), "t").headers
    other = error_answer(ValueError("secret"), "t2")
    assert other.status == 500
    assert b"secret" not in body_of(other)


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/dicomweb/studies", "/dicomweb/studies"),
        ("/dicomweb/studies/", "/dicomweb/studies"),
        ("/dicomweb/studies/1.2", "/dicomweb/studies/{study}"),
        ("/dicomweb/studies/1/series/2/instances/3/frames/1,2",
         "/dicomweb/studies/{study}/series/{series}/instances/{instance}/frames/{frames}"),
        ("/dicomweb/studies/1/series/2/instances/3/bulkdata/00400275/0/00400009",
         "/dicomweb/studies/{study}/series/{series}/instances/{instance}/bulkdata/{path:path}"),
        ("/viewer?x", "/{path:path}"),
        ("/dicomwebX", "/{path:path}"),
    ],
)  # fmt: skip
def test_paths_find_their_resource(path: str, template: str):
    assert find(path)[0].path == template


def test_the_document_has_every_route():
    described = document("http://here")
    operations = [(m, p) for p, methods in described["paths"].items() for m in methods]
    assert len(operations) == len(ROUTES)
    orjson.dumps(described)


def test_operations_are_served(service: Service):
    alive = fetch(service, "GET", "/livez")
    assert (alive.status, alive.body) == (200, b'{"status":"alive"}')
    head = fetch(service, "HEAD", "/livez")
    assert (head.body, head.headers["content-length"]) == (b"", "18")
    other = fetch(service, "POST", "/livez")
    assert (other.status, other.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    preflight = {"access-control-request-method": "GET"}
    assert fetch(service, "OPTIONS", "/livez", **preflight).status == 204
    assert b"wado_http" in fetch(service, "GET", "/metrics").body
    assert fetch(service, "GET", "/dicomweb/studies").status == 204


def test_the_viewer_is_served_and_nothing_outside_of_it(service: Service, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "viewer_folder", lambda: tmp_path / "viewer")
    missing = fetch(service, "GET", "/")
    assert missing.status == 404
    assert b"make viewer" in missing.body
    assets = tmp_path / "viewer" / "assets"
    assets.mkdir(parents=True)
    (tmp_path / "viewer" / "index.html").write_text("<p>viewer</p>")
    (assets / "main-Ab3dEf9h.js").write_text("1")
    (tmp_path / "secret.txt").write_text("secret")
    page = fetch(service, "GET", "/studies/1.2")
    assert (page.status, page.body) == (200, b"<p>viewer</p>")
    assert page.headers["cache-control"] == "no-cache"
    script = fetch(service, "GET", "/assets/main-Ab3dEf9h.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert "immutable" in script.headers["cache-control"]
    (assets / "main-Ab3dEf9h.js.gz").write_bytes(b"packed")
    packed = fetch(service, "GET", "/assets/main-Ab3dEf9h.js", **{"accept-encoding": "gzip, br"})
    assert (packed.body, packed.headers["content-encoding"]) == (b"packed", "gzip")
    assert fetch(service, "GET", "/assets/main-Ab3dEf9h.js").body == b"1"
    again = fetch(service, "GET", "/", **{"if-none-match": page.headers["etag"]})
    assert again.status == 304
    for path in ("/../secret.txt", "/%2e%2e/secret.txt", "/assets/none.js", "/dicomweb/none"):
        assert fetch(service, "GET", path).status == 404
