"""C-STORE and C-ECHO as SCU: what `wado send` and `wado echo` do.

The files are not decoded: only their heads are read, exactly what they need is proposed, and
their data sets are sent as they lie on disk.
"""

import contextlib
import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import RawIOBase
from pathlib import Path
from typing import Final

from wado.dicom.head_scanner import HeadScanner
from wado.dicom.part10 import MAX_FILE_META_BYTES, FileMeta, Incomplete, read_file_meta
from wado.dicom.pdu import ContextResult
from wado.dicom.sop_classes import STORAGE_SOP_CLASSES, transfer_syntax
from wado.dicom.uids import validate_uid
from wado.errors import (
    AssociationRejected,
    CannotUnderstand,
    InvalidUID,
    MalformedPDU,
    Unavailable,
    WadoError,
)
from wado.services.association import (
    IMPLICIT_VR_LITTLE_ENDIAN,
    MAX_CONTEXTS,
    VERIFICATION,
    Association,
    Pair,
    Peer,
)

DEFAULT_AE_TITLE: Final = "WADO_SCU"
_DICOMDIR: Final = "1.2.840.10008.1.3.10"
_HEAD_BYTES: Final = 1 << 12
_SCAN_BYTES: Final = 1 << 22
_MAX_CHUNK_FILES: Final = 32
"""Files that an association takes at a time; neighbours are mostly of one series."""
_MAX_TRIES: Final = 3
"""Associations that may be lost on one file before it is given up."""
_BACK_OFF_S: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
_PROGRESS_FILES: Final = 200

_STATUS_UID = re.compile(r"\A([0-9A-F]{4}H.*?)\d+(?:\.\d+){3,}\.*")

_STATUS_NAMES = {
    0x0110: "processing failure",
    0x0111: "duplicate SOP instance",
    0x0115: "invalid argument value",
    0x0117: "invalid SOP instance",
    0x0122: "SOP class not supported",
    0x0124: "not authorised",
    0x0210: "duplicate invocation",
    0x0211: "unrecognised operation",
    0x0212: "mistyped argument",
    0x0213: "resource limitation",
}
_STATUS_FAMILIES = {
    0xA700: "out of resources",
    0xA900: "data set does not match SOP class",
    0xC000: "cannot understand",
}
_WARNINGS = frozenset({0x0001, 0x0107, 0x0116})
"""Warnings of PS3.7 Annex C beside the family Bxxx."""


@dataclass(frozen=True, slots=True)
class DicomFile:
    """A file to send; `size` is that of the data set, from `offset` to the end of the file."""

    path: Path
    pair: Pair
    sop_instance_uid: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Unsent:
    """A file that was not sent, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is; while `is_searching`, the totals still grow."""

    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int
    is_searching: bool = False


@dataclass(frozen=True, slots=True)
class SendSummary:
    """What became of the files. Those with a warning are sent, too."""

    files_sent: int
    bytes_sent: int
    duration_s: float
    warnings: tuple[Unsent, ...] = ()
    failures: tuple[Unsent, ...] = ()
    skipped: tuple[Unsent, ...] = ()

    @staticmethod
    def grouped(items: Sequence[Unsent]) -> list[tuple[str, list[Path]]]:
        """Group by reason, the UIDs in it aside; the most frequent first."""
        groups: dict[str, list[Path]] = {}
        for item in items:
            groups.setdefault(_STATUS_UID.sub(r"\1…", item.reason), []).append(item.path)
        return sorted(groups.items(), key=lambda group: -len(group[1]))


def echo(peer: Peer, *, calling_ae_title: str = DEFAULT_AE_TITLE, timeout_s: float = 10.0) -> float:
    """C-ECHO; the time to the answer in seconds.

    Raises
    ------
    Unavailable
        Nobody answers, or not with success.
    AssociationRejected
        The peer does not want us.
    """
    pair = (VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN)
    with Association(
        peer, [pair], calling_ae_title=calling_ae_title, timeout_s=timeout_s
    ) as association:
        if association.refusal(pair) is not None:
            raise AssociationRejected(f"{peer} does not offer Verification")
        return association.echo()


def find_files(paths: Sequence[Path]) -> Iterator[DicomFile | Unsent]:
    """Walk files and folders in order; recognise DICOM files by content, not by name."""
    for path in paths:
        if path.is_dir():
            for folder, folders, names in os.walk(path):
                folders.sort()
                for name in sorted(names):
                    yield _recognise(Path(folder, name))
        else:
            yield _recognise(path)


