"""The one way in, for C-STORE and STOW-RS: file, then announcement, then success (DESIGN §5).

A `Reception` takes the bytes of one instance as they come; a `Committer` makes receptions durable
together (group commit), announces them on the log, and only then resolves their futures.
"""

import hashlib
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from random import getrandbits
from threading import Thread
from types import TracebackType
from typing import Self

from wado import vitals
from wado.archive.journal import Journals
from wado.archive.paths import instance_path
from wado.archive.reading import reading
from wado.dicom.part10 import (
    MAX_FILE_META_BYTES,
    FileMeta,
    HeadScanner,
    Incomplete,
    file_meta,
    read_file_meta,
)
from wado.dicom.sop_classes import STORAGE_SOP_CLASSES
from wado.dicom.uids import InstanceRef, StudyRef, validate_uid
from wado.errors import (
    CannotUnderstand,
    DuplicateInstance,
    InvalidUID,
    NotFound,
    SOPClassMismatch,
    SOPClassNotSupported,
    Unavailable,
    WadoError,
)
from wado.ports import Archive, Incoming, Message, StoreOutcome
from wado.records import DicomStoreMeta, Topic

_SPILL_BYTES = 1 << 20
"""Head of this size without UIDs is written to a file rather than held in memory."""
_MAX_GROUP = 256
_READ_BYTES = 1 << 20

_WANTED = {
    0x00080016: "SOP Class UID (0008,0016)",
    0x00080018: "SOP Instance UID (0008,0018)",
    0x0020000D: "Study Instance UID (0020,000D)",
    0x0020000E: "Series Instance UID (0020,000E)",
}


@dataclass(frozen=True, slots=True)
class Source:
    """Who sends: AE title, network address, and ``dimse`` or ``stow``."""

    ae_title: str = ""
    address: str = ""
    protocol: str = ""


