"""What was begun and not ended: so work that kills whoever does it is known when it comes again.

A note in the instance store says what is in hand. Who ends it, or gives it up knowingly, takes that
back; who dies can't.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from threading import Lock

import orjson

from wado.archive.copies import Converted
from wado.archive.paths import unfinished_path
from wado.archive.reading import must_answer, reading
from wado.errors import NotFound, Unreadable
from wado.ports import InstanceStore
from wado.records import TranscodeLog, TranscodeMeta

_AS_ONE_DOES = "while it worked on it, as one out of memory does"


@dataclass(slots=True)
class _Note:
    """What is written down; parts of the work go by their names.

    `in_hand` are parts that were begun, and the number of the attempt, `alone` that no other is
    worked on beside. `attempts` has the last attempt at parts that was cut short, `killed` counts
    who died of a part that was alone, and `deaths` who died of any.
    """

    in_hand: dict[str, int] = field(default_factory=dict)
    alone: bool = False
    attempts: dict[str, int] = field(default_factory=dict)
    killed: dict[str, int] = field(default_factory=dict)
    deaths: int = 0


class Unfinished:
    """The note of a batch, which has the same label when it comes again; used from any thread.

    Parameters
    ----------
    store
        Where the note is kept.
    label
        Of the batch.
    """

    def __init__(self, store: InstanceStore, label: str) -> None:
        self._store = store
        self._path = unfinished_path(label)
        self._note = self._read()
        self._lock = Lock()

    @property
    def was_cut_short(self) -> bool:
        """Whether who was at it last died, which is not counted yet."""
        return bool(self._note.in_hand)

    @property
    def deaths(self) -> int:
        """How many died while they were at it."""
        return self._note.deaths

    def count_death(self, unfinished: Iterable[str]) -> dict[str, int]:
        """Count that who was at it died; it is written down when work begins again.

        Parameters
        ----------
        unfinished
            Parts that are not ended, as is known from elsewhere.

        Returns
        -------
        cut_short
            Those that were in hand, and the number of the attempt that this ended.
        """
        note = self._note
        ended = {name: note.in_hand[name] for name in unfinished if name in note.in_hand}
        if note.alone:
            note.killed.update({name: self.killed(name) + 1 for name in ended})
        note.attempts.update(ended)
        note.deaths += 1
        note.in_hand = {}
        return ended

    def attempts(self, name: str) -> int:
        """Give the number of the last attempt at a part that was cut short; 0: there was none."""
        return self._note.attempts.get(name, 0)

    def killed(self, name: str) -> int:
        """How many died while they worked on this part alone."""
        return self._note.killed.get(name, 0)

    def begin(self, name: str, attempt: int, *, alone: bool) -> None:
        """Put on record that an attempt at a part begins.

        Raises
        ------
        OutOfResources, Unavailable
            It can't be written down; nothing was begun.
        """
        with self._lock:
            self._note.in_hand[name] = attempt
            self._note.alone = alone
            self._write()

    def leave(self, name: str, *, cut_short: int = 0) -> None:
        """Say that a part was ended, or given up knowingly; or that this attempt was cut short."""
        with self._lock:
            self._note.in_hand.pop(name, None)
            if cut_short:
                self._note.attempts[name] = cut_short

    def give_up(self) -> None:
        """Say that the batch is not ended, and that nobody died of it; raises as `begin`."""
        with self._lock:
            self._note.in_hand = {}
            if self._note.deaths:
                self._write()
                return
        self.end()

    def end(self) -> None:
        """Forget all of it."""
        self._store.delete([self._path])

    def _read(self) -> _Note:
        try:
            with reading(self._path), self._store.open(self._path) as file:
                return _Note(**orjson.loads(file.read()))
        except (NotFound, ValueError, TypeError):
            return _Note()
        except Unreadable:
            must_answer(self._store)  # else it is away, and waited for
            return _Note()  # written anew, it can be read again

    def _write(self) -> None:
        self._store.put_document(self._path, [orjson.dumps(asdict(self._note))])


def cut_short(meta: TranscodeMeta, attempt: int) -> TranscodeLog:
    """Make the row of an attempt that ended with the webworker."""
    row = TranscodeLog.of(replace(meta, attempt=attempt))
    return replace(row, reason=f"the webworker died {_AS_ONE_DOES}")


def fatal(meta: TranscodeMeta, times: int, attempt: int) -> Converted:
    """Put on record that a conversion killed whoever tried it, so many times; the last attempt."""
    reason = f"the webworker died {times} times {_AS_ONE_DOES}"
    return Converted(replace(cut_short(meta, attempt), reason=reason), meta.ref, meta.digest)
