"""The route table: reads like PS3.18, and all else (dispatch, OpenAPI, 405) is made from it."""

import re
from collections import defaultdict
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from wado.services.server import (
    alternates,
    bulk_data,
    commitments,
    deletion,
    health,
    metadata,
    pages,
    qido_rs,
    rendered,
    statistics,
    stow_rs,
    thumbnails,
    wado_rs,
    wado_uri,
)
from wado.services.server.calls import Answer, Call
from wado.services.server.service import Service

Handler = Callable[[Service, Call], Answer]
Receiver = Callable[[Service, Call, AsyncIterable[bytes]], Awaitable[Answer]]

ROOT = "/dicomweb"
URI_SERVICE = "/wado"
STUDY = ROOT + "/studies/{study}"
SERIES = STUDY + "/series/{series}"
INSTANCE = SERIES + "/instances/{instance}"


@dataclass(frozen=True, slots=True)
class Route:
    """One transaction on one resource.

    A handler that `waits` (a search, a composed document) always runs in a thread; the others run
    on the event loop when what they need is in memory. A `receiver` takes the body, too.
    """

    method: str
    path: str
    title: str
    handler: Handler | None = None
    receiver: Receiver | None = None
    waits: bool = False
    section: str = ""
    produces: tuple[str, ...] = ()
    statuses: tuple[int, ...] = (200,)
    consumes: tuple[str, ...] = ('multipart/related; type="application/dicom"', "application/dicom")


_MULTIPART = "multipart/related"
_DICOM = (
    f'{_MULTIPART}; type="application/dicom"', "application/dicom",
    f'{_MULTIPART}; type="application/octet-stream"',
)  # fmt: skip
_FRAMES = (_MULTIPART, "application/octet-stream", "image/*", "video/*")
_PICTURES = (*rendered.PICTURES, _MULTIPART)
_DOCUMENTS = ("text/html", "text/plain", "text/xml", "application/pdf", "model/*", "video/*")
_RENDERED = (*_PICTURES, *_DOCUMENTS)
_JSON = ("application/dicom+json",)
_ONE_JSON_OR_XML = (*_JSON, "application/dicom+xml")
_JSON_OR_XML = (*_JSON, f'{_MULTIPART}; type="application/dicom+xml"')
_BULK = (_MULTIPART, "application/octet-stream", "*/*")
_GET = (200, 206, 304, 400, 404, 406, 410, 416, 503)
_RENDER = (200, 206, 304, 400, 404, 406, 410, 413, 416, 503)
_METADATA = (200, 304, 400, 404, 406, 410)
_SEARCH = (200, 204, 400, 406, 413, 503)
_STORED = (
    *(f'{_MULTIPART}; type="application/{kind}"' for kind in ("dicom", "dicom+json", "dicom+xml")),
    "application/dicom",
    *_JSON,
)
_STORE = (200, 202, 400, 406, 409, 413, 415, 503)


def _get(path: str, title: str, handler: Handler, produces: Sequence[str]) -> Route:
    return Route(
        "GET", path, title, handler, section="10.4", produces=tuple(produces), statuses=_GET
    )


def _render(at: str, of_what: str, big: Handler, small: Handler) -> tuple[Route, Route]:
    """Make the rendered resource and the thumbnail of a resource."""
    waits = at in (STUDY, SERIES)
    return (
        Route(
            "GET", at + "/rendered", f"Render {of_what}", big,
            waits=waits, section="10.4", produces=_RENDERED, statuses=_RENDER,
        ),
        Route(
            "GET", at + "/thumbnail", f"Show {of_what} as a thumbnail", small,
            waits=waits, section="10.4", produces=rendered.PICTURES, statuses=_RENDER,
        ),
    )  # fmt: skip


def _bulk(at: str, of_what: str, all_of: Handler, pixels: Handler) -> tuple[Route, Route]:
    """Make the collections of bulk data and of pixel data of a resource."""
    return (
        Route(
            "GET", at + "/bulkdata", f"Retrieve all bulk data of {of_what}", all_of,
            waits=True, section="10.4", produces=_BULK, statuses=_GET,
        ),
        Route(
            "GET", at + "/pixeldata", f"Retrieve the pixel data of {of_what}", pixels,
            waits=True, section="10.4", produces=_BULK, statuses=_GET,
        ),
    )  # fmt: skip


