"""What a handler is given and what it gives back: a `Call` and an `Answer`."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

import orjson

from wado.archive.journal import Journals, SeriesView
from wado.archive.pieces import Piece, piece_length
from wado.dicom.media_types import DICOM_JSON
from wado.dicom.uids import InstanceRef, SeriesRef, StudyRef, validate_tenant_id, validate_uid
from wado.services.server.addresses import HeaderLookup, origin_of

Headers = list[tuple[str, str]]

ALLOW_ORIGIN = "access-control-allow-origin"
_EXPOSED = (
    "Accept-Ranges, Allow, Content-Disposition, Content-Encoding, Content-Length, "
    "Content-Location, Content-Range, Content-Type, ETag, Location, Retry-After, Warning, "
    "WWW-Authenticate"
)
CROSS_ORIGIN: Headers = [
    (ALLOW_ORIGIN, "*"),
    ("access-control-expose-headers", _EXPOSED),
    ("cross-origin-resource-policy", "cross-origin"),
]
"""On every answer of the API: viewers come from other origins, too."""

_INERT: Headers = [
    ("content-security-policy", "sandbox; default-src 'none'; style-src 'unsafe-inline'"),
    ("x-content-type-options", "nosniff"),
]

PREFLIGHT: Headers = [
    *CROSS_ORIGIN,
    ("access-control-allow-methods", "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
    ("access-control-max-age", "86400"),
]


@dataclass(slots=True)
class Call:
    """The head of a request.

    `prefix` is what stood before `path` and was cut off; `public_url` is our root as configured.
    `is_gone` tells, in any thread, whether the client no longer waits for the answer. `again` is
    set when a file that the handler named was gone: it looks more closely then.
    """

    method: str
    path: str
    query: str
    headers: HeaderLookup
    tenant_id: str
    scheme: str = "http"
    authority: str = ""
    server: str = ""
    client: str = ""
    root: str = ""
    prefix: str = ""
    public_url: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    user_name: str = ""
    is_gone: Callable[[], bool] = bool
    again: bool = False

    @property
    def study(self) -> StudyRef:
        """The study of the path."""
        return _study(self.tenant_id, self.params["study"])

    @property
    def series(self) -> SeriesRef:
        """The series of the path."""
        return _series(self.tenant_id, self.params["study"], self.params["series"])

    @property
    def instance(self) -> InstanceRef:
        """The instance of the path."""
        at = self.series
        return InstanceRef(
            at.tenant_id,
            at.study_instance_uid,
            at.series_instance_uid,
            _uid(self.params["instance"]),
        )

    @property
    def accept_parameter(self) -> str | None:
        """The ``accept`` query parameter; a plus sign in it is one (``dicom+json``)."""
        if "accept" not in self.query:
            return None
        for text in self.query.split("&"):
            name, _, value = text.partition("=")
            if name == "accept":
                return unquote(value)
        return None

    def parameter(self, name: str) -> str | None:
        """Value of a query parameter, the first of several."""
        if name not in self.query:
            return None
        return next((v for n, v in parse_qsl(self.query) if n == name), None)

    @property
    def origin(self) -> str:
        """``scheme://host[:port][/prefix]`` as configured, or as the client wrote it."""
        return self.public_url or origin_of(
            self.headers, self.scheme, self._host, self.server, self.prefix
        )

    @property
    def _host(self) -> str:
        host: str = self.headers.get("host") or self.authority
        # A client in wide use leaves its port out: to our own address it was meant.
        return self.server if host and host == self.server.rpartition(":")[0] else host

    @property
    def base_url(self) -> str:
        """Address of the DICOMweb service as the client sees it."""
        return f"{self.origin}{self.root}"


# Validated once: the UIDs of a series come with each of its instances and frames.
_study = lru_cache(maxsize=1024)(StudyRef.of)
_series = lru_cache(maxsize=4096)(SeriesRef.of)
_uid = lru_cache(maxsize=8192)(validate_uid)


@lru_cache(maxsize=1024)
def tenant_of(value: str) -> str:
    """Validate a tenant id; remembered, as each request has one."""
    return validate_tenant_id(value)


class Basis(NamedTuple):
    """What an answer was made from; it may be given again while `look` still finds `view`.

    `look` is `Journals.view`, or `Journals.recent` for what can't change unless it is gone.
    `in_memory` asks to keep the body, too.
    """

    view: SeriesView
    look: Callable[[Journals, SeriesRef], SeriesView | None]
    in_memory: bool = False


@dataclass(slots=True)
class Answer:
    """A response: `pieces` are its body; `stream` stands instead if the body is made on the way.

    `length` is given for a `stream` whose length is known. With a `basis` it may be given again to
    who asks the same. With `later` this is no answer yet: what `later` gives is, and it takes its
    time, in a thread for such work; so do the pieces of an answer that is `slow`. Of a body that
    the proxy sends in our place, `left_bytes` is the length.
    """

    status: int = 200
    headers: Headers = field(default_factory=list)
    pieces: Sequence[Piece] = ()
    stream: Iterable[Piece] | None = None
    length: int | None = None
    basis: Basis | None = None
    later: Callable[[], "Answer"] | None = None
    slow: bool = False
    left_bytes: int = 0

    @property
    def body_length(self) -> int | None:
        """Length of the body in bytes, None if it is not known yet."""
        if self.stream is not None:
            return self.length
        return sum(map(piece_length, self.pieces))


def json_answer(value: Any, *, status: int = 200, media_type: str = "application/json") -> Answer:
    """Answer with a JSON document."""
    body = value if isinstance(value, bytes) else orjson.dumps(value)
    return Answer(status, [("content-type", media_type), *CROSS_ORIGIN], (body,))


def dicom_json_answer(value: Any, *, status: int = 200, media_type: str = DICOM_JSON) -> Answer:
    """Answer with DICOM JSON that must be asked for again each time."""
    answer = json_answer(value, status=status, media_type=media_type)
    answer.headers.append(("cache-control", "no-cache"))
    return answer


def text_answer(text: str, *, status: int = 200, media_type: str = "text/plain") -> Answer:
    """Answer with text."""
    headers = [("content-type", f"{media_type}; charset=utf-8"), *CROSS_ORIGIN]
    return Answer(status, headers, (text.encode(),))


def inert(media_type: str) -> Headers:
    """Headers for what others stored and a browser opens: nothing of it runs as ours.

    The browser's own viewer of PDF does not start in a sandbox, and runs nothing as ours anyway.
    """
    return [] if media_type == "application/pdf" else _INERT


def warning(text: str) -> tuple[str, str]:
    """Make a Warning header with code 299 (PS3.18 §8.5); only printable ASCII goes out."""
    safe = "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in text)
    return "warning", f'299 wado "{safe[:1000]}"'


def matches_etag(header: str | None, etag: str) -> bool:
    """Whether If-None-Match names the entity tag (RFC 9110 §13.1.2; weak comparison)."""
    if not header:
        return False
    if header.strip() == "*":
        return True
    return any(tag.strip().removeprefix("W/") == etag for tag in header.split(","))


_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z")


def one_range(header: str, length: int) -> tuple[int, int] | None:
    """Read a Range of one part: start and end (exclusive); empty if there is nothing of it.

    None if the header is to be passed over: other units, several ranges, nonsense
    (RFC 9110 §14.2).
    """
    match = _RANGE.match(header.replace(" ", ""))
    if match is None or match.group(0) == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        return max(length - int(last), 0), length
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, length) if last else length
