"""Answers of retrieval: parts in an envelope or alone, conditional, cached, cut to ranges."""

from collections.abc import Iterable, Iterator, Sequence

from wado.archive.journal import Journals
from wado.archive.pieces import Part, Piece, cut
from wado.archive.retrieve import Item
from wado.dicom.media_types import MediaRange, acceptable
from wado.dicom.multipart import boundary_of, closing, content_type, part_head
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


def basis_of(found: Item) -> Basis:
    """Let an answer about an instance be given again until the instance changes."""
    return Basis(found.view, Journals.recent)


def caching(service: Service) -> tuple[str, str]:
    """Originals never change where the first one stays; else they must be asked for again."""
    return REVALIDATE if service.archive.replace_duplicates else IMMUTABLE


def wrapped(
    call: Call, parts: Sequence[Part], identity: tuple[str, ...], *, multipart: bool
) -> Answer:
    """Wrap parts; boundary and order follow from what is sent, so that ranges of it fit."""
    boundary = boundary_of(call.path, *identity)
    etag = f'"{boundary[5:]}{"" if multipart else "-1"}"'
    headers = [("etag", etag), ("vary", "accept"), _RANGES, *CROSS_ORIGIN]
    if matches_etag(call.headers.get("if-none-match"), etag):
        return Answer(304, headers)
    if multipart:
        headers.append(("content-type", content_type(boundary, _bare(parts[0].content_type))))
        pieces = list(_enveloped(boundary, parts))
    else:
        headers.append(("content-type", parts[0].content_type))
        if parts[0].location:
            headers.append(("content-location", parts[0].location))
        pieces = list(parts[0].pieces)
    return _ranged(call, Answer(200, headers, pieces), etag)


def _ranged(call: Call, answer: Answer, etag: str) -> Answer:
    """Cut the answer to the range that was asked for (RFC 9110 §14), of envelopes too."""
    wanted = call.headers.get("range")
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
