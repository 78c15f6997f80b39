"""What was begun and not ended: so work that kills whoever does it is known when it comes again.

A note in the instance store holds how often it was begun. Who ends it, or gives it up knowingly,
takes that back; who dies can't.
"""

from dataclasses import replace

import orjson

from wado.archive.copies import Converted
from wado.archive.paths import unfinished_path
from wado.errors import NotFound
from wado.ports import InstanceStore
from wado.records import TranscodeLog, TranscodeMeta

_WHOLE = "batch"


class Unfinished:
    """The note of a batch, which has the same label when it comes again.

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
        self._begun: dict[str, int] = self._read()

    def begin(self, what: str = _WHOLE) -> int:
        """Put on record that work begins; how often it was begun before, and never ended.

        Raises
        ------
        OutOfResources, Unavailable
            It can't be written down; nothing was begun.
        """
        before = self._begun.get(what, 0)
        self._begun[what] = before + 1
        self._write()
        return before

    def leave(self, what: str) -> None:
        """Say that a part of it was ended, or given up knowingly."""
        self._begun.pop(what, None)

    def give_up(self) -> None:
        """Say that it is not ended, and that nobody died of it."""
        self._begun[_WHOLE] -= 1
        if self._begun[_WHOLE]:
            self._write()
        else:
            self.end()

    def end(self) -> None:
        """Forget all of it."""
        self._store.delete([self._path])

    def _read(self) -> dict[str, int]:
        try:
            with self._store.open(self._path) as file:
                begun: dict[str, int] = orjson.loads(file.read())
        except (NotFound, ValueError):
            return {}
        return begun

    def _write(self) -> None:
        self._store.put_document(self._path, [orjson.dumps(self._begun)])


def fatal(meta: TranscodeMeta, times: int) -> Converted:
    """Put on record that a conversion killed whoever tried it, so many times."""
    reason = f"the webworker died {times} times while it worked on it, as one out of memory does"
    row = replace(TranscodeLog.of(meta), reason=reason, attempt=times)
    return Converted(row, meta.ref, meta.digest)
