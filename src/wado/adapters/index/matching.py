"""Matching keys as SQL conditions (PS3.4 §C.2.2.2), for SQLite and PostgreSQL alike."""

import re
from collections.abc import Callable, Iterable
from functools import partial
from operator import eq
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Text, and_, cast, false, literal, or_, true

from wado.adapters.index.tables import NAMES, NUMBERS, fold
from wado.ports import Match

Condition = ColumnElement[bool]


class Columns(Protocol):
    """The columns of a table or alias, by name."""

    def __getitem__(self, name: str, /) -> ColumnElement[Any]: ...


_LAST = "\U0010ffff"  # sorts behind every text that begins alike
_WILDCARD = re.compile(r"[*?]")
_LIKE = str.maketrans({"%": "!%", "_": "!_", "!": "!!", "*": "%", "?": "_"})
_WORD_ENDS = re.compile(r"[\s^=,]+")


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
    return [
        _condition(columns, match, fuzzy=fuzzy)
        for match in matches
        if match.kind != "universal" and (match.kind == "empty" or any(match.values))
    ]


def _condition(columns: Columns, match: Match, *, fuzzy: bool) -> Condition:
    column = columns[match.keyword]
    if match.kind == "empty":
        return or_(column.is_(None), cast(column, Text) == "")
    if match.kind == "range":
        text = cast(column, Text) if match.keyword in NUMBERS else column
        return _between(text, *match.values)
    if match.kind in {"uid_list", "any_of"} and _compares_as_text(match.keyword):
        return column.in_(match.values)
    one = _rule(columns, match, fuzzy=fuzzy)
    return or_(false(), *(one(value) for value in match.values))


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


def beginning_of_name(match: Match) -> str | None:
    """What a patient's name must begin with, if that is all that a key asks (``doe*``)."""
    if match.keyword != "patient_name" or match.kind != "wildcard":
        return None
    pattern = fold(match.values[0]) or ""
    prefix = pattern.removesuffix("*")
    return prefix if prefix != pattern and pattern.isascii() and _is_literal(prefix) else None


def _is_literal(text: str) -> bool:
    return bool(text) and not _WILDCARD.search(text)


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
    words = [word for word in _WORD_ENDS.split(fold(value) or "") if word.strip("*?")]
    spaced = literal("^") + column
    return and_(
        true(),
        *(
            or_(*(spaced.like(f"%{end}{word.translate(_LIKE)}%", escape="!") for end in "^= "))
            for word in words
        ),
    )


def _one_of_many(column: ColumnElement[Any], value: str) -> Condition:
    """Match one value of a column that holds several, joined by backslashes."""
    separated = literal("\\") + column + literal("\\")
    return separated.like("%\\" + value.translate(_LIKE) + "\\%", escape="!")


def _number(column: ColumnElement[Any], value: str) -> Condition:
    try:
        return column == int(value)
    except ValueError:
        return false()
