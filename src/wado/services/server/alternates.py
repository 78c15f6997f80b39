"""Frames as HTJ2K beside those of PS3.18, whole or at a lower resolution, for viewers.

``…/instances/{uid}/htj2k/{frames}`` gives ``…/frames/{frames}`` in one form, whatever is stored:
viewers put another word into their addresses (Cornerstone3D: ``framesPath``). With ``level=n`` a
frame is the beginning of its code stream that a decoder needs for 1/2ⁿ of its rows and columns.
"""

from collections.abc import Iterator, Sequence

from wado.archive import forms, retrieve
from wado.archive.pieces import Part, Piece, cut, piece_length
from wado.archive.retrieve import Item
from wado.archive.transcoding import in_order
from wado.dicom.media_types import OCTET_STREAM, Offer, media_type_of, select
from wado.dicom.resolutions import END_OF_CODE_STREAM, HEAD_BYTES, resolution_ends
from wado.errors import InvalidRequest, NotAcceptable
from wado.services.server.calls import Answer, Call
from wado.services.server.representations import (
    MAX_KEPT_PARTS,
    acceptable_to,
    basis_of,
    check_accept,
    let_cache,
    unchanged,
    wrapped,
)
from wado.services.server.service import Service
from wado.services.server.transcoded import (
    frames_made,
    looks_closely,
    made_frames,
    stored_frames,
    streamed_frames,
)
from wado.services.server.wado_rs import frame_numbers

_MOST_LEVELS = 32
"""Of JPEG 2000 (ISO/IEC 15444-1 Table A.15)."""


def htj2k(service: Service, call: Call) -> Answer:
    """Retrieve frames as HTJ2K: as stored or as a copy has them, else made.

    Raises
    ------
    InvalidRequest
        There is no such level.
    NotAcceptable
        They can't be made.
    """
    check_accept(call, strict=service.settings.strict_accept)
    found = retrieve.item(service.journals, call.instance)
    numbers = retrieve.existing_frames(frame_numbers(call.params["frames"]), found)
    level = _level(call.parameter("level"))
    source = _source(service, found, sure=looks_closely(call))
    uid = source.entry.transfer_syntax_uid if source is not None else forms.HTJ2K_RPCL
    offer = _offer(call, uid, several=len(numbers) > 1)
    if level:
        return Answer(later=lambda: _Lower(service, call, found, offer).answer(numbers, level))
    if source is not None:
        return stored_frames(service, call, (source, offer), numbers)
    return Answer(later=lambda: made_frames(service, call, found, numbers, offer))


def _source(service: Service, found: Item, *, sure: bool) -> Item | None:
    """Find what holds the frames as HTJ2K; if one has to be `sure`, see whether it is there."""
    source = forms.in_htj2k(found)
    if source is None or source.copy is None or not sure:
        return source
    return forms.in_htj2k(forms.with_copies_there(service.archive, found))


def _level(text: str | None) -> int:
    if text is None:
        return 0
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(_MOST_LEVELS))
    if not (is_number and int(text) <= _MOST_LEVELS):
        raise InvalidRequest(f"level is a number from 0 to {_MOST_LEVELS}, not {text[:20]!r}")
    return int(text)


def _offer(call: Call, transfer_syntax_uid: str, *, several: bool) -> Offer:
    names = (media_type_of(transfer_syntax_uid), OCTET_STREAM)
    offers = tuple(Offer(name, transfer_syntax=transfer_syntax_uid) for name in names)
    offer = select(acceptable_to(call), in_order(offers, several=several))
    if offer is None:
        raise NotAcceptable(f"these frames can be had as {offers[0].content_type}")
    return offer


class _Lower:
    """Makes one answer with frames at a lower resolution."""

    def __init__(self, service: Service, call: Call, found: Item, offer: Offer) -> None:
        self._service = service
        self._call = call
        self._found = found
        self._offer = offer

    def answer(self, numbers: Sequence[int], level: int) -> Answer:
        """Cut frames of what is HTJ2K; those that can't be cut, and others, are made first."""
        service, call, offer = self._service, self._call, self._offer
        identity = (
            self._found.entry.digest, call.params["frames"], offer.content_type, f"level {level}",
        )  # fmt: skip
        if answer := unchanged(call, identity, multipart=offer.multipart):
            let_cache(service, call, answer)
            return answer
        frames = self._frames(numbers, level)
        if len(numbers) > MAX_KEPT_PARTS:
            return streamed_frames(service, call, offer, identity, frames)
        parts = [Part(offer.content_type, pieces) for pieces in frames]
        answer = wrapped(call, parts, identity, multipart=offer.multipart)
        answer.basis = basis_of(self._found, in_memory=True)
        let_cache(service, call, answer)
        return answer

    def _frames(self, numbers: Sequence[int], level: int) -> Iterator[tuple[Piece, ...]]:
        source = _source(self._service, self._found, sure=True)
        if source is not None:
            whole = retrieve.frames(self._service.archive, source, numbers)
        else:
            whole = [()] * len(numbers)
        for number, pieces in zip(numbers, whole, strict=True):
            lower = self._cut(pieces, level)
            if lower is None:
                made = frames_made(self._service, self._found, (number,), forms.HTJ2K_RPCL)
                lower = self._cut((next(made),), level)
            assert lower is not None, "what this archive encodes can be cut"
            yield lower

    def _cut(self, pieces: tuple[Piece, ...], level: int) -> tuple[Piece, ...] | None:
        """Cut one frame; None if it does not say where."""
        length = sum(map(piece_length, pieces))
        read = self._service.files.bytes_of
        head = b"".join(map(read, cut(pieces, 0, min(length, HEAD_BYTES))))
        ends = resolution_ends(head, length)
        if not ends:
            return None
        if level >= len(ends):
            raise InvalidRequest(f"there are levels up to {len(ends) - 1}, not {level}")
        return (*cut(pieces, 0, ends[-1 - level]), END_OF_CODE_STREAM)
