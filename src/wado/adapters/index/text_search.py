"""Text within text (``*smith*``): which rows to look at; the conditions of a search compare them.

Each database has its own way to do this. SQLite has tables of every three characters in a row
(FTS5, made in migration 0002); PostgreSQL's way is in `postgresql_texts`.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any, Protocol

import orjson
from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    bindparam,
    func,
    literal_column,
    select,
    table,
    text,
)

from wado.adapters.index.tables import NAMES
from wado.dicom.matching import Match
from wado.dicom.names import fold, words

SEARCHED = MappingProxyType(
    {
        "patient_name": "study",
        "patient_id": "study",
        "accession_number": "study",
        "study_description": "study",
        "referring_physician_name": "study",
        "study_id": "study",
        "series_description": "series",
        "body_part_examined": "series",
        "protocol_name": "series",
        "station_name": "series",
        "institution_name": "series",
        "manufacturer": "series",
        "manufacturer_model_name": "series",
    }
)
"""Keywords whose text can be looked up, and the table that they are of."""

_LENGTH = 3
_MOST = 8
"""So many pieces of a text say enough; what they find is compared whole anyway."""
_RARE = 500
_COMMON = 20
"""A piece that more than one row in so many holds tells little, and takes long to be combined."""
_KEPT = 2
"""Of common pieces, so many are asked for."""

_WILDCARDS = re.compile(r"[*?\0]+")


def pieces(match: Match, *, fuzzy: bool) -> tuple[str, ...]:
    """List what a row must hold for a match; empty if the text is too short to be looked up."""
    if match.keyword not in SEARCHED or match.kind not in {"single", "wildcard"}:
        return ()
    value = match.values[0]
    if match.keyword not in NAMES:
        texts = [value]
    else:
        texts = words(value) if fuzzy else [fold(value) or ""]
    return tuple(dict.fromkeys(chain.from_iterable(map(_threes, texts))))[:_MOST]


def _threes(pattern: str) -> Iterator[str]:
    """Cut the letters between wildcards in threes, one behind the other."""
    for run in _WILDCARDS.split(pattern):
        last = len(run) - _LENGTH
        for start in dict.fromkeys((*range(0, last + 1, _LENGTH), last)) if last >= 0 else ():
            yield run[start : start + _LENGTH]


def question(connection: Connection, keyword: str, wanted: Sequence[str]) -> str | None:
    """Write the question that finds the rarest of some pieces; None for one that is everywhere.

    How rare one is, is seen from how far one has to go to meet it so many times. A text that is
    everywhere would take long to be put together with others, and tells little.
    """
    places: list[tuple[int, str]] = []
    for piece in wanted:
        one = _question(keyword, [piece])
        place = connection.execute(
            rows_with(keyword, one).order_by(literal_column("rowid")).limit(1).offset(_RARE)
        ).scalar()
        if place is None:
            return one
        places.append((int(place), piece))
    places.sort(reverse=True)
    telling = [piece for place, piece in places if place > _RARE * _COMMON]
    if not telling and len(places) == 1:
        return None
    return _question(keyword, telling or [piece for _, piece in places[:_KEPT]])


def _question(keyword: str, wanted: Sequence[str]) -> str:
    column = f"{keyword}_search" if keyword in NAMES else keyword
    quoted = ['"{}"'.format(piece.replace('"', '""')) for piece in wanted]
    return f"{column} : ({' AND '.join(quoted)})"


def rows_with(keyword: str, asked: str) -> Select[Any]:
    """Build the statement that lists the rows which may hold a text."""
    name = f"{SEARCHED[keyword]}_text"
    return (
        select(literal_column("rowid").label("number"))
        .select_from(table(name))
        .where(text(f"{name} MATCH :question").bindparams(bindparam("question", asked)))
    )


class Texts(Protocol):
    """How a database finds the rows that may hold a text."""

    @property
    def walks_keys(self) -> bool:
        """Whether an index that is walked should give keys alone; the rows are read by them."""
        ...

    def walk(self, connection: Connection, *, begins: bool) -> None:
        """Say that rows are to be taken as an index gives them, or no longer."""
        ...

    def last(self, connection: Connection) -> None:
        """Say that the next statement is the last one of a search."""
        ...

    def look_up(
        self,
        connection: Connection,
        tenant_id: str,
        keyword: str,
        pieces: Sequence[str],
        most: int,
    ) -> tuple[Any, ...] | None:
        """List up to `most` rows that hold all pieces of a text; None if there are too many."""
        ...

    def is_among(self, rows: FromClause, found: Sequence[Any]) -> ColumnElement[bool]:
        """Whether a row of an alias is one of those that were found."""
        ...


class TrigramTables:
    """How SQLite does it; rows are known by their numbers."""

    walks_keys = False

    def walk(self, connection: Connection, *, begins: bool) -> None:
        """Nothing: SQLite takes them so."""

    def last(self, connection: Connection) -> None:
        """Nothing: SQLite needs no way there and back."""

    def look_up(
        self,
        connection: Connection,
        tenant_id: str,  # noqa: ARG002 - the tables hold all tenants
        keyword: str,
        pieces: Sequence[str],
        most: int,
    ) -> tuple[int, ...] | None:
        """List the numbers of rows."""
        asked = question(connection, keyword, pieces)
        if asked is None:
            return None
        return tuple(connection.execute(rows_with(keyword, asked).limit(most)).scalars())

    def is_among(self, rows: FromClause, found: Sequence[int]) -> ColumnElement[bool]:
        """Whether the number of a row is one of those."""
        listed: ColumnElement[str] = bindparam("numbers", orjson.dumps(found).decode())
        values: Select[Any] = select(literal_column("value")).select_from(func.json_each(listed))
        number: ColumnElement[int] = literal_column(f"{rows.description}.rowid")
        return number.in_(values)
