"""The five things the archive stands on, as Protocols; the guarantees are in the docstrings.

A new adapter passes the contract test of its port (``tests/contract``) and is chosen by a URL
in `wado.bootstrap`. All ports may be used from several threads.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO, Protocol

from wado.dicom.matching import Level, Match, MatchKind, Query
from wado.dicom.uids import InstanceRef, SeriesRef, StudyRef
from wado.errors import WadoError
from wado.records import DicomStateMeta, Table, Topic
from wado.transcode_settings import TranscodeSettings

# ------------------------------------------------------------------ message log


@dataclass(frozen=True, slots=True)
class Message:
    """What is published: messages with the same topic and key stay in order."""

    topic: Topic
    key: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Delivered:
    """A message as it is read: `offset` counts up from 0 within its topic and partition."""

    topic: Topic
    partition: int
    offset: int
    key: str
    body: bytes


class Batch(Protocol):
    """Consecutive messages of one partition of one topic, delivered to one group."""

    @property
    def messages(self) -> Sequence[Delivered]:
        """At least one message, in order of offset."""
        ...

    @property
    def label(self) -> str:
        """``<topic>-<partition>-<first offset>-<last offset>``; a replay has the same label."""
        ...

    def commit(self) -> None:
        """Move the group's offset behind the batch.

        It outlives the process; after a power cut the batch may come again.
        """
        ...

    def is_ours(self) -> bool:
        """Whether no other reader has it by now; asks nobody. Only `commit` knows for sure."""
        ...

    def reject(self, message: Delivered, reason: str) -> None:
        """Copy a message that can never be processed to ``<topic>_dlq``; durable on return.

        Rejecting the same message again (after a crash) leaves one dead letter.
        """
        ...


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was rejected, with the reason and the time (ISO 8601, UTC)."""

    message: Delivered
    group: str
    reason: str
    rejected_at: str


class MessageLog(Protocol):
    """A durable log of topics, read at least once by each group.

    * What `publish` took is durable on return.
    * Messages with the same key are delivered in the order in which `publish` returned.
    * Each group sees every message. A batch that was not committed (crash, exception) is
      delivered again, **with the same bounds**, so that a label made of them names the same rows.
    * At no time do two readers of one group hold batches of the same partition; when a reader
      dies, another takes over. (One that was frozen for longer than the log waits for it, wakes
      up with a batch that another has by now: its `commit` raises Unavailable.)
    """

    def publish(self, messages: Iterable[Message]) -> None:
        """Append messages; durable on return.

        On one machine it is atomic. A log of several machines can't always know, when it fails,
        what it took: who publishes says only things that may be said twice, or too much.

        Raises
        ------
        Unavailable
            The log can't be written now (also: disk full). It is not known that the messages were
            published; none, some or all of them may be.
        TooLarge
            A message is longer than this log ever takes; nothing was published.
        """
        ...

    def read(
        self, topic: Topic, group: str, stop: Event, *, max_messages: int = 500
    ) -> Iterator[Batch]:
        """Yield batches until `stop` is set; waits for new messages.

        The caller commits a batch before it asks for the next; a batch that was not committed
        by then comes again.
        """
        ...

    def lag(self, topic: Topic, group: str) -> int:
        """How many messages the group has not committed yet."""
        ...

    def dead_letters(self, topic: Topic) -> Iterator[DeadLetter]:
        """Rejected messages of a topic, oldest first."""
        ...

    def replay(self, letters: Iterable[DeadLetter]) -> int:
        """Publish dead letters again and remove them from the dead-letter queue; how many."""
        ...

    def trim(self, topic: Topic, groups: Collection[str], *, keep_s: float) -> int:
        """Forget messages that all of `groups` committed and that are older than `keep_s`."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


# ------------------------------------------------------------------ index


Row = Mapping[str, Any]
"""Columns of a study or series by snake_case keyword; absent attributes are None."""


class Index(Protocol):
    """Patient, study and series rows; never a row per instance. Every key begins with the tenant.

    A series row holds the fields of `DicomStateMeta`; a study row its patient and study fields
    and ``modalities_in_study`` (sorted, joined by backslash), ``number_of_study_related_series``,
    ``number_of_study_related_instances``.
    """

    def put(self, states: Sequence[DicomStateMeta], *, flush: bool = True) -> None:
        """Insert or update series, and their studies and patients, in one transaction.

        Visible on return; durable, too, or without `flush` once `flush()` returns.

        Idempotent: the same states again change nothing. Within a batch the last state of a
        series wins. A state with no instances removes the series, and a study without series
        is removed. Counts and modalities of the studies are right on return. Each series put
        awaits description.

        Raises
        ------
        Unavailable
            The database does not answer. All of it was written, or nothing: if the connection
            was cut at the end, nobody knows which; putting the same again is right in any case.
        """
        ...

    def flush(self) -> None:
        """Make durable what was put."""
        ...

    def loading(self) -> AbstractContextManager[Callable[[Sequence[DicomStateMeta]], None]]:
        """Put very many states, batch by batch, into an index that nobody else uses meanwhile.

        All are there when the context is left, or (after an exception) none. They count as
        described. Into an empty index this is several times as quick as `put`.
        """
        ...

    def search(self, query: Query) -> Sequence[Row]:
        """Study or series rows that match, newest study first, then by UID.

        `Query.order` comes before that. The order is the same for every page: of a list that
        does not change, pages join without gap, and where something arrives meanwhile, a page
        shows the rows that are at these places then.

        At series level, study attributes may be matched too and are part of the rows.
        """
        ...

    def series(self, ref: SeriesRef) -> Row | None:
        """One series row with its study's attributes, or None."""
        ...

    def all_series(self, tenant_id: str | None = None) -> Iterator[DicomStateMeta]:
        """Every series (of one tenant, or of all), for `wado check`; order by key."""
        ...

    def awaiting_description(self, limit: int) -> Sequence[tuple[SeriesRef, int]]:
        """Series that changed since they were described, oldest change first, with a version."""
        ...

    def mark_described(self, described: Sequence[tuple[SeriesRef, int]]) -> None:
        """Take series off the waiting list, unless they changed since that version."""
        ...

    def await_description(self, refs: Sequence[SeriesRef]) -> None:
        """Put series on the waiting list again, whose documents show no longer what there is.

        Durable on return. Those that are not there are passed over.
        """
        ...

    def close(self) -> None:
        """Let go of the connections."""
        ...


