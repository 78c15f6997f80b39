"""Values of data elements as the DICOM JSON Model has them (PS3.18 Annex F)."""

import warnings
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from math import isfinite
from struct import Struct
from typing import Any

from wado.dicom.elements import VALUE_OFFSET

JsonElement = dict[str, Any]
Convert = Callable[[bytes], JsonElement]

MAX_INLINE_BINARY = 1024
"""Longest binary value given in the metadata itself, in bytes."""
MAX_INLINE_TEXT = 65536
"""Longest value of any other VR given in the metadata itself, in bytes."""

_PADDING = "\0 "
_MAX_JSON_INTEGER = 1 << 53
_NUMBERS = {
    "US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d",
}  # fmt: skip
_WORD = {"OB": 1, "UN": 1, "OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8}
_CHARSET_VRS = ("LO", "SH", "UC")
_TEXT_VRS = ("LT", "ST", "UT")
_CODECS = {
    "": "latin-1",
    "ISO_IR 6": "latin-1",
    "ISO 2022 IR 6": "latin-1",
    "ISO_IR 100": "latin-1",
    "ISO 2022 IR 100": "latin-1",
    "ISO_IR 192": "utf-8",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """How values of a VR are given: inline through `convert` up to `limit` bytes."""

    vr: str
    offset: int
    limit: int
    convert: Convert


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules for one byte order and one Specific Character Set.

    `by_vr` is for the quick way: VRs that need a closer look have a negative limit there.
    `by_tag` is filled as tags of Implicit VR are met, by raw tag.
    """

    by_name: dict[str, Rule]
    by_vr: dict[bytes, tuple[int, int, Convert]]
    by_tag: dict[int, tuple[int, Convert]] = field(default_factory=dict)


def _strings(vr: str, *, both_sides: bool = False) -> Convert:
    cut = str.strip if both_sides else str.rstrip

    def convert(raw: bytes) -> JsonElement:
        text = cut(raw.decode("latin-1"), _PADDING)
        if "\\" in text:
            return {"vr": vr, "Value": [cut(v, _PADDING) or None for v in text.split("\\")]}
        return {"vr": vr, "Value": [text]} if text else {"vr": vr}

    return convert


def _texts(vr: str, decode: Callable[[bytes], str]) -> Convert:
    def convert(raw: bytes) -> JsonElement:
        text = decode(raw).rstrip(_PADDING)
        if "\\" in text:
            return {"vr": vr, "Value": [v.rstrip(_PADDING) or None for v in text.split("\\")]}
        return {"vr": vr, "Value": [text]} if text else {"vr": vr}

    return convert


def _single_text(vr: str, decode: Callable[[bytes], str]) -> Convert:
    def convert(raw: bytes) -> JsonElement:
        text = decode(raw).rstrip(_PADDING)
        return {"vr": vr, "Value": [text]} if text else {"vr": vr}

    return convert


def _person_names(decode: Callable[[bytes], str]) -> Convert:
    groups = ("Alphabetic", "Ideographic", "Phonetic")

    def name(text: str) -> dict[str, str] | None:
        parts = zip(groups, text.split("="), strict=False)
        return {group: cut for group, part in parts if (cut := part.rstrip(_PADDING))} or None

    def convert(raw: bytes) -> JsonElement:
        text = decode(raw).rstrip(_PADDING)
        if "=" not in text and "\\" not in text:
            return {"vr": "PN", "Value": [{"Alphabetic": text}]} if text else {"vr": "PN"}
        names = [name(part) for part in text.split("\\")]
        return {"vr": "PN", "Value": names} if any(names) else {"vr": "PN"}

    return convert


def _numeric_strings(vr: str, number: Callable[[str], Any]) -> Convert:
    def convert(raw: bytes) -> JsonElement:
        text = raw.decode("latin-1").strip(_PADDING)
        if "\\" in text:
            return {"vr": vr, "Value": [number(v.strip(_PADDING)) for v in text.split("\\")]}
        return {"vr": vr, "Value": [number(text)]} if text else {"vr": vr}

    return convert


def decimal_string(text: str) -> float | str | None:
    """DS as a number; as text if it isn't one (PS3.18 Table F.2.3-1 allows both)."""
    try:
        value = float(text)
    except ValueError:
        return text or None
    return value if isfinite(value) and "_" not in text else text


def integer_string(text: str) -> int | str | None:
    """IS as a number; as text if it isn't one, or one that JSON readers would round."""
    try:
        value = int(text)
    except ValueError:
        return _integer_of_decimal(text) if text else None
    return value if -_MAX_JSON_INTEGER <= value <= _MAX_JSON_INTEGER and "_" not in text else text


def _integer_of_decimal(text: str) -> int | str:
    """IS written as ``1.0``, which some devices do."""
    try:
        value = Decimal(text)
        whole = abs(value) <= _MAX_JSON_INTEGER and value == value.to_integral_value()
    except ArithmeticError:
        return text
    return int(value) if whole and "_" not in text else text


def _numbers(vr: str, order: str) -> Convert:
    code = _NUMBERS[vr]
    one = Struct(order + code)
    size, unpack_one, floating = one.size, one.unpack, code in "fd"

    def convert(raw: bytes) -> JsonElement:
        if len(raw) == size:
            values = unpack_one(raw)
        else:
            count = len(raw) // size
            values = Struct(f"{order}{count}{code}").unpack_from(raw)
        if floating and values:  # JSON has no NaN and no infinity
            return {"vr": vr, "Value": [v if isfinite(v) else None for v in values]}
        return {"vr": vr, "Value": list(values)} if values else {"vr": vr}

    return convert


def _attribute_tags(order: str) -> Convert:
    def convert(raw: bytes) -> JsonElement:
        halves = Struct(f"{order}{len(raw) // 4 * 2}H").unpack_from(raw)
        tags = [f"{g:04X}{e:04X}" for g, e in zip(halves[::2], halves[1::2], strict=True)]
        return {"vr": "AT", "Value": tags} if tags else {"vr": "AT"}

    return convert


def _binary(vr: str, order: str) -> Convert:
    size = _WORD[vr]

    def convert(raw: bytes) -> JsonElement:
        if size > 1 and order == ">":
            # InlineBinary is little endian whatever the stored syntax is (PS3.18 §F.2.7).
            words = [raw[i : i + size][::-1] for i in range(0, len(raw), size)]
            raw = b"".join(words)
        return {"vr": vr, "InlineBinary": b64encode(raw).decode("ascii")} if raw else {"vr": vr}

    return convert


def _decoder(terms: tuple[str, ...]) -> Callable[[bytes], str]:
    codec = _CODECS.get(terms[0]) if len(terms) == 1 else None
    if codec is not None:
        return lambda raw: raw.decode(codec, "replace")
    # Code extensions and rarer repertoires are left to pydicom; it is slow to import.
    from pydicom.charset import (  # noqa: PLC0415
        convert_encodings,
        decode_bytes,
        python_encoding,
    )
    from pydicom.valuerep import TEXT_VR_DELIMS  # noqa: PLC0415

    known = set(python_encoding.values())
    try:
        with warnings.catch_warnings(action="ignore"):
            encodings = convert_encodings(list(terms))
    except ValueError:
        encodings = ["latin-1"]
    # Any name of a Python codec would do for pydicom; ours must be those of the Standard.
    encodings = [e if e in known else "latin-1" for e in encodings]

    def decode(raw: bytes) -> str:
        if b"\x1b" not in raw:
            return raw.decode(encodings[0], "replace")
        with warnings.catch_warnings(action="ignore"):
            return decode_bytes(raw, encodings, TEXT_VR_DELIMS)

    return decode


def _converters(order: str, decode: Callable[[bytes], str]) -> dict[str, Convert]:
    return {
        **{vr: _strings(vr) for vr in ("AS", "DA", "DT", "TM", "UI")},
        **{vr: _strings(vr, both_sides=True) for vr in ("AE", "CS")},
        "UR": _single_text("UR", lambda raw: raw.decode("latin-1")),
        **{vr: _texts(vr, decode) for vr in _CHARSET_VRS},
        **{vr: _single_text(vr, decode) for vr in _TEXT_VRS},
        "PN": _person_names(decode),
        "DS": _numeric_strings("DS", decimal_string),
        "IS": _numeric_strings("IS", integer_string),
        "AT": _attribute_tags(order),
        **{vr: _numbers(vr, order) for vr in _NUMBERS},
        **{vr: _binary(vr, order) for vr in _WORD},
    }


@lru_cache(maxsize=64)
def rules_for(terms: tuple[str, ...], *, big_endian: bool) -> Rules:
    """Rules for the terms of Specific Character Set (0008,0005) and a byte order."""
    converters = _converters(">" if big_endian else "<", _decoder(terms))
    by_name = {}
    for vr, convert in converters.items():
        limit = MAX_INLINE_BINARY if vr in _WORD or vr in _NUMBERS else MAX_INLINE_TEXT
        by_name[vr] = Rule(vr, VALUE_OFFSET[vr.encode()], limit, convert)
    by_vr = {vr.encode(): (r.offset, r.limit, r.convert) for vr, r in by_name.items()}
    for slow in (b"UN", b"SQ"):
        by_vr[slow] = (12, -1, converters["UN"])
    return Rules(by_name, by_vr)
