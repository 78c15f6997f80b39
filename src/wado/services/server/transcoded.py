"""Answers with instances and frames, as stored or in another transfer syntax (PS3.18 §8.7.3)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

from wado.archive import forms, retrieve
from wado.archive.derived import NOTHING
from wado.archive.forms import Chosen, Ranges
from wado.archive.pieces import Computed, Part, Piece, piece_length
from wado.archive.retrieve import Item
from wado.archive.transcoded_instances import Transcoded, choose_instance, transcoded
from wado.archive.transcoding import Transcoder
from wado.dicom.codec_table import EXPLICIT_VR_LITTLE_ENDIAN
from wado.dicom.media_types import DICOM, Offer, select
from wado.errors import NotAcceptable, NotFound
from wado.services.server.calls import Answer, Call
from wado.services.server.prepared import LARGEST_KEPT_BYTES
from wado.services.server.representations import (
    MAX_KEPT_PARTS,
    REVALIDATE,
    acceptable_to,
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


def transcoder(service: Service) -> Transcoder:
    """What transcoding needs, from what the service has."""
    return Transcoder(
        service.archive, service.journals, service.pixels, service.settings.max_pixels
    )


def chosen_form(service: Service, call: Call, found: Item, *, several: bool) -> Chosen | None:
    """Choose the form of an instance, alone or among `several`; None if none is acceptable."""
    entry, ranges = found.entry, acceptable_to(call)
    if entry.derived is NOTHING:
        has_pixels = entry.pixel is not None
        uid = entry.transfer_syntax_uid
        offer = choose_instance(ranges, uid, has_pixels=has_pixels, several=several)
        return (found, offer) if offer is not None else None

    def choose(known: Item) -> Chosen | None:
        return forms.choose_instance(ranges, known, several=several)

    # Of several, nobody asks again for one whose file is gone: the answer has begun by then.
    return chosen_copy(service, call, found, choose, sure=several)


def chosen_copy(
    service: Service,
    call: Call,
    found: Item,
    choose: Callable[[Item], Chosen | None],
    *,
    sure: bool = False,
) -> Chosen | None:
    """Choose a form; anew without copies that are gone, if that was seen or can't be seen later."""
    chosen = choose(found)
    if chosen is None or chosen[0].copy is None or not (sure or looks_closely(call)):
        return chosen
    return choose(forms.with_copies_there(service.archive, found))


def looks_closely(call: Call) -> bool:
    """Whether to see after files before they are named: nobody does so afterwards."""
    return call.again or call.method == "HEAD"


# ------------------------------------------------------------------ instances


def stored_instance(service: Service, call: Call, chosen: Chosen) -> Answer:
    """Answer with one instance: its file as it was received, or that of a copy."""
    answer = stored_instances(service, call, [chosen])
    answer.basis = basis_of(chosen[0])
    return answer


def stored_instances(service: Service, call: Call, chosen: Sequence[Chosen]) -> Answer:
    """Answer with the files of instances, byte for byte as they were received, or of copies."""
    parts = [_stored_part(call, each) for each in chosen]
    identity = tuple(found.entry.digest for found, _ in chosen)
    answer = wrapped(call, parts, identity, multipart=chosen[0][1].multipart)
    let_cache(service, call, answer)
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
        let_cache(service, call, answer)
        return answer
    try:
        answer = _made_answer(service, call, chosen, identity)
    except NotAcceptable:
        fallback = _as_stored(ranges, chosen)
        if fallback is None:
            raise
        return _for_now(stored_instance(service, call, fallback))
    let_cache(service, call, answer)
    return answer


def _for_now(answer: Answer) -> Answer:
    """Give in place of what can't be made what is to be asked for again: it may be, next time."""
    answer.headers = [pair for pair in answer.headers if pair[0] != REVALIDATE[0]]
    answer.headers.append(REVALIDATE)
    answer.basis = None
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
    made = _made(service, found, offer.transfer_syntax or "")
    pieces = made.pieces if made.stream is None else made.stream
    return Part(offer.content_type, pieces, _location(call, found)), made.stream is not None


