"""WADO-RS (PS3.18 §10.4): media types, conditional requests and caching around `retrieve`."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from wado.archive import retrieve
from wado.archive.journal import Journals
from wado.archive.pieces import Part, Piece, cut
from wado.archive.retrieve import Document, Item
from wado.dicom.media_types import (
    DICOM,
    DICOM_JSON,
    JSON,
    MediaRange,
    Offer,
    acceptable,
    both_ways,
    select,
)
from wado.dicom.multipart import boundary_of, closing, content_type, part_head
from wado.errors import InvalidRequest, NotAcceptable
from wado.services.server.calls import (
    CROSS_ORIGIN,
    Answer,
    Basis,
    Call,
    matches_etag,
    one_range,
)
from wado.services.server.service import Service

_MAX_FRAMES = 10_000
_MAX_KEPT_FRAMES = 4
"""Of how many parts an answer may be that is kept: each takes memory."""
_IMMUTABLE = ("cache-control", "private, max-age=31536000, immutable")
_REVALIDATE = ("cache-control", "private, no-cache")
_RANGES = ("accept-ranges", "bytes")
_JSON_OFFERS = (Offer(DICOM_JSON), Offer(JSON))

# ------------------------------------------------------------------ instances


def study(service: Service, call: Call) -> Answer:
    """Retrieve all instances of a study."""
    return _instances(
        service, call, retrieve.study_items(service.archive, service.journals, call.study)
    )


def series(service: Service, call: Call) -> Answer:
    """Retrieve all instances of a series."""
    return _instances(service, call, retrieve.series_items(service.journals, call.series))


def instance(service: Service, call: Call) -> Answer:
    """Retrieve an instance, byte for byte as it was received."""
    found = retrieve.item(service.journals, call.instance)
    answer = _instances(service, call, [found])
    answer.basis = _basis(found)
    return answer


def _instances(service: Service, call: Call, items: Sequence[Item]) -> Answer:
    """Answer with whole files: those that can be had in a form that was asked for."""
    ranges = _acceptable(call)
    chosen: list[tuple[Item, Offer]] = []
    for found in items:
        offers = both_ways((Offer(DICOM, transfer_syntax=found.entry.transfer_syntax_uid),))
        offer = select(ranges, offers if len(items) == 1 else offers[:1])
        if offer is not None:
            chosen.append((found, offer))
    if not chosen:
        raise NotAcceptable("stored in another transfer syntax than those asked for")
    parts = [
        Part(offer.content_type, (retrieve.whole(found),), f"{call.base_url}/{found.ref.path}")
        for found, offer in chosen
    ]
    identity = tuple(found.entry.digest for found, _ in chosen)
    answer = _answer(call, parts, identity, multipart=chosen[0][1].multipart)
    answer.headers.append(_caching(service))
    return answer


# ------------------------------------------------------------------ frames and bulk data


def frames(service: Service, call: Call) -> Answer:
    """Retrieve frames of an instance: ranges of its file."""
    found = retrieve.item(service.journals, call.instance)
    numbers = retrieve.existing_frames(_frame_numbers(call.params["frames"]), found)
    offers = retrieve.frame_offers(found)
    alternatives = both_ways(offers)
    offer = select(
        _acceptable(call), alternatives if len(numbers) == 1 else alternatives[: len(offers)]
    )
    if offer is None:
        raise NotAcceptable(f"the frames can be had as {offers[0].content_type}")
    parts = [
        Part(offer.content_type, pieces)
        for pieces in retrieve.frames(service.archive, found, numbers)
    ]
    identity = (found.entry.digest, call.params["frames"], offer.media_type)
    answer = _answer(call, parts, identity, multipart=offer.multipart)
    answer.basis = _basis(found) if len(numbers) <= _MAX_KEPT_FRAMES else None
    answer.headers.append(_caching(service))
    return answer


def _frame_numbers(text: str) -> list[int]:
    """Read a list of frame numbers (PS3.18 §10.4.1.1.6)."""
    names = text.replace("%2C", ",").replace("%2c", ",").split(",")
    if len(names) > _MAX_FRAMES or not all(
        name.isascii() and name.isdigit() and len(name) < 10 for name in names
    ):
        raise InvalidRequest(f"not a list of frame numbers: {text[:80]!r}")
    return [int(name) for name in names]


def bulk_data(service: Service, call: Call) -> Answer:
    """Retrieve one bulky value of an instance, where its metadata says it is."""
    found = retrieve.item(service.journals, call.instance)
    offers, values = retrieve.bulk_data(
        service.archive, service.journals, found, call.params["path"]
    )
    alternatives = both_ways(offers, multipart_first=len(values) > 1)
    offer = select(
        _acceptable(call), alternatives if len(values) == 1 else alternatives[: len(offers)]
    )
    if offer is None:
        raise NotAcceptable(f"the value can be had as {offers[0].content_type}")
    location = f"{call.base_url}/{found.ref.path}/bulkdata/{call.params['path']}"
    parts = [Part(offer.content_type, pieces, location) for pieces in values]
    identity = (found.entry.digest, call.params["path"], offer.media_type)
    answer = _answer(call, parts, identity, multipart=offer.multipart)
    answer.basis = _basis(found) if len(parts) <= _MAX_KEPT_FRAMES else None
    answer.headers.append(_caching(service))
    return answer


# ------------------------------------------------------------------ metadata


def study_metadata(service: Service, call: Call) -> Answer:
    """Retrieve the metadata of a study."""
    return _metadata(
        call,
        lambda *, gzip: retrieve.study_metadata(
            service.archive, service.journals, call.study, gzip=gzip
        ),
    )


def series_metadata(service: Service, call: Call) -> Answer:
    """Retrieve the metadata of a series."""
    return _metadata(
        call,
        lambda *, gzip: retrieve.series_metadata(
            service.archive, service.journals, call.series, gzip=gzip
        ),
    )


def instance_metadata(service: Service, call: Call) -> Answer:
    """Retrieve the metadata of an instance."""
    found = retrieve.item(service.journals, call.instance)
    return _metadata(
        call,
        lambda *, gzip: retrieve.instance_metadata(  # noqa: ARG005 - small: sent as it is
            service.journals, found, base_url=call.base_url
        ),
    )


def _metadata(call: Call, find: Callable[..., Document]) -> Answer:
    offer = select(_acceptable(call), _JSON_OFFERS)
    if offer is None:
        raise NotAcceptable(f"metadata can be had as {DICOM_JSON}")
    gzip = "gzip" in (call.headers.get("accept-encoding") or "")
    document = find(gzip=gzip)
    etag = f'"{document.etag}{"-gzip" if document.gzipped else ""}"'
    headers = [
        ("content-type", offer.media_type),
        ("etag", etag),
        ("vary", "accept, accept-encoding"),
        _REVALIDATE,
        *CROSS_ORIGIN,
    ]
    if matches_etag(call.headers.get("if-none-match"), etag):
        return Answer(304, headers)
    if document.gzipped:
        headers.append(("content-encoding", "gzip"))
    basis = Basis(document.view, Journals.view, in_memory=True) if document.view else None
    return Answer(200, headers, document.pieces, stream=document.stream, basis=basis)


# ------------------------------------------------------------------ what they share


def _acceptable(call: Call) -> tuple[MediaRange, ...]:
    return acceptable(call.headers.get("accept"), call.accept_parameter)


def _basis(found: Item) -> Basis:
    return Basis(found.view, Journals.recent)


def _caching(service: Service) -> tuple[str, str]:
    """Originals never change where the first one stays; else they must be asked for again."""
    return _REVALIDATE if service.archive.replace_duplicates else _IMMUTABLE


def _answer(
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
