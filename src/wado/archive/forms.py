"""Which form of an instance or of its frames goes out: stored, a copy, or made (PS3.18 §8.7.3).

What is acceptable as stored goes out as stored. What has to be another transfer syntax comes from a
derived copy in it, else it is made at once: of the original, or of a copy that is read faster. A
copy with loss is given to who names it, and to nobody else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType

from wado.archive import retrieve, transcoding
from wado.archive.derived import Derived
from wado.archive.retrieve import Item, copy_of
from wado.archive.transcoded_instances import instance_offers
from wado.dicom.codec_table import EXPLICIT_VR_LITTLE_ENDIAN, FAMILY, can_decode
from wado.dicom.media_types import ANY, DICOM, MediaRange, Offer, select
from wado.errors import NotAcceptable
from wado.ports import Archive
from wado.telemetry import get_logger

_log = get_logger("wado-retrieve")
Chosen = tuple[Item, Offer]
"""An instance or a copy of it, and the form in which it goes out: if not `stored`, to be made."""
Ranges = tuple[MediaRange, ...]

HTJ2K_LOSSLESS, HTJ2K_RPCL = "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202"
_HTJ2K = (HTJ2K_RPCL, HTJ2K_LOSSLESS)
_CONTAINS = MappingProxyType({HTJ2K_LOSSLESS: (HTJ2K_RPCL,)})
"""Frames of a transfer syntax are frames of these, too: 202 is 201 with a rule for the order."""
_COSTS = MappingProxyType(
    {"native": 0, "deflated": 1, "rle": 1, "htj2k": 2, "jpeg_ls": 3, "jpeg": 3}
)
"""What it takes to decode a frame, about; the others take the most."""
_MOST_COST = 9
_CANT_DECODE = 99
_NAMES_NOTHING = (None, ANY)

_Copies = tuple[tuple[str, bool], ...]
"""Transfer syntax of each copy, and whether it is lossy."""


# ------------------------------------------------------------------ choice


def choose_frames(ranges: Ranges, found: Item, *, several: bool) -> Chosen | None:
    """Choose the form of frames of an instance with copies; None if nothing is acceptable."""
    uid = found.entry.transfer_syntax_uid
    offer = _frame_choice(ranges, uid, _copies(found), several=several)
    return _resolved(found, offer, _CONTAINS) if offer is not None else None


def choose_instance(ranges: Ranges, found: Item, *, several: bool) -> Chosen | None:
    """Choose the form of an instance, alone or among `several`; None if none is acceptable."""
    uid, has_pixels = found.entry.transfer_syntax_uid, found.entry.pixel is not None
    copies = _copies(found)
    offer = _instance_choice(ranges, uid, copies, has_pixels=has_pixels, several=several)
    return _resolved(found, offer) if offer is not None else None


def frame_offers(found: Item) -> tuple[Offer, ...]:
    """Forms in which frames of an instance can be given."""
    offers, lossy = _frame_offers(found.entry.transfer_syntax_uid, _copies(found))
    return offers + lossy


def offers_of(found: Item) -> tuple[Offer, ...]:
    """Forms in which an instance can be given."""
    entry = found.entry
    offers, lossy = _instance_offers(
        entry.transfer_syntax_uid, _copies(found), has_pixels=entry.pixel is not None
    )
    return offers + lossy


def _copies(found: Item) -> _Copies:
    return tuple((uid, copy.lossy) for uid, copy in found.entry.derived.copies.items())


_Offers = tuple[tuple[Offer, ...], tuple[Offer, ...]]
"""Those for everybody, and those for who names them."""


@lru_cache(maxsize=256)
def _frame_offers(stored_uid: str, copies: _Copies) -> _Offers:
    known = transcoding.frame_offers(stored_uid)
    exact = _more(known, [_of_copy(uid) for uid, lossy in copies if not lossy])
    return known + exact, _more(known, [_of_copy(uid) for uid, lossy in copies if lossy])


@lru_cache(maxsize=256)
def _instance_offers(stored_uid: str, copies: _Copies, *, has_pixels: bool) -> _Offers:
    known = instance_offers(stored_uid, has_pixels=has_pixels)
    by_loss = [
        [(Offer(DICOM, transfer_syntax=uid, stored=False),) for uid, is_lossy in copies
         if is_lossy == lossy]
        for lossy in (False, True)
    ]  # fmt: skip
    exact, lossy = (_more(known, offers) for offers in by_loss)
    return known + exact, lossy


def _of_copy(transfer_syntax_uid: str) -> tuple[Offer, ...]:
    offers = retrieve.frame_offers_of(transfer_syntax_uid)
    return tuple(replace(offer, stored=False) for offer in offers)


def _more(known: tuple[Offer, ...], offers: Sequence[tuple[Offer, ...]]) -> tuple[Offer, ...]:
    """Offers that are not known yet, made or stored."""
    there = {(offer.media_type, offer.transfer_syntax) for offer in known}
    return tuple(
        o for each in offers for o in each if (o.media_type, o.transfer_syntax) not in there
    )


@lru_cache(maxsize=1024)
def _frame_choice(
    ranges: Ranges, stored_uid: str, copies: _Copies, *, several: bool
) -> Offer | None:
    return _selected(ranges, _frame_offers(stored_uid, copies), several=several)


@lru_cache(maxsize=1024)
def _instance_choice(
    ranges: Ranges, stored_uid: str, copies: _Copies, *, has_pixels: bool, several: bool
) -> Offer | None:
    offers = _instance_offers(stored_uid, copies, has_pixels=has_pixels)
    return _selected(ranges, offers, several=several)


def _selected(ranges: Ranges, known: _Offers, *, several: bool) -> Offer | None:
    """Choose as `select`; what is lossy only for a range that names it and gets nothing else."""
    offers, lossy = (transcoding.in_order(some, several=several) for some in known)
    for wanted in ranges:
        offer = select((wanted,), offers)
        if offer is None and lossy and _names(wanted):
            offer = select((wanted,), lossy)
        if offer is not None:
            return offer
    return None


def _names(wanted: MediaRange) -> bool:
    """Whether a range names its transfer syntax, or at least its media type."""
    return wanted.transfer_syntax not in _NAMES_NOTHING or "*" not in wanted.media_type


def _resolved(
    found: Item, offer: Offer, contains: Mapping[str, tuple[str, ...]] = MappingProxyType({})
) -> Chosen:
    """Take the copy that is what the offer says, if there is one."""
    if offer.stored:
        return found, offer
    uid = offer.transfer_syntax or ""
    for name in (uid, *contains.get(uid, ())):
        copy = copy_of(found, name)
        if copy is not None:
            return copy, replace(offer, stored=True)
    return found, offer


def in_htj2k(found: Item) -> Item | None:
    """Find what holds the frames of an instance as HTJ2K: itself, or a copy without loss."""
    if FAMILY.get(found.entry.transfer_syntax_uid) == "htj2k":
        return found
    copies = (copy_of(found, uid) for uid in _HTJ2K)
    return next((copy for copy in copies if copy is not None), None)


# ------------------------------------------------------------------ what is made


def source_of(found: Item) -> Item:
    """Choose what to decode: the original, or a copy without loss that is decoded faster."""
    least, best = _cost(found.entry.transfer_syntax_uid), found
    for uid, copy in found.entry.derived.copies.items():
        if not copy.lossy and _cost(uid) < least:
            least, best = _cost(uid), copy_of(found, uid) or found
    return best


def _cost(transfer_syntax_uid: str) -> int:
    if not can_decode(transfer_syntax_uid):
        return _CANT_DECODE
    return _COSTS.get(FAMILY[transfer_syntax_uid], _MOST_COST)


def refuse_what_failed(source: Item, target_uid: str) -> None:
    """Refuse to make of an original what could not be made when it was tried beforehand.

    Raises
    ------
    NotAcceptable
        With the reason that was recorded.
    """
    if source.copy is not None:
        return
    entry = source.entry
    reason = entry.derived.failures.get(target_uid)
    if reason is None and entry.number_of_frames == 1:  # then it was its pixels that can't be read
        reason = entry.derived.failures.get(EXPLICIT_VR_LITTLE_ENDIAN)
    if reason is not None:
        raise NotAcceptable(f"{reason}; it can be had as stored: {entry.transfer_syntax_uid}")


def with_copies_there(archive: Archive, found: Item) -> Item:
    """Leave out copies whose file is gone or of another length: they are made again at need."""
    derived = found.entry.derived
    there = {uid: copy for uid, copy in derived.copies.items() if _is_there(archive, found, uid)}
    if len(there) == len(derived.copies):
        return found
    _log.warning(
        "copy is gone", instance=found.ref.path, syntaxes=sorted(derived.copies.keys() - there)
    )
    return replace(found, entry=replace(found.entry, derived=Derived(there, derived.failures)))


def _is_there(archive: Archive, found: Item, transfer_syntax_uid: str) -> bool:
    copy = copy_of(found, transfer_syntax_uid)
    if copy is None:
        return False
    version = archive.store.version(copy.path)
    return version is not None and version[1] == copy.entry.file_size
