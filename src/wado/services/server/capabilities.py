"""Capabilities (PS3.18 §8.9, Annex H): what OPTIONS tells of a resource, as WADL or as JSON.

Both say the same, and what the OpenAPI document says, of which they are made; that is made of the
route table.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any
from xml.etree import ElementTree as ET

import orjson

from wado.dicom.media_types import JSON, Offer, select
from wado.errors import NotAcceptable, NotOffered
from wado.services.server.calls import CROSS_ORIGIN, Answer, Call
from wado.services.server.openapi import document
from wado.services.server.representations import REVALIDATE, acceptable_to
from wado.services.server.routes import NOT_OFFERED, ROOT, URI_SERVICE, VIEWER, Resource

WADL = "application/vnd.sun.wadl+xml"
_NAMESPACE = "http://wadl.dev.java.net/2009/02"
_XML_SCHEMA = "http://www.w3.org/2001/XMLSchema"
_OFFERS = tuple(Offer(name) for name in (WADL, JSON, "application/xml", "text/xml"))
_XML_TYPES = {"integer": "xs:integer", "number": "xs:decimal", "boolean": "xs:boolean"}
_MAX_KEPT = 64

Json = dict[str, Any]


def describe(call: Call, resource: Resource) -> Answer:
    """Describe a resource; the roots of the site and of DICOMweb describe all of them.

    Raises
    ------
    NotAcceptable
        Neither WADL nor JSON is wanted.
    NotOffered
        The resource is one of a service that is not offered.
    """
    if resource.path in _REFUSED:
        raise NotOffered("this archive does not offer this service")
    offer = select(acceptable_to(call), _OFFERS)
    if offer is None:
        raise NotAcceptable(f"capabilities can be had as {WADL} or {JSON}")
    whole = resource.path in (ROOT, VIEWER.path)
    body = _body(call.origin, "" if whole else resource.path, offer.media_type)
    headers = [("content-type", offer.media_type), ("vary", "accept"), REVALIDATE, *CROSS_ORIGIN]
    return Answer(200, headers, (body,))


_REFUSED = frozenset(route.path for route in NOT_OFFERED)


@lru_cache(maxsize=_MAX_KEPT)
def _body(origin: str, path: str, media_type: str) -> bytes:
    described = application(origin, path)
    return orjson.dumps(described) if media_type == JSON else _wadl(described)


def application(origin: str, path: str = "") -> Json:
    """Describe one path of the route table, or all that are services of PS3.18."""
    paths = document(origin)["paths"]
    chosen = [re.sub(r":path\}", "}", path)] if path else list(paths)
    seen: set[str] = set()
    resources = []
    for root in (ROOT, URI_SERVICE) if not path else ("",):
        found = [
            {"path": name.removeprefix(root).lstrip("/"), **_resource(paths[name], seen)}
            for name in chosen
            if name.startswith(root)
        ]
        if found:
            resources.append({"base": f"{origin}{root}/", "resource": found})
    return {"application": {"resources": resources}}


def _resource(operations: Json, seen: set[str]) -> Json:
    everywhere = [p for o in operations.values() for p in o["parameters"] if p["in"] == "path"]
    templates = {p["name"]: _parameter(p, "template") for p in everywhere}
    methods = [_method(name, operation, seen) for name, operation in operations.items()]
    return {"param": list(templates.values()), "method": methods}


def _method(name: str, operation: Json, seen: set[str]) -> Json:
    words = re.findall(r"\w+", operation["summary"])
    title = "".join(word[0].upper() + word[1:] for word in words)
    identity = operation["operationId"] if title in seen else title
    seen.add(identity)
    style = {"query": "query", "header": "header"}
    query = [_parameter(p, style[p["in"]]) for p in operation["parameters"] if p["in"] in style]
    request: Json = {"param": query} if query else {}
    body = operation.get("requestBody", {}).get("content", {})
    if body:
        request["representation"] = [{"mediaType": media_type} for media_type in body]
    return {
        "name": name.upper(),
        "id": identity,
        "request": request,
        "response": list(_responses(operation["responses"])),
    }


def _responses(responses: Json) -> Iterator[Json]:
    """Gather the statuses that give the same media types."""
    statuses: dict[tuple[str, ...], list[str]] = {}
    for status, response in responses.items():
        statuses.setdefault(tuple(response.get("content", ())), []).append(status)
    for media_types, names in statuses.items():
        answer: Json = {"status": " ".join(names)}
        if media_types:
            answer["representation"] = [{"mediaType": name} for name in media_types]
        yield answer


def _parameter(parameter: Json, style: str) -> Json:
    schema = parameter["schema"]
    return {
        "name": parameter["name"],
        "style": style,
        "required": parameter.get("required", False),
        "type": _XML_TYPES.get(schema.get("type", ""), "xs:string"),
        "doc": parameter.get("description", ""),
    }


# ------------------------------------------------------------------ WADL


def _wadl(described: Json) -> bytes:
    """Write the description as WADL: names of members are those of its elements."""
    root = ET.Element("application", {"xmlns": _NAMESPACE, "xmlns:xs": _XML_SCHEMA})
    _add_children(root, described["application"])
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text


def _add_children(parent: ET.Element, value: Json) -> None:
    """Turn plain values to attributes, and objects and arrays to elements; `doc` is text."""
    for name, member in value.items():
        if name == "doc":
            ET.SubElement(parent, "doc").text = member
        elif isinstance(member, dict):
            _add_children(ET.SubElement(parent, name), member)
        elif isinstance(member, list):
            for item in member:
                _add_children(ET.SubElement(parent, name), item)
        else:
            parent.set(name, str(member).lower() if isinstance(member, bool) else str(member))
