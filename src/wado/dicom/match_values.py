"""Values of matching keys (PS3.4 §C.2.2.2): a text from a query string read into a `Match`.

A wrong value is refused. Leading and trailing spaces never count.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from wado.dicom.dictionary import has_many_values, public_keyword, public_tag, public_vr
from wado.dicom.matching import (
    KEY_OF_KEYWORD,
    KEY_OF_TAG,
    REQUEST_ATTRIBUTES,
    REQUEST_KEYS,
    Key,
    Match,
    MatchKind,
    snake,
)
from wado.dicom.uids import validate_uid
from wado.errors import InvalidRequest, InvalidUID

_TAG = re.compile(r"[0-9A-Fa-f]{8}\Z")
_KEYWORD = re.compile(r"[A-Z][A-Za-z0-9]+\Z")
_DATE = re.compile(
    r"\d{4}(?P<separator>[-.]?)(?:0[1-9]|1[0-2])(?P=separator)(?:0[1-9]|[12]\d|3[01])\Z"
)
_HOUR, _SIXTY = r"(?:[01]\d|2[0-3])", r"[0-5]\d"
_SECOND = r"(?:[0-5]\d|60)(?:\.\d{1,6})?"
_TIME = re.compile(rf"{_HOUR}(?:{_SIXTY}(?:{_SECOND})?)?\Z|{_HOUR}:{_SIXTY}(?::{_SECOND})?\Z")
_DATE_TIME = re.compile(
    r"\d{4}(?:(?:0[1-9]|1[0-2])(?:(?:0[1-9]|[12]\d|3[01])"
    rf"(?:{_HOUR}(?:{_SIXTY}(?:{_SECOND})?)?)?)?)?(?:[+-](?:0\d|1[0-4]){_SIXTY})?\Z"
)
_INTEGER = re.compile(r"[+-]?\d{1,18}\Z")
_DECIMAL = re.compile(r"[+-]?(?:\d{1,32}\.?\d{0,32}|\.\d{1,32})(?:[Ee][+-]?\d{1,3})?\Z")
_WILDCARDS = frozenset("*?")
_EITHER_SEPARATOR, _BACKSLASH = re.compile(r"[,\\]"), re.compile(r"\\")
_MAX_LIST = 4096

EMPTY = '""'
"""What a key matches empty values with (PS3.4 §C.2.2.2.7)."""
TEXT = frozenset({"LT", "ST", "UR", "UT"})
"""One long text each: what looks like a separator is part of it."""
WHOLE_NUMBERS = frozenset({"IS", "SL", "SS", "SV", "UL", "US", "UV", "US or SS", "US or SS or OW"})
NUMBERS = WHOLE_NUMBERS | {"DS", "FD", "FL"}
_MANY = frozenset({"AE", "AS", "AT", "CS", "LO", "PN", "SH", "UC"})
"""VRs to which Multiple Value Matching applies (PS3.4 §C.2.2.2.8)."""
_WITHOUT_COMMA = frozenset({"AS", "AT", "CS", "DA", "DT", "TM", "UI"}) | NUMBERS
"""VRs of which no value holds a comma, so that one separates values."""
_BULK = frozenset({"OB", "OB or OW", "OD", "OF", "OL", "OV", "OW"})


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute as a client names it: by keyword, tag, or a path through sequences.

    `key` is what the index, or the list of instances, has of it; None if only the data sets of
    instances can tell.
    """

    path: tuple[str, ...]
    vr: str
    key: Key | None = None

    @property
    def keyword(self) -> str:
        """The keyword in snake_case; inside a sequence with the tags of the way to it."""
        if self.key:
            return self.key.keyword
        *way, tag = self.path
        return ".".join([*way, snake(public_keyword(int(tag, 16))) or tag])

    @property
    def name(self) -> str:
        """What to call it to a client: its keyword, or its tag."""
        return public_keyword(int(self.path[-1], 16)) or self.path[-1]

    def match(self, kind: MatchKind, *values: str) -> Match:
        """Make a match of this attribute."""
        if self.key:
            return Match(self.keyword, kind, values)
        return Match(self.keyword, kind, values, path=self.path, vr=self.vr)


def attribute_of(name: str) -> Attribute | None:
    """Read the name of an attribute; None if it isn't the name of one.

    A key inside Request Attributes Sequence (0040,0275) may be named without it.
    """
    steps = [tag_of(step) for step in name.split(".")]
    path = tuple(step for step in steps if step)
    if len(path) != len(steps):
        return None
    tag = path[-1]
    direct = len(path) == 1 or (path[:-1] == (REQUEST_ATTRIBUTES,) and tag in REQUEST_KEYS)
    key = KEY_OF_TAG.get(tag) if direct else None
    return Attribute(path, key.vr if key else public_vr(int(tag, 16)), key)


def tag_of(name: str) -> str | None:
    """Tag (8 hex digits, upper case) of a keyword or tag as written by a client; None if none."""
    if _TAG.match(name):
        return name.upper()
    if not _KEYWORD.match(name):
        return None
    key = KEY_OF_KEYWORD.get(snake(name))
    if key is not None:
        return key.tag
    tag = public_tag(name)
    return None if tag is None else f"{tag:08X}"


def looks_like_attribute(name: str) -> bool:
    """Whether a parameter could name an attribute; others are not ours (PS3.18 §8.3)."""
    return all(_TAG.match(step) or _KEYWORD.match(step) for step in name.split("."))


