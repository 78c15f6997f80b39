"""From the DICOM JSON Model (PS3.18 Annex F) to a data set in Explicit VR Little Endian.

Values that lie elsewhere (bulk data) are never read here: the result is a list of pieces, some of
them places in another file, whose lengths are known.
"""

import binascii
import re
import struct
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from struct import Struct
from typing import Any

from wado.dicom.dictionary import public_vr
from wado.dicom.elements import MAX_DEPTH, UNDEFINED_LENGTH, VALUE_OFFSET, tag_text
from wado.dicom.uids import validate_uid
from wado.errors import CannotUnderstand, InvalidUID

JsonElement = Mapping[str, Any]

SPECIFIC_CHARACTER_SET = 0x00080005
UTF_8 = "ISO_IR 192"
MAX_VALUE_BYTES = UNDEFINED_LENGTH - 1
"""Longest value of an explicit length (PS3.5 §7.1.1)."""

_MAX_SHORT = 0xFFFE
_MAX_DS = 16
_KEY = re.compile(r"[0-9A-Fa-f]{8}\Z")
_TAG = Struct("<HH")
_SHORT = Struct("<HH2sH")
_LONG = Struct("<HH2sHI")
_ITEM = Struct("<HHI")
_TEXT = frozenset({"LO", "SH", "UC"})
_LONG_TEXT = frozenset({"LT", "ST", "UT", "UR"})
_ASCII = frozenset({"AE", "AS", "CS", "DA", "DT", "TM"})
_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_INTEGERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q"}
_FLOATS = {"FL": "f", "FD": "d"}
_AMBIGUOUS = {"US or SS": "US", "OB or OW": "OW", "US or OW": "OW", "US or SS or OW": "OW"}


@dataclass(frozen=True, slots=True)
class Place:
    """A value, or a fragment of one, that lies elsewhere.

    `read` gives its bytes in pieces, `length` of them in all; `slice` a part of it, from one offset
    to another.
    """

    length: int
    read: Callable[[], Iterable[bytes]]
    slice: Callable[[int, int], "Place"] | None = None


Piece = bytes | Place


def length_of(pieces: Iterable[Piece]) -> int:
    """Length of pieces in bytes."""
    return sum(len(p) if isinstance(p, bytes) else p.length for p in pieces)


def encode(
    metadata: Mapping[str, Any],
    bulk: Callable[[str], Place],
    ready: Mapping[str, Sequence[Piece]],
) -> list[Piece]:
    """Encode a data set.

    Group 2 and group lengths are left out. Text becomes UTF-8; whether Specific Character Set says
    so is the caller's business (`is_ascii`).

    Parameters
    ----------
    metadata
        The data set, keys in upper case.
    bulk
        Finds the value of a BulkDataURI.
    ready
        Elements of the top level that are encoded already, by key.

    Raises
    ------
    CannotUnderstand
        An element is not one of the DICOM JSON Model, or its value not one of its VR.
    """
    return _Encoder(bulk).elements({**metadata, **dict.fromkeys(ready)}, ready)


def element_head(tag: int, vr: str, length: int) -> bytes:
    """Make the header of an element; `length` may be `UNDEFINED_LENGTH`.

    A value too long for the length field of its VR becomes UN (PS3.5 §6.2.2).
    """
    group, number = tag >> 16, tag & 0xFFFF
    if VALUE_OFFSET[vr.encode()] == 12:
        return _LONG.pack(group, number, vr.encode(), 0, length)
    if length > _MAX_SHORT:
        return _LONG.pack(group, number, b"UN", 0, length)
    return _SHORT.pack(group, number, vr.encode(), length)


def item_head(length: int) -> bytes:
    """Make the header of an item of a sequence or of a fragment."""
    return _ITEM.pack(0xFFFE, 0xE000, length)