# ------------------------------------------------------------------ warehouse


class Warehouse(Protocol):
    """Rows for statistics and audit. A labelled batch is loaded once, however often it is sent."""

    def load(self, table: Table, rows: Sequence[bytes], label: str) -> bool:
        """Load rows (one JSON object each), all or none; False if the label was loaded before.

        Tables with a unique key keep the last row of a key. Of a batch too large for one load,
        parts may be there before the others, until the same label was sent with success.

        Raises
        ------
        Unavailable
            The warehouse does not answer; sending the same label again is safe.
        InvalidMessage
            The rows do not fit the table.
        """
        ...

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Run a read-only query of our own making; ``?`` stands for a parameter.

        Times are ISO 8601 in UTC with microseconds, in rows and in parameters.

        Raises
        ------
        InvalidRequest, Unavailable
            It is not a query, or it can't be answered.
        """
        ...

    def delete(self, series: SeriesRef, sop_instance_uids: Sequence[str], label: str = "") -> None:
        """Remove instances from `dicom_image_meta`; what was received stays on record.

        Under a label it is done once, as a load is: a reader that was frozen, and wakes up when
        another has gone on, takes away nothing that came since.
        """
        ...

    def clear(self, table: Table) -> None:
        """Remove all rows of a table, before a rebuild."""
        ...

    def count(self, table: Table, tenant_id: str | None = None) -> int:
        """Count the rows of a table (of one tenant, or of all)."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


# ------------------------------------------------------------------ instance store


class Incoming(Protocol):
    """A file on its way in. Nobody sees it before `InstanceStore.commit`."""

    ref: InstanceRef | None
    size: int

    def write(self, data: Sequence[bytes | memoryview]) -> None:
        """Append; raises OutOfResources when there is no space."""
        ...

    def abort(self) -> None:
        """Throw the file away; harmless after commit."""
        ...


