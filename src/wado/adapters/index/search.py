"""How a search is run: find out where to begin, then read the page."""

from dataclasses import replace

from sqlalchemy import Connection

from wado.adapters.index import late_pages, statements
from wado.adapters.index.finders import (
    NEWEST,
    Finder,
    choose,
    exact,
    finders,
    number_of,
    walk,
)
from wado.adapters.index.matching import asked, keywords
from wado.adapters.index.positions import Positions
from wado.adapters.index.text_search import Texts
from wado.dicom.matching import Level, Match, Query
from wado.errors import InvalidRequest
from wado.ports import Row


def search(
    connection: Connection,
    query: Query,
    positions: Positions,
    texts: Texts = statements.TRIGRAM_TABLES,
) -> list[Row]:
    """Read the study or series rows that match, in their order; `texts` is the database's way.

    Raises
    ------
    InvalidRequest
        A keyword cannot be matched or sorted by at this level, or the level is not one of the
        index.
    """
    _check(query)
    if query.limit == 0:
        return []
    matches = asked(query.matches)
    of_study, of_series = statements.split(matches)

    def count(finder: Finder) -> int:
        if finder.pieces:
            return len(finder.rows)
        return int(connection.execute(number_of(finder, query)).scalar_one())

    ways = finders(query, matches)
    finder = exact(ways)
    if finder is None:
        ways = [_looked_up(connection, query, f, texts) for f in ways]
        finder = choose(ways, count, keys=len(matches)) or walk(query)
    found = statements.Search(query, of_study, of_series, finder, texts)
    if finder.place == "ordered":
        return _ordered(connection, found)
    if query.offset and not query.order:
        return _late(connection, found, positions)
    rows = _rows(connection, found, is_last=True)
    positions.note(query, rows)
    return rows


def _late(connection: Connection, found: statements.Search, positions: Positions) -> list[Row]:
    """Begin near the first row of a late page; studies without a date come behind all others."""
    query = found.query
    near = late_pages.shortened(connection, found)
    after = positions.before(query) if near is found else None
    if after is not None:
        left = replace(query, offset=query.offset - after.rows)
        near = replace(found, query=left, after=after)
    rows = _rows(connection, near)
    if len(rows) < query.limit and near is not found:
        rows = _rows(connection, replace(near, undated_too=True) if near.after else found)
    positions.note(query, rows)
    return rows


def _looked_up(connection: Connection, query: Query, finder: Finder, texts: Texts) -> Finder:
    """Look up the pieces of a text."""
    if not finder.pieces or finder.match is None:
        return finder
    rows = texts.look_up(
        connection, query.tenant_id, finder.match.keyword, finder.pieces, finder.few
    )
    return replace(finder, few=0) if rows is None else replace(finder, rows=rows)


def _ordered(connection: Connection, found: statements.Search) -> list[Row]:
    """Read rows by the index of their order; those without a value, which come last, by another."""
    query = found.query
    rows = _rows(connection, found)
    missing = query.limit - len(rows)
    if not missing:
        return rows
    before = 0
    if not rows:
        before = int(connection.execute(statements.count(found, query.offset)).scalar_one())
    skipped = max(0, query.offset - before) if not rows else 0
    rest = replace(
        found,
        query=replace(query, order=(), limit=missing, offset=skipped),
        of_study=(*found.of_study, Match(query.order[0].keyword, "empty")),
        finder=NEWEST,
    )
    return rows + _rows(connection, rest)


def _rows(connection: Connection, found: statements.Search, *, is_last: bool = False) -> list[Row]:
    is_walk = statements.walks_keys(found)
    if is_walk:
        found.texts.walk(connection, begins=True)
    if is_last:
        found.texts.last(connection)
    result = connection.execute(statements.page(found))
    names = tuple(result.keys())
    rows: list[Row] = [dict(zip(names, row, strict=True)) for row in result.all()]
    if is_walk and not is_last:
        found.texts.walk(connection, begins=False)
    return rows


def _check(query: Query) -> None:
    known = statements.SEARCHABLE[query.level]
    wanted = {keyword for match in query.matches for keyword in keywords(match)}
    unknown = (wanted | {order.keyword for order in query.order}) - known
    if unknown:
        keys = ", ".join(sorted(unknown))
        raise InvalidRequest(f"not a matching key at {query.level} level: {keys}")
    if query.level is Level.INSTANCE:
        raise InvalidRequest("the index holds no instances")
