"""Answers with instances and frames, as stored or in another transfer syntax (PS3.18 §8.7.3)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

from wado.archive import retrieve
from wado.archive.pieces import Computed, Part, Piece, piece_length
from wado.archive.retrieve import Item
from wado.archive.transcoded_instances import choose_instance, instance_offers, transcoded
from wado.archive.transcoding import Transcoder
from wado.dicom.codec_table import EXPLICIT_VR_LITTLE_ENDIAN
from wado.dicom.media_types import DICOM, MediaRange, Offer, select
from wado.errors import NotAcceptable
from wado.services.server.calls import Answer, Call
from wado.services.server.prepared import LARGEST_KEPT_BYTES
from wado.services.server.representations import (
    MAX_KEPT_PARTS,
    basis_of,
    let_cache,
    streamed,
    streamed_alone,
    unchanged,
    wrapped,
)
from wado.services.server.service import Service
from wado.telemetry import get_logger

_log = get_logger("wado-server")
Chosen = tuple[Item, Offer]
"""An instance and the form in which it goes out."""
Ranges = tuple[MediaRange, ...]


def transcoder(service: Service) -> Transcoder:
    """What transcoding needs, from what the service has."""
    return Transcoder(
        service.archive, service.journals, service.pixels, service.settings.max_pixels
    )


def offers_of(found: Item) -> tuple[Offer, ...]:
    """Forms in which an instance can be given."""
    entry = found.entry
    return instance_offers(entry.transfer_syntax_uid, has_pixels=entry.pixel is not None)


def chosen_form(ranges: Ranges, found: Item, *, several: bool) -> Offer | None:
    """Choose the form of an instance; None if none is acceptable."""
    entry = found.entry
    return choose_instance(
        ranges,
        entry.transfer_syntax_uid,
        has_pixels=entry.pixel is not None,
        several=several,
    )


# ------------------------------------------------------------------ instances


def stored_instance(service: Service, call: Call, chosen: Chosen) -> Answer:
    """Answer with one instance, byte for byte as it was received."""
    answer = stored_instances(service, call, [chosen])
    answer.basis = basis_of(chosen[0])
    return answer


def stored_instances(service: Service, call: Call, chosen: Sequence[Chosen]) -> Answer:
    """Answer with instances, byte for byte as they were received."""
    parts = [_stored_part(call, each) for each in chosen]
    identity = tuple(found.entry.digest for found, _ in chosen)
    answer = wrapped(call, parts, identity, multipart=chosen[0][1].multipart)
    let_cache(service, answer)
    return answer


def _stored_part(call: Call, chosen: Chosen) -> Part:
    found, offer = chosen
    return Part(offer.content_type, (retrieve.whole(found),), _location(call, found))


def _location(call: Call, found: Item) -> str:
    return f"{call.base_url}/{found.ref.path}"


def made_instance(service: Service, call: Call, ranges: Ranges, chosen: Chosen) -> Answer:
    """Answer with one instance in another transfer syntax; as stored, if that fails and may be."""
    found, offer = chosen
    identity = (found.entry.digest, offer.content_type)
    if answer := unchanged(call, identity, multipart=offer.multipart):
        let_cache(service, answer)
        return answer
    try:
        answer = _made_answer(service, call, chosen, identity)
    except NotAcceptable:
        fallback = _as_stored(ranges, chosen)
        if fallback is None:
            raise
        return stored_instance(service, call, fallback)
    let_cache(service, answer)
    return answer


def _made_answer(service: Service, call: Call, chosen: Chosen, identity: tuple[str, ...]) -> Answer:
    found, offer = chosen
    part, is_stream = _made_part(service, call, chosen)
    if not is_stream:
        answer = wrapped(call, [part], identity, multipart=offer.multipart)
        return _worked_out(service, call, found, answer)
    if offer.multipart:
        return streamed(call, DICOM, [part], identity)
    return streamed_alone(call, part, identity)


def _made_part(service: Service, call: Call, chosen: Chosen) -> tuple[Part, bool]:
    """Transcode an instance; whether its length is not known yet."""
    found, offer = chosen
    made = transcoded(transcoder(service), found, offer.transfer_syntax or "")
    pieces = made.pieces if made.stream is None else made.stream
    return Part(offer.content_type, pieces, _location(call, found)), made.stream is not None


def _as_stored(ranges: Ranges, chosen: Chosen) -> Chosen | None:
    """Give the instance as stored, if that is acceptable, too."""
    found, offer = chosen
    stored = tuple(replace(o, multipart=offer.multipart) for o in offers_of(found) if o.stored)
    other = select(ranges, stored)
    return (found, other) if other is not None else None


def _worked_out(service: Service, call: Call, found: Item, answer: Answer) -> Answer:
    """Work out a small answer whole, and of a long one the first frame, before its head is sent.

    What is damaged becomes an error then, and the small one is kept for who asks the same.
    """
    pieces = list(answer.pieces)
    if call.method == "HEAD" or not pieces:
        return answer
    if sum(map(piece_length, pieces)) <= LARGEST_KEPT_BYTES:
        answer.pieces = (b"".join(map(service.files.bytes_of, pieces)),)
        answer.basis = basis_of(found, in_memory=True)
        return answer
    first = next((i for i, piece in enumerate(pieces) if isinstance(piece, Computed)), None)
    if first is not None:
        pieces[first] = service.files.bytes_of(pieces[first])
        answer.pieces = pieces
    return answer


def made_instances(
    service: Service, call: Call, ranges: Ranges, chosen: Sequence[Chosen]
) -> Answer:
    """Answer with several instances, worked out one after the other while they are sent.

    One that turns out to be damaged goes out as stored, if that is acceptable, or not at all.
    """
    identity = tuple(f"{found.entry.digest} {o.transfer_syntax}" for found, o in chosen)
    answer = unchanged(call, identity, multipart=True)
    if answer is None:
        answer = streamed(call, DICOM, _parts(service, call, ranges, chosen), identity)
    let_cache(service, answer)
    return answer


def _parts(
    service: Service, call: Call, ranges: Ranges, chosen: Sequence[Chosen]
) -> Iterator[Part]:
    for each in chosen:
        if each[1].stored:
            yield _stored_part(call, each)
            continue
        try:
            part, _ = _made_part(service, call, each)
        except NotAcceptable as e:
            fallback = _as_stored(ranges, each)
            _log.warning("not transcoded", path=each[0].ref.path, reason=str(e))
            if fallback is not None:
                yield _stored_part(call, fallback)
            continue
        yield part


# ------------------------------------------------------------------ frames


def made_frames(
    service: Service, call: Call, found: Item, numbers: Sequence[int], offer: Offer
) -> Answer:
    """Answer with frames in another transfer syntax.

    The first is made before the answer begins, so that a damaged one becomes 406.
    """
    identity = (found.entry.digest, call.params["frames"], offer.content_type)
    if answer := unchanged(call, identity, multipart=offer.multipart):
        let_cache(service, answer)
        return answer
    target = offer.transfer_syntax or ""
    maker = transcoder(service)
    image = maker.image(found)
    pieces: list[Piece]
    if target == EXPLICIT_VR_LITTLE_ENDIAN:
        pieces = list(maker.native_frames(found, image, numbers))
    elif len(numbers) <= MAX_KEPT_PARTS:
        pieces = list(maker.frames(found, image, numbers, target))
    else:
        made = maker.frames(found, image, numbers, target)
        first = next(made)
        lazily = (Part(offer.content_type, (data,)) for data in chain((first,), made))
        answer = streamed(call, offer.media_type, lazily, identity)
        let_cache(service, answer)
        return answer
    parts = [Part(offer.content_type, (piece,)) for piece in pieces]
    answer = wrapped(call, parts, identity, multipart=offer.multipart)
    let_cache(service, answer)
    return _worked_out(service, call, found, answer)