class StoreOutcome(StrEnum):
    """What `InstanceStore.commit` did with a file."""

    STORED = "stored"
    SAME = "same"
    DIFFERENT = "different"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the store, found by walking it.

    `changed_s` is when its name or content changed last: of one that was moved, no earlier than
    that. `transfer_syntax_uid` is that of a derived copy, empty of an original.
    """

    ref: InstanceRef
    file_path: str
    file_size: int
    modified_s: float
    changed_s: float = 0.0
    transfer_syntax_uid: str = ""


class InstanceStore(Protocol):
    """Files: whole or absent, durable before `commit` returns. Originals never change in place.

    Beside the originals it keeps *documents* (metadata files: replaced whole) and *journals*
    (appended; torn appends are cut off), named by a path below the root that the core makes
    from validated values.
    """

    def receive(self, ref: InstanceRef | None) -> Incoming:
        """Open a new file, to be written piece by piece; `ref` may be set until commit."""
        ...

    def commit(
        self, incoming: Sequence[Incoming], *, replace: bool
    ) -> Sequence["StoreOutcome | WadoError"]:
        """Make files durable and visible, together; one outcome each, in order.

        SAME: a file with the same data set is there already. DIFFERENT: a file with another
        data set is there and `replace` is False; it stays. An error (OutOfResources) stands for
        a file that could not be stored; the others are not harmed.
        """
        ...

    def open(self, path: str, *, ahead: tuple[int, int] | None = None) -> BinaryIO:
        """Open a file, document or journal for reading (seekable). Raises NotFound.

        `ahead` is the offset and length of what will be read first, for stores that are asked
        over a network: it may come with the answer whether the file is there.
        """
        ...

    def local_path(self, path: str) -> Path | None:
        """Where a file lies on this machine, for sendfile; None if it is elsewhere."""
        ...

    def version(self, path: str) -> tuple[int, int] | None:
        """Identity and size in bytes of a file, document or journal; None if it is absent.

        A document or file that was replaced has another identity; a journal only grows.
        """
        ...

    def put_document(self, path: str, data: Iterable[bytes], *, at: int | None = None) -> bool:
        """Replace a document whole: readers see the old or the new one. Durable on return.

        With `at` it is a journal, replaced only if it is that long, in turn with appends; False
        if it was not.
        """
        ...

    def append(
        self, appends: Mapping[str, bytes], *, at: int | Mapping[str, int] | None = None
    ) -> bool:
        """Append to journals; whole and durable on return, one writer at a time.

        With `at` (of all, or by path), only to journals that are that long; False if one was not:
        then some of the others may have grown, on a store elsewhere.
        """
        ...

    def delete(self, paths: Sequence[str], *, at: int | None = None) -> None:
        """Remove files, documents or journals; those absent are passed over.

        With `at` they are journals, removed only if they are that long, in turn with appends.
        """
        ...

    def instances(
        self, under: str | StudyRef | SeriesRef | None = None, *, place: str = ""
    ) -> Iterator[StoredFile]:
        """Walk the originals of a tenant, study or series, or of all, in order of their paths.

        With `place`, those that were moved below that folder; each under its own path there, or
        with a number behind it (``….dcm.2``). With ``derived``, the derived copies.
        """
        ...

    def move(self, moves: Mapping[str, str]) -> Collection[str]:
        """Give files other paths; durable on return, all together.

        What is absent is passed over, and a path that is taken stays as it is.

        Returns
        -------
        moved
            The old paths of those that were moved.
        """
        ...

    def abandoned(self, *, older_than_s: float) -> Iterator[str]:
        """Paths of temporary files that were not written to for so long: their writer died."""
        ...


# ------------------------------------------------------------------ cache


class Cache(Protocol):
    """May forget at any time; never the only copy.

    None of its methods fails when it is away, except `check`: nothing is found then, and nothing
    kept. Who relies on `delete` gives values a short life, or names them by a version: a value
    that could not be deleted is found again when the cache is back.
    """

    def check(self) -> None:
        """Raise Unavailable if it does not answer now."""
        ...

    def close(self) -> None:
        """Let go of memory and connections."""
        ...

    def get(self, key: str) -> bytes | None:
        """Look up; None if absent or forgotten."""
        ...

    def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """Keep for at most `ttl_s` seconds."""
        ...

    def delete(self, *keys: str) -> None:
        """Forget."""
        ...

    def lock(self, key: str, *, ttl_s: float) -> AbstractContextManager[bool]:
        """Try to hold a lock for at most `ttl_s` seconds; yields whether it is held.

        It spares double work, and guards nothing: granted to all when the cache is away, and
        possibly another's before the work is done.
        """
        ...


@dataclass(frozen=True, slots=True)
class Archive:
    """The five ports, and the values that the core needs: the whole dependency injection.

    `services_are_shared` says that several machines use the services behind the ports.
    """

    log: MessageLog
    index: Index
    warehouse: Warehouse
    store: InstanceStore
    cache: Cache
    replace_duplicates: bool = False
    refuse_unknown_sop_classes: bool = True
    commitments_keep_s: float = 30 * 86400.0
    services_are_shared: bool = False
    transcode: TranscodeSettings = field(default_factory=TranscodeSettings)


__all__ = [
    "Archive",
    "Batch",
    "Cache",
    "DeadLetter",
    "Delivered",
    "Incoming",
    "Index",
    "InstanceStore",
    "Level",
    "Match",
    "MatchKind",
    "Message",
    "MessageLog",
    "Query",
    "Row",
    "StoreOutcome",
    "StoredFile",
    "Warehouse",
]
