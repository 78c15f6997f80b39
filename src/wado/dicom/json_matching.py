"""Matching keys evaluated on data sets of the DICOM JSON Model (PS3.4 §C.2.2.2).

It says of instances what the index says of studies and series, by the same rules.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from wado.dicom import names
from wado.dicom.dictionary import public_keyword, public_tag
from wado.dicom.match_values import NUMBERS
from wado.dicom.matching import Match
from wado.dicom.time_zones import offset_of, shifted

Elements = Mapping[str, Any]
_ZONE = "00080201"
_LAST = "\U0010ffff"  # sorts behind every text that begins alike
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_HELD_ELSEWHERE = frozenset({"BulkDataURI", "InlineBinary"})
_ACR_NEMA_DATE = re.compile(r"(\d{4})\.(\d\d)\.(\d\d)\Z")
_OFFSET = re.compile(r"[+-]\d{4}\Z")
_EARLIEST, _LATEST = "00000101000000.000000", "99991231235959.999999"
_DATE_DIGITS, _MONTH_DIGITS, _SECOND_DIGITS = 8, 6, 14


def fits(elements: Elements, matches: Iterable[Match], *, fuzzy: bool = False) -> bool:
    """Whether all matches hold of a data set.

    Keys inside the same sequence must hold of one and the same item (§C.2.2.2.6).

    Parameters
    ----------
    elements
        The data set.
    matches
        Matches with a `path`; parts of a match have the same path as it.
    fuzzy
        Match person names by the beginnings of their words, in any order.
    """
    context = _Context(_texts(elements.get(_ZONE)), fuzzy=fuzzy)
    return _fits(elements, [(match.path, match) for match in matches], context)


class _Context:
    """What values depend on beside themselves: the data set's time zone, and fuzzy matching."""

    __slots__ = ("fuzzy", "zone")

    def __init__(self, zones: Sequence[str], *, fuzzy: bool) -> None:
        self.zone = zones[0] if zones else ""
        self.fuzzy = fuzzy


_Located = tuple[tuple[str, ...], Match]


def _fits(elements: Elements, located: Iterable[_Located], context: _Context) -> bool:
    inside: dict[str, list[_Located]] = defaultdict(list)
    for path, match in located:
        if len(path) > 1:
            inside[path[0]].append((path[1:], match))
        elif not _one_fits(elements, path[0], match, context):
            return False
    return all(
        any(_fits(item, deeper, context) for item in _items(elements.get(tag)))
        for tag, deeper in inside.items()
    )


def _items(element: Elements | None) -> list[Elements]:
    """Items of a sequence; where there are none, an empty one, which empty values match."""
    values = element.get("Value") if element else None
    return [item for item in values or () if isinstance(item, dict)] or [{}]


def _one_fits(elements: Elements, tag: str, match: Match, context: _Context) -> bool:
    if match.kind == "any":
        return any(_one_fits(elements, tag, part, context) for part in match.parts)
    if match.kind == "all":
        return all(_one_fits(elements, tag, part, context) for part in match.parts)
    if match.kind == "date_time_range":
        return _moment_fits(elements, tag, match, context)
    element = elements.get(tag)
    texts = _texts(element)
    if match.kind in ("universal", "empty"):
        return match.kind == "universal" or not texts
    vr = str(element.get("vr")) if element else match.vr
    test = _TESTS.get(vr, _text_fits)
    return any(test(text, match, context) for text in texts)


def _texts(element: Elements | None) -> list[str]:
    """Values as text without padding; absent ones are left out.

    Of a sequence, and of a value that is not in the data set, it only says that there is one.
    """
    if element is None:
        return []
    values = element.get("Value")
    if element.get("vr") == "SQ" or not isinstance(values, list):
        return ["held"] if values or element.keys() & _HELD_ELSEWHERE else []
    return [text for value in values if (text := _text(value))]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return "=".join(str(value.get(group) or "") for group in _GROUPS).rstrip("=")
    return str(value).strip()


# ------------------------------------------------------------------ one value


def _text_fits(text: str, match: Match, _: _Context) -> bool:
    if match.kind == "range":
        low, high = match.values
        return text >= low and (not high or text < high + _LAST)
    if match.kind == "wildcard":
        return names.wildcard_fits(match.values[0], text)
    return text in match.values