def is_matchable(attribute: Attribute) -> bool:
    """Whether values of this attribute can be compared: not those that are only bytes."""
    return attribute.vr not in _BULK


def read_matches(attribute: Attribute, value: str, *, multiple: bool = False) -> tuple[Match, ...]:
    r"""Read the value of a matching key (PS3.4 §C.2.2.2.1 to .8).

    A list, of UIDs by comma or backslash, matches any of its values: of other attributes, too,
    where the Standard leaves open what a list means and clients in use mean just this.

    Parameters
    ----------
    attribute
        What is to be matched.
    value
        As sent, percent-decoded.
    multiple
        Multiple Value Matching: of an attribute that can hold several values, each value of the
        key must be there (``CT\PT``). Any value list may be separated by commas, too.

    Raises
    ------
    InvalidRequest
        The value is none of this attribute's value representation.
    """
    value = value.strip()
    if not value.strip("*"):
        return (attribute.match("universal"),)
    if attribute.vr == "SQ" and value != EMPTY:
        raise InvalidRequest(f"{attribute.name}: name an attribute of its items, by a path")
    texts = _listed(attribute, value, multiple=multiple)
    matches = tuple(_read_one(attribute, text) for text in texts)
    if len(matches) == 1 or (multiple and _can_hold_many(attribute)):
        return matches
    if all(match.kind == "single" for match in matches):
        kind: MatchKind = "uid_list" if attribute.vr == "UI" else "any_of"
        return (attribute.match(kind, *(match.values[0] for match in matches)),)
    return (replace(attribute.match("any"), parts=matches),)


def _read_one(attribute: Attribute, text: str) -> Match:
    if text == EMPTY:
        return attribute.match("empty")
    if not text.strip("*"):
        return attribute.match("universal")
    return _READERS.get(attribute.vr, _read_text)(attribute, text)


def _listed(attribute: Attribute, value: str, *, multiple: bool) -> list[str]:
    if attribute.vr in TEXT:
        return [value]
    by_comma = multiple or attribute.vr in _WITHOUT_COMMA
    separators = _EITHER_SEPARATOR if by_comma else _BACKSLASH
    values = [v for text in separators.split(value) if (v := text.strip())]
    if not 0 < len(values) <= _MAX_LIST:
        raise InvalidRequest(f"{attribute.name}: not a list of 1 to {_MAX_LIST} values")
    return values


def _can_hold_many(attribute: Attribute) -> bool:
    return attribute.vr in _MANY and has_many_values(int(attribute.path[-1], 16))


def _read_text(attribute: Attribute, value: str) -> Match:
    return attribute.match("single" if _WILDCARDS.isdisjoint(value) else "wildcard", value)


def _read_literal(attribute: Attribute, value: str) -> Match:
    return attribute.match("single", value.upper())


def _read_uid(attribute: Attribute, value: str) -> Match:
    try:
        return attribute.match("single", validate_uid(value))
    except InvalidUID as e:
        raise InvalidUID(f"{attribute.name}: {e}") from e


def _read_integer(attribute: Attribute, value: str) -> Match:
    if not _INTEGER.match(value):
        raise InvalidRequest(f"{attribute.name}: not an integer: {value[:80]!r}")
    return attribute.match("single", str(int(value)))


def _read_decimal(attribute: Attribute, value: str) -> Match:
    if not _DECIMAL.match(value):
        raise InvalidRequest(f"{attribute.name}: not a number: {value[:80]!r}")
    return attribute.match("single", value)


def _read_range(attribute: Attribute, value: str) -> Match:
    pattern = _PATTERNS[attribute.vr]
    if attribute.vr == "DT":  # an offset whose plus sign was read as a space
        value = re.sub(r"(?<=[\d]) (?=\d{4}(\D|\Z))", "+", value)
    if pattern.match(value):
        return attribute.match("single", _digits(attribute, value))
    ends = _ends(attribute, value, pattern)
    if ends is None:
        raise InvalidRequest(f"{attribute.name}: neither a value nor a range: {value[:80]!r}")
    return attribute.match("range", *ends)


def _ends(attribute: Attribute, value: str, pattern: re.Pattern[str]) -> tuple[str, str] | None:
    """Split at the hyphen that leaves two values, of which one may be missing."""
    for at in (i for i, c in enumerate(value) if c == "-"):
        low, high = value[:at].strip(), value[at + 1 :].strip()
        if (low or high) and all(not end or pattern.match(end) for end in (low, high)):
            return _digits(attribute, low), _digits(attribute, high)
    return None


def _digits(attribute: Attribute, value: str) -> str:
    """Cut the separators of ACR-NEMA and of people: ``2024-01-31`` is ``20240131``."""
    if attribute.vr == "DA":
        return value.replace("-", "").replace(".", "")
    return value.replace(":", "") if attribute.vr == "TM" else value


_PATTERNS = MappingProxyType({"DA": _DATE, "TM": _TIME, "DT": _DATE_TIME})
_READERS: Mapping[str, Callable[[Attribute, str], Match]] = MappingProxyType(
    {
        "AT": _read_literal,
        "UI": _read_uid,
        **dict.fromkeys(WHOLE_NUMBERS, _read_integer),
        **dict.fromkeys(NUMBERS - WHOLE_NUMBERS, _read_decimal),
        **dict.fromkeys(_PATTERNS, _read_range),
    }
)
