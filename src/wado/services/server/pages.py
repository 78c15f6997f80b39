"""The viewer as static files, and the interface described: document and page."""

import mimetypes
import re
from functools import cache
from importlib.resources import files
from pathlib import Path

from wado.errors import NotFound, NotOffered
from wado.services.server.calls import (
    CROSS_ORIGIN,
    Answer,
    Call,
    json_answer,
    matches_etag,
    text_answer,
)
from wado.services.server.service import Service

_HASHED = re.compile(r"[-.][A-Za-z0-9_-]{8,}\.\w+\Z")
"""Name of an asset that changes with its content, as Vite writes them."""
_FILE = re.compile(r"\.[A-Za-z]\w{0,9}\Z")
"""Ending of a file name; the last component of a UID is a number."""
_API = frozenset({"dicomweb", "wado", "livez", "readyz", "metrics", "openapi.json", "docs"})
_NOT_BUILT = """The viewer is not built.

Run `make viewer` in the checkout, then reload this page. DICOMweb works without it:
see /docs for the interface, /dicomweb/studies for the studies.
"""
OTHER_SERVICES = (
    "workitems",
    "modality-scheduled-procedure-steps",
    "modality-performed-procedure-steps",
    "color-palettes",
    "defined-procedure-protocols",
    "hanging-protocols",
    "implant-templates",
    "inventories",
    "subscribers",
)
"""First parts of paths of services that the Standard names and we do not offer."""
_NOT_OFFERED = re.compile("|".join((*OTHER_SERVICES, "rendered(?:mpr|3d)")), re.IGNORECASE)
_POLICY = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
]

for _suffix, _name in (
    (".wasm", "application/wasm"),
    (".js", "text/javascript"),
    (".mjs", "text/javascript"),
):
    mimetypes.add_type(_name, _suffix)


def viewer_folder() -> Path:
    """Folder of the built viewer, within the package; it need not exist."""
    return Path(str(files("wado"))) / "viewer"


def is_of_api(path: str) -> bool:
    """Whether a path belongs to the interface, so that no page can have it."""
    return path.lstrip("/").partition("/")[0] in _API


def viewer(_service: Service, call: Call) -> Answer:
    """Serve a file of the viewer; paths without a suffix are pages of it and get its index."""
    name = call.params.get("path", "").strip("/")
    if is_of_api(name):
        raise NotFound("no such resource")
    folder = viewer_folder()
    file = _file(folder, name or "index.html")
    if file is None and not _FILE.search(name):
        file = _file(folder, "index.html")
    if file is not None:
        return _static(call, file)
    if not (folder / "index.html").is_file():
        return text_answer(_NOT_BUILT, status=404)
    raise NotFound("no such page")


def _file(folder: Path, name: str) -> Path | None:
    """Find a file below the folder; nothing outside of it, by whatever name."""
    if "\0" in name:
        return None
    path = (folder / name).resolve()
    return path if path.is_relative_to(folder.resolve()) and path.is_file() else None


def _static(call: Call, file: Path) -> Answer:
    status = file.stat()
    etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
    immutable = "assets" in file.parts and _HASHED.search(file.name)
    caching = "public, max-age=31536000, immutable" if immutable else "no-cache"
    media_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    if media_type.startswith("text/"):
        media_type += "; charset=utf-8"
    headers = [("content-type", media_type), ("cache-control", caching), ("etag", etag), *_POLICY]
    headers.append(("vary", "accept-encoding"))
    if matches_etag(call.headers.get("if-none-match"), etag):
        return Answer(304, headers)
    packed = file.with_name(f"{file.name}.gz")  # made by the build
    if "gzip" in (call.headers.get("accept-encoding") or "") and packed.is_file():
        return Answer(200, [*headers, ("content-encoding", "gzip")], (packed.read_bytes(),))
    return Answer(200, headers, (file.read_bytes(),))


def service_root(_service: Service, call: Call) -> Answer:
    """Say what there is below the root of DICOMweb; a browser is led to the page about it."""
    if "text/html" in (call.headers.get("accept") or ""):
        return Answer(302, [("location", f"{call.origin}/docs"), *CROSS_ORIGIN])
    links = {name: f"{call.base_url}/{name}" for name in ("studies", "series", "instances")}
    links["wado-uri"] = f"{call.origin}/wado?requestType=WADO"
    links["openapi"] = f"{call.origin}/openapi.json"
    links["documentation"] = f"{call.origin}/docs"
    return json_answer({"title": "DICOMweb (PS3.18)", "links": links})


def not_offered(_service: Service, call: Call) -> Answer:
    """Refuse what the Standard names and we do not do, by its name.

    Raises
    ------
    NotOffered
        Always.
    """
    name = _NOT_OFFERED.search(call.path)
    raise NotOffered(f"this archive does not offer {name[0] if name else 'this service'}")


def openapi(_service: Service, call: Call) -> Answer:
    """Describe the interface as an OpenAPI document."""
    from wado.services.server.openapi import document  # noqa: PLC0415 - it is made of the routes

    return json_answer(document(call.origin))


def docs(_service: Service, _call: Call) -> Answer:
    """Show the OpenAPI document as a page that needs nothing from elsewhere."""
    answer = text_answer(_page(), media_type="text/html")
    answer.headers += [
        *_POLICY,
        (
            "content-security-policy",
            "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'",
        ),
    ]
    return answer


@cache
def _page() -> str:
    return (files("wado.services.server") / "docs.html").read_text(encoding="utf-8")