@dataclass(frozen=True, slots=True)
class Announced:
    """What a C-STORE request says of the data set that follows."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True, slots=True)
class Stored:
    """An instance that is safe: what was announced of it, and whether it was new.

    It `is_news` if it is announced: it becomes visible soon, else it is already.
    """

    meta: DicomStoreMeta
    outcome: StoreOutcome
    is_news: bool = True


class Reception:
    """One instance on its way in.

    Parameters
    ----------
    archive
        Where it goes.
    tenant_id
        Whose it is; from configuration, never from the data set.
    source
        Who sends it.
    announced
        Given, the bytes are a bare data set (C-STORE) and File Meta Information is written before
        it; None: they are a PS3.10 file (STOW-RS), kept as sent.
    study
        The study that the instance must belong to, if any (``POST /studies/{study}``).
    """

    __slots__ = (
        "_announced", "_archive", "_digest", "_head", "_incoming", "_meta", "_pending", "_scanner",
        "_source", "_study", "_tenant_id", "ref", "size", "sop_class_uid", "sop_instance_uid",
        "trace_id",
    )  # fmt: skip

    def __init__(
        self,
        archive: Archive,
        tenant_id: str,
        source: Source,
        *,
        announced: Announced | None = None,
        study: StudyRef | None = None,
    ) -> None:
        self._archive = archive
        self._tenant_id = tenant_id
        self._source = source
        self._announced = announced
        self._study = study
        self._digest = hashlib.sha256()
        self._incoming: Incoming | None = None
        self._pending: list[bytes] = []
        self._head = b""
        self._meta: FileMeta | None = None
        self._scanner: HeadScanner | None = None
        self.ref: InstanceRef | None = None
        # Known also of an instance that is refused: the answer names it.
        self.sop_class_uid = self.sop_instance_uid = ""
        self.size = 0
        # A name, not a secret: asking the system for chance would cost more than all the rest.
        self.trace_id = f"{getrandbits(128):032x}"
        if announced:
            head = file_meta(
                announced.sop_class_uid, announced.sop_instance_uid, announced.transfer_syntax_uid
            )
            self._meta = FileMeta(
                announced.sop_class_uid,
                announced.sop_instance_uid,
                announced.transfer_syntax_uid,
                len(head),
            )
            self._scanner = HeadScanner(announced.transfer_syntax_uid)
            self._keep(head)

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes; they are not referenced after return.

        Raises
        ------
        WadoError
            The instance can't be stored; the caller calls `abort` and reads on to its end.
        """
        if self._meta is None:
            self._take_file_meta(data)
            return
        self._scan(data)
        self._keep(data)

    def _take_file_meta(self, data: bytes | memoryview) -> None:
        """Gather the head of a PS3.10 file until its File Meta Information is whole."""
        self._head += data
        try:
            meta = read_file_meta(self._head)
        except Incomplete:
            if len(self._head) > MAX_FILE_META_BYTES:
                raise
            return
        head, self._head = self._head, b""
        self._meta = meta
        self._scanner = HeadScanner(meta.transfer_syntax_uid)
        self._scan(memoryview(head)[meta.data_set_offset :])
        self._keep(head)

    def _scan(self, data: bytes | memoryview) -> None:
        assert self._scanner is not None
        if self._scanner.feed(data) and self.ref is None:
            self._identify(self._scanner.found)

    def _identify(self, found: dict[int, bytes]) -> None:
        """Check what the data set says of itself against what was said of it."""
        missing = [name for tag, name in _WANTED.items() if not found.get(tag, b"").strip(b"\0 ")]
        if missing:
            raise CannotUnderstand(f"the data set lacks {', '.join(missing)}")
        try:
            self.sop_class_uid = validate_uid(found[0x00080016])
            self.sop_instance_uid = validate_uid(found[0x00080018])
            ref = InstanceRef.of(
                self._tenant_id, found[0x0020000D], found[0x0020000E], self.sop_instance_uid
            )
        except InvalidUID as e:
            raise CannotUnderstand(str(e)) from e
        if self._announced:
            self._compare("SOP class", self._announced.sop_class_uid, self.sop_class_uid)
            self._compare("SOP instance", self._announced.sop_instance_uid, ref.sop_instance_uid)
        if self._study:
            self._compare("study", self._study.study_instance_uid, ref.study_instance_uid)
        if self._archive.refuse_unknown_sop_classes and (
            self.sop_class_uid not in STORAGE_SOP_CLASSES
        ):
            raise SOPClassNotSupported(f"SOP class {self.sop_class_uid} is not stored here")
        self.ref = ref

    @staticmethod
    def _compare(what: str, announced: str, found: str) -> None:
        if announced != found:
            raise SOPClassMismatch(f"{what} {found} in the data set, {announced} announced")

    def _keep(self, data: bytes | memoryview) -> None:
        """Hash and write, or hold back the little that comes before the UIDs."""
        self._digest.update(data)
        self.size += len(data)
        if self._incoming is not None:
            self._incoming.write([data])
        elif self.ref is not None or self.size > _SPILL_BYTES:
            self._incoming = self._archive.store.receive(self.ref)
            self._incoming.write([*self._pending, data])
            self._pending.clear()
        else:
            self._pending.append(bytes(data))

    def finish(self) -> None:
        """Say that no more bytes come.

        Raises
        ------
        CannotUnderstand
            The data set ends early, or lacks what identifies it.
        """
        if self._scanner is None:
            raise CannotUnderstand(
                "not a DICOM file: it ends within its File Meta Information"
                if self._head
                else "not a DICOM file: it is empty"
            )
        self._scanner.finish()
        if self.ref is None:
            self._identify(self._scanner.found)
        if self._incoming is None:
            self._incoming = self._archive.store.receive(self.ref)
            self._incoming.write(self._pending)
            self._pending.clear()
        self._incoming.ref = self.ref

    def abort(self) -> None:
        """Throw away what came; harmless at any time."""
        self._pending.clear()
        if self._incoming is not None:
            self._incoming.abort()

    @property
    def incoming(self) -> Incoming:
        """The file, after `finish`."""
        assert self._incoming is not None
        return self._incoming

    def meta(self) -> DicomStoreMeta:
        """What is announced of the instance, after `finish`."""
        assert self.ref is not None
        assert self._meta is not None
        assert self._scanner is not None
        patient_id = self._scanner.found.get(0x00100020, b"")
        return DicomStoreMeta(
            tenant_id=self.ref.tenant_id,
            study_instance_uid=self.ref.study_instance_uid,
            series_instance_uid=self.ref.series_instance_uid,
            sop_instance_uid=self.ref.sop_instance_uid,
            sop_class_uid=self.sop_class_uid,
            transfer_syntax_uid=self._meta.transfer_syntax_uid,
            # Undecoded: its character set is known only to the consumer, who records it again.
            patient_id=patient_id.decode("utf-8", "replace").strip("\0 "),
            file_name=f"{self.ref.sop_instance_uid}.dcm",
            file_path=instance_path(self.ref),
            file_size=self.size,
            digest=self._digest.hexdigest(),
            received_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            trace_id=self.trace_id,
            source_ae_title=self._source.ae_title,
            source_address=self._source.address,
            source_protocol=self._source.protocol,
        )


