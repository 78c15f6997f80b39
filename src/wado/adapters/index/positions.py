"""Where pages ended: the next page of a search goes on there, and skips nothing.

A search that was not asked lately is counted from its first row. Positions are kept for a minute,
so who reads page after page neither misses a row nor sees one twice when studies arrive meanwhile.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Lock

from wado.dicom.matching import Query
from wado.ports import Row

_QUERIES = 512
_PAGES = 64
_KEPT_S = 60.0
_EARLY = 100
"""So few rows are skipped at once."""


@dataclass(frozen=True, slots=True)
class Position:
    """The last row of a page, and how many rows there were until then."""

    rows: int
    study_date: str
    study_time: str
    study_instance_uid: str
    series_instance_uid: str
    noted_s: float


class Positions:
    """Remembers some positions of the latest searches; shared by threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._ends: OrderedDict[Query, list[Position]] = OrderedDict()

    def before(self, query: Query) -> Position | None:
        """Find the last position at or before the first row that is asked for."""
        if query.offset < _EARLY:
            return None
        oldest = self._clock() - _KEPT_S
        with self._lock:
            ends = self._ends.get(_key(query), [])
            near = [p for p in ends if p.rows <= query.offset and p.noted_s >= oldest]
        return max(near, key=lambda p: p.rows, default=None)

    def note(self, query: Query, rows: Sequence[Row]) -> None:
        """Remember where a page ended; rows without date or time come last and are not noted."""
        if query.order:
            return
        last = rows[-1] if len(rows) == query.limit else None
        if last is None or not last["study_date"] or not last["study_time"]:
            return
        # Whoever asks for one row more than a page starts the next page with that row.
        for at in {len(rows) - 1, max(0, len(rows) - 2)}:
            self._note(query, query.offset + at + 1, rows[at])

    def _note(self, query: Query, count: int, row: Row) -> None:
        if count < _EARLY or not row["study_date"] or not row["study_time"]:
            return
        position = Position(
            count,
            row["study_date"],
            row["study_time"],
            row["study_instance_uid"],
            row.get("series_instance_uid", ""),
            self._clock(),
        )
        key = _key(query)
        with self._lock:
            ends = [p for p in self._ends.pop(key, []) if p.rows != count]
            self._ends[key] = [*ends[1 - _PAGES :], position]
            if len(self._ends) > _QUERIES:
                self._ends.popitem(last=False)


def _key(query: Query) -> Query:
    return replace(query, include=frozenset(), limit=0, offset=0)
