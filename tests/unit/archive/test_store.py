"""The one way in: what is refused, what is announced, and in which order."""

import hashlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

import synthetic
from wado.archive.journal import Journals, journal_line
from wado.archive.paths import instance_path, journal_path
from wado.archive.store import Announced, Committer, Reception, Source, Stored, store_group
from wado.dicom.uids import StudyRef
from wado.errors import (
    CannotUnderstand,
    DuplicateInstance,
    SOPClassMismatch,
    SOPClassNotSupported,
    Unavailable,
    WadoError,
)
from wado.ports import Archive, Message, StoreOutcome
from wado.records import DicomStoreMeta, Topic
from wado.settings import Settings

SOURCE = Source("MODALITY", "127.0.0.1", "dimse")
EXPLICIT = "1.2.840.10008.1.2.1"


class RecordingLog:
    """Stands before the real log: notes what is published, and can be down."""

    def __init__(self, archive: Archive) -> None:
        self._log = archive.log
        self.published: list[Message] = []
        self.down = False

    def publish(self, messages: Iterable[Message]) -> None:
        if self.down:
            raise Unavailable("the log is down")
        batch = list(messages)
        self._log.publish(batch)
        self.published += batch


@pytest.fixture
def log(archive: Archive) -> RecordingLog:
    return RecordingLog(archive)


@pytest.fixture
def recorded(archive: Archive, log: RecordingLog) -> Archive:
    return replace(archive, log=log)  # type: ignore[arg-type]  # only `publish` is asked for


def pieces(data: bytes, size: int = 1000) -> Iterator[memoryview]:
    view = memoryview(data)
    for start in range(0, len(data), size):
        yield view[start : start + size]


def received(
    archive: Archive, ds: Dataset, *, size: int = 1000, study: StudyRef | None = None
) -> Reception:
    reception = Reception(archive, "clinic", SOURCE, study=study)
    for piece in pieces(synthetic.part10(ds), size):
        reception.write(piece)
    reception.finish()
    return reception


def commit(archive: Archive, *receptions: Reception) -> list[Stored | Exception]:
    return store_group(archive, Journals(archive.store), list(receptions))


@pytest.mark.parametrize("size", [1, 77, 100_000])
def test_file_is_stored_as_sent_and_announced(
    recorded: Archive, log: RecordingLog, size: int
) -> None:
    ds = synthetic.ct()
    (result,) = commit(recorded, received(recorded, ds, size=size))
    assert isinstance(result, Stored)
    data = synthetic.part10(ds)
    meta = result.meta
    with recorded.store.open(instance_path(meta.ref)) as file:
        assert file.read() == data
    assert meta.digest == hashlib.sha256(data).hexdigest()
    assert meta.file_size == len(data)
    assert meta.patient_id == ds.PatientID
    assert [m.topic for m in log.published] == [Topic.STORAGE, Topic.LOG]
    assert DicomStoreMeta.from_json(log.published[0].body) == meta


def test_data_set_of_c_store_gets_file_meta(recorded: Archive) -> None:
    ds = synthetic.ct()
    announced = Announced(ds.SOPClassUID, ds.SOPInstanceUID, EXPLICIT)
    reception = Reception(recorded, "clinic", SOURCE, announced=announced)
    for piece in pieces(synthetic.data_set(ds)):
        reception.write(piece)
    reception.finish()
    (result,) = commit(recorded, reception)
    assert isinstance(result, Stored)
    with recorded.store.open(result.meta.file_path) as file:
        data = file.read()
    assert data.endswith(synthetic.data_set(ds))
    assert data[128:132] == b"DICM"
    assert result.meta.digest == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("announced", "error"),
    [
        (Announced("1.2.840.10008.5.1.4.1.1.4", "", EXPLICIT), SOPClassMismatch),
        (Announced("", "1.2.3", EXPLICIT), SOPClassMismatch),
    ],
)
def test_mismatch_with_the_command_is_refused(
    archive: Archive, announced: Announced, error: type[WadoError]
) -> None:
    ds = synthetic.ct()
    announced = Announced(
        announced.sop_class_uid or ds.SOPClassUID,
        announced.sop_instance_uid or ds.SOPInstanceUID,
        EXPLICIT,
    )
    reception = Reception(archive, "clinic", SOURCE, announced=announced)
    with pytest.raises(error):
        reception.write(synthetic.data_set(ds))