class Committer:
    """Commits receptions in groups, in a thread of its own: all that wait share one flush.

    Used as a context manager; on exit what was submitted is finished first.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._journals = Journals(archive.store)
        self._queue: SimpleQueue[tuple[Reception, Future[Stored]] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="committer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()

    def submit(self, reception: Reception) -> Future[Stored]:
        """Commit a finished reception; the future resolves once it is safe.

        The future raises DuplicateInstance (other bytes are stored under the UID),
        OutOfResources, or Unavailable.
        """
        future: Future[Stored] = Future()
        future.set_running_or_notify_cancel()  # who stops waiting can't call it off
        self._queue.put((reception, future))
        return future

    def _run(self) -> None:
        while True:
            group = [self._queue.get()]
            while len(group) < _MAX_GROUP:
                try:
                    group.append(self._queue.get_nowait())
                except Empty:
                    break
            work = [item for item in group if item is not None]
            if work:
                with vitals.at("commit files"):
                    self._commit(work)
            if len(work) < len(group):
                return

    def _commit(self, work: list[tuple[Reception, Future[Stored]]]) -> None:
        try:
            outcomes = store_group(self._archive, self._journals, [r for r, _ in work])
        except Exception as e:  # noqa: BLE001 - whatever it is, the senders must get an answer
            outcomes = [e for _ in work]
        for (reception, future), outcome in zip(work, outcomes, strict=True):
            if isinstance(outcome, Stored):
                future.set_result(outcome)
            else:
                reception.abort()
                future.set_exception(outcome)
        taken = [outcome.meta.file_size for outcome in outcomes if isinstance(outcome, Stored)]
        vitals.count("wado_images_received", len(taken))
        vitals.count("wado_received_bytes", sum(taken))
        vitals.count("wado_images_refused", len(work) - len(taken))


def store_group(
    archive: Archive, journals: Journals, receptions: list[Reception]
) -> list[Stored | Exception]:
    """Make finished receptions durable and announce them; one result each, in order.

    Nothing is announced twice: a file that was there with the same data set, and is known to the
    series journal, is success without new work. That it came again is put on record all the same:
    when the log failed before, it may have taken the announcement and not the record.
    """
    outcomes = archive.store.commit(
        [r.incoming for r in receptions], replace=archive.replace_duplicates
    )
    results: list[Stored | Exception] = []
    announce: list[DicomStoreMeta] = []
    repeated: list[DicomStoreMeta] = []
    for reception, outcome in zip(receptions, outcomes, strict=True):
        if isinstance(outcome, WadoError):
            results.append(outcome)
            continue
        if outcome is StoreOutcome.DIFFERENT:
            results.append(DuplicateInstance("other bytes are stored under this SOP Instance UID"))
            continue
        meta = reception.meta()
        try:
            news = _news(archive, journals, meta) if outcome is StoreOutcome.SAME else meta
        except WadoError as e:
            results.append(e)
            continue
        if news is not None:
            announce.append(news)
        else:
            repeated.append(meta)
        results.append(Stored(news or meta, outcome, is_news=news is not None))
    try:
        announce_instances(archive, announce, repeated)
    except Unavailable as e:
        # The files stay: the sender repeats, and finds them SAME and not yet announced.
        announced = set(map(id, [*announce, *repeated]))
        return [e if isinstance(r, Stored) and id(r.meta) in announced else r for r in results]
    return results


def _news(archive: Archive, journals: Journals, meta: DicomStoreMeta) -> DicomStoreMeta | None:
    """Say what is to be announced of a data set that was there already, if it is news.

    It is if the journal doesn't know the file, or knows another version of it. The file that is
    there may differ from the one that came in its File Meta Information, hence in size and digest.
    """
    view = journals.view(meta.ref.series)
    entry = view.entries.get(meta.sop_instance_uid) if view else None
    if entry is not None and entry.digest == meta.digest:
        return None
    try:
        meta = as_stored(archive, meta)
    except NotFound:  # to the quarantine, a moment ago
        raise Unavailable("the file was moved meanwhile") from None
    return None if entry is not None and entry.digest == meta.digest else meta


def as_stored(archive: Archive, meta: DicomStoreMeta) -> DicomStoreMeta:
    """Take from the file itself what depends on its version.

    Raises
    ------
    NotFound
        The file is not there.
    CannotUnderstand
        It has no File Meta Information.
    Unreadable
        It can't be read now.
    """
    path = meta.file_path
    with reading(path), archive.store.open(path) as file:
        piece = file.read(_READ_BYTES)
        head, digest, size = read_file_meta(piece), hashlib.sha256(), 0
        while piece:
            digest.update(piece)
            size += len(piece)
            vitals.goes_on()
            piece = file.read(_READ_BYTES)
    return replace(
        meta,
        sop_class_uid=head.sop_class_uid,
        transfer_syntax_uid=head.transfer_syntax_uid,
        file_size=size,
        digest=digest.hexdigest(),
    )


def announce_instances(
    archive: Archive, metas: Iterable[DicomStoreMeta], repeated: Iterable[DicomStoreMeta] = ()
) -> None:
    """Publish receptions to `storage_queue` and `log_queue`, durably, in one go.

    Those that `repeated` what is known already are only put on record.
    """
    messages = []
    for meta in metas:
        body, key = meta.to_json(), meta.key
        messages.append(Message(Topic.STORAGE, key, body))
        messages.append(Message(Topic.LOG, key, body))
    messages += [Message(Topic.LOG, meta.key, meta.to_json()) for meta in repeated]
    if messages:
        archive.log.publish(messages)
