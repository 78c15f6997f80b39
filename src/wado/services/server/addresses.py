"""Who the client is, and where it thinks we are: through proxies, or as it was configured.

Addresses go into answers (Retrieve URL, BulkDataURI, Content-Location), so nothing that a client or
proxy writes is taken over unless it is a scheme, a host, a port or a path of plain characters.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from wado.services.networks import as_address, is_within
from wado.settings import Network

_HOST = re.compile(r"(?:[A-Za-z0-9._~-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(\d{1,5}))?\Z")
_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+){0,16}\Z")
_MAX_PORT = 65535
_DEFAULT_PORTS = {"http": "80", "https": "443"}


_OF_PROXIES: Final = (
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-sendfile-type",
)
"""Headers that are a proxy's to send: from others they are passed over."""


class Proxies:
    """The proxies that may say who asks, and by which address."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = tuple(networks)
        self._is_one = lru_cache(maxsize=8192)(self._looked_up)

    def client_of(self, client: str, headers: dict[str, str]) -> str:
        """Find out who asks, as ``host:port``; takes away headers that only proxies may send.

        Parameters
        ----------
        client
            Who is connected.
        headers
            Of the request, by names in lower case; changed in place.
        """
        if not self._is_one(client):
            for name in _OF_PROXIES:
                headers.pop(name, None)
            return client
        if "forwarded" not in headers and "x-forwarded-for" not in headers:
            return client
        found = ""
        for node in reversed(_nodes(headers)):
            address = as_address(_bare_address(node))
            if address is None:
                break
            found = str(address)
            if not is_within(found, self._networks):
                break
        return client if not found else f"[{found}]:0" if ":" in found else f"{found}:0"

    def _looked_up(self, client: str) -> bool:
        host = client.rpartition(":")[0].strip("[]")
        return host == "unix" or is_within(host, self._networks)  # or a socket of this machine


def _nodes(headers: Mapping[str, str]) -> list[str]:
    """Give the clients that proxies name, the nearest one last."""
    elements = (_pairs(element) for element in headers.get("forwarded", "").split(","))
    nodes = [element["for"] for element in elements if "for" in element]
    return nodes or headers.get("x-forwarded-for", "").split(",")


def _bare_address(node: str) -> str:
    """Cut brackets and port off an address (RFC 7239 §6)."""
    text = node.strip()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


class HeaderLookup(Protocol):
    """Request headers; names in lower case."""

    def get(self, key: str, /) -> Any:
        """Value of a header, or None."""
        ...


def origin_of(headers: HeaderLookup, scheme: str, host: str, server: str, prefix: str) -> str:
    """``scheme://host[:port][/prefix]`` as the client wrote it.

    Parameters
    ----------
    headers
        Forwarded (RFC 7239) and, where it says nothing, X-Forwarded-Proto, -Host, -Port, -Prefix.
    scheme, host
        Those of the request itself.
    server
        Our own address, taken where the client's is none.
    prefix
        What stood before our paths in the request; a proxy that cut another one off names it in
        X-Forwarded-Prefix.
    """
    forwarded = _forwarded(headers.get("forwarded") or "")
    proto = forwarded.get("proto") or _first(headers.get("x-forwarded-proto"))
    scheme = proto if proto in _DEFAULT_PORTS else scheme
    named = forwarded.get("host") or _first(headers.get("x-forwarded-host"))
    host = named if named and is_host(named) else host
    if not is_host(host):
        return f"{scheme}://{server}{prefix}"
    host = _with_port(host, _first(headers.get("x-forwarded-port")), scheme)
    outer = _first(headers.get("x-forwarded-prefix")).rstrip("/")
    return f"{scheme}://{host}{outer if outer and is_prefix(outer) else prefix}"


def _with_port(host: str, port: str, scheme: str) -> str:
    """Add the port that the proxy listens at, where neither host nor scheme say it."""
    match = _HOST.match(host)
    if not port or port == _DEFAULT_PORTS[scheme] or (match and match[1]):
        return host
    return f"{host}:{port}" if is_host(f"{host}:{port}") else host


@lru_cache(maxsize=256)
def is_host(text: str) -> bool:
    """Whether a text is a host, with or without a port; IPv6 addresses in brackets."""
    match = _HOST.match(text)
    return match is not None and int(match[1] or 0) <= _MAX_PORT


@lru_cache(maxsize=64)
def is_prefix(text: str) -> bool:
    """Whether a text is empty or a path of plain names, without a slash at its end."""
    return _PREFIX.match(text) is not None


def prefix_of(root_path: str, public_url: str) -> str:
    """The path before ours that requests may have: that of the setting, or of the public URL."""
    return (root_path or urlsplit(public_url).path).rstrip("/")


def without_prefix(path: str, prefix: str) -> str:
    """Cut the prefix off a path that has it; all others stay as they are."""
    return path[len(prefix) :] if path == prefix or path.startswith(f"{prefix}/") else path


def _first(value: str | None) -> str:
    return value.split(",", 1)[0].strip() if value else ""


@lru_cache(maxsize=64)
def _forwarded(value: str) -> Mapping[str, str]:
    """First element of a Forwarded header (RFC 7239)."""
    return _pairs(value.split(",", 1)[0])


def _pairs(element: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in element.split(";"))
    return {name.strip().lower(): text.strip().strip('"') for name, _, text in pairs}
