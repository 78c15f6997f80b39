"""The OpenAPI document, made from the route table."""

import re
from functools import lru_cache
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from wado.services.server.routes import ROUTES, Route

_MAX_ADDRESSES = 16
"""For how many addresses the document is kept: clients choose by which name they call us."""
_UID = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)*$", "maxLength": 64}
_NUMBERS = {"type": "string", "pattern": r"^[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*$", "maxLength": 200}
_VARIABLES: dict[str, tuple[str, dict[str, Any]]] = {
    "study": ("Study Instance UID", _UID),
    "series": ("Series Instance UID", _UID),
    "instance": ("SOP Instance UID", _UID),
    "transaction": ("Transaction UID, made by who asks", _UID),
    "frames": ("Frame numbers from 1, separated by commas", _NUMBERS),
    "path": ("Tag path as in the BulkDataURI of the metadata", {"type": "string"}),
}
_SEARCH_PARAMETERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("limit", "Most results of this answer", {"type": "integer", "minimum": 0}),
    ("offset", "Results to skip", {"type": "integer", "minimum": 0}),
    ("includefield", "Attributes to add, by keyword or tag, or `all`", {"type": "string"}),
    ("orderby", "Attributes to sort by; `-` before one turns it round", {"type": "string"}),
    ("fuzzymatching", "Match names by beginnings of words, in any order", {"type": "boolean"}),
    ("emptyvaluematching", '`""` matches where there is no value', {"type": "boolean"}),
    ("multiplevaluematching", "Each value of a list must be there", {"type": "boolean"}),
    ("PatientID", "For instance; any key of PS3.18 Table 10.6.1-5", {"type": "string"}),
    ("PatientName", "With wildcards `*` and `?`", {"type": "string"}),
    ("StudyDate", "A date `YYYYMMDD`, or a range", {"type": "string"}),
    ("ModalitiesInStudy", "One or several, separated by commas", {"type": "string"}),
)
_SIDE = {"type": "integer", "minimum": 1, "maximum": 8192}
_URI_PARAMETERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("requestType", "Always `WADO`", {"type": "string", "enum": ["WADO"]}),
    ("studyUID", "Study Instance UID", _UID),
    ("seriesUID", "Series Instance UID", _UID),
    ("objectUID", "SOP Instance UID", _UID),
    ("contentType", "Media types, as in Accept", {"type": "string"}),
    ("charset", "Text is given in UTF-8", {"type": "string", "enum": ["utf-8"]}),
    ("transferSyntax", "For `application/dicom`", _UID),
    ("frameNumber", "Of a multi-frame image, from 1", {"type": "integer", "minimum": 1}),
    ("rows", "Most rows of the picture", _SIDE),
    ("columns", "Most columns of the picture", _SIDE),
    ("region", "`xmin,ymin,xmax,ymax`, each from 0 to 1", {"type": "string"}),
    ("windowCenter", "Together with `windowWidth`", {"type": "number"}),
    ("windowWidth", "Together with `windowCenter`", {"type": "number"}),
    ("imageQuality", "Of lossy pictures", {"type": "integer", "minimum": 1, "maximum": 100}),
    ("annotation", "`patient`, `technique`, or both with a comma", {"type": "string"}),
    ("anonymize", "With `application/dicom`", {"type": "string", "enum": ["yes"]}),
)
_SIDES = r"[1-9]\d{0,2},[1-9]\d{0,2}"
_RENDERED_PARAMETERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("annotation", "`patient`, `technique`, or both with a comma", {"type": "string"}),
    ("quality", "Of lossy pictures", {"type": "integer", "minimum": 1, "maximum": 100}),
    (
        "viewport",
        "`width,height[,x,y[,width,height]]`: room for the picture, and region of the image in it",
        {"type": "string", "pattern": rf"^{_SIDES}$"},
    ),
    (
        "window",
        "`centre,width,function`",
        {"type": "string", "pattern": r"^-?\d{1,5},[1-9]\d{0,4},(linear|linear-exact|sigmoid)$"},
    ),
    ("iccprofile", "ICC profile in the picture", {"type": "string", "enum": ["no", "yes", "srgb"]}),
)
_THUMBNAIL_PARAMETERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("viewport", "`width,height`", {"type": "string", "pattern": rf"^{_SIDES}$"}),
)
_STATISTICS_PARAMETERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("since", "Time in ISO 8601, or a date; default: 30 days ago", {"type": "string"}),
)
_LEVEL: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (
        "level",
        "How often rows and columns are halved: of each frame its beginning, which is enough",
        {"type": "integer", "minimum": 0, "maximum": 32},
    ),
)
_QUERY_OF_KIND = {
    "rendered": _RENDERED_PARAMETERS,
    "thumbnail": _THUMBNAIL_PARAMETERS,
    "transcoding": _STATISTICS_PARAMETERS,
    "htj2k": _LEVEL,
}
"""Query parameters of pictures, frames and statistics, by the end of their path."""
_REQUIRED = frozenset({"requestType", "studyUID", "seriesUID", "objectUID"})
_QUERY_OF = {"10.6": _SEARCH_PARAMETERS, "9": _URI_PARAMETERS}
"""Query parameters of the resources of a section."""
_ERROR = {
    "type": "object",
    "required": ["status", "reason", "trace_id"],
    "properties": {
        "status": {"type": "integer"},
        "reason": {"type": "string"},
        "trace_id": {"type": "string"},
    },
}


@lru_cache(maxsize=_MAX_ADDRESSES)
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
    if route.receiver is not None and route.consumes:
        schema = {"type": "string", "format": "binary"}
        operation["requestBody"] = {
            "required": True,
            "content": {name: {"schema": schema} for name in route.consumes},
        }
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    parameters = []
    for name in re.findall(r"\{(\w+)", route.path):
        text, schema = _VARIABLES[name]
        parameters.append(
            {"name": name, "in": "path", "required": True, "description": text, "schema": schema}
        )
    kind = route.path.removesuffix("/{frames}").rpartition("/")[2]
    for name, text, schema in _QUERY_OF_KIND.get(kind, _QUERY_OF.get(route.section, ())):
        required = {"required": True} if name in _REQUIRED else {}
        parameters.append(
            {"name": name, "in": "query", "description": text, "schema": schema, **required}
        )
    return parameters


def _response(route: Route, status: int) -> dict[str, Any]:
    response: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if status >= 400:
        schema = {"$ref": "#/components/schemas/Error"}
        response["content"] = {"application/json": {"schema": schema}}
        if route.section == "10.5" and status != 406:  # none of the instances was stored
            response["content"] |= {name: {} for name in route.produces}
    elif status not in (204, 304) and not (route.section == "13" and status == 202):
        response["content"] = {name: {} for name in route.produces}
    return response
