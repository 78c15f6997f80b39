"""Answers of retrieval: parts in an envelope or alone, conditional, cached, cut to ranges."""

from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus

from wado.archive.journal import Journals
from wado.archive.pieces import Part, Piece, cut
from wado.archive.retrieve import Item
from wado.dicom.media_types import MediaRange, acceptable, mixes_categories, parse_accept
from wado.dicom.multipart import boundary_of, closing, content_type, part_head
from wado.errors import InvalidRequest, NotAcceptable
from wado.services.server.calls import CROSS_ORIGIN, Answer, Basis, Call, matches_etag, one_range
from wado.services.server.service import Service

MAX_KEPT_PARTS = 4
"""Of how many parts an answer may be that is kept: each takes memory."""
IMMUTABLE = ("cache-control", "private, max-age=31536000, immutable")
REVALIDATE = ("cache-control", "private, no-cache")
_RANGES = ("accept-ranges", "bytes")


def acceptable_to(call: Call) -> tuple[MediaRange, ...]:
    """Media ranges of a request, best first."""
    return acceptable(call.headers.get("accept"), call.accept_parameter)


def check_accept(call: Call, *, strict: bool) -> None:
    """Refuse what the Standard refuses in acceptable media types (PS3.18 §8.3.3.1, §8.7.5).

    Clients in use leave Accept out, or join headers of which only one fits; these are refused only
    if `strict`.

    Raises
    ------
    InvalidRequest
        The ``accept`` parameter has a wildcard, or DICOM and rendered media types are mixed.
    NotAcceptable
        No media type is named.
    """
    parameter = call.accept_parameter
    if parameter:
        ranges = parse_accept(parameter)
        if any("*" in wanted.media_type for wanted in ranges if not wanted.multipart):
            raise InvalidRequest("the accept parameter may not have wildcards")
        if mixes_categories(ranges):
            raise InvalidRequest("the accept parameter mixes DICOM and rendered media types")
    elif strict:
        header = call.headers.get("accept")
        if not header:
            raise NotAcceptable("the request names no acceptable media type")
        if mixes_categories(parse_accept(header)):
            raise InvalidRequest("Accept mixes DICOM and rendered media types")


def basis_of(found: Item, *, in_memory: bool = False) -> Basis:
    """Let an answer about an instance be given again until the instance changes."""
    return Basis(found.view, Journals.recent, in_memory=in_memory)


def caching(service: Service, call: Call) -> tuple[str, str]:
    """Originals never change where the first one stays; else they must be asked for again.

    So must studies and series: they grow.
    """
    grows = "study" in call.params and "instance" not in call.params
    return REVALIDATE if grows or service.archive.replace_duplicates else IMMUTABLE


def let_cache(service: Service, call: Call, answer: Answer) -> None:
    """Say how long an answer holds; a refused range is not to be kept."""
    if answer.status < HTTPStatus.BAD_REQUEST:
        answer.headers.append(caching(service, call))


def wrapped(
    call: Call, parts: Sequence[Part], identity: tuple[str, ...], *, multipart: bool
) -> Answer:
    """Wrap parts; boundary and order follow from what is sent, so that ranges of it fit."""
    boundary = boundary_of(call.path, *identity)
    etag = entity_tag(boundary, multipart=multipart)
    unchanged = not_modified(call, etag)
    if unchanged is not None:
        return unchanged
    headers = [("etag", etag), ("vary", "accept"), _RANGES, *CROSS_ORIGIN]
    if multipart:
        headers.append(("content-type", content_type(boundary, _bare(parts[0].content_type))))
        pieces = list(_enveloped(boundary, parts))
    else:
        headers.append(("content-type", parts[0].content_type))
        pieces = list(parts[0].pieces)
    location = "" if multipart else parts[0].location
    headers += [("content-location", place) for place in (location or _place(call),) if place]
    return _ranged(call, Answer(200, headers, pieces), etag)


def _place(call: Call) -> str:
    """Address of the resource that was asked for; empty if the query names it, not the path."""
    return f"{call.origin}{call.path.rstrip('/')}" if call.path.startswith(call.root) else ""


def entity_tag(boundary: str, *, multipart: bool) -> str:
    """Make the entity tag of an answer from its boundary, which all that decides it went into."""
    return f'"{boundary[5:]}{"" if multipart else "-1"}"'


def not_modified(call: Call, etag: str) -> Answer | None:
    """Answer 304 if the client has this already, else None."""
    if matches_etag(call.headers.get("if-none-match"), etag):
        return Answer(304, [("etag", etag), ("vary", "accept"), _RANGES, *CROSS_ORIGIN])
    return None


def unchanged(call: Call, identity: tuple[str, ...], *, multipart: bool) -> Answer | None:
    """Answer 304 to who has it already; None to the others, for whom it must be worked out."""
    _, etag = _boundary_and_etag(call, identity, multipart=multipart)
    if matches_etag(call.headers.get("if-none-match"), etag):
        return Answer(304, [("etag", etag), ("vary", "accept"), *CROSS_ORIGIN])
    return None


def streamed(
    call: Call, media_type: str, parts: Iterable[Part], identity: tuple[str, ...]
) -> Answer:
    """Wrap parts that are worked out while they are sent, so that their length isn't known yet."""
    boundary, etag = _boundary_and_etag(call, identity, multipart=True)
    headers = [
        ("etag", etag),
        ("vary", "accept"),
        *CROSS_ORIGIN,
        ("content-type", content_type(boundary, media_type)),
    ]
    return Answer(200, headers, stream=_enveloped(boundary, parts), slow=True)


def streamed_alone(call: Call, part: Part, identity: tuple[str, ...]) -> Answer:
    """Give one part, worked out while it is sent, without an envelope."""
    _, etag = _boundary_and_etag(call, identity, multipart=False)
    headers = [
        ("etag", etag),
        ("vary", "accept"),
        *CROSS_ORIGIN,
        ("content-type", part.content_type),
        ("content-location", part.location),
    ]
    return Answer(200, headers, stream=part.pieces)


def _boundary_and_etag(
    call: Call, identity: tuple[str, ...], *, multipart: bool
) -> tuple[str, str]:
    boundary = boundary_of(call.path, *identity)
    return boundary, f'"{boundary[5:]}{"" if multipart else "-1"}"'


def _ranged(call: Call, answer: Answer, etag: str) -> Answer:
    """Cut the answer to the range that GET asked for (RFC 9110 §14.2), of envelopes too."""
    wanted = call.headers.get("range") if call.method == "GET" else None
    if not wanted or (call.headers.get("if-range") or etag) != etag:
        return answer
    length = answer.body_length or 0
    chosen = one_range(wanted, length)
    if chosen is None:
        return answer
    start, end = chosen
    if start >= end:
        return Answer(416, [*CROSS_ORIGIN, ("content-range", f"bytes */{length}")])
    answer.status = 206
    answer.headers.append(("content-range", f"bytes {start}-{end - 1}/{length}"))
    answer.pieces = list(cut(answer.pieces, start, end))
    return answer


def _bare(part_type: str) -> str:
    return part_type.partition(";")[0]


def _enveloped(boundary: str, parts: Iterable[Part]) -> Iterator[Piece]:
    first = True
    for part in parts:
        yield part_head(boundary, part.content_type, first=first, location=part.location)
        yield from part.pieces
        first = False
    yield closing(boundary)
