"""Late pages of long lists (``offset=500000``), found without reading what is skipped.

`study_count` says how many studies and series there are of each date, so that a list of all, or
of a range of dates, is entered at the right date.
"""

from dataclasses import replace

from sqlalchemy import Connection, func, select

from wado.adapters.index.matching import conditions
from wado.adapters.index.statements import Search
from wado.adapters.index.tables import study_count
from wado.dicom.matching import Level, Match

_LATE = 1000
"""Fewer rows are skipped as quickly as they are counted."""
_DATED = frozenset({"single", "range"})


def shortened(connection: Connection, search: Search) -> Search:
    """Let a search begin at the date of its first row, and skip only rows of that date."""
    query = search.query
    if query.offset < _LATE or not search.in_order or search.of_series:
        return search
    if any(m.keyword != "study_date" or m.kind not in _DATED for m in search.of_study):
        return search
    counted = study_count.c.series if query.level is Level.SERIES else study_count.c.studies
    upto = func.sum(counted).over(order_by=study_count.c.study_date.desc())
    dates = (
        select(study_count.c.study_date, (upto - counted).label("before"), upto.label("upto"))
        .where(study_count.c.tenant_id == query.tenant_id)
        .where(*conditions(study_count.c, search.of_study, fuzzy=False))
        .subquery("dates")
    )
    first = connection.execute(
        select(dates.c.study_date, dates.c.before)
        .where(dates.c.upto > query.offset)
        .order_by(dates.c.upto)
        .limit(1)
    ).first()
    if first is None or not first.study_date:  # behind the last row, or among those without date
        return search
    lows = [m.values[0] for m in search.of_study]
    until = Match("study_date", "range", (max(lows, default=""), first.study_date))
    return replace(
        search,
        query=replace(query, offset=query.offset - int(first.before)),
        of_study=(until,),
    )
