"""Searches of the index as SQLAlchemy Core: one expression for SQLite and PostgreSQL.

A search finds its page of keys first, which an index can do by itself, and then the rows of
these keys: skipped rows and rows that are only sorted are never read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    FromClause,
    Join,
    Select,
    and_,
    exists,
    func,
    or_,
    select,
    tuple_,
)

from wado.adapters.index.finders import Finder, sought
from wado.adapters.index.matching import Columns, conditions, keywords
from wado.adapters.index.positions import Position
from wado.adapters.index.tables import (
    NAMES,
    NUMBERS,
    SORTED_BY,
    WALKED,
    series,
    study,
    study_modality,
)
from wado.adapters.index.text_search import Texts, TrigramTables
from wado.dicom.matching import Level, Match, Order, Query
from wado.dicom.uids import SeriesRef

STUDY_ROW = [c for c in study.c if not c.name.endswith("_search")]
"""Columns of a study row."""

SERIES_ROW = [
    *STUDY_ROW,
    *(
        c
        for c in series.c
        if c.name
        not in {"tenant_id", "study_instance_uid", "version", "awaits_description", *SORTED_BY}
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
TRIGRAM_TABLES: Texts = TrigramTables()


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


# Made once: an alias takes longer to make than a row to find.
_FOUND, _INSIDE, _OF = study.alias("found"), series.alias("inside"), study_modality.alias("of")


@dataclass(frozen=True, slots=True)
class Search:
    """A query whose matches were sorted by the table they are about, and where it begins."""

    query: Query
    of_study: Sequence[Match]
    of_series: Sequence[Match]
    finder: Finder
    texts: Texts = TRIGRAM_TABLES
    after: Position | None = None
    undated_too: bool = False

    @property
    def place(self) -> str:
        """Whose index is looked up."""
        return self.finder.place

    @property
    def in_order(self) -> bool:
        """Whether the rows come out of an index in the order that is asked for."""
        return self.finder.is_sorted


def split(matches: Sequence[Match]) -> tuple[list[Match], list[Match]]:
    """Sort matches by the table they are about: study, or series."""
    of_study = [m for m in matches if keywords(m) <= _OF_STUDY]
    return of_study, [m for m in matches if not keywords(m) <= _OF_STUDY]


def page(search: Search) -> Statement:
    """Build the statement that reads a page of rows.

    Rows that an index gives in order are read at once, and those that are skipped not at all.
    Otherwise the keys of the page are sorted out first, and only then its rows are read.
    """
    if search.in_order and not _starts_elsewhere(search) and not walks_keys(search):
        columns = [(_INSIDE if c.table is series else _FOUND).c[c.name] for c in _row(search.query)]
        return _find(search, columns)
    is_walk = walks_keys(search)
    sorted_by = [_FOUND.c[name] for name in SORTED_BY] if is_walk else []
    # Found once, whatever the planner expects of it.
    found = _find(search, [*_keys(search), *sorted_by])
    keys = found.cte("page").prefix_with("MATERIALIZED", dialect="postgresql")
    rows = (
        select(*_row(search.query))
        .select_from(_rows_of(keys))
        .where(*(table.c.tenant_id == search.query.tenant_id for table in _tables(search.query)))
    )
    if is_walk:  # said of the keys, which come in this order
        ends = [] if search.query.level is Level.STUDY else [keys.c.series_instance_uid]
        return rows.order_by(*_newest_first(keys.c, keys.c.study_instance_uid, *ends))
    return rows.order_by(*_order(search, _Either(study.c, series.c), study.c, series.c))


def _starts_elsewhere(search: Search) -> bool:
    """Whether rows are skipped in a table that does not hold all of a row's columns."""
    return search.in_order and search.place in {"modality", "series"}


def walks_keys(search: Search) -> bool:
    """Whether many rows may be passed over on the way, of which only an index is read."""
    if not search.texts.walks_keys or search.place != "newest" or not search.in_order:
        return False
    return search.query.offset > 0 or len(_dated(search)) < len(search.of_study)


def _keys(search: Search) -> list[ColumnElement[Any]]:
    first = _first(search)
    if search.query.level is Level.STUDY:
        return [first.c.study_instance_uid]
    return [first.c.study_instance_uid, _INSIDE.c.series_instance_uid]


def count(search: Search, most: int) -> Statement:
    """Build the statement that counts what is found, up to `most`."""
    limited = replace(search, query=replace(search.query, limit=most, offset=0))
    rows = _find(limited, [_FOUND.c.tenant_id])
    return select(func.count()).select_from(rows.subquery("some"))


def _row(query: Query) -> list[Any]:
    return STUDY_ROW if query.level is Level.STUDY else SERIES_ROW


def _tables(query: Query) -> list[FromClause]:
    return [study] if query.level is Level.STUDY else [study, series]


