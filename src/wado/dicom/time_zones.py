"""Dates with times (PS3.4 §C.2.2.2.5): matched together, and in the time zone of the query.

A study's own zone is its Timezone Offset From UTC (0008,0201). Values of studies without one are
taken as they stand: nobody knows where they were written.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from types import MappingProxyType

from wado.dicom.matching import KEY_OF_KEYWORD, Match
from wado.errors import InvalidRequest

_ZONE = re.compile(r"([+-]?)(\d\d)(\d\d)\Z")
_FIRST, _LAST = "000000", "235960.999999"
"""Ends of a day; the last second can be a leap second."""
_ZONE_COLUMN = "timezone_offset_from_utc"
_WIDEST = timedelta(days=2)
"""More than two clocks in the world can be apart."""

# Whole hours, and the others that countries have today.
_MINUTES = sorted(
    {*range(-12 * 60, 15 * 60, 60), -570, -210, -150, 210, 270, 330, 345, 390, 525, 570, 630, 765,
     825}
)  # fmt: skip
ZONES = tuple(f"{'-' if m < 0 else '+'}{abs(m) // 60:02}{abs(m) % 60:02}" for m in _MINUTES)
"""Zones in which studies are looked for, if a query names one."""


def read_zone(value: str) -> str:
    """Read Timezone Offset From UTC; a plus sign may have become a space on the way.

    Raises
    ------
    InvalidRequest
        The value is no offset.
    """
    match = _ZONE.match(value.strip())
    if match is None or int(match[2]) > 14 or int(match[3]) > 59:
        raise InvalidRequest(f"TimezoneOffsetFromUTC: not an offset such as +0100: {value[:80]!r}")
    return f"{match[1] or '+'}{match[2]}{match[3]}"


def offset_of(zone: str) -> timedelta:
    """Distance of a zone from UTC; none if the text says none."""
    match = _ZONE.match(zone)
    if match is None:
        return timedelta(0)
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return -offset if match[1] == "-" else offset


def combined(matches: Sequence[Match], zone: str = "") -> tuple[Match, ...]:
    """Combine dates with their times, and put them into the zone of the query.

    A range of dates and one of times become one from a moment to a moment. With a zone, a date is
    matched together with its time even if the query names none: where a day begins depends on the
    zone.
    """
    count = Counter(match.keyword for match in matches)
    given = {match.keyword: match for match in matches if count[match.keyword] == 1}
    found: list[Match] = []
    used: set[str] = set()
    for match in matches:
        time = given.get(time_of(match.keyword))
        if match.keyword in given and _belong_together(match, time, zone):
            used |= {time.keyword} if time else set()
            merged = replace(_merged(match, time), zone=zone)
            found += _in_zones(merged, zone) if zone and not match.path else [merged]
        else:
            found.append(replace(match, zone=zone) if match.path else match)
    return tuple(match for match in found if match.keyword not in used)


def time_of(keyword: str) -> str:
    """Keyword of the time that belongs to a date; empty if the keyword is not a date's."""
    return f"{keyword.removesuffix('_date')}_time" if keyword.endswith("_date") else ""


def _belong_together(date: Match, time: Match | None, zone: str) -> bool:
    has_time = date.vr == "DA" if date.path else time_of(date.keyword) in KEY_OF_KEYWORD
    if date.kind not in _ENDS or not has_time:
        return False
    if time is None:
        return bool(zone)
    if time.kind not in _ENDS:
        return False
    return time.kind == "range" and (bool(zone) or date.kind == "range")


def _merged(date: Match, time: Match | None) -> Match:
    low_date, high_date = _ENDS[date.kind](date)
    low_time, high_time = _ENDS[time.kind](time) if time else ("", "")
    low = (low_date, low_time + _FIRST[len(low_time) :]) if low_date else ("", "")
    high = (high_date, high_time + _LAST[len(high_time) :]) if high_date else ("", "")
    return replace(date, kind="date_time_range", values=(*low, *high))


_ENDS: Mapping[str, Callable[[Match], tuple[str, str]]] = MappingProxyType(
    {
        "single": lambda match: (match.values[0], match.values[0]),
        "range": lambda match: (match.values[0], match.values[1]),
    }
)


def _in_zones(match: Match, zone: str) -> list[Match]:
    """Match studies of each zone by what the clocks showed there; a wider range bounds them all."""
    bare = replace(match, zone="")
    parts = [
        Match(match.keyword, "all", parts=(Match(_ZONE_COLUMN, "single", (there,)), moved))
        for there in ZONES
        if (moved := shifted(bare, offset_of(there) - offset_of(zone)))
    ]
    parts.append(Match(match.keyword, "all", parts=(Match(_ZONE_COLUMN, "empty"), bare)))
    first = shifted(bare, -_WIDEST).values[0]
    last = shifted(bare, _WIDEST).values[2]
    return [
        Match(match.keyword, "range", (first, last)),
        Match(match.keyword, "any", parts=tuple(parts)),
    ]


def shifted(match: Match, by: timedelta) -> Match:
    """Move both ends of a date_time_range.

    Raises
    ------
    InvalidRequest
        An end is no day of the calendar.
    """
    low, high = match.values[:2], match.values[2:]
    return replace(match, values=(*_moved(low, by), *_moved(high, by)))


def _moved(end: Sequence[str], by: timedelta) -> tuple[str, str]:
    date, time = end
    if not date:
        return "", ""
    second = min(int(time[4:6]), 59)
    try:
        day = datetime(int(date[:4]), int(date[4:6]), int(date[6:]))  # noqa: DTZ001 - zone unknown
        moment = day + by + timedelta(hours=int(time[:2]), minutes=int(time[2:4]), seconds=second)
    except (ValueError, OverflowError) as e:
        raise InvalidRequest(f"{date} is no day that can be reckoned with") from e
    seconds = f"{moment.second + int(time[4:6]) - second:02}"
    days = f"{moment.year:04}{moment.month:02}{moment.day:02}"
    return days, f"{moment.hour:02}{moment.minute:02}{seconds}{time[6:]}"
