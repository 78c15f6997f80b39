"""From the bytes of a data set straight to the DICOM JSON Model (PS3.18 Annex F).

Nothing is decoded into objects on the way: each element becomes the dict that is written as JSON.
"""

from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from wado.dicom.dictionary import private_vr, public_vr
from wado.dicom.elements import (
    BIG_ENDIAN,
    ITEM,
    ITEM_DELIMITATION,
    LITTLE_ENDIAN,
    MAX_DEPTH,
    PIXEL_DATA,
    SEQUENCE_DELIMITATION,
    UNDEFINED_LENGTH,
    Layout,
    Mode,
    first_mode,
    read_header,
    tag_text,
)
from wado.dicom.frames import scan_fragments
from wado.dicom.values import Convert, JsonElement, rules_for
from wado.dicom.window import Window
from wado.errors import CannotUnderstand

_SPECIFIC_CHARACTER_SET = 0x00080005
_PIXEL_REPRESENTATION = 0x00280103
_TRAILING_PADDING = 0xFFFCFFFC
PIXELS = frozenset({PIXEL_DATA, 0x7FE00008, 0x7FE00009})
_SPECIAL = PIXELS | {
    ITEM,
    ITEM_DELIMITATION,
    SEQUENCE_DELIMITATION,
    _SPECIFIC_CHARACTER_SET,
    _PIXEL_REPRESENTATION,
    _TRAILING_PADDING,
}
_LUT_DESCRIPTOR, _LUT_DATA = "00283002", 0x00283006
_MAX_KEYS: Final = 1 << 16
_MAX_ELEMENTS: Final = 2_000_000
"""Elements and items of a data set: as objects each takes 300 bytes, though it may be empty."""


class Irregular(Exception):
    """The data set breaks a rule in a way that a more patient reader may be able to follow."""


def in_order(elements: dict[str, Any]) -> dict[str, Any]:
    """Elements by ascending tag, as the JSON Model demands (PS3.18 §F.2.2), whatever the file."""
    keys = list(elements)
    ordered = sorted(keys)
    return elements if keys == ordered else {key: elements[key] for key in ordered}