def _find(search: Search, columns: Sequence[ColumnElement[Any]]) -> Statement:
    """Find a page by what the finder says, in the order of the query."""
    query = search.query
    tables = _joined_tables(search)
    rows = select(*columns).select_from(tables).where(*_study_conditions(search))
    if not _starts_elsewhere(search):
        rows = rows.where(_FOUND.c.tenant_id == query.tenant_id)
    if query.level is Level.SERIES:
        rows = rows.where(_INSIDE.c.tenant_id == query.tenant_id, *_series_conditions(search))
    elif search.of_series:
        rows = rows.where(_has_series(search))
    if search.after is not None:
        rows = rows.where(_is_behind(search, search.after))
    if search.in_order:
        rows = rows.order_by(*_order_of_index(search))
    else:
        both = _Either(_Compared(_FOUND), _Compared(_INSIDE))
        rows = rows.order_by(*_order(search, both, _Compared(_FOUND), _INSIDE.c))
    return rows.limit(query.limit).offset(query.offset)


def _is_behind(search: Search, last: Position) -> ColumnElement[bool]:
    """Whether a row comes after another one; the date is said first, for an index."""
    table = _first(search)
    columns: Columns = table.c if search.in_order else _Compared(table)
    date, time = (columns[name] for name in SORTED_BY)
    key, values = [columns["study_instance_uid"]], [last.study_instance_uid]
    if search.query.level is Level.SERIES:
        key.append(_INSIDE.c.series_instance_uid)
        values.append(last.series_instance_uid)
    behind = and_(
        date <= last.study_date,
        or_(
            date < last.study_date,
            time < last.study_time,
            time.is_(None),
            and_(time == last.study_time, tuple_(*key) > tuple_(*values)),
        ),
    )
    return or_(date.is_(None), behind) if search.undated_too else behind


def _joined_tables(search: Search) -> FromClause:
    """Join what is needed; what the finder looks up comes first."""
    is_study = search.query.level is Level.STUDY
    if _starts_elsewhere(search):
        first = _first(search)
        tables: FromClause = first
        if _others(search) or (is_study and search.of_series):
            tables = tables.join(_FOUND, _is_in(first, _FOUND))
        return (
            tables if is_study or first is _INSIDE else tables.join(_INSIDE, _is_in(_INSIDE, _OF))
        )
    if is_study:
        return _FOUND
    return _FOUND.join(_INSIDE, _is_in(_INSIDE, _FOUND))


def _first(search: Search) -> FromClause:
    """Say which table is walked."""
    if not _starts_elsewhere(search):
        return _FOUND
    return _OF if search.place == "modality" else _INSIDE


def _dated(search: Search) -> list[Match]:
    """Matches that every table compares which repeats the date of the study."""
    return [m for m in search.of_study if keywords(m) <= set(SORTED_BY)]


def _others(search: Search) -> list[Match]:
    """Matches that only the study's own row can tell."""
    dated = _dated(search)
    return [m for m in search.of_study if m not in dated and m is not search.finder.match]


def _study_conditions(search: Search) -> list[ColumnElement[bool]]:
    """Say what must hold of a study; only what is looked up is said so that an index can."""
    finder, query = search.finder, search.query
    if _starts_elsewhere(search):
        first = _first(search)
        fits = conditions(first.c, _dated(search), fuzzy=False)
        if search.place == "modality" and finder.match:
            fits += [first.c.tenant_id == query.tenant_id, sought(first, finder.match)]
        return fits + conditions(_Compared(_FOUND), _others(search), fuzzy=query.fuzzy)
    looked_up = ["study_date"] if search.place == "newest" or _is_sorted_study(search) else []
    if walks_keys(search):  # the index that is walked compares them itself
        looked_up += WALKED
    if search.place == "study" and finder.match:
        looked_up.append(column_of(finder.match.keyword))
    columns = _LookedUp(_FOUND, *looked_up)
    return [*conditions(columns, search.of_study, fuzzy=query.fuzzy), *_found(search)]


def _is_sorted_study(search: Search) -> bool:
    return search.place == "study" and search.in_order


def _found(search: Search) -> list[ColumnElement[bool]]:
    """Say what must hold of a study by other tables, and by the index of an order."""
    finder = search.finder
    if search.place == "text" and finder.match and finder.match.keyword in _OF_STUDY:
        return [search.texts.is_among(_FOUND, finder.rows)]
    if search.place == "modality" and finder.match:
        of = select(study_modality.c.study_instance_uid).where(
            study_modality.c.tenant_id == search.query.tenant_id,
            sought(study_modality, finder.match),
        )
        return [_FOUND.c.study_instance_uid.in_(of)]
    if search.place == "ordered":
        return [_FOUND.c[column_of(search.query.order[0].keyword)] > ""]
    return []


def column_of(keyword: str) -> str:
    """Name the column that is compared and sorted by: names have one of their own."""
    return f"{keyword}_search" if keyword in NAMES else keyword


