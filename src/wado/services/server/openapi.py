"""The OpenAPI document, made from the route table."""

import re
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from wado.services.server.routes import ROUTES, Route

_UID = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)*$", "maxLength": 64}
_VARIABLES: dict[str, tuple[str, dict[str, Any]]] = {
    "study": ("Study Instance UID", _UID),
    "series": ("Series Instance UID", _UID),
    "instance": ("SOP Instance UID", _UID),
    "frames": ("Frame numbers from 1, separated by commas", {"type": "string"}),
    "path": ("Tag path as in the BulkDataURI of the metadata", {"type": "string"}),
}
_SEARCH_PARAMETERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("limit", "Most results of this answer", {"type": "integer", "minimum": 0}),
    ("offset", "Results to skip", {"type": "integer", "minimum": 0}),
    ("includefield", "Attributes to add, by keyword or tag, or `all`", {"type": "string"}),
    ("fuzzymatching", "Match person names by sound", {"type": "boolean"}),
    ("PatientID", "For instance; any key of PS3.18 Table 10.6.1-5", {"type": "string"}),
    ("PatientName", "With wildcards `*` and `?`", {"type": "string"}),
    ("StudyDate", "A date `YYYYMMDD`, or a range", {"type": "string"}),
    ("ModalitiesInStudy", "One or several, separated by commas", {"type": "string"}),
)
_ERROR = {
    "type": "object",
    "required": ["status", "reason", "trace_id"],
    "properties": {
        "status": {"type": "integer"},
        "reason": {"type": "string"},
        "trace_id": {"type": "string"},
    },
}


@cache
def document(server: str) -> dict[str, Any]:
    """Make the document; `server` is the address that the client used."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        path = re.sub(r":path\}", "}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "wado",
            "version": version("wado"),
            "description": "DICOMweb (PS3.18): store, search and retrieve; health and metrics.",
        },
        "servers": [{"url": server}],
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR}},
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.title,
        "operationId": re.sub(r"\W+", "_", f"{route.method} {route.path}").strip("_").lower(),
        "tags": [f"PS3.18 §{route.section}" if route.section else "Operations"],
        "parameters": _parameters(route),
        "responses": {str(status): _response(route, status) for status in route.statuses},
    }
    if route.receiver is not None:
        schema = {"type": "string", "format": "binary"}
        operation["requestBody"] = {
            "required": True,
            "content": {
                'multipart/related; type="application/dicom"': {"schema": schema},
                "application/dicom": {"schema": schema},
            },
        }
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    parameters = []
    for name in re.findall(r"\{(\w+)", route.path):
        text, schema = _VARIABLES[name]
        parameters.append(
            {"name": name, "in": "path", "required": True, "description": text, "schema": schema}
        )
    if route.section == "10.6":
        for name, text, schema in _SEARCH_PARAMETERS:
            parameters.append({"name": name, "in": "query", "description": text, "schema": schema})
    return parameters


def _response(route: Route, status: int) -> dict[str, Any]:
    response: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if status >= 400 and not (route.receiver and status in (409, 503)):
        schema = {"$ref": "#/components/schemas/Error"}
        response["content"] = {"application/json": {"schema": schema}}
    elif status not in (204, 304):
        response["content"] = {name: {} for name in route.produces}
    return response
