"""Text within text in PostgreSQL: indexes of every three letters (pg_trgm), asked by a function.

To put together what an index holds of a common text takes longer than to walk to a page of it. How
common one is, is seen from the newest studies.
"""

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    FromClause,
    Text,
    and_,
    any_,
    bindparam,
    func,
    literal,
    select,
)

from wado.adapters.index.postgresql_session import driver
from wado.adapters.index.tables import NAMES, SORTED_BY, series, study
from wado.adapters.index.text_search import SEARCHED

_SORT = "SELECT set_config('enable_sort', %s, true)"
_SAMPLE = 1000
_COMMON = 5
"""So many of the newest studies, or more, and a page is found by walking."""
_LIKE = str.maketrans({"%": "!%", "_": "!_", "!": "!!"})
_TELLING = re.compile(r"[^\W_]{2}")
"""What holds no two letters or digits in a row is not in the index."""


class Trigrams:
    """How PostgreSQL finds the rows that may hold a text."""

    walks_keys = True
    """An index is walked without a look at its rows only if nothing else is asked of them."""

    def walk(self, connection: Connection, *, begins: bool) -> None:
        """Forbid the planner to collect all rows and sort them: it thinks that few will fit."""
        driver(connection).send_along(_SORT, ["off" if begins else "on"])

    def last(self, connection: Connection) -> None:
        """Send the end of the transaction along with the next statement."""
        driver(connection).commit_along()

    def look_up(
        self,
        connection: Connection,
        tenant_id: str,
        keyword: str,
        pieces: Sequence[str],
        most: int,
    ) -> tuple[str, ...] | None:
        """List the UIDs of rows that hold all pieces; None if there are too many to be listed."""
        told = [piece for piece in pieces if _TELLING.search(piece)]
        if not told or _is_common(connection, tenant_id, keyword, told):
            return None
        patterns = [f"%{piece.translate(_LIKE)}%" for piece in told]
        found = func.wado_find_text(
            tenant_id, SEARCHED[keyword], _column(keyword), _texts(patterns), most
        )
        return tuple(connection.execute(select(found)).scalars())

    def is_among(self, rows: FromClause, found: Sequence[Any]) -> ColumnElement[bool]:
        """Whether a row of an alias is one of those that were found."""
        uid = "series_instance_uid" if "series_instance_uid" in rows.c else "study_instance_uid"
        return rows.c[uid] == any_(_texts(list(found)))


def _is_common(connection: Connection, tenant_id: str, keyword: str, pieces: Sequence[str]) -> bool:
    newest = (
        select(study)
        .where(study.c.tenant_id == tenant_id)
        .order_by(*(study.c[name].desc().nulls_last() for name in SORTED_BY))
        .order_by(study.c.study_instance_uid)
        .limit(_SAMPLE)
        .subquery("newest")
    )
    rows: FromClause = newest
    column: ColumnElement[Any] = newest.c[_column(keyword)] if keyword in study.c else literal("")
    if SEARCHED[keyword] == "series":
        joined = and_(
            series.c.tenant_id == newest.c.tenant_id,
            series.c.study_instance_uid == newest.c.study_instance_uid,
        )
        rows, column = newest.join(series, joined), series.c[keyword]
    fits = (column.like(f"%{piece.translate(_LIKE)}%", escape="!") for piece in pieces)
    some = select(literal(1)).select_from(rows).where(*fits).limit(_COMMON).subquery("some")
    return int(connection.execute(select(func.count()).select_from(some)).scalar_one()) >= _COMMON


def _column(keyword: str) -> str:
    return f"{keyword}_search" if keyword in NAMES else keyword


def _texts(values: list[str]) -> ColumnElement[Any]:
    return bindparam(None, values, type_=ARRAY(Text), unique=True)
