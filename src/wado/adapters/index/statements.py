"""Searches of the index as SQLAlchemy Core: one expression for SQLite and PostgreSQL.

A search finds its page of keys first, which an index can do by itself, and then the rows of
these keys: skipped rows and rows that are only sorted are never read.
"""

from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Join,
    Select,
    Subquery,
    and_,
    exists,
    func,
    select,
    tuple_,
)

from wado.adapters.index.matching import beginning_of_name, begins, conditions
from wado.adapters.index.tables import series, study
from wado.dicom.uids import SeriesRef
from wado.errors import InvalidRequest
from wado.ports import Level, Match, Query

STUDY_ROW = [c for c in study.c if not c.name.endswith("_search")]
"""Columns of a study row."""

SERIES_ROW = [
    *STUDY_ROW,
    *(
        c
        for c in series.c
        if c.name not in {"tenant_id", "study_instance_uid", "version", "awaits_description"}
    ),
]
"""Columns of a series row: those of its study, too."""

_OF_STUDY = frozenset(c.name for c in STUDY_ROW) - {"tenant_id"}
_OF_BOTH = frozenset(c.name for c in SERIES_ROW) - {"tenant_id"}
SEARCHABLE: dict[Level, frozenset[str]] = {
    Level.STUDY: _OF_BOTH,
    Level.SERIES: _OF_BOTH,
    Level.INSTANCE: frozenset(),
}
"""Keywords that a search can match, by level."""

Statement = Select[Any]


def names_to_sort(query: Query, most: int) -> Statement | None:
    """Build the statement that counts, up to `most`, the studies whose patient's name fits.

    None if the search does not ask for the beginning of a name. See `search`.
    """
    prefixes = [beginning_of_name(match) for match in query.matches]
    prefix = next((p for p in prefixes if p is not None), None)
    if prefix is None or query.fuzzy:
        return None
    fits = select(study.c.tenant_id).where(
        study.c.tenant_id == query.tenant_id, begins(study.c.patient_name_search, prefix)
    )
    return select(func.count()).select_from(fits.limit(most).subquery())


def search(query: Query, *, by_date: bool = False) -> Statement:
    """Build the statement of a search.

    Parameters
    ----------
    query
        What to search for.
    by_date
        Walk the studies by date and compare names on the way, which is quick when many fit;
        otherwise those that fit are found by name and then sorted, which is quick when few do.

    Raises
    ------
    InvalidRequest
        A keyword cannot be matched at this level, or the level is not one of the index.
    """
    unknown = {m.keyword for m in query.matches} - SEARCHABLE[query.level]
    if unknown:
        keys = ", ".join(sorted(unknown))
        raise InvalidRequest(f"not a matching key at {query.level} level: {keys}")
    if query.level is Level.STUDY:
        return _studies(query, by_date=by_date)
    if query.level is Level.SERIES:
        return _series(query, by_date=by_date)
    raise InvalidRequest("the index holds no instances")


def one_series(ref: SeriesRef) -> Statement:
    """Build the statement that reads a series row by its key."""
    return (
        select(*SERIES_ROW)
        .select_from(_joined(series, study))
        .where(
            series.c.tenant_id == ref.tenant_id,
            series.c.study_instance_uid == ref.study_instance_uid,
            series.c.series_instance_uid == ref.series_instance_uid,
        )
    )


def series_after(
    key: tuple[str, str, str] | None, tenant_id: str | None, *, limit: int
) -> Statement:
    """Build the statement that reads the next page of series rows in the order of their keys."""
    order = (series.c.tenant_id, series.c.study_instance_uid, series.c.series_instance_uid)
    page = select(*SERIES_ROW).select_from(_joined(series, study)).order_by(*order).limit(limit)
    if tenant_id is not None:
        page = page.where(series.c.tenant_id == tenant_id)
    return page if key is None else page.where(tuple_(*order) > tuple_(*key))


def awaiting(tenant_id: str, limit: int) -> Statement:
    """Build the statement that lists series of a tenant that changed, oldest change first."""
    return (
        select(
            series.c.tenant_id,
            series.c.study_instance_uid,
            series.c.series_instance_uid,
            series.c.version,
        )
        .where(series.c.tenant_id == tenant_id, series.c.awaits_description)
        .order_by(series.c.version)
        .limit(limit)
    )