def test_other_study_than_the_url_names_is_refused(archive: Archive) -> None:
    with pytest.raises(SOPClassMismatch, match="study"):
        received(archive, synthetic.ct(), study=StudyRef("clinic", "1.2.3"))


def test_unknown_sop_class_is_refused_unless_allowed(archive: Archive) -> None:
    ds = synthetic.ct()
    ds.SOPClassUID = "1.2.3.4"
    with pytest.raises(SOPClassNotSupported):
        received(archive, ds)
    assert received(replace(archive, refuse_unknown_sop_classes=False), ds).ref is not None


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_uid_that_would_leave_the_folder_is_refused(archive: Archive, keyword: str) -> None:
    ds = synthetic.ct()
    data = synthetic.part10(ds).replace(
        getattr(ds, keyword).encode(), b"../" + getattr(ds, keyword)[3:].encode()
    )
    reception = Reception(archive, "clinic", SOURCE)
    with pytest.raises(CannotUnderstand, match="not a UID"):
        reception.write(data)


def test_missing_uid_is_named(archive: Archive) -> None:
    ds = synthetic.ct()
    del ds.SeriesInstanceUID
    with pytest.raises(CannotUnderstand, match=r"Series Instance UID \(0020,000E\)"):
        received(archive, ds)


@pytest.mark.parametrize("keep", [0, 100, 200, 700, -1, -100])
def test_early_end_is_refused_and_leaves_nothing(
    archive: Archive, settings: Settings, keep: int
) -> None:
    data = synthetic.part10(synthetic.ct())
    reception = Reception(archive, "clinic", SOURCE)
    with pytest.raises(CannotUnderstand):  # noqa: PT012 - either may find it
        reception.write(data[:keep])
        reception.finish()
    reception.abort()
    assert not [p for p in Path(settings.storage.root).rglob("*") if p.suffix in {".dcm", ".part"}]


def test_long_private_elements_before_the_uids_stay_out_of_memory(archive: Archive) -> None:
    ds = synthetic.ct()
    block = ds.private_block(0x0009, "WADO TEST", create=True)
    block.add_new(0x01, "OB", b"\x01" * (3 << 20))
    reception = received(archive, ds, size=1 << 16)
    (result,) = commit(archive, reception)
    assert isinstance(result, Stored)
    with archive.store.open(result.meta.file_path) as file:
        assert file.read() == synthetic.part10(ds)