class _Keys(dict[int, str]):
    """Raw tag to the 8 hex digits of the JSON Model; empty for group lengths, which are dropped."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self._layout = layout

    def __missing__(self, raw: int) -> str:
        tag = self._layout.tag(raw)
        key = f"{tag:08X}" if tag & 0xFFFF else ""
        if len(self) < _MAX_KEYS:
            self[raw] = key
        return key


_KEYS = {False: _Keys(LITTLE_ENDIAN), True: _Keys(BIG_ENDIAN)}
_SPECIAL_RAW = {
    False: frozenset(LITTLE_ENDIAN.tag(tag) for tag in _SPECIAL),
    True: _SPECIAL,
}


@dataclass(frozen=True, slots=True)
class FoundPixels:
    """Pixel Data as it was met: `items` is None for native, else as `scan_fragments` gives them."""

    tag: str
    offset: int
    length: int
    items: list[int] | None


@dataclass(slots=True)
class Found:
    """What a data set holds.

    Attributes
    ----------
    metadata
        DICOM JSON Model of the top level.
    bulk
        Tag path to offset and length of each value that isn't given inline.
    bulk_elements
        The JSON elements of these values, which lack their BulkDataURI, with their tag paths.
    pixels
        Pixel Data of the top level.
    """

    metadata: dict[str, Any] = field(default_factory=dict)
    bulk: dict[str, tuple[int, int]] = field(default_factory=dict)
    bulk_elements: list[tuple[JsonElement, str]] = field(default_factory=list)
    pixels: FoundPixels | None = None

    def add_bulk(self, vr: str, offset: int, length: int, path: str) -> JsonElement:
        """Note a value that stays in the file; gives its element, to be completed later."""
        element: JsonElement = {"vr": vr}
        self.bulk[path] = (offset, length)
        self.bulk_elements.append((element, path))
        return element


class Walk:
    """One pass over a data set.

    Parameters
    ----------
    window
        The file, or the inflated data set.
    big_endian
        Byte order.
    pixel_representation
        Pixel Representation (0028,0103) to assume until it is met.

    Attributes
    ----------
    found
        What was met.
    guessed
        A value depended on Pixel Representation before it was met.
    """

    def __init__(self, window: Window, *, big_endian: bool, pixel_representation: int = 0) -> None:
        self.found = Found()
        self.guessed = False
        self.pixel_representation: int = pixel_representation
        self._pixel_representation_met = False
        self._window = window
        self._big_endian = big_endian
        self._layout = BIG_ENDIAN if big_endian else LITTLE_ENDIAN
        self._keys = _KEYS[big_endian]
        self._special = _SPECIAL_RAW[big_endian]
        self._rules = rules_for(("",), big_endian=big_endian)
        self._depth = 0
        self._count = 0

    def data_set(self, position: int, declared: Mode) -> Found:
        """Walk the top level, from `position` to the end of the file.

        Raises
        ------
        CannotUnderstand
            The data set ends early.
        Irregular
            It breaks a rule of PS3.5 §7.
        """
        if self._window.size - position < 8:
            raise CannotUnderstand("there is no data set after the File Meta Information")
        head = self._window.bytes_at(position, 8)
        mode = first_mode(head, 0, declared)
        self.found.metadata, _ = self._elements(position, self._window.size, mode, "")
        return self.found

    def _elements(
        self, position: int, end: int, mode: Mode, path: str
    ) -> tuple[dict[str, Any], int]:
        """Walk elements up to `end` or an item delimiter; gives them and the position after."""
        out: dict[str, Any] = {}
        run = self._run_implicit if mode is Mode.IMPLICIT else self._run_explicit
        while position < end:
            position = run(out, position, end)
            self._check_count(len(out))
            if position < end:
                position = self._element(out, position, end, mode, path)
                if position < 0:  # an item delimiter stood before this position
                    position = ~position
                    break
        out.pop("", None)
        self._count += len(out) + 1
        self._check_count()
        return in_order(out), position

    def _check_count(self, more: int = 0) -> None:
        if self._count + more > _MAX_ELEMENTS:
            raise CannotUnderstand(f"there are over {_MAX_ELEMENTS} elements and items")

    def _run_explicit(self, out: dict[str, Any], position: int, end: int) -> int:
        """Walk elements that nothing is special about, as long as the window holds them."""
        window = self._window
        data, base = window.data, window.base
        last = min(window.filled, end - base)
        i = position - base
        if i < 0:
            return position
        header, long = self._layout.explicit.unpack_from, self._layout.long.unpack_from
        rule_of, special, keys = self._rules.by_vr.get, self._special, self._keys
        while i < last:
            raw, vr, length = header(data, i)
            rule = rule_of(vr)
            if rule is None or raw in special:
                break
            offset, limit, convert = rule
            if offset == 12:
                length = long(data, i + 8)[0]
            start = i + offset
            stop = start + length
            if stop > last or length > limit:
                break
            out[keys[raw]] = convert(data[start:stop])
            i = stop
        return i + base

    def _run_implicit(self, out: dict[str, Any], position: int, end: int) -> int:
        window = self._window
        data, base = window.data, window.base
        last = min(window.filled, end - base)
        i = position - base
        if i < 0:
            return position
        header, rule_of, keys = (
            self._layout.implicit.unpack_from,
            self._rules.by_tag.get,
            self._keys,
        )
        while i < last:
            raw, length = header(data, i)
            rule = rule_of(raw) or self._private_rule(raw, out)
            if rule is None:
                break
            limit, convert = rule
            stop = i + 8 + length
            if stop > last or length > limit:
                break
            out[keys[raw]] = convert(data[i + 8 : stop])
            i = stop
        return i + base

    def _private_rule(self, raw: int, out: dict[str, Any]) -> tuple[int, Convert] | None:
        tag = self._layout.tag(raw)
        if not tag >> 16 & 1 or tag == _TRAILING_PADDING or not tag & 0xFFFF:
            return None
        rule = self._rules.by_name.get(self._dictionary_vr(tag, out))
        return (rule.limit, rule.convert) if rule else None

    def _element(self, out: dict[str, Any], position: int, end: int, mode: Mode, path: str) -> int:
        """Take one element of any kind; gives the position after it.

        After an item delimiter, gives the complement of the position.
        """
        tag, vr, length, start = self._header(position, end, mode)
        if tag >> 16 == 0xFFFE:
            return self._delimiter(tag, start)
        key = f"{tag:08X}"
        name = self._vr_name(tag, vr, length, out)
        if length != UNDEFINED_LENGTH and length > end - start:
            self._too_long(tag, length, start, end)
        if name == "SQ" and tag not in PIXELS:
            nested = Mode.EITHER if vr == b"UN" else mode
            out[key], after = self._sequence(start, length, end, nested, f"{path}{key}/")
            return after
        if length == UNDEFINED_LENGTH:
            return self._fragments(out, tag, start, end, path)
        if tag != _TRAILING_PADDING and tag & 0xFFFF:
            out[key] = self._value(tag, name, start, length, path)
        if not vr and tag not in _SPECIAL:
            self._learn(tag, name)
        return start + length

    def _header(self, position: int, end: int, mode: Mode) -> tuple[int, bytes, int, int]:
        window = self._window
        i = position - window.base
        if i >= 0 and i + 12 <= window.filled and position + 12 <= end:
            header = read_header(self._layout, mode, window.data, i)
            assert header is not None
            tag, vr, length, start = header
            return tag, vr, length, window.base + start
        return self._header_at_edge(position, end, mode)

    def _header_at_edge(self, position: int, end: int, mode: Mode) -> tuple[int, bytes, int, int]:
        """Read a header that the window may cut, or the end of what is being walked."""
        data = self._window.bytes_at(position, min(12, end - position))
        header = read_header(self._layout, mode, data, 0)
        if header is None:
            # Less than a header: NULs are padding of writers that round up the size of the file.
            if self._depth == 0 and not data.strip(b"\0"):
                return _TRAILING_PADDING, b"OB", 0, end
            raise CannotUnderstand("the data set ends early: within the header of an element")
        tag, vr, length, start = header
        return tag, vr, length, position + start

    def _delimiter(self, tag: int, start: int) -> int:
        if tag == ITEM_DELIMITATION and self._depth:
            return ~start
        raise Irregular(f"{tag_text(tag)} where it can't stand")

    def _too_long(self, tag: int, length: int, start: int, end: int) -> NoReturn:
        text = f"{tag_text(tag)} claims {length} bytes, {end - start} are there"
        if end < self._window.size or self._depth:
            raise Irregular(text)
        raise CannotUnderstand(f"the data set ends early: {text}")

    def _vr_name(self, tag: int, vr: bytes, length: int, out: dict[str, Any]) -> str:
        """VR of an element; that of the dictionaries if it isn't written or UN."""
        name = vr.decode("ascii") if vr else self._dictionary_vr(tag, out)
        if vr == b"UN":
            known = self._dictionary_vr(tag, out)
            # Long values of public elements stay UN: they are UN because a VR of 16 bits length
            # can't hold them (PS3.5 §6.2.2).
            name = known if length < 0xFFFF or tag >> 16 & 1 else name
            if length == UNDEFINED_LENGTH:
                name = "SQ"
        if not vr and length == UNDEFINED_LENGTH:
            name = "SQ"
        return self._unambiguous(tag, name, out) if len(name) > 2 else name

    def _dictionary_vr(self, tag: int, out: dict[str, Any]) -> str:
        group, element = tag >> 16, tag & 0xFFFF
        if not group & 1:
            return public_vr(tag)
        if 0x10 <= element <= 0xFF:
            return "LO"
        creator = out.get(f"{group:04X}{element >> 8:04X}", {}).get("Value")
        return private_vr(str(creator[0]), tag) if creator else "UN"

    def _unambiguous(self, tag: int, name: str, out: dict[str, Any]) -> str:
        """Choose one of the VRs that the dictionary allows (PS3.5 §A.1, PS3.3 §C.7.6.3.1)."""
        if name == "US or SS":
            self.guessed |= not self._pixel_representation_met
            return "SS" if self.pixel_representation == 1 else "US"
        if tag == _LUT_DATA:
            descriptor = out.get(_LUT_DESCRIPTOR, {}).get("Value") or [0]
            return "US" if descriptor[0] == 1 else "OW"
        return "OW"

    def _learn(self, tag: int, name: str) -> None:
        """Let the quick way take this tag of Implicit VR from now on."""
        rule = self._rules.by_name.get(name)
        if rule is not None and not tag >> 16 & 1 and len(public_vr(tag)) == 2:
            self._rules.by_tag[self._layout.tag(tag)] = (rule.limit, rule.convert)

    def _value(self, tag: int, name: str, start: int, length: int, path: str) -> JsonElement:
        key = f"{tag:08X}"
        rule = self._rules.by_name.get(name) or self._rules.by_name["UN"]
        if tag in PIXELS and length:
            if not path:
                self.found.pixels = FoundPixels(key, start, length, None)
            return self.found.add_bulk(rule.vr, start, length, path + key)
        if length > rule.limit:
            return self.found.add_bulk(rule.vr, start, length, path + key)
        raw = self._window.bytes_at(start, length)
        if tag == _SPECIFIC_CHARACTER_SET:
            return self._character_set(raw)
        element = rule.convert(raw)
        if tag == _PIXEL_REPRESENTATION:
            self._pixel_representation_met = True
            self.pixel_representation = (element.get("Value") or [0])[0]
        return element

    def _character_set(self, raw: bytes) -> JsonElement:
        """Switch the decoder; what is written is UTF-8 whatever was read."""
        text = raw.decode("latin-1").strip("\0 ")
        terms = tuple(term.strip("\0 ") for term in text.split("\\"))
        self._rules = rules_for(terms, big_endian=self._big_endian)
        return {"vr": "CS", "Value": ["ISO_IR 192"]} if text else {"vr": "CS"}

    def _fragments(self, out: dict[str, Any], tag: int, start: int, end: int, path: str) -> int:
        items, after = scan_fragments(self._window, start, end)
        key = f"{tag:08X}"
        out[key] = self.found.add_bulk("OB", start, after - 8 - start, path + key)
        if tag in PIXELS and not path:
            self.found.pixels = FoundPixels(key, start, after - 8 - start, items)
        return after

    def _sequence(
        self, start: int, length: int, end: int, mode: Mode, path: str
    ) -> tuple[JsonElement, int]:
        if self._depth >= MAX_DEPTH:
            raise CannotUnderstand(f"sequences are nested deeper than {MAX_DEPTH} levels")
        undefined = length == UNDEFINED_LENGTH
        stop = end if undefined else start + length
        items: list[dict[str, Any]] = []
        position = start
        while position < stop:
            tag, item_length, position = self._item_header(position, stop)
            if tag == SEQUENCE_DELIMITATION and undefined:
                break
            if tag != ITEM:
                raise Irregular(f"{tag_text(tag)} stands where an item of a sequence must")
            if item_length == UNDEFINED_LENGTH:
                item, position = self._item(position, stop, mode, f"{path}{len(items)}/")
            else:
                if item_length > stop - position:
                    self._too_long(tag, item_length, position, stop)
                item, position = self._item(
                    position, position + item_length, mode, f"{path}{len(items)}/"
                )
            items.append(item)
        else:
            if undefined:
                raise CannotUnderstand("the data set ends early: within a sequence")
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}, position

    def _item_header(self, position: int, stop: int) -> tuple[int, int, int]:
        """Tag and length of an item or delimiter, and the position after its header."""
        window = self._window
        i = position - window.base
        if i < 0 or i + 8 > window.filled or position + 8 > stop:
            tag, _, length, start = self._header(position, stop, Mode.IMPLICIT)
            return tag, length, start
        raw, length = self._layout.implicit.unpack_from(window.data, i)
        return self._layout.tag(raw), length, position + 8

    def _item(self, start: int, end: int, mode: Mode, path: str) -> tuple[dict[str, Any], int]:
        """Walk an item; its character set and Pixel Representation end with it."""
        saved = self._rules, self.pixel_representation, self._pixel_representation_met
        self._depth += 1
        try:
            return self._elements(start, end, mode, path)
        finally:
            self._depth -= 1
            self._rules, self.pixel_representation, self._pixel_representation_met = saved
