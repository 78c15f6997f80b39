"""Bulk data of WADO-RS (PS3.18 §10.4.1.1.5): values that the metadata leave out."""

from collections.abc import Iterable, Iterator

from wado.archive import retrieve
from wado.archive.bulk_data import BulkValue, bulk_value, bulk_values
from wado.archive.forms import source_of
from wado.archive.pieces import Computed, Part, Piece
from wado.archive.retrieve import Item
from wado.dicom.media_types import OCTET_STREAM, MediaRange, Offer, both_ways, select
from wado.errors import NotAcceptable, NotFound
from wado.services.server.calls import Answer, Call, warning
from wado.services.server.representations import (
    MAX_KEPT_PARTS,
    acceptable_to,
    basis_of,
    let_cache,
    wrapped,
)
from wado.services.server.service import Service
from wado.services.server.transcoded import transcoder


def bulk_data(service: Service, call: Call) -> Answer:
    """Retrieve one bulky value of an instance, where its metadata says it is."""
    found = retrieve.item(service.journals, call.instance)
    value = bulk_value(service.archive, service.journals, found, call.params["path"])
    offer = select(acceptable_to(call), _alternatives(value))
    if offer is None:
        raise NotAcceptable(f"the value can be had as {value.offers[0].content_type}")
    if not offer.stored:
        return Answer(later=lambda: _one(service, call, value, offer))
    return _one(service, call, value, offer)


def _alternatives(value: BulkValue) -> tuple[Offer, ...]:
    """Each form in an envelope and, if it is one part, alone; alone first if it is stored so."""
    several = len(value.parts) > 1
    both = both_ways(value.offers, multipart_first=several)
    return tuple(o for o in both if o.multipart or not (several and o.stored))


def _one(service: Service, call: Call, value: BulkValue, offer: Offer) -> Answer:
    parts = list(_parts(service, call, value, offer))
    if not offer.stored and call.method != "HEAD":
        parts[0] = _begun(parts[0])
    identity = (value.found.entry.digest, value.path, offer.content_type)
    answer = wrapped(call, parts, identity, multipart=offer.multipart)
    if offer.stored and len(parts) <= MAX_KEPT_PARTS:
        answer.basis = basis_of(value.found)
    let_cache(service, call, answer)
    return answer


def _begun(part: Part) -> Part:
    """Work out the first frame before the answer begins, so that a damaged one becomes 406."""
    first, *rest = part.pieces
    made = first.make() if isinstance(first, Computed) else first
    return Part(part.content_type, (made, *rest), part.location)


def study_bulk_data(service: Service, call: Call) -> Answer:
    """Retrieve all bulk data of a study."""
    return collection(service, call, _of_study(service, call))


def series_bulk_data(service: Service, call: Call) -> Answer:
    """Retrieve all bulk data of a series."""
    return collection(service, call, retrieve.series_items(service.journals, call.series))


def instance_bulk_data(service: Service, call: Call) -> Answer:
    """Retrieve all bulk data of an instance."""
    return collection(service, call, [retrieve.item(service.journals, call.instance)])


def study_pixel_data(service: Service, call: Call) -> Answer:
    """Retrieve the pixel data of a study."""
    return collection(service, call, _of_study(service, call), pixels_only=True)


def series_pixel_data(service: Service, call: Call) -> Answer:
    """Retrieve the pixel data of a series."""
    items = retrieve.series_items(service.journals, call.series)
    return collection(service, call, items, pixels_only=True)


def instance_pixel_data(service: Service, call: Call) -> Answer:
    """Retrieve the pixel data of an instance."""
    items = [retrieve.item(service.journals, call.instance)]
    return collection(service, call, items, pixels_only=True)


def _of_study(service: Service, call: Call) -> list[Item]:
    return retrieve.study_items(service.archive, service.journals, call.study)


def asked_for(ranges: tuple[MediaRange, ...]) -> bool:
    """Whether a request for instances takes their bulk data, too (PS3.18 Table 10.4.4-1)."""
    return any(wanted.multipart and wanted.media_type == OCTET_STREAM for wanted in ranges)


def collection(
    service: Service, call: Call, items: Iterable[Item], *, pixels_only: bool = False
) -> Answer:
    """Answer with values of many instances, each a part that names its BulkDataURI."""
    values, left_out = bulk_values(
        service.archive, service.journals, items, pixels_only=pixels_only
    )
    if not values:
        kind = "pixel" if pixels_only else "bulk"
        raise NotFound(f"no {kind} data can be had: {left_out[0] if left_out else 'there is none'}")
    ranges = acceptable_to(call)
    chosen = [(value, offer) for value in values if (offer := _as_part(ranges, value))]
    if not chosen:
        raise NotAcceptable(f"the values can be had as parts of {values[0].offers[0].content_type}")
    parts = [part for value, offer in chosen for part in _parts(service, call, value, offer)]
    identity = [f"{v.found.entry.digest} {v.path} {o.content_type}" for v, o in chosen]
    answer = wrapped(call, parts, tuple(identity), multipart=True)
    answer.slow = any(not offer.stored for _, offer in chosen)
    let_cache(service, call, answer)
    if missing := len(values) - len(chosen) + len(left_out):
        reason = left_out[0] if left_out else "not in the media type that was asked for"
        answer.headers.append(warning(f"{missing} values are left out; {reason}"))
    return answer


def _as_part(ranges: tuple[MediaRange, ...], value: BulkValue) -> Offer | None:
    offers = both_ways(value.offers)
    return select(ranges, offers[: len(value.offers)])


def _parts(service: Service, call: Call, value: BulkValue, offer: Offer) -> Iterator[Part]:
    location = f"{call.base_url}/{value.found.ref.path}/bulkdata/{value.path}"
    for pieces in value.parts if offer.stored else (_native(service, value.found),):
        yield Part(offer.content_type, pieces, location)


def _native(service: Service, found: Item) -> tuple[Piece, ...]:
    """Pixel data of all frames, decoded when they are sent: one part, as native values are."""
    maker, source = transcoder(service), source_of(found)
    numbers = range(1, found.entry.number_of_frames + 1)
    return tuple(maker.native_frames(source, maker.image(source), numbers))