def _metadata(path: str, title: str, handler: Handler, *, waits: bool = False) -> Route:
    return Route(
        "GET", path, title, handler,
        waits=waits, section="10.4", produces=_JSON_OR_XML, statuses=_METADATA,
    )  # fmt: skip


def _search(path: str, title: str, handler: Handler) -> Route:
    return Route(
        "GET", path, title, handler,
        waits=True, section="10.6", produces=_JSON_OR_XML, statuses=_SEARCH,
    )  # fmt: skip


def _store(path: str, title: str) -> Route:
    return Route(
        "POST", path, title,
        receiver=stow_rs.store, section="10.5", produces=_ONE_JSON_OR_XML, statuses=_STORE,
        consumes=_STORED,
    )  # fmt: skip


_DELETE = (202, 204, 400, 404, 410, 503)
_COMMITMENT = ROOT + "/commitment-requests/{transaction}"


def _delete(path: str, title: str) -> Route:
    return Route(
        "DELETE", path, title,
        receiver=deletion.delete, produces=("application/json",), statuses=_DELETE, consumes=(),
    )  # fmt: skip


DICOMWEB: tuple[Route, ...] = (
    # Retrieve (PS3.18 §10.4), the hottest first
    _get(INSTANCE + "/frames/{frames}", "Retrieve frames", wado_rs.frames, _FRAMES),
    _get(INSTANCE, "Retrieve an instance", wado_rs.instance, _DICOM),
    _metadata(
        SERIES + "/metadata", "Retrieve series metadata", metadata.series_metadata, waits=True
    ),
    _get(INSTANCE + "/bulkdata/{path:path}", "Retrieve bulk data", bulk_data.bulk_data, _BULK),
    _metadata(
        INSTANCE + "/metadata", "Retrieve instance metadata", metadata.instance_metadata, waits=True
    ),
    _metadata(
        STUDY + "/metadata", "Retrieve study metadata", metadata.study_metadata, waits=True
    ),
    _get(SERIES, "Retrieve a series", wado_rs.series, _DICOM),
    Route(
        "GET", STUDY, "Retrieve a study", wado_rs.study,
        waits=True, section="10.4", produces=_DICOM, statuses=_GET,
    ),
    *_bulk(INSTANCE, "an instance", bulk_data.instance_bulk_data, bulk_data.instance_pixel_data),
    *_bulk(SERIES, "a series", bulk_data.series_bulk_data, bulk_data.series_pixel_data),
    *_bulk(STUDY, "a study", bulk_data.study_bulk_data, bulk_data.study_pixel_data),
    *_render(INSTANCE + "/frames/{frames}", "frames", rendered.frames, thumbnails.frames),
    *_render(INSTANCE, "an instance", rendered.instance, thumbnails.instance),
    *_render(SERIES, "a series", rendered.series, thumbnails.series),
    *_render(STUDY, "a study", rendered.study, thumbnails.study),
    # Frames in a form of their own (no part of PS3.18; viewers ask so)
    Route(
        "GET", INSTANCE + "/htj2k/{frames}", "Retrieve frames as HTJ2K", alternates.htj2k,
        produces=(_MULTIPART, "image/jphc", "application/octet-stream"), statuses=_GET,
    ),
    # Search (§10.6)
    _search(ROOT + "/studies", "Search for studies", qido_rs.studies),
    _search(STUDY + "/series", "Search for series of a study", qido_rs.series),
    _search(STUDY + "/instances", "Search for instances of a study", qido_rs.instances),
    _search(SERIES + "/instances", "Search for instances of a series", qido_rs.instances),
    _search(ROOT + "/series", "Search for series", qido_rs.series),
    _search(ROOT + "/instances", "Search for instances", qido_rs.instances),
    # Store (§10.5)
    _store(ROOT + "/studies", "Store instances"),
    _store(STUDY, "Store instances of a study"),
    # Delete (no part of PS3.18; as archives in wide use have it)
    _delete(STUDY, "Delete a study"),
    _delete(SERIES, "Delete a series"),
    _delete(INSTANCE, "Delete an instance"),
    # Storage commitment (ch. 13)
    Route(
        "POST", _COMMITMENT, "Request storage commitment",
        receiver=commitments.request, section="13", produces=_ONE_JSON_OR_XML,
        statuses=(200, 202, 400, 406, 409, 410, 413, 415, 503),
        consumes=("application/dicom+json", "application/dicom+xml"),
    ),
    Route(
        "GET", _COMMITMENT, "Check the result of a storage commitment", commitments.result,
        waits=True, section="13", produces=_ONE_JSON_OR_XML,
        statuses=(200, 202, 400, 404, 406, 410),
    ),
)  # fmt: skip

