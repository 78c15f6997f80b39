"""Who asks, through proxies: what they say is believed of those only that were configured."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wado.services.networks import as_address, is_within
from wado.services.server.addresses import Proxies

OURS = tuple(map(ip_network, ("10.0.0.0/8", "127.0.0.0/8", "fd00::/8")))
PROXY, CLIENT = "10.1.2.3:5000", "192.0.2.7"


def asked(client: str, **headers: str) -> str:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Proxies(OURS).client_of(client, given)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, PROXY),
        ({"x_forwarded_for": CLIENT}, f"{CLIENT}:0"),
        ({"x_forwarded_for": "192.0.2.66, 192.0.2.7"}, f"{CLIENT}:0"),
        ({"x_forwarded_for": "192.0.2.66, 192.0.2.7, 10.9.9.9"}, f"{CLIENT}:0"),
        ({"x_forwarded_for": "10.9.9.8,10.9.9.9"}, "10.9.9.8:0"),
        ({"x_forwarded_for": "192.0.2.7:4711"}, f"{CLIENT}:0"),
        ({"x_forwarded_for": "[2001:db8::1]:4711"}, "[2001:db8::1]:0"),
        ({"x_forwarded_for": "2001:db8::1"}, "[2001:db8::1]:0"),
        ({"x_forwarded_for": "::ffff:192.0.2.7"}, f"{CLIENT}:0"),
        ({"x_forwarded_for": "192.0.2.7, nonsense"}, PROXY),
        ({"x_forwarded_for": "192.0.2.7, unknown, 10.9.9.9"}, "10.9.9.9:0"),
        ({"x_forwarded_for": ""}, PROXY),
        ({"forwarded": "for=192.0.2.7;proto=https"}, f"{CLIENT}:0"),
        ({"forwarded": 'for="[2001:db8::1]:9", for=10.0.0.1'}, "[2001:db8::1]:0"),
        ({"forwarded": "for=192.0.2.7", "x_forwarded_for": "192.0.2.66"}, f"{CLIENT}:0"),
        ({"forwarded": "proto=https", "x_forwarded_for": CLIENT}, f"{CLIENT}:0"),
        ({"forwarded": "for=_hidden"}, PROXY),
    ],
)
def test_the_nearest_that_is_no_proxy_is_the_client(headers: dict[str, str], expected: str):
    assert asked(PROXY, **headers) == expected


@pytest.mark.parametrize("client", ["192.0.2.7:5000", "[2001:db8::1]:5000", ":0", "nonsense"])
def test_who_is_no_proxy_says_nothing_about_others(client: str):
    headers = {
        "host": "pacs",
        "accept": "*/*",
        "forwarded": "for=192.0.2.66;host=evil",
        "x-forwarded-for": "192.0.2.66",
        "x-forwarded-host": "evil",
        "x-forwarded-port": "1",
        "x-forwarded-prefix": "/evil",
        "x-forwarded-proto": "https",
        "x-sendfile-type": "X-Accel-Redirect",
    }
    assert Proxies(OURS).client_of(client, headers) == client
    assert headers == {"host": "pacs", "accept": "*/*"}


def test_a_proxy_keeps_its_headers():
    headers = {"x-forwarded-for": CLIENT, "x-forwarded-host": "pacs.example"}
    before = dict(headers)
    assert Proxies(OURS).client_of("[fd00::1]:1", headers) == f"{CLIENT}:0"
    assert headers == before


@given(st.text(max_size=60), st.text(max_size=60))
def test_whatever_is_said_the_client_has_an_address(forwarded: str, forwarded_for: str):
    client = asked(PROXY, forwarded=forwarded, x_forwarded_for=forwarded_for)
    assert as_address(client.rpartition(":")[0].strip("[]")) is not None


@given(st.ip_addresses())
def test_networks_hold_their_addresses(address):
    assert is_within(str(address), OURS) == any(
        (getattr(address, "ipv4_mapped", None) or address) in network for network in OURS
    )
    assert not is_within("", OURS)
    assert not is_within("fd00::1", ())