def keys_of(metadata: Any) -> dict[str, Any]:
    """Take the elements of a data set, by key in upper case, once their form is checked.

    Raises
    ------
    CannotUnderstand
        Not an object of elements by tag, or an element is none.
    """
    if not isinstance(metadata, Mapping):
        raise CannotUnderstand("an instance of the metadata is not an object of elements by tag")
    for key, element in metadata.items():
        if not _KEY.match(key):
            raise CannotUnderstand(f"{key[:40]!r} is not a tag of 8 hexadecimal digits")
        if not isinstance(element, Mapping):
            raise CannotUnderstand(f"{tag_text(int(key, 16))} of the metadata is not an object")
        if not isinstance(element.get("Value", []), list | None):
            raise CannotUnderstand(f"the Value of {tag_text(int(key, 16))} is not an array")
    return {key.upper(): element for key, element in metadata.items()}


class _Encoder:
    def __init__(self, bulk: Callable[[str], Place]) -> None:
        self._bulk = bulk
        self._depth = 0

    def elements(
        self, metadata: Mapping[str, Any], ready: Mapping[str, Sequence[Piece]]
    ) -> list[Piece]:
        pieces: list[Piece] = []
        for key in sorted(metadata):
            tag = int(key, 16)
            if key in ready:
                pieces += ready[key]
            elif _is_kept(tag, self._depth):
                pieces += self._element(tag, metadata[key])
        return pieces

    def _element(self, tag: int, element: JsonElement) -> Iterator[Piece]:
        vr = vr_of(tag, element)
        if vr == "SQ":
            pieces = self._items(tag, element.get("Value"))
        else:
            pieces = [self._value(tag, vr, element)]
        length = length_of(pieces)
        if length > MAX_VALUE_BYTES:
            raise CannotUnderstand(f"{tag_text(tag)} is longer than {MAX_VALUE_BYTES} bytes")
        yield element_head(tag, vr, length + (length & 1))
        yield from pieces
        if length & 1:
            yield b"\0" if vr in _BINARY or vr == "UI" else b" "

    def _items(self, tag: int, items: Any) -> list[Piece]:
        if self._depth >= MAX_DEPTH:
            raise CannotUnderstand(f"sequences are nested deeper than {MAX_DEPTH} levels")
        self._depth += 1
        pieces: list[Piece] = []
        for item in items or ():
            inner = self.elements(keys_of({} if item is None else item), {})
            pieces.append(item_head(length_of(inner)))
            pieces += inner
            if length_of(inner) > MAX_VALUE_BYTES:
                raise CannotUnderstand(f"an item of {tag_text(tag)} is too long")
        self._depth -= 1
        return pieces

    def _value(self, tag: int, vr: str, element: JsonElement) -> Piece:
        if "BulkDataURI" in element:
            return self._bulk(str(element["BulkDataURI"]))
        if "InlineBinary" in element:
            return inline_binary(tag, vr, element["InlineBinary"])
        values = element.get("Value")
        if not values:
            return b""
        try:
            return _encoded(vr, values)
        except (ValueError, TypeError, struct.error, OverflowError) as e:
            raise CannotUnderstand(f"{tag_text(tag)} has no value of VR {vr}: {e}") from e


def _is_kept(tag: int, depth: int) -> bool:
    """Pass over what no data set holds; refuse what none may (PS3.5 §7.1, §7.8)."""
    group = tag >> 16
    if group == 2 or not tag & 0xFFFF or tag == 0xFFFCFFFC:
        return False
    if group < 8 or group in (0xFFFE, 0xFFFF):
        raise CannotUnderstand(f"{tag_text(tag)} can't stand in a data set")
    # What is written is in one character set; that of the top level holds in items.
    return not (depth and tag == SPECIFIC_CHARACTER_SET)