class TestDuplicates:
    def test_same_bytes_known_to_the_journal_is_put_on_record_and_no_other_work(
        self, recorded: Archive, log: RecordingLog
    ) -> None:
        ds = synthetic.ct()
        (first,) = commit(recorded, received(recorded, ds))
        assert isinstance(first, Stored)
        catalogued(recorded, first.meta)
        log.published.clear()
        (again,) = commit(recorded, received(recorded, ds))
        assert isinstance(again, Stored)
        assert again.outcome is StoreOutcome.SAME
        assert not again.is_news
        assert [m.topic for m in log.published] == [Topic.LOG]
        assert DicomStoreMeta.from_json(log.published[0].body).trace_id == again.meta.trace_id

    def test_same_bytes_not_yet_known_is_announced_again(
        self, recorded: Archive, log: RecordingLog
    ) -> None:
        """The first may have died between file and announcement."""
        ds = synthetic.ct()
        log.down = True
        (first,) = commit(recorded, received(recorded, ds))
        assert isinstance(first, Unavailable)
        log.down = False
        (again,) = commit(recorded, received(recorded, ds))
        assert isinstance(again, Stored)
        assert [m.topic for m in log.published] == [Topic.STORAGE, Topic.LOG]

    def test_other_bytes_are_refused(self, recorded: Archive) -> None:
        ds = synthetic.ct()
        commit(recorded, received(recorded, ds))
        ds.PatientName = "Other^Name"
        (result,) = commit(recorded, received(recorded, ds))
        assert isinstance(result, DuplicateInstance)

    def test_other_bytes_replace_by_policy(self, recorded: Archive) -> None:
        recorded = replace(recorded, replace_duplicates=True)
        ds = synthetic.ct()
        commit(recorded, received(recorded, ds))
        ds.PatientName = "Other^Name"
        (result,) = commit(recorded, received(recorded, ds))
        assert isinstance(result, Stored)
        assert result.outcome is StoreOutcome.REPLACED

    def test_replaced_file_that_was_not_announced_is_announced_when_it_comes_again(
        self, recorded: Archive, log: RecordingLog
    ) -> None:
        recorded = replace(recorded, replace_duplicates=True)
        ds = synthetic.ct()
        (first,) = commit(recorded, received(recorded, ds))
        assert isinstance(first, Stored)
        catalogued(recorded, first.meta)
        ds.PatientName = "Other^Name"
        log.down = True
        (lost,) = commit(recorded, received(recorded, ds))
        assert isinstance(lost, Unavailable)
        log.down = False
        log.published.clear()
        (again,) = commit(recorded, received(recorded, ds))
        assert isinstance(again, Stored)
        assert again.outcome is StoreOutcome.SAME
        assert [m.topic for m in log.published] == [Topic.STORAGE, Topic.LOG]

    def test_announcement_tells_of_the_file_that_is_there(
        self, recorded: Archive, log: RecordingLog
    ) -> None:
        """Sent by STOW-RS first and by C-STORE then: other File Meta, the same data set."""
        ds = synthetic.ct()
        (first,) = commit(recorded, received(recorded, ds))
        assert isinstance(first, Stored)
        announced = Announced(ds.SOPClassUID, ds.SOPInstanceUID, EXPLICIT)
        log.published.clear()
        for _ in range(2):
            reception = Reception(recorded, "clinic", SOURCE, announced=announced)
            reception.write(synthetic.data_set(ds))
            reception.finish()
            (again,) = commit(recorded, reception)
            assert isinstance(again, Stored)
            assert again.outcome is StoreOutcome.SAME
            catalogued(recorded, first.meta)
        meta = DicomStoreMeta.from_json(log.published[0].body)
        assert (meta.digest, meta.file_size) == (first.meta.digest, first.meta.file_size)
        topics = [m.topic for m in log.published]
        assert topics == [Topic.STORAGE, Topic.LOG, Topic.LOG], "known to the journal then"


def catalogued(archive: Archive, meta: DicomStoreMeta) -> None:
    entry = {
        "sop_instance_uid": meta.sop_instance_uid,
        "sop_class_uid": meta.sop_class_uid,
        "transfer_syntax_uid": meta.transfer_syntax_uid,
        "file_size": meta.file_size,
        "digest": meta.digest,
        "received_at": meta.received_at,
        "instance_number": 1,
        "number_of_frames": 1,
        "pixel": None,
        "bulk": {},
    }
    archive.store.append({journal_path(meta.ref.series): journal_line(entry, {})})


def test_committer_answers_each_of_many(archive: Archive) -> None:
    series = synthetic.ct_series(20)
    results: list[Stored] = []
    with Committer(archive) as committer:

        def send(part: list[Dataset]) -> None:
            results.extend(committer.submit(received(archive, ds)).result(60) for ds in part)

        threads = [threading.Thread(target=send, args=(series[n::4],)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {r.meta.sop_instance_uid for r in results} == {ds.SOPInstanceUID for ds in series}
    assert archive.log.lag(Topic.STORAGE, "wado-consumer") == 20


def test_committer_survives_who_stops_waiting(archive: Archive) -> None:
    one, two = synthetic.ct_series(2)
    with Committer(archive) as committer:
        committer.submit(received(archive, one)).cancel()
        assert isinstance(committer.submit(received(archive, two)).result(60), Stored)


def test_committer_finishes_what_was_submitted(archive: Archive) -> None:
    with Committer(archive) as committer:
        futures = [committer.submit(received(archive, ds)) for ds in synthetic.ct_series(5)]
    assert all(isinstance(f.result(0), Stored) for f in futures)