def _name_fits(text: str, match: Match, context: _Context) -> bool:
    compare = names.sounds_like if context.fuzzy else names.matches
    return any(compare(text, value) for value in match.values)


def _number_fits(text: str, match: Match, _: _Context) -> bool:
    try:
        number = float(text)
        return any(number == float(value) for value in match.values)
    except ValueError:
        return False


def _date_fits(text: str, match: Match, context: _Context) -> bool:
    return _text_fits(_ACR_NEMA_DATE.sub(r"\1\2\3", text), match, context)


def _time_fits(text: str, match: Match, _: _Context) -> bool:
    """Compare times; one with few digits (``10`` for the hour) stands for all that begin so."""
    text = text.replace(":", "")
    if match.kind == "range":
        low, high = match.values
        return text >= low and (not high or text < high + _LAST)
    return any(value <= text < value + _LAST for value in match.values)


def _date_time_fits(text: str, match: Match, context: _Context) -> bool:
    """Compare moments; one that is not complete stands for all that begin so.

    A moment without an offset is in the time zone of the data set, or of the query; if either is
    not known, both are taken as they stand.
    """
    values = match.values
    pairs = [values] if match.kind == "range" else [(value, value) for value in values]
    value = _moments(text, context.zone if match.zone else "")
    for low, high in pairs:
        first = _moments(low, match.zone)[0] if low else ""
        last = _moments(high, match.zone)[1] if high else _LAST
        if value[0] and first <= value[0] <= last:
            return True
    return False


def _moments(text: str, zone: str) -> tuple[str, str]:
    """First and last moment, in UTC where the offset is known, that a DT stands for."""
    offset = text[-5:] if _OFFSET.search(text) else ""
    digits = text.removesuffix(offset)
    by = -offset_of(offset or zone)
    try:
        return _complete(digits, _EARLIEST, by), _complete(digits, _LATEST, by)
    except (ValueError, OverflowError):
        return "", ""


def _complete(digits: str, rest: str, by: timedelta) -> str:
    text = digits + rest[len(digits) :]
    day = min(int(text[6:8]), _days_of(text)) if len(digits) < _DATE_DIGITS else int(text[6:8])
    moment = datetime(  # noqa: DTZ001 - reckoned without zones, the offset is added
        int(text[:4]), int(text[4:6]), day, int(text[8:10]), int(text[10:12]),
        min(int(text[12:_SECOND_DIGITS]), 59),
    ) + by  # fmt: skip
    return f"{moment.year:04}{moment:%m%d%H%M%S}{text[_SECOND_DIGITS:]}"


def _days_of(text: str) -> int:
    year, month = int(text[:4]), int(text[4:_MONTH_DIGITS])
    following = datetime(year + month // 12, month % 12 + 1, 1)  # noqa: DTZ001 - a calendar day
    return (following - timedelta(days=1)).day


def _moment_fits(elements: Elements, tag: str, match: Match, context: _Context) -> bool:
    """Match a date together with its time; without a time, the date alone."""
    if match.zone and context.zone:
        match = shifted(match, offset_of(context.zone) - offset_of(match.zone))
    low_date, low_time, high_date, high_time = match.values
    keyword = public_keyword(int(tag, 16)).removesuffix("Date") + "Time"
    time_tag = public_tag(keyword)
    times = _texts(elements.get(f"{time_tag:08X}")) if time_tag else []
    time = times[0].replace(":", "") if times else ""
    for text in _texts(elements.get(tag)):
        date = _ACR_NEMA_DATE.sub(r"\1\2\3", text)
        after = date > low_date or (date == low_date and (not time or time >= low_time))
        before = date < high_date or (date == high_date and time < high_time + _LAST)
        if (not low_date or after) and (not high_date or before):
            return True
    return False


_Test = Callable[[str, Match, _Context], bool]
_TESTS: Mapping[str, _Test] = MappingProxyType(
    {
        "PN": _name_fits,
        "DA": _date_fits,
        "TM": _time_fits,
        "DT": _date_time_fits,
        **dict.fromkeys(NUMBERS, _number_fits),
    }
)