ENTRY = Route(
    "GET", ROOT, "What there is", pages.service_root,
    section="8.9", produces=("application/json",), statuses=(200, 302, 400, 406),
)  # fmt: skip

WADO_URI = Route(
    "GET", URI_SERVICE, "Retrieve an instance by its UIDs", wado_uri.retrieve_object,
    waits=True, section="9", produces=(*rendered.PICTURES, "application/dicom", *_DOCUMENTS),
    statuses=_RENDER,
)  # fmt: skip

OPERATIONS: tuple[Route, ...] = (
    Route(
        "GET", "/livez", "The process runs, and does not hang", receiver=health.livez,
        produces=("application/json",), statuses=(200, 503), consumes=(),
    ),
    Route(
        "GET", "/readyz", "Every port answers", receiver=health.readyz,
        produces=("application/json",), statuses=(200, 503), consumes=(),
    ),
    Route(
        "GET", "/metrics", "Metrics for Prometheus", receiver=health.metrics,
        produces=("text/plain",), consumes=(),
    ),
    Route(
        "GET", "/statistics/transcoding", "What came of transcoding", statistics.transcoding,
        waits=True, produces=("application/json",), statuses=(200, 400, 503),
    ),
    Route(
        "GET", "/openapi.json", "This interface as an OpenAPI document", pages.openapi,
        produces=("application/json",),
    ),
    Route("GET", "/docs", "This interface as a page", pages.docs, produces=("text/html",)),
)  # fmt: skip

VIEWER = Route(
    "GET", "/{path:path}", "The viewer", pages.viewer, waits=True, statuses=(200, 304, 404)
)

_UNKNOWN = "/{path:path}"
NOT_OFFERED: tuple[Route, ...] = tuple(
    Route(method, path, "Not offered", pages.not_offered, statuses=(501,))
    for path in (
        *(f"{at}/rendered{kind}"
          for at in (STUDY, SERIES, INSTANCE, INSTANCE + "/frames/{frames}")
          for kind in ("mpr", "3d", "MPR", "3D")),
        *(f"{ROOT}/{name}{rest}" for name in pages.OTHER_SERVICES for rest in ("", _UNKNOWN)),
    )
    for method in ("GET", "POST", "PUT", "DELETE")
)  # fmt: skip
"""What the Standard names beside (PS3.18 ch. 11, 12, §10.4.1.1): refused with its name, not 404."""

ROUTES: tuple[Route, ...] = (*DICOMWEB, ENTRY, WADO_URI, *OPERATIONS)
"""What the OpenAPI document shows; the viewer takes every other path."""


class Resource(NamedTuple):
    """A path, as pattern, and its routes by method."""

    path: str
    pattern: re.Pattern[str]
    routes: Mapping[str, Route]


def _pattern(path: str) -> re.Pattern[str]:
    """Turn a path template into a pattern; ``{name:path}`` takes slashes, too."""
    text = re.sub(r"\\?\{(\w+)(:path)?\\?\}", _group, re.sub(r"([.])", r"\\\1", path))
    return re.compile(text + r"/?\Z" if not path.endswith(":path}") else text + r"\Z", re.DOTALL)


def _group(match: re.Match[str]) -> str:
    return f"(?P<{match[1]}>{'.*' if match[2] else '[^/]+'})"


def resources(routes: Sequence[Route]) -> tuple[Resource, ...]:
    """Gather routes by path; order stays."""
    by_path: dict[str, dict[str, Route]] = defaultdict(dict)
    for route in routes:
        by_path[route.path][route.method] = route
    return tuple(Resource(path, _pattern(path), found) for path, found in by_path.items())


RESOURCES = resources((*ROUTES, *NOT_OFFERED, VIEWER))


def find(path: str) -> tuple[Resource, dict[str, str]]:
    """Find the resource of a path, and the values of its variables; the viewer takes the rest."""
    for resource in RESOURCES:
        match = resource.pattern.match(path)
        if match:
            return resource, match.groupdict()
    assert path == "*", "the last pattern matches every path"
    return find("/")  # OPTIONS for the server as a whole (RFC 9110 §9.3.7)