def vr_of(tag: int, element: JsonElement) -> str:
    """VR of an element; by the data dictionary if it names none.

    Raises
    ------
    CannotUnderstand
        There is no such VR.
    """
    vr = element.get("vr")
    if vr is None:
        vr = public_vr(tag)
        return _AMBIGUOUS.get(vr, vr)
    if not isinstance(vr, str) or vr.encode() not in VALUE_OFFSET:
        raise CannotUnderstand(f"{tag_text(tag)} has {str(vr)[:20]!r} for a VR")
    return vr


def inline_binary(tag: int, vr: str, text: Any) -> bytes:
    """Decode InlineBinary (PS3.18 §F.2.7).

    Raises
    ------
    CannotUnderstand
        Not base64, or not of a binary VR.
    """
    if vr not in _BINARY:
        raise CannotUnderstand(f"{tag_text(tag)} of VR {vr} can't be InlineBinary")
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as e:
        raise CannotUnderstand(f"the InlineBinary of {tag_text(tag)} is not base64") from e


# ------------------------------------------------------------------ values


def _encoded(vr: str, values: list[Any]) -> bytes:
    if vr in _INTEGERS:
        return Struct(f"<{len(values)}{_INTEGERS[vr]}").pack(*map(_integer, values))
    if vr in _FLOATS:
        return Struct(f"<{len(values)}{_FLOATS[vr]}").pack(*map(_float, values))
    if vr in _BINARY:
        raise ValueError("it must be an InlineBinary or a BulkDataURI")
    if vr == "AT":
        return b"".join(map(_attribute_tag, values))
    if vr in _LONG_TEXT:
        if len(values) > 1:
            raise ValueError("there are several")
        return _string(values[0]).encode()
    return "\\".join(map(_TEXTS[vr], values)).encode()


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"{value!r:.40} is not an integer")
    return int(value)


def _float(value: Any) -> float:
    # Not a number has no form in JSON: null stands for it (PS3.18 §F.2.5).
    if isinstance(value, bool) or not isinstance(value, int | float | str | None):
        raise TypeError(f"{value!r:.40} is not a number")
    return nan if value is None else float(value)


def _attribute_tag(value: Any) -> bytes:
    if not isinstance(value, str) or not _KEY.match(value):
        raise ValueError(f"{value!r:.40} is not a tag")
    return _TAG.pack(int(value[:4], 16), int(value[4:], 16))


def _string(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not text")
    return value


def _text(value: Any) -> str:
    text = _string(value)
    if "\\" in text:
        raise ValueError("a backslash separates values and can't stand in one")
    return text


def _ascii(value: Any) -> str:
    text = _text(value)
    if not text.isascii():
        raise ValueError(f"{text!r:.40} is not ASCII")
    return text


def _uid(value: Any) -> str:
    try:
        return validate_uid(text) if (text := _ascii(value)) else ""
    except InvalidUID as e:
        raise ValueError(str(e)) from e


def _decimal_string(value: Any) -> str:
    """DS: at most 16 characters (PS3.5 Table 6.2-1); a longer number is rounded to fit."""
    if value is None or isinstance(value, str):
        return _checked_number(_ascii(value))
    number = _float(value)
    if not isfinite(number):
        raise ValueError("it is not finite")
    text = repr(value)
    digits = _MAX_DS
    while len(text) > _MAX_DS:
        digits -= 1
        text = f"{number:.{digits}g}"
    return text


def _checked_number(text: str) -> str:
    if text.strip():
        float(text)
    return text


def _integer_string(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str):
        return _checked_number(_ascii(value))
    return str(_integer(value))


_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


def _person_name(value: Any) -> str:
    if not isinstance(value, Mapping):
        return _text(value)
    if unknown := set(value) - set(_GROUPS):
        raise ValueError(f"a name has no group {min(unknown)[:40]!r}")
    return "=".join(_text(value.get(group)) for group in _GROUPS).rstrip("=")


_TEXTS: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys(_TEXT, _text),
    **dict.fromkeys(_ASCII, _ascii),
    "UI": _uid,
    "DS": _decimal_string,
    "IS": _integer_string,
    "PN": _person_name,
}
