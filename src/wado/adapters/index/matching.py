"""Matching keys as SQL conditions (PS3.4 §C.2.2.2), for SQLite and PostgreSQL alike."""

import re
from collections.abc import Callable, Iterable
from functools import partial
from operator import eq
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Text, and_, cast, false, literal, or_, true

from wado.adapters.index.tables import NAMES, NUMBERS
from wado.dicom.matching import Match
from wado.dicom.names import fold, words

Condition = ColumnElement[bool]


class Columns(Protocol):
    """The columns of a table or alias, by name."""

    def __getitem__(self, name: str, /) -> ColumnElement[Any]: ...


_LAST = "\U0010ffff"  # sorts behind every text that begins alike
_ENDS = "^= ,"
_TOO_LARGE = 1 << 63
_WILDCARD = re.compile(r"[*?]")
_LIKE = str.maketrans({"%": "!%", "_": "!_", "!": "!!", "*": "%", "?": "_"})


def asked(matches: Iterable[Match]) -> list[Match]:
    """Leave out matches that every row fulfils, and take apart those whose parts all must hold."""
    kept: list[Match] = []
    for match in matches:
        if match.kind == "all":
            kept += asked(match.parts)
        elif match.kind == "any":
            kept += [match] if all(asked([part]) for part in match.parts) else []
        elif match.kind == "empty" or (match.kind != "universal" and any(match.values)):
            kept.append(match)
    return kept


def keywords(match: Match) -> set[str]:
    """Columns that a match compares."""
    if match.kind in {"any", "all"}:
        return {keyword for part in match.parts for keyword in keywords(part)}
    if match.kind == "date_time_range":
        return {match.keyword, time_of(match.keyword)}
    return {match.keyword}


def time_of(date: str) -> str:
    """Give the keyword of the time that belongs to a date."""
    return f"{date.removesuffix('_date')}_time"


def conditions(columns: Columns, matches: Iterable[Match], *, fuzzy: bool) -> list[Condition]:
    """All that must hold of a row.

    Parameters
    ----------
    columns
        The columns of a table or alias by name, the search columns of person names included.
    matches
        Keys whose keyword is one of the columns.
    fuzzy
        Match person names by the beginnings of their words, in any order.
    """
    return [condition(columns, match, fuzzy=fuzzy) for match in asked(matches)]


def condition(columns: Columns, match: Match, *, fuzzy: bool) -> Condition:
    """Say what must hold of a row for one match, which is not universal."""
    if match.kind == "any":
        parts = (and_(true(), *conditions(columns, [p], fuzzy=fuzzy)) for p in match.parts)
        return or_(false(), *parts)
    if match.kind == "empty":
        return _empty(columns, match.keyword)
    column = columns[match.keyword]
    if match.kind == "date_time_range":
        return _date_time(column, columns[time_of(match.keyword)], match.values)
    if match.kind == "range":
        text = cast(column, Text) if match.keyword in NUMBERS else column
        return _between(text, *match.values)
    if match.kind in {"uid_list", "any_of"} and _compares_as_text(match.keyword):
        return column.in_(match.values)
    one = _rule(columns, match, fuzzy=fuzzy)
    return or_(false(), *(one(value) for value in match.values))


def _empty(columns: Columns, keyword: str) -> Condition:
    if keyword in NUMBERS:
        return columns[keyword].is_(None)
    column = columns[f"{keyword}_search" if keyword in NAMES else keyword]
    return or_(column.is_(None), column == "")


def _date_time(
    date: ColumnElement[Any], time: ColumnElement[Any], values: tuple[str, ...]
) -> Condition:
    """Match a date and a time together; the dates alone are said first, as an index finds them."""
    low_date, low_time, high_date, high_time = values
    late = or_(date > low_date, _timeless(time), time >= low_time) if low_date else true()
    early = or_(date < high_date, _timeless(time), time < high_time + _LAST)
    return and_(_between(date, low_date, high_date), late, early if high_date else true())


def _timeless(time: ColumnElement[Any]) -> Condition:
    return or_(time.is_(None), time == "")


def _compares_as_text(keyword: str) -> bool:
    return not (
        keyword in NAMES
        or keyword in NUMBERS
        or keyword == "modalities_in_study"
        or keyword.endswith("_time")
    )


def _rule(columns: Columns, match: Match, *, fuzzy: bool) -> Callable[[str], Condition]:
    """How one value of a key is compared."""
    column = columns[match.keyword]
    if match.keyword in NAMES:
        return partial(_fuzzy_name if fuzzy else _name, columns[f"{match.keyword}_search"])
    if match.keyword in NUMBERS:
        return partial(_number, column)
    if match.keyword == "modalities_in_study":
        return partial(_one_of_many, column)
    if match.kind == "wildcard":
        return partial(_wildcard, column)
    if match.keyword.endswith("_time"):
        return lambda value: _between(column, value, value)
    return partial(eq, column)


def _between(column: ColumnElement[Any], low: str, high: str) -> Condition:
    """Match from `low` to `high`; an end with few digits (``10`` for the hour) counts whole."""
    return and_(
        column >= low if low else true(),
        column < high + _LAST if high else true(),
        column != "",
    )


def _wildcard(column: ColumnElement[Any], pattern: str) -> Condition:
    """Match ``*`` and ``?``; what stands before the first of them finds its place in an index."""
    prefix = _WILDCARD.split(pattern, maxsplit=1)[0]
    if pattern == f"{prefix}*":
        return begins(column, prefix)
    return and_(begins(column, prefix), column.like(pattern.translate(_LIKE), escape="!"))


def begins(column: ColumnElement[Any], prefix: str) -> Condition:
    """Match what begins with a text, by a range of an index."""
    return and_(column >= prefix, column < prefix + _LAST) if prefix else true()


def _name(column: ColumnElement[Any], value: str) -> Condition:
    """Match a person name: one of its component groups, or all, without regard to case.

    Ideographic and phonetic groups stand behind the alphabetic one (PS3.5 §6.2.1.1), so only a
    pattern that can't be theirs is looked up by its beginning.
    """
    pattern = fold(value) or ""
    prefix = _WILDCARD.split(pattern, maxsplit=1)[0]
    alphabetic = pattern.isascii() or pattern.find("=") > 0
    if alphabetic and pattern == f"{prefix}*":
        return begins(column, prefix)
    separated = literal("=") + column + literal("=")
    matches = separated.like(f"%={pattern.translate(_LIKE)}=%", escape="!")
    if not alphabetic:
        return matches
    if prefix == pattern:  # ends there, or goes on with another group
        return and_(column >= pattern, column < f"{pattern}={_LAST}", matches)
    return and_(begins(column, prefix), matches)


def _fuzzy_name(column: ColumnElement[Any], value: str) -> Condition:
    spaced = literal("^") + column
    return and_(
        true(),
        *(
            and_(  # the first part is no condition of its own: it rules most rows out at once
                column.like(f"%{word.translate(_LIKE)}%", escape="!"),
                or_(*(spaced.like(f"%{end}{word.translate(_LIKE)}%", escape="!") for end in _ENDS)),
            )
            for word in words(value)
        ),
    )


def _one_of_many(column: ColumnElement[Any], value: str) -> Condition:
    """Match one value of a column that holds several, joined by backslashes."""
    separated = literal("\\") + column + literal("\\")
    return separated.like("%\\" + value.translate(_LIKE) + "\\%", escape="!")


def _number(column: ColumnElement[Any], value: str) -> Condition:
    try:
        number = int(value)
    except ValueError:
        return false()
    return column == number if abs(number) < _TOO_LARGE else false()
