"""Where a search begins: which of its keys finds few rows, or finds them in order.

The database can't know that, as it doesn't know the text of a key when it makes its plan. So the
rows of each key are counted by its index, up to a limit, and one key is looked up in its index;
all others are compared on the way (`statements.plain` and `statements.compared`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import ColumnElement, FromClause, Select, func, literal, or_, select

from wado.adapters.index import text_search
from wado.adapters.index.matching import condition
from wado.adapters.index.tables import (
    NAMES,
    SORTED_SERIES,
    SORTED_STUDIES,
    series,
    study,
    study_modality,
)
from wado.dicom.matching import Level, Match, Query
from wado.dicom.names import fold

Place = Literal["study", "series", "modality", "text", "newest", "ordered"]
"""Whose index is looked up; ``newest`` walks the studies, latest first, within their dates, and
``ordered`` by what the query asks to sort by."""

_FEW = 4000
"""Sorting so many rows takes as long as walking a million studies until a page is full."""
_FEW_TEXTS = 2000
"""The same for rows that are read one by one first."""
_IDENTIFYING = (
    "study_instance_uid",
    "series_instance_uid",
    "accession_number",
    "scheduled_procedure_step_id",
    "requested_procedure_id",
    "study_id",
    "patient_id",
)
"""Keys of few rows each, fewest first: they need no counting."""
_WILDCARDS = frozenset("*?")


@dataclass(frozen=True, slots=True)
class Finder:
    """One way to begin.

    `is_sorted` says that the rows come newest first. `few` is the number of rows from which on
    another way is better. `pieces` of text are looked up before (`rows`).
    """

    place: Place
    match: Match | None = None
    is_sorted: bool = False
    few: int = _FEW
    pieces: tuple[str, ...] = ()
    rows: tuple[Any, ...] = ()

    @property
    def rank(self) -> int:
        """Order of the finders that need not be counted; others behind."""
        keyword = self.match.keyword if self.match else ""
        return _IDENTIFYING.index(keyword) if keyword in _IDENTIFYING else len(_IDENTIFYING)


NEWEST = Finder("newest", is_sorted=True)
SORTED = Finder("newest")
"""Everything is read and sorted: for an order that no index has."""


def finders(query: Query, matches: Sequence[Match]) -> list[Finder]:
    """List the ways in which a search can begin, beside walking all studies by date."""
    found = [f for match in matches if (f := _finder(query, match)) is not None]
    return [replace(f, is_sorted=False) for f in found] if query.order else found


def walk(query: Query) -> Finder:
    """Say how to begin when no key finds few rows."""
    if not query.order:
        return NEWEST
    is_by_index = query.order[0].keyword in {*SORTED_STUDIES, "study_date"}
    return Finder("ordered", is_sorted=True) if is_by_index and len(query.order) == 1 else SORTED


def exact(found: Sequence[Finder]) -> Finder | None:
    """Choose a key of which there are few rows, or that gives them in order; None if none does."""
    by_key = [f for f in found if f.rank < len(_IDENTIFYING) and (f.is_sorted or _is_uid(f))]
    return min(by_key, key=lambda f: f.rank, default=None)


def choose(found: Sequence[Finder], count: Callable[[Finder], int], *, keys: int) -> Finder | None:
    """Choose where to begin; None to walk.

    Parameters
    ----------
    found
        The ways there are.
    count
        Says how many rows there are, up to `Finder.few`.
    keys
        How many matches there are in all.
    """
    in_order = [f for f in found if f.is_sorted]
    if len(found) == len(in_order) == 1:
        return found[0]
    # The table of modalities holds dates, too: a modality within dates is one range of its index.
    of_modality = [f for f in in_order if f.place == "modality"]
    told = sum(f.place in {"modality", "newest"} for f in in_order)
    if len(of_modality) == 1 and told == len(found) == keys:
        return of_modality[0]
    counted = [(count(f) / f.few, at) for at, f in enumerate(found) if f.few]
    if counted and min(counted)[0] < 1:
        return found[min(counted)[1]]
    # It is quick for what it holds; else its studies are read one by one.
    fit = [f for f in in_order if f.place != "newest" and (f.place != "modality" or told == keys)]
    return fit[0] if fit else None


def _is_uid(finder: Finder) -> bool:
    return finder.rank < _IDENTIFYING.index("accession_number")


def number_of(finder: Finder, query: Query) -> Select[Any]:
    """Build the statement that counts the rows of a finder, up to `Finder.few`."""
    assert finder.match is not None
    table = _TABLES[finder.place]
    rows = select(literal(1)).where(
        table.c.tenant_id == query.tenant_id, sought(table, finder.match)
    )
    return select(func.count()).select_from(rows.limit(finder.few).subquery("some"))


def sought(table: FromClause, match: Match) -> ColumnElement[bool]:
    """Say what must hold of the rows that an index finds for a match."""
    if match.keyword == "modalities_in_study":
        return or_(*(table.c.modality == value for value in match.values))
    return condition(table.c, match, fuzzy=False)


_TABLES: dict[Place, FromClause] = {
    "study": study,
    "newest": study,
    "series": series,
    "modality": study_modality,
}


def _finder(query: Query, match: Match) -> Finder | None:
    keyword, kind = match.keyword, match.kind
    if keyword == "study_date" and kind in {"single", "range", "date_time_range"}:
        return Finder("newest", match, is_sorted=True)
    if keyword == "modalities_in_study":
        return _of_modality(match)
    if kind == "any":
        return None
    return _of_uid(match) or _of_column(query, match) or _of_text(query, match)


def _of_uid(match: Match) -> Finder | None:
    if match.kind not in {"single", "uid_list", "any_of"}:
        return None
    places: dict[str, Place] = {"study_instance_uid": "study", "series_instance_uid": "series"}
    place = places.get(match.keyword)
    return Finder(place, match) if place else None


def _of_column(query: Query, match: Match) -> Finder | None:
    """Look a value, or the beginning of it, up in the index of a column."""
    keyword, fuzzy = match.keyword, query.fuzzy
    if keyword in SORTED_STUDIES and _begins(match, fuzzy=fuzzy):
        return Finder("study", match, is_sorted=_is_one_value(match))
    if keyword in SORTED_SERIES and match.kind != "empty" and _begins(match, fuzzy=fuzzy):
        is_sorted = query.level is Level.SERIES and _is_one_value(match)
        return Finder("series", match, is_sorted=is_sorted)
    return None


def _of_text(query: Query, match: Match) -> Finder | None:
    pieces = text_search.pieces(match, fuzzy=query.fuzzy)
    return Finder("text", match, few=_FEW_TEXTS, pieces=pieces) if pieces else None


def _of_modality(match: Match) -> Finder | None:
    if match.kind not in {"single", "any_of"} or any(map(_is_pattern, match.values)):
        return None
    return Finder("modality", match, is_sorted=len(match.values) == 1)


def _begins(match: Match, *, fuzzy: bool) -> bool:
    """Whether all that a match asks for lies in one or a few ranges of an index."""
    if match.kind == "empty":
        return True
    if match.keyword in NAMES:
        if fuzzy:
            return False
        texts = [fold(value) or "" for value in match.values]
        return all(t[:1] not in {"", *_WILDCARDS} and _is_alphabetic(t) for t in texts)
    if match.kind == "wildcard":
        return match.values[0][:1] not in _WILDCARDS
    return True


def _is_alphabetic(name: str) -> bool:
    """Whether a pattern can only be the first group of a name (see `matching`)."""
    return name.isascii() or name.find("=") > 0


def _is_one_value(match: Match) -> bool:
    return (
        match.kind == "single"
        and match.keyword not in NAMES
        and not match.keyword.endswith("_time")
    )


def _is_pattern(value: str) -> bool:
    return not _WILDCARDS.isdisjoint(value)
