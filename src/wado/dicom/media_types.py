"""Media types as clients write them: a tolerant reader of Accept, and the choice among offers.

Clients of DICOMweb disagree on quotes, repeat parameters and join headers, so nothing that can be
read is refused. What can't be read is passed over; an Accept that leaves no choice is answered by
the caller with 406 (PS3.18 §8.7.5).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType

from wado.errors import InvalidRequest

ANY = "*"
"""Transfer syntax of a range that takes every one (PS3.18 §8.7.3.5.2)."""

OCTET_STREAM = "application/octet-stream"
DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
DICOM_XML = "application/dicom+xml"
JSON = "application/json"

EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_NATIVE = frozenset(
    {
        "1.2.840.10008.1.2",
        EXPLICIT_VR_LITTLE_ENDIAN,
        "1.2.840.10008.1.2.1.99",
        "1.2.840.10008.1.2.2",
    }
)

_JPEG = "1.2.840.10008.1.2.4."
_MEDIA_TYPE_OF = MappingProxyType(
    {
        "1.2.840.10008.1.2.5": "image/dicom-rle",
        **dict.fromkeys((f"{_JPEG}{n}" for n in (*range(50, 67), 70)), "image/jpeg"),
        **dict.fromkeys((f"{_JPEG}{n}" for n in (80, 81)), "image/jls"),
        **dict.fromkeys((f"{_JPEG}{n}" for n in (90, 91)), "image/jp2"),
        **dict.fromkeys((f"{_JPEG}{n}" for n in (92, 93)), "image/jpx"),
        **dict.fromkeys((f"{_JPEG}{n}" for n in (110, 111, 112)), "image/jxl"),
        **dict.fromkeys((f"{_JPEG}{n}" for n in (201, 202, 203)), "image/jphc"),
        "3.2.840.10008.1.2.4.96": "image/jphc",
        **dict.fromkeys((f"{_JPEG}{n}" for n in ("100", "100.1", "101", "101.1")), "video/mpeg"),
        **dict.fromkeys(
            (f"{_JPEG}{n}{f}" for n in (102, 103, 104, 105, 106) for f in ("", ".1")), "video/mp4"
        ),
        **dict.fromkeys((f"{_JPEG}{n}" for n in (107, 108)), "video/H265"),
    }
)
"""Media type of the frames of each compressed transfer syntax (PS3.18 Table 8.7.3-5)."""

_ALIASES = MappingProxyType(
    {
        "image/x-dicom-rle": "image/dicom-rle",
        "image/x-jls": "image/jls",
        "image/dicom+jpeg": "image/jpeg",
        "image/dicom+rle": "image/dicom-rle",
        "image/jpg": "image/jpeg",
        "image/jph": "image/jphc",
        "video/h265": "video/H265",
    }
)
"""What clients write for the media types of the Standard."""

_RANGES = re.compile(r'(?:[^",]|"[^"]*"?)+')
_PARAMETERS = re.compile(r'(?:[^";]|"[^"]*"?)+')
_TYPE = re.compile(r"[\w!#$&^.+*-]+/[\w!#$&^.+*-]+\Z", re.ASCII)
_MAX_ACCEPT_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class MediaType:
    """A media type with its parameters: names in lower case, the first of a repeated name."""

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One alternative of an Accept header.

    `media_type` is that of the parts if `multipart` is True; it may end in ``/*``.
    `transfer_syntax` is a UID, `ANY`, or None if none was named.
    """

    media_type: str
    multipart: bool = False
    transfer_syntax: str | None = None
    q: float = 1.0


@dataclass(frozen=True, slots=True)
class Offer:
    """A representation that the server can give; `stored` if it has not to be made first."""

    media_type: str
    multipart: bool = False
    transfer_syntax: str | None = None
    stored: bool = True

    @property
    def content_type(self) -> str:
        """As written in a Content-Type header of a part or of a single part answer.

        The UID is not quoted: clients in use don't strip quotes from it.
        """
        if self.transfer_syntax is None:
            return self.media_type
        return f"{self.media_type};transfer-syntax={self.transfer_syntax}"


_DICOM_ONLY = frozenset(
    {DICOM, DICOM_JSON, "application/dicom+xml", OCTET_STREAM, "image/dicom-rle", "image/jls"}
)
_RENDERED_ONLY = frozenset(
    {
        "image/gif",
        "image/png",
        "text/html",
        "text/plain",
        "text/xml",
        "text/rtf",
        "application/pdf",
    }
)


def mixes_categories(ranges: tuple[MediaRange, ...]) -> bool:
    """Whether a list asks for DICOM and for rendered media types at once (PS3.18 §8.7.5)."""
    names = {wanted.media_type for wanted in ranges}
    return not names.isdisjoint(_DICOM_ONLY) and not names.isdisjoint(_RENDERED_ONLY)