def _made(service: Service, found: Item, target_uid: str) -> Transcoded:
    """Make an instance of its original, or of a copy that is decoded faster, if it is there."""
    source = forms.source_of(found)
    forms.refuse_what_failed(source, target_uid)
    maker = transcoder(service)
    if source.copy is not None:
        try:
            return transcoded(maker, source, target_uid)
        except (NotFound, NotAcceptable):
            pass
    return transcoded(maker, found, target_uid)


def _as_stored(ranges: Ranges, chosen: Chosen) -> Chosen | None:
    """Give the instance as stored, if that is acceptable, too."""
    found, offer = chosen
    stored = tuple(
        replace(o, multipart=offer.multipart) for o in forms.offers_of(found) if o.stored
    )
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
    let_cache(service, call, answer)
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


def stored_frames(service: Service, call: Call, chosen: Chosen, numbers: Sequence[int]) -> Answer:
    """Answer with frames as ranges of the file of an instance, or of a copy of it."""
    found, offer = chosen
    parts = [
        Part(offer.content_type, pieces)
        for pieces in retrieve.frames(service.archive, found, numbers)
    ]
    form = offer.media_type if found.copy is None else offer.content_type
    identity = (found.entry.digest, call.params["frames"], form)
    answer = wrapped(call, parts, identity, multipart=offer.multipart)
    answer.basis = basis_of(found) if len(numbers) <= MAX_KEPT_PARTS else None
    let_cache(service, call, answer)
    return answer


def made_frames(
    service: Service, call: Call, found: Item, numbers: Sequence[int], offer: Offer
) -> Answer:
    """Answer with frames in another transfer syntax.

    The first is made before the answer begins, so that a damaged one becomes 406.
    """
    identity = (found.entry.digest, call.params["frames"], offer.content_type)
    if answer := unchanged(call, identity, multipart=offer.multipart):
        let_cache(service, call, answer)
        return answer
    target = offer.transfer_syntax or ""
    pieces: list[Piece]
    if target == EXPLICIT_VR_LITTLE_ENDIAN:
        maker, source = frame_maker(service, found, target)
        pieces = list(maker.native_frames(source, maker.image(source), numbers))
    else:
        made = frames_made(service, found, numbers, target)
        if len(numbers) > MAX_KEPT_PARTS:
            pieced = ((frame,) for frame in made)
            return streamed_frames(service, call, offer, identity, pieced)
        pieces = list(made)
    parts = [Part(offer.content_type, (piece,)) for piece in pieces]
    answer = wrapped(call, parts, identity, multipart=offer.multipart)
    let_cache(service, call, answer)
    return _worked_out(service, call, found, answer)


def frame_maker(service: Service, found: Item, target_uid: str) -> tuple[Transcoder, Item]:
    """What makes frames and keeps them a while, and what they are made of.

    Raises
    ------
    NotAcceptable
        It was tried before, and can't be done. Of several frames another may be the damaged one.
    """
    source = forms.source_of(found)
    if found.entry.number_of_frames == 1:
        forms.refuse_what_failed(source, target_uid)
    return replace(transcoder(service), kept=service.kept), source


def frames_made(
    service: Service, found: Item, numbers: Sequence[int], target_uid: str
) -> Iterator[bytes]:
    """Make frames one after the other; the checks are done at once."""
    maker, source = frame_maker(service, found, target_uid)
    return maker.frames(source, maker.image(source), numbers, target_uid)


def streamed_frames(
    service: Service,
    call: Call,
    offer: Offer,
    identity: tuple[str, ...],
    frames: Iterator[tuple[Piece, ...]],
) -> Answer:
    """Answer with many frames, each made when it is sent, but for the first."""
    first = next(frames)
    lazily = (Part(offer.content_type, pieces) for pieces in chain((first,), frames))
    answer = streamed(call, offer.media_type, lazily, identity)
    let_cache(service, call, answer)
    return answer