def next_tenant_awaiting(after: str) -> Statement:
    """Build the statement that finds the next tenant with series that changed."""
    return select(func.min(series.c.tenant_id)).where(
        series.c.tenant_id > after, series.c.awaits_description
    )


def _studies(query: Query, *, by_date: bool) -> Statement:
    of_study, of_series = _split(query)
    found = study.alias("found")
    page = _page(query, select(found.c.study_instance_uid), found).where(
        *conditions(_columns(found, by_date=by_date), of_study, fuzzy=query.fuzzy)
    )
    if of_series:
        page = page.where(_has_series(query, found, of_series))
    keys = page.order_by(*_newest_first(found)).subquery("page")
    rows = keys.join(study, study.c.study_instance_uid == keys.c.study_instance_uid)
    return (
        select(*STUDY_ROW)
        .select_from(rows)
        .where(study.c.tenant_id == query.tenant_id)
        .order_by(*_newest_first(study))
    )


def _series(query: Query, *, by_date: bool) -> Statement:
    of_study, of_series = _split(query)
    found, inside = study.alias("found"), series.alias("inside")
    page = (
        _page(query, select(inside.c.study_instance_uid, inside.c.series_instance_uid), found)
        .select_from(_joined(inside, found))
        .where(inside.c.tenant_id == query.tenant_id)
        .where(*conditions(_columns(found, by_date=by_date), of_study, fuzzy=query.fuzzy))
        .where(*conditions(inside.c, of_series, fuzzy=query.fuzzy))
    )
    keys = page.order_by(*_newest_first(found), inside.c.series_instance_uid).subquery("page")
    return (
        select(*SERIES_ROW)
        .select_from(_rows_of(keys))
        .where(study.c.tenant_id == query.tenant_id, series.c.tenant_id == query.tenant_id)
        .order_by(*_newest_first(study), series.c.series_instance_uid)
    )


def _columns(found: FromClause, *, by_date: bool) -> dict[str, ColumnElement[Any]]:
    columns: dict[str, ColumnElement[Any]] = dict(found.c.items())
    if by_date:  # an expression is not looked up in an index
        columns["patient_name_search"] = found.c.patient_name_search.concat("")
    return columns


def _split(query: Query) -> tuple[list[Match], list[Match]]:
    of_study = [m for m in query.matches if m.keyword in _OF_STUDY]
    return of_study, [m for m in query.matches if m.keyword not in _OF_STUDY]


def _page(query: Query, keys: Statement, found: FromClause) -> Statement:
    return keys.where(found.c.tenant_id == query.tenant_id).limit(query.limit).offset(query.offset)


def _has_series(query: Query, found: FromClause, matches: list[Match]) -> Any:
    """One series of the study matches all its keys."""
    inside = (
        select(series.c.study_instance_uid)
        .where(series.c.tenant_id == query.tenant_id)
        .where(*conditions(series.c, matches, fuzzy=query.fuzzy))
    )
    if any(m.keyword == "series_instance_uid" for m in matches):
        return found.c.study_instance_uid.in_(inside)
    # Walking the studies, newest first, ends early; collecting all CT series would not.
    return exists(inside.where(series.c.study_instance_uid == found.c.study_instance_uid))


def _joined(inside: FromClause, around: FromClause) -> Join:
    return inside.join(
        around,
        and_(
            around.c.tenant_id == inside.c.tenant_id,
            around.c.study_instance_uid == inside.c.study_instance_uid,
        ),
    )


def _rows_of(keys: Subquery) -> Join:
    return keys.join(study, study.c.study_instance_uid == keys.c.study_instance_uid).join(
        series,
        and_(
            series.c.study_instance_uid == keys.c.study_instance_uid,
            series.c.series_instance_uid == keys.c.series_instance_uid,
        ),
    )


def _newest_first(table: FromClause) -> tuple[Any, ...]:
    return (
        table.c.study_date.desc().nulls_last(),
        table.c.study_time.desc().nulls_last(),
        table.c.study_instance_uid,
    )
