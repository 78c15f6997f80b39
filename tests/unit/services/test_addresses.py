"""Where we are, as the client sees it: proxies, prefixes, ports, IPv6, and what is not believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wado.services.server.addresses import is_host, is_prefix, origin_of, prefix_of, without_prefix
from wado.services.server.calls import Call
from wado.services.server.charsets import gives_text, takes_utf_8

SERVER = "127.0.0.1:8080"


def origin(*, prefix: str = "", **headers: str) -> str:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return origin_of(named, "http", named.get("host", ""), SERVER, prefix)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"host": "pacs:8080"}, "http://pacs:8080"),
        ({"host": "[2001:db8::1]:8443"}, "http://[2001:db8::1]:8443"),
        ({"host": "[::1]"}, "http://[::1]"),
        ({}, f"http://{SERVER}"),
        ({"host": "a", "x_forwarded_proto": "https"}, "https://a"),
        ({"host": "a", "x_forwarded_proto": "https, http", "x_forwarded_host": "b, c"},
         "https://b"),
        ({"host": "a", "x_forwarded_proto": "https", "x_forwarded_port": "443"}, "https://a"),
        ({"host": "a", "x_forwarded_proto": "https", "x_forwarded_port": "8443"},
         "https://a:8443"),
        ({"host": "a:81", "x_forwarded_port": "8443"}, "http://a:81"),
        ({"host": "[::1]", "x_forwarded_port": "8443"}, "http://[::1]:8443"),
        ({"host": "a", "x_forwarded_prefix": "/pacs/"}, "http://a/pacs"),
        ({"host": "a", "forwarded": 'for=9;proto=https;host="[::2]:1";by=x, host=c'},
         "https://[::2]:1"),
        ({"host": "a", "forwarded": "Host=b", "x_forwarded_host": "c"}, "http://b"),
    ],
)  # fmt: skip
def test_addresses_follow_the_client_through_proxies(headers: dict[str, str], expected: str):
    assert origin(**headers) == expected


@pytest.mark.parametrize(
    "headers",
    [
        {"x_forwarded_host": 'b"><script>'}, {"x_forwarded_host": "b/c"},
        {"x_forwarded_host": "user@b"}, {"x_forwarded_host": "b:99999"},
        {"x_forwarded_proto": "javascript"}, {"x_forwarded_port": "80a"},
        {"x_forwarded_port": "70000"}, {"x_forwarded_prefix": "/../.."},
        {"x_forwarded_prefix": "//evil.example"}, {"x_forwarded_prefix": "/a?b"},
        {"forwarded": "host=a b;proto=ftp"},
    ],
)  # fmt: skip
def test_what_is_no_address_is_not_taken_over(headers: dict[str, str]):
    assert origin(host="a", **headers) == "http://a"


def test_a_host_that_is_none_is_replaced_by_our_own():
    assert origin(host='a"><script>') == f"http://{SERVER}"


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30), st.text(max_size=60))
def test_no_header_brings_odd_characters_into_an_address(a: str, b: str, c: str, d: str):
    made = origin(host=a, x_forwarded_host=b, x_forwarded_prefix=c, forwarded=d)
    assert made.isascii()
    assert not set(made) & set(" \r\n\t\"'<>?#@\\")
    assert made.count("//") == 1


def test_a_prefix_that_was_not_cut_off_is_part_of_the_address():
    assert origin(host="a", prefix="/pacs") == "http://a/pacs"
    assert origin(host="a", prefix="/pacs", x_forwarded_prefix="/pacs") == "http://a/pacs"


def test_the_public_address_stands_before_all_that_a_request_says():
    call = Call("GET", "/", "", {"host": "x", "x-forwarded-host": "y"}, "default",
                root="/dicomweb", public_url="https://pacs.example/a")  # fmt: skip
    assert call.base_url == "https://pacs.example/a/dicomweb"


@pytest.mark.parametrize(
    ("root_path", "public_url", "expected"),
    [
        ("", "", ""), ("/pacs/", "", "/pacs"), ("", "https://a/b/c/", "/b/c"),
        ("/x", "https://a/b", "/x"), ("", "https://a", ""),
    ],
)  # fmt: skip
def test_the_prefix_of_requests(root_path: str, public_url: str, expected: str):
    assert prefix_of(root_path, public_url) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/pacs/a", "/a"), ("/pacs", ""), ("/pacs/", "/"), ("/pacsx/a", "/pacsx/a"), ("/a", "/a")],
)
def test_prefixes_are_cut_off_where_they_are(path: str, expected: str):
    assert without_prefix(path, "/pacs") == expected


def test_hosts_and_prefixes():
    assert is_host("a.b-c_d~1:65535")
    assert not is_host("a:65536")
    assert not is_host("")
    assert is_prefix("")
    assert is_prefix("/a/b.c")
    assert not is_prefix("/a/")
    assert not is_prefix("/.")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("utf-8", True), ("UTF-8", True), ("utf8", True), ('"utf-8"', True), ("*", True),
        ("iso-8859-1, utf-8;q=0.5", True), ("iso-8859-1,*;q=0.1", True), ("iso-8859-1", False),
        ("utf-8;q=0", False), ("utf-8;q=0.0,*", False), ("*;q=0", False), ("ISO_IR 192", True),
    ],
)  # fmt: skip
def test_character_sets(wanted: str, expected: bool):
    assert takes_utf_8(wanted) is expected


@pytest.mark.parametrize(
    ("media_types", "expected"),
    [
        (("application/dicom+json",), True), (("text/html", "application/json"), True),
        (('multipart/related; type="application/dicom+xml"',), True),
        (("application/dicom",), False), (("image/jpeg", "text/html"), False), ((), False),
    ],
)  # fmt: skip
def test_text_has_a_character_set(media_types: tuple[str, ...], expected: bool):
    assert gives_text(media_types) is expected
