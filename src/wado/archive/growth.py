"""Lines for journals, appended only by who knows all that is in them.

A consumer that was frozen may wake up with a batch that another has by now, and has gone on from:
its lines are older than those that are there, and may not come after them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from wado.archive.journal import Journals, SeriesView
from wado.archive.paths import journal_path
from wado.archive.reading import reading
from wado.dicom.uids import SeriesRef
from wado.errors import Unavailable
from wado.ports import InstanceStore

OVERTAKEN = "another consumer has gone on with what this one was at"
_MAX_APPENDS = 128
"""Journals appended at a time; each is an open file."""
_MAX_TRIES = 20


@dataclass(frozen=True, slots=True)
class Growth:
    """Lines for the journal of a series, and what was known of it (`Journals.memory`)."""

    ref: SeriesRef
    seen: SeriesView | None
    lines: bytes

    @property
    def at(self) -> int:
        """How long the journal was."""
        return self.seen.size if self.seen else 0


def must_be_ours(still_ours: Callable[[], bool] | None) -> None:
    """Raise Unavailable if another consumer has by now what is in hand here."""
    if still_ours and not still_ours():
        raise Unavailable(OVERTAKEN)


def grow(store: InstanceStore, journals: Journals, growths: Iterable[Growth]) -> list[SeriesRef]:
    """Append to journals that have the same instances as were seen.

    Returns
    -------
    overtaken
        Series to which somebody else added instances, or from which some were deleted; nothing
        was appended to their journals.
    """
    overtaken: list[SeriesRef] = []
    waiting = sorted(growths, key=lambda growth: growth.ref)
    for start in range(0, len(waiting), _MAX_APPENDS):
        some: Sequence[Growth] = waiting[start : start + _MAX_APPENDS]
        for _ in range(_MAX_TRIES):
            appends = {journal_path(growth.ref): growth.lines for growth in some}
            lengths = {journal_path(growth.ref): growth.at for growth in some}
            if not some or store.append(appends, at=lengths):
                break
            some, others = _look_again(store, journals, some)
            overtaken += others
        else:
            raise Unavailable("journals change all the time")
    return overtaken


def _look_again(
    store: InstanceStore, journals: Journals, growths: Iterable[Growth]
) -> tuple[list[Growth], list[SeriesRef]]:
    """Tell journals that only were described from those that others wrote to; some have grown."""
    waiting: list[Growth] = []
    overtaken: list[SeriesRef] = []
    for growth in growths:
        now = journals.memory(growth.ref)
        if _instances(now) == _instances(growth.seen):
            waiting.append(replace(growth, seen=now))
        elif now is None or not _has_grown(store, growth, now):
            overtaken.append(growth.ref)
    return waiting, overtaken


def _instances(view: SeriesView | None) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """What only those change who write instances; one that was deleted came at another time."""
    if view is None:
        return {}, {}
    there = {uid: (entry.digest, entry.received_at) for uid, entry in view.entries.items()}
    return there, dict(view.deleted)


def _has_grown(store: InstanceStore, growth: Growth, now: SeriesView) -> bool:
    if now.size != growth.at + len(growth.lines):
        return False
    path = journal_path(growth.ref)
    with reading(path), store.open(path) as file:
        file.seek(growth.at)
        return file.read(len(growth.lines)) == growth.lines