class _Compared:
    """Columns as expressions, which no index is used for: they are compared on the way."""

    __slots__ = ("_columns",)

    def __init__(self, table: FromClause) -> None:
        self._columns = table.c

    def __getitem__(self, name: str, /) -> ColumnElement[Any]:
        column = self._columns[name]
        return column + 0 if name in NUMBERS else column.concat("")


class _LookedUp(_Compared):
    """The same, but for columns that are looked up in an index."""

    __slots__ = ("_names",)

    def __init__(self, table: FromClause, *names: str) -> None:
        super().__init__(table)
        self._names = names

    def __getitem__(self, name: str, /) -> ColumnElement[Any]:
        return self._columns[name] if name in self._names else super().__getitem__(name)


class _Either:
    """The columns of a series and of its study."""

    __slots__ = ("_of_series", "_of_study")

    def __init__(self, of_study: Columns, of_series: Columns) -> None:
        self._of_study = of_study
        self._of_series = of_series

    def __getitem__(self, name: str, /) -> ColumnElement[Any]:
        return (self._of_study if name.removesuffix("_search") in _OF_STUDY else self._of_series)[
            name
        ]


def _series_conditions(search: Search) -> list[ColumnElement[bool]]:
    """Say what must hold of a series; only what is looked up is said so that an index can."""
    finder = search.finder
    names = [finder.match.keyword] if search.place == "series" and finder.match else []
    # A key of series can depend on its study: its dates are in the study's time zone.
    columns = _Either(_Compared(_FOUND), _LookedUp(_INSIDE, *names))
    fits = conditions(columns, search.of_series, fuzzy=search.query.fuzzy)
    if search.place == "text" and finder.match and finder.match.keyword not in _OF_STUDY:
        fits.append(search.texts.is_among(_INSIDE, finder.rows))
    return fits


def _has_series(search: Search) -> ColumnElement[bool]:
    """One series of the study matches all its keys."""
    keys = select(_INSIDE.c.study_instance_uid).where(
        _INSIDE.c.tenant_id == search.query.tenant_id, *_series_conditions(search)
    )
    by_series = search.finder.match and search.finder.match.keyword not in _OF_STUDY
    if by_series:
        return _FOUND.c.study_instance_uid.in_(keys)
    # Walking the studies, newest first, ends early; collecting all CT series would not.
    return exists(keys.where(_INSIDE.c.study_instance_uid == _FOUND.c.study_instance_uid))


def _order_of_index(search: Search) -> tuple[Any, ...]:
    """Sort as the index does that is walked, which costs nothing."""
    query = search.query
    ends = [] if query.level is Level.STUDY else [_INSIDE.c.series_instance_uid]
    if search.place == "modality":
        return _newest_first(_OF.c, _OF.c.study_instance_uid, *ends)
    if search.place == "series":
        return _newest_first(_INSIDE.c, _INSIDE.c.study_instance_uid, *ends)
    newest = _newest_first(_FOUND.c, _FOUND.c.study_instance_uid, *ends)
    if search.place != "ordered":
        return newest
    column = _FOUND.c[column_of(query.order[0].keyword)]
    return (column.desc().nulls_last() if query.order[0].descending else column.asc(), *newest)


def _order(
    search: Search, columns: Columns, of_study: Columns, of_series: Columns
) -> tuple[Any, ...]:
    """Sort as asked for, rows without a value last; then newest first, and by UID."""
    ends = [] if search.query.level is Level.STUDY else [of_series["series_instance_uid"]]
    asked = [o for each in search.query.order for o in _by(each, columns)]
    return (*asked, *_newest_first(of_study, of_study["study_instance_uid"], *ends))


def _by(order: Order, columns: Columns) -> tuple[Any, ...]:
    column = columns[column_of(order.keyword)]
    if order.keyword not in NUMBERS:
        column = func.nullif(column, "")
    return (column.is_(None), column.desc() if order.descending else column.asc())


def _newest_first(columns: Columns, *keys: ColumnElement[Any]) -> tuple[Any, ...]:
    return (*(columns[name].desc().nulls_last() for name in SORTED_BY), *keys)


def _joined(inside: FromClause, around: FromClause) -> Join:
    return inside.join(around, _is_in(inside, around))


def _is_in(inside: FromClause, around: FromClause) -> ColumnElement[bool]:
    return and_(
        around.c.tenant_id == inside.c.tenant_id,
        around.c.study_instance_uid == inside.c.study_instance_uid,
    )


def _rows_of(keys: CTE) -> Join:
    rows = keys.join(study, study.c.study_instance_uid == keys.c.study_instance_uid)
    if "series_instance_uid" not in keys.c:
        return rows
    return rows.join(
        series,
        and_(
            series.c.study_instance_uid == keys.c.study_instance_uid,
            series.c.series_instance_uid == keys.c.series_instance_uid,
        ),
    )