def media_type_of(transfer_syntax_uid: str) -> str:
    """Media type of frames in this transfer syntax; octet stream for native ones and unknown."""
    return _MEDIA_TYPE_OF.get(transfer_syntax_uid, OCTET_STREAM)


def is_native(transfer_syntax_uid: str) -> bool:
    """Whether frames of this transfer syntax are uncompressed (PS3.5 §A.1 to §A.3, §A.5)."""
    return transfer_syntax_uid in _NATIVE


@lru_cache(maxsize=256)
def parse_media_type(value: str) -> MediaType:
    """Read a Content-Type.

    Raises
    ------
    InvalidRequest
        The value has no ``type/subtype``.
    """
    name, *rest = _PARAMETERS.findall(value) or [""]
    name = name.strip().lower()
    if not _TYPE.match(name):
        raise InvalidRequest(f"not a media type: {value[:80]!r}")
    parameters: dict[str, str] = {}
    for parameter in rest:
        key, equals, text = parameter.partition("=")
        if equals:
            parameters.setdefault(key.strip().lower(), _unquoted(text))
    return MediaType(name, parameters)


def _unquoted(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]
    return text.strip()


@lru_cache(maxsize=512)
def parse_accept(value: str) -> tuple[MediaRange, ...]:
    """Read an Accept header (or ``accept`` parameter): best first, refused ones (q=0) left out.

    Ranges that can't be read are passed over. Among equal q the order is the client's.
    """
    ranges = []
    for text in _RANGES.findall(value[:_MAX_ACCEPT_LENGTH]):
        try:
            ranges.append(_range(parse_media_type(text)))
        except InvalidRequest:
            continue
    return tuple(sorted((r for r in ranges if r.q > 0), key=lambda r: -r.q))


def _range(media_type: MediaType) -> MediaRange:
    parameters = media_type.parameters
    multipart = media_type.name.startswith("multipart/")
    name = parameters.get("type", "*/*").lower() if multipart else media_type.name
    return MediaRange(
        _ALIASES.get(name, name),
        multipart=multipart,
        transfer_syntax=parameters.get("transfer-syntax") or None,
        q=quality(parameters.get("q", "1")),
    )


def canonical(name: str) -> str:
    """Name of the Standard, in lower case, for what clients write for a media type."""
    return _ALIASES.get(name, name).lower()


def quality(text: str) -> float:
    """Read a q-value (RFC 9110 §12.4.2); what can't be read is 1."""
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 1.0


def acceptable(
    header: str | None, parameter: str | None = None, *, strict: bool = False
) -> tuple[MediaRange, ...]:
    """Ranges of a request: the ``accept`` query parameter stands before the Accept header.

    Without both, everything is acceptable, or nothing if `strict` (PS3.18 §8.7.5 demands 406,
    but clients in use send none).
    """
    chosen = parameter or header
    if chosen:
        return parse_accept(chosen)
    return () if strict else _EVERYTHING


_EVERYTHING = (MediaRange("*/*", transfer_syntax=ANY),)


@lru_cache(maxsize=1024)
def select(ranges: tuple[MediaRange, ...], offers: tuple[Offer, ...]) -> Offer | None:
    """Choose the first offer that meets the best range; None if no range is met.

    A range that takes any transfer syntax, or any media type, gets what is stored, if it takes
    that. One that names no transfer syntax gets the first offer of its media type, so offers begin
    with the default (PS3.18 §8.7.3.4).
    """
    for wanted in ranges:
        met = [offer for offer in offers if _meets(offer, wanted)]
        if not met:
            continue
        takes_any = wanted.transfer_syntax == ANY or wanted.media_type == "*/*"
        stored = [offer for offer in met if offer.stored] if takes_any else met
        return (stored or met)[0]
    return None


def _meets(offer: Offer, wanted: MediaRange) -> bool:
    if wanted.media_type == "*/*":
        meets = offer.multipart or not wanted.multipart
    else:
        meets = offer.multipart == wanted.multipart and _same(offer.media_type, wanted.media_type)
    if not meets or offer.transfer_syntax is None:
        return meets
    return wanted.transfer_syntax in (None, ANY, offer.transfer_syntax)


def _same(given: str, wanted: str) -> bool:
    if wanted.endswith("/*"):
        return given.startswith(wanted[:-1])
    return given.lower() == wanted.lower()


@lru_cache(maxsize=256)
def both_ways(offers: tuple[Offer, ...], *, multipart_first: bool = True) -> tuple[Offer, ...]:
    """Each offer as multipart and as single part, the preferred form of all before the other."""
    first = [replace(offer, multipart=multipart_first) for offer in offers]
    return (*first, *(replace(offer, multipart=not multipart_first) for offer in first))