def send(
    paths: Sequence[Path],
    to: Peer,
    *,
    calling_ae_title: str = DEFAULT_AE_TITLE,
    associations: int = 4,
    timeout_s: float = 60.0,
    progress: Callable[[Progress], None] | None = None,
) -> SendSummary:
    """Send files and folders over several associations.

    Parameters
    ----------
    paths
        Files and folders; folders are searched at any depth.
    to
        The receiver.
    associations
        How many at a time, each on a thread of its own.
    progress
        Called often, one call at a time, from any thread.

    Raises
    ------
    Unavailable, AssociationRejected
        No association came about, so nothing was sent. Later losses are tried again for what was
        not acknowledged, and end as failures in the summary.
    """
    begin = time.monotonic()
    sending = _Sending(progress or (lambda _: None))
    sending.search(paths)
    for files in _by_contexts(sending.files):
        count = min(associations, len(files))
        step = max(1, min(_MAX_CHUNK_FILES, len(files) // (4 * count)))
        work = deque(files[n : n + step] for n in range(0, len(files), step))
        pairs = list(dict.fromkeys(file.pair for file in files))
        connect = _Connect(to, pairs, calling_ae_title, timeout_s)
        _run_threads([_Thread(sending, work, connect) for _ in range(count)], sending)
        sending.give_up(work)
    return SendSummary(
        files_sent=sending.files_sent,
        bytes_sent=sending.bytes_sent,
        duration_s=time.monotonic() - begin,
        warnings=tuple(sending.warnings),
        failures=tuple(sending.failures),
        skipped=tuple(sending.skipped),
    )


# ------------------------------------------------------------------ files


def _recognise(path: Path) -> DicomFile | Unsent:
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            meta, head = _read_head(file)
            if meta.sop_class_uid == _DICOMDIR:
                return Unsent(path, "a DICOMDIR, which is a directory of files, not an instance")
            sop_class, instance = _sop_uids(meta, head)
            if not (sop_class and instance):
                sop_class, instance = _sop_uids(meta, head + (file.read(_SCAN_BYTES) or b""))
        transfer_syntax_uid = validate_uid(meta.transfer_syntax_uid)
    except (CannotUnderstand, InvalidUID) as e:
        return Unsent(path, f"not DICOM Part 10: {e}")
    except OSError as e:
        return Unsent(path, f"cannot be read: {e.strerror}")
    if not (sop_class and instance):
        return Unsent(path, "without SOP Class UID or SOP Instance UID")
    offset = meta.data_set_offset
    # Interned, for there may be a million files of the same few pairs.
    pair = (sys.intern(sop_class), sys.intern(transfer_syntax_uid))
    return DicomFile(path, pair, instance, offset, size - offset)


def _read_head(file: RawIOBase) -> tuple[FileMeta, bytes]:
    head = file.read(_HEAD_BYTES) or b""
    try:
        return read_file_meta(head), head
    except Incomplete:
        head += file.read(MAX_FILE_META_BYTES) or b""
        return read_file_meta(head), head


def _sop_uids(meta: FileMeta, head: bytes) -> tuple[str, str]:
    """SOP class and instance as the data set has them, else as File Meta has them, else empty.

    Where the two differ the receiver would refuse what File Meta announces (A900).
    """
    scanner = HeadScanner(meta.transfer_syntax_uid)
    with contextlib.suppress(CannotUnderstand):  # whether it can be stored, the receiver says
        scanner.feed(head[meta.data_set_offset :])
    found = scanner.found
    return (
        _first_uid(found.get(0x00080016, b""), meta.sop_class_uid),
        _first_uid(found.get(0x00080018, b""), meta.sop_instance_uid),
    )


def _first_uid(*candidates: bytes | str) -> str:
    for candidate in candidates:
        with contextlib.suppress(InvalidUID):
            return validate_uid(candidate)
    return ""


def _by_contexts(files: Sequence[DicomFile]) -> Iterator[list[DicomFile]]:
    """Part the files so that those of each part need no more contexts than there are ids."""
    pairs = list(dict.fromkeys(file.pair for file in files))
    for start in range(0, len(pairs), MAX_CONTEXTS):
        part = set(pairs[start : start + MAX_CONTEXTS])
        yield [file for file in files if file.pair in part]


# ------------------------------------------------------------------ sending


@dataclass(slots=True)
class _Sending:
    """What the threads share."""

    progress: Callable[[Progress], None]
    files: list[DicomFile] = field(default_factory=list)
    skipped: list[Unsent] = field(default_factory=list)
    failures: list[Unsent] = field(default_factory=list)
    warnings: list[Unsent] = field(default_factory=list)
    tries: dict[Path, int] = field(default_factory=dict)
    files_sent: int = 0
    bytes_sent: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    was_connected: bool = False
    last_error: WadoError | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def search(self, paths: Sequence[Path]) -> None:
        for found in find_files(paths):
            if isinstance(found, Unsent):
                self.skipped.append(found)
                continue
            self.files.append(found)
            self.bytes_total += found.size
            if len(self.files) % _PROGRESS_FILES == 0:
                self._tell(is_searching=True)
        self._tell()

    def count_bytes(self, count: int) -> None:
        with self.lock:
            self.bytes_done += count
            self._tell()

    def acknowledge(self, file: DicomFile, status: int, comment: str) -> None:
        """Count what the peer answered."""
        reason = _status_text(status, comment)
        with self.lock:
            if status == 0 or status >> 12 == 0xB or status in _WARNINGS:
                self.files_sent += 1
                self.bytes_sent += file.size
                if status:
                    self.warnings.append(Unsent(file.path, reason))
            else:
                self.failures.append(Unsent(file.path, reason))
            self._tell()

    def fail(self, file: DicomFile, reason: str) -> None:
        with self.lock:
            self.failures.append(Unsent(file.path, reason))
            self._tell()

    def give_up(self, work: deque[list[DicomFile]]) -> None:
        """Count as failed what no association was left for."""
        if work and not self.was_connected and self.last_error is not None:
            raise self.last_error
        while work:
            for file in work.popleft():
                self.fail(file, str(self.last_error or "not sent"))

    def _tell(self, *, is_searching: bool = False) -> None:
        done = self.files_sent + len(self.failures)
        total = (len(self.files), self.bytes_done, self.bytes_total)
        self.progress(Progress(done, *total, is_searching=is_searching))


@dataclass(frozen=True, slots=True)
class _Connect:
    """How to associate for some files: all threads propose the same."""

    peer: Peer
    pairs: Sequence[Pair]
    calling_ae_title: str
    timeout_s: float

    def __call__(self) -> Association:
        return Association(
            self.peer,
            self.pairs,
            calling_ae_title=self.calling_ae_title,
            timeout_s=self.timeout_s,
        )


class _Thread(threading.Thread):
    """One association at a time, until there is no work or no way to the peer."""

    def __init__(self, sending: _Sending, work: deque[list[DicomFile]], connect: _Connect) -> None:
        super().__init__(name="storescu", daemon=True)
        self._sending = sending
        self._work = work
        self._connect = connect
        self._mine: deque[DicomFile] = deque()

    def run(self) -> None:
        losses = 0
        while losses < len(_BACK_OFF_S) and not self._sending.stop.is_set():
            if not self._next():
                return
            before = self._sending.files_sent
            try:
                with self._connect() as association:
                    self._sending.was_connected = True
                    self._send_all(association)
            except (AssociationRejected, Unavailable, MalformedPDU) as e:
                self._sending.last_error = e
                if not self._may_retry(e):
                    break
                losses = 0 if self._sending.files_sent > before else losses + 1
                self._sending.stop.wait(_BACK_OFF_S[min(losses, len(_BACK_OFF_S) - 1)])
        if self._mine:  # others may have more luck
            self._work.append(list(self._mine))

    def _may_retry(self, error: WadoError) -> bool:
        """Whether it was more than a mistake in the address or a matter of principle."""
        if isinstance(error, AssociationRejected):
            return error.is_transient
        return self._sending.was_connected

    def _next(self) -> bool:
        """Take files from the common work when there are none in hand."""
        if not self._mine:
            try:
                self._mine.extend(self._work.popleft())
            except IndexError:
                return False
        return True

    def _send_all(self, association: Association) -> None:
        while self._next() and not self._sending.stop.is_set():
            file = self._mine[0]
            refusal = association.refusal(file.pair)
            if refusal is not None:
                self._sending.fail(file, _refusal_text(file.pair, refusal))
            else:
                self._send(association, file)
            self._mine.popleft()

    def _send(self, association: Association, file: DicomFile) -> None:
        """Send one file; what is lost with the association is tried again, but not for ever."""
        sending = self._sending
        sent = 0

        def count(number: int) -> None:
            nonlocal sent
            sent += number
            sending.count_bytes(number)

        try:
            fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as e:
            sending.fail(file, f"cannot be read: {e.strerror}")
            return
        try:
            os.lseek(fd, file.offset, os.SEEK_SET)
            response = association.store(file.pair, file.sop_instance_uid, fd, file.size, count)
        except (Unavailable, MalformedPDU) as e:
            sending.count_bytes(-sent)
            tries = sending.tries[file.path] = sending.tries.get(file.path, 0) + 1
            if tries >= _MAX_TRIES:
                sending.fail(file, str(e))
                self._mine.popleft()
            raise
        finally:
            os.close(fd)
        sending.acknowledge(file, response.status or 0, response.error_comment or "")


def _run_threads(threads: Sequence[_Thread], sending: _Sending) -> None:
    """Run them to their end; an interrupt stops them after the file in hand."""
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:
        sending.stop.set()
        raise


def _status_text(status: int, comment: str) -> str:
    family = _STATUS_FAMILIES.get(status & 0xFF00) or (
        _STATUS_FAMILIES[0xC000] if status >> 12 == 0xC else None
    )
    name = _STATUS_NAMES.get(status) or family or "status of the peer"
    return f"{status:04X}H {name}" + (f": {comment}" if comment else "")


def _refusal_text(pair: Pair, refusal: ContextResult) -> str:
    sop_class = STORAGE_SOP_CLASSES.get(pair[0], pair[0])
    syntax = transfer_syntax(pair[1])
    name = syntax.name if syntax.encapsulated is not None else pair[1]
    why = refusal.name.lower().replace("_", " ")
    return f"the peer does not take {sop_class} in {name}: {why}"
