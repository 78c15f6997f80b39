"""The route table: reads like PS3.18, and all else (dispatch, OpenAPI, 405) is made from it."""

import re
from collections import defaultdict
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from wado.services.server import bulk_data, health, metadata, pages, qido_rs, stow_rs, wado_rs
from wado.services.server.calls import Answer, Call
from wado.services.server.service import Service

Handler = Callable[[Service, Call], Answer]
Receiver = Callable[[Service, Call, AsyncIterable[bytes]], Awaitable[Answer]]

ROOT = "/dicomweb"
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


_MULTIPART = "multipart/related"
_DICOM = (f'{_MULTIPART}; type="application/dicom"', "application/dicom")
_FRAMES = (_MULTIPART, "application/octet-stream", "image/*", "video/*")
_JSON = ("application/dicom+json",)
_GET = (200, 206, 304, 400, 404, 406, 416)
_METADATA = (200, 304, 400, 404, 406)
_SEARCH = (200, 204, 400, 406, 413)
_STORE = (200, 202, 400, 406, 409, 413, 415, 503)


def _get(path: str, title: str, handler: Handler, produces: Sequence[str]) -> Route:
    return Route(
        "GET", path, title, handler, section="10.4", produces=tuple(produces), statuses=_GET
    )


def _metadata(path: str, title: str, handler: Handler, *, waits: bool = False) -> Route:
    return Route(
        "GET", path, title, handler,
        waits=waits, section="10.4", produces=_JSON, statuses=_METADATA,
    )  # fmt: skip


def _search(path: str, title: str, handler: Handler) -> Route:
    return Route(
        "GET", path, title, handler,
        waits=True, section="10.6", produces=_JSON, statuses=_SEARCH,
    )  # fmt: skip


def _store(path: str, title: str) -> Route:
    return Route(
        "POST", path, title,
        receiver=stow_rs.store, section="10.5", produces=_JSON, statuses=_STORE,
    )  # fmt: skip


DICOMWEB: tuple[Route, ...] = (
    # Retrieve (PS3.18 §10.4), the hottest first
    _get(INSTANCE + "/frames/{frames}", "Retrieve frames", wado_rs.frames, _FRAMES),
    _get(INSTANCE, "Retrieve an instance", wado_rs.instance, _DICOM),
    _metadata(SERIES + "/metadata", "Retrieve series metadata", metadata.series_metadata),
    _get(INSTANCE + "/bulkdata/{path:path}", "Retrieve bulk data", bulk_data.bulk_data, _FRAMES),
    _metadata(INSTANCE + "/metadata", "Retrieve instance metadata", metadata.instance_metadata),
    _metadata(
        STUDY + "/metadata", "Retrieve study metadata", metadata.study_metadata, waits=True
    ),
    _get(SERIES, "Retrieve a series", wado_rs.series, _DICOM),
    Route(
        "GET", STUDY, "Retrieve a study", wado_rs.study,
        waits=True, section="10.4", produces=_DICOM, statuses=_GET,
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
)  # fmt: skip

OPERATIONS: tuple[Route, ...] = (
    Route("GET", "/livez", "The process runs", health.livez, produces=("application/json",)),
    Route(
        "GET", "/readyz", "Every port answers", health.readyz,
        waits=True, produces=("application/json",), statuses=(200, 503),
    ),
    Route(
        "GET", "/metrics", "Metrics for Prometheus", health.metrics,
        waits=True, produces=("text/plain",),
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

ROUTES: tuple[Route, ...] = (*DICOMWEB, *OPERATIONS)
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


RESOURCES = resources((*ROUTES, VIEWER))


def find(path: str) -> tuple[Resource, dict[str, str]]:
    """Find the resource of a path, and the values of its variables; the viewer takes the rest."""
    for resource in RESOURCES:
        match = resource.pattern.match(path)
        if match:
            return resource, match.groupdict()
    raise AssertionError("the last pattern matches everything")
