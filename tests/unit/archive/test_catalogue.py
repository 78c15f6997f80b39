"""What a message of `storage_queue` becomes; a crash anywhere repeats and loses nothing."""

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from pydicom.dataset import Dataset

import synthetic
from crashes import Crash, Crashing
from steps import GROUP, batches, catalogue_all, series_of, store
from wado.archive import catalogue as catalogue_module
from wado.archive.describe import (
    correct_count,
    describe_series,
    describe_study,
    study_parts,
    study_views,
)
from wado.archive.journal import Journals
from wado.archive.paths import series_document_path, study_document_path
from wado.archive.store import Reception, Source, store_group
from wado.errors import Unavailable
from wado.ports import Archive, Message
from wado.records import DicomImageMeta, DicomStateMeta, Topic


def records(archive: Archive, topic: Topic) -> list[bytes]:
    found = []
    for batch in batches(archive, topic, "test"):
        found += [m.body for m in batch.messages]
        batch.commit()
    return found


def test_series_is_in_index_journal_and_records(archive: Archive) -> None:
    series = synthetic.ct_series(3, PatientName="Müller^Jürgen", SpecificCharacterSet="ISO_IR 192")
    store(archive, *series)
    catalogue_all(archive)
    row = archive.index.series(series_of(series[0]))
    assert row is not None
    assert row["patient_name"] == "Müller^Jürgen"
    assert row["number_of_series_related_instances"] == 3
    assert row["modality"] == "CT"
    view = Journals(archive.store).view(series_of(series[0]))
    assert view is not None
    assert [e.sop_instance_uid for e in view.ordered()] == [d.SOPInstanceUID for d in series]
    images = [DicomImageMeta.from_json(b) for b in records(archive, Topic.DICOM_IMAGE)]
    assert [(i.rows, i.columns, i.instance_number) for i in images] == [
        (16, 12, 1),
        (16, 12, 2),
        (16, 12, 3),
    ]
    (state,) = map(DicomStateMeta.from_json, records(archive, Topic.DICOM_STATE))
    assert state.number_of_series_related_instances == 3


def test_same_message_again_changes_nothing(archive: Archive) -> None:
    (ds,) = synthetic.ct_series(1)
    (stored,) = store(archive, ds)
    archive.log.publish([Message(Topic.STORAGE, stored.meta.key, stored.meta.to_json())] * 3)
    catalogue_all(archive)
    archive.log.publish([Message(Topic.STORAGE, stored.meta.key, stored.meta.to_json())])
    catalogue_all(archive)
    with archive.store.open(f"{series_document_path(series_of(ds))}.journal") as file:
        assert file.read().count(b"\n") == 1
    row = archive.index.series(series_of(ds))
    assert row is not None
    assert row["number_of_series_related_instances"] == 1


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("port", "method"), [("index", "put"), ("store", "append"), ("log", "publish")]
)
def test_crash_between_any_two_steps_repeats_and_loses_nothing(
    archive: Archive, port: str, method: str, *, after: bool
) -> None:
    series = synthetic.ct_series(3)
    store(archive, *series)
    port_that_crashes: Any = {port: Crashing(getattr(archive, port), method, after=after)}
    crashing = replace(archive, **port_that_crashes)
    with pytest.raises(Crash):
        catalogue_all(crashing)
    catalogue_all(archive)
    row = archive.index.series(series_of(series[0]))
    assert row is not None
    assert row["number_of_series_related_instances"] == 3
    with archive.store.open(f"{series_document_path(series_of(series[0]))}.journal") as file:
        assert file.read().count(b"\n") == 3
    images = {
        DicomImageMeta.from_json(b).sop_instance_uid for b in records(archive, Topic.DICOM_IMAGE)
    }
    assert images == {d.SOPInstanceUID for d in series}


def test_service_that_is_down_leaves_the_batch(archive: Archive) -> None:
    store(archive, synthetic.ct())

    class Down:
        def put(self, _states: object, *, flush: bool) -> None:
            raise Unavailable(f"the index is down, {flush=}")

    down = replace(archive, index=Down())  # type: ignore[arg-type]  # only `put` is asked for
    with pytest.raises(Unavailable):
        catalogue_all(down)
    assert archive.log.lag(Topic.STORAGE, GROUP) == 1
    assert list(archive.log.dead_letters(Topic.STORAGE)) == []


@pytest.mark.parametrize(
    ("port", "method"), [("store", "append"), ("log", "publish"), ("index", "flush")]
)
def test_a_step_that_fails_beside_the_others_leaves_the_batch(
    archive: Archive, port: str, method: str
) -> None:
    ds = synthetic.ct()
    store(archive, ds)

    class Failing:
        def __getattr__(self, name: str) -> Any:
            return self.fail if name == method else getattr(getattr(archive, port), name)

        def fail(self, *_: object, **__: object) -> None:
            raise Unavailable(f"{method} is down")

    failing: Any = {port: Failing()}
    with pytest.raises(Unavailable, match=method):
        catalogue_all(replace(archive, **failing))
    assert archive.log.lag(Topic.STORAGE, GROUP) == 1
    catalogue_all(archive)
    assert archive.log.lag(Topic.STORAGE, GROUP) == 0
    assert archive.index.series(series_of(ds)) is not None
    view = Journals(archive.store).view(series_of(ds))
    assert view is not None
    assert set(view.entries) == {ds.SOPInstanceUID}


def garbage(_archive: Archive) -> bytes:
    return b"not JSON"


def missing_file(archive: Archive) -> bytes:
    (stored,) = store(archive, synthetic.ct(series="gone"))
    archive.store.delete([stored.meta.file_path])
    return replace(stored.meta, sop_instance_uid="1.2.3").to_json()


def path_outside(archive: Archive) -> bytes:
    (stored,) = store(archive, synthetic.ct(series="outside"))
    return replace(stored.meta, study_instance_uid="../../etc").to_json()


@pytest.mark.parametrize("make", [garbage, missing_file, path_outside])
def test_invalid_message_is_set_aside_and_the_others_go_on(
    archive: Archive, make: Callable[[Archive], bytes]
) -> None:
    archive.log.publish([Message(Topic.STORAGE, "k", make(archive))])
    ds = synthetic.ct()
    store(archive, ds)
    catalogue_all(archive)
    assert list(archive.log.dead_letters(Topic.STORAGE))
    assert archive.index.series(series_of(ds)) is not None


def test_unreadable_file_goes_to_quarantine_with_its_reason(archive: Archive) -> None:
    (stored,) = store(archive, synthetic.ct())
    path = archive.store.local_path(stored.meta.file_path)
    assert path is not None
    path.write_bytes(path.read_bytes()[:-10])
    short = replace(stored.meta, file_size=stored.meta.file_size - 10)
    archive.log.publish([Message(Topic.STORAGE, short.key, short.to_json())])
    catalogue_all(archive)
    letters = list(archive.log.dead_letters(Topic.STORAGE))
    assert any("Pixel Data" in letter.reason for letter in letters)
    kept = archive.store.local_path(f"quarantine/{stored.meta.file_path}")
    assert kept is not None
    assert kept.is_file()


class TestReplace:
    """Policy `replace`: what is shown is always what the file holds."""

    def test_file_that_was_replaced_before_its_announcement_was_read(
        self, archive: Archive
    ) -> None:
        archive = replace(archive, replace_duplicates=True)
        small, large = synthetic.ct(rows=8, columns=8), synthetic.ct(rows=16, columns=16)
        store(archive, small)
        (stored,) = store(archive, large)
        catalogue_all(archive)
        assert list(archive.log.dead_letters(Topic.STORAGE)) == []
        assert shown(archive, large) == (stored.meta.digest, stored.meta.file_size)

    def test_version_in_another_transfer_syntax(self, archive: Archive) -> None:
        archive = replace(archive, replace_duplicates=True)
        ds = synthetic.ct()
        store(archive, ds)
        big = synthetic.with_transfer_syntax(ds, "1.2.840.10008.1.2.2")
        big.PatientComments = "to be of another length"
        store(archive, big)
        for _ in range(2):
            catalogue_all(archive)
        view = Journals(archive.store).view(series_of(ds))
        assert view is not None
        (entry,) = view.entries.values()
        assert entry.transfer_syntax_uid == "1.2.840.10008.1.2.2"

    def test_announcements_in_the_other_order(self, archive: Archive) -> None:
        archive = replace(archive, replace_duplicates=True)
        (first,) = store(archive, synthetic.ct(PatientName="One"))
        catalogue_all(archive)
        (second,) = store(archive, synthetic.ct(PatientName="Two"))
        assert first.meta.file_size == second.meta.file_size
        catalogue_all(archive)
        archive.log.publish([Message(Topic.STORAGE, first.meta.key, first.meta.to_json())])
        catalogue_all(archive)
        assert shown(archive, synthetic.ct()) == (second.meta.digest, second.meta.file_size)


def shown(archive: Archive, ds: Dataset) -> tuple[str, int]:
    view = Journals(archive.store).view(series_of(ds))
    assert view is not None
    entry = view.entries[str(ds.SOPInstanceUID)]
    return entry.digest, entry.file_size


def element(tag: tuple[int, int], vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", *tag, vr, len(value)) + value


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        ((0x0020, 0x0011), b"IS", b"9223372036854775808 "),
        ((0x0020, 0x0013), b"IS", b"99999999999999999999"),
        ((0x0020, 0x0013), b"IS", b"1e400 "),
        ((0x0040, 0x0275), b"LO", b"no sequence "),
    ],
)
def test_hostile_value_stops_nobody(
    archive: Archive, tag: tuple[int, int], vr: bytes, value: bytes
) -> None:
    ds = synthetic.ct(SeriesNumber=1, InstanceNumber=1, RequestAttributesSequence=[])
    legal = {b"IS": element(tag, b"IS", b"1 "), b"LO": element(tag, b"SQ", b"") + bytes(4)}[vr]
    data = synthetic.part10(ds)
    assert data.count(legal) == 1
    reception = Reception(archive, "clinic", Source())
    reception.write(data.replace(legal, element(tag, vr, value)))
    reception.finish()
    store_group(archive, Journals(archive.store), [reception])
    other = synthetic.ct(series="other")
    store(archive, other)
    catalogue_all(archive)
    assert archive.index.series(series_of(other)) is not None
    assert archive.index.series(series_of(synthetic.ct())) is not None


def test_file_that_trips_our_code_goes_to_quarantine(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stored,) = store(archive, synthetic.ct())
    monkeypatch.setattr(catalogue_module, "image_of", lambda *_: 1 / 0)
    catalogue_all(archive)
    (letter,) = archive.log.dead_letters(Topic.STORAGE)
    assert "ZeroDivisionError" in letter.reason
    assert archive.store.version(f"quarantine/{stored.meta.file_path}")


def test_batch_of_large_metadata_is_catalogued_in_steps(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_module, "_MAX_BYTES", 1000)
    series = synthetic.ct_series(4)
    store(archive, *series)
    catalogue_all(archive)
    row = archive.index.series(series_of(series[0]))
    assert row is not None
    assert row["number_of_series_related_instances"] == 4
    assert len(records(archive, Topic.DICOM_STATE)) > 1


class TestDescribe:
    def test_documents_hold_every_instance_in_order(self, archive: Archive) -> None:
        series = synthetic.ct_series(3)
        store(archive, *reversed(series))
        catalogue_all(archive)
        journals = Journals(archive.store)
        view = describe_series(archive, journals, series_of(series[0]))
        assert view is not None
        assert view.described
        path = series_document_path(view.ref)
        with archive.store.open(f"{path}.json") as file:
            text = file.read()
        found = [m["00080018"]["Value"][0] for m in orjson.loads(text)]
        assert found == [d.SOPInstanceUID for d in series]
        import gzip  # noqa: PLC0415 - only here

        with archive.store.open(f"{path}.json.gz") as file:
            assert gzip.decompress(file.read()) == text

    def test_study_document_is_current_until_a_series_grows(self, archive: Archive) -> None:
        one, two = synthetic.ct(series="1"), synthetic.ct(series="2")
        store(archive, one, two)
        catalogue_all(archive)
        journals = Journals(archive.store)
        assert not describe_study(archive, journals, series_of(one).study)
        for ds in (one, two):
            describe_series(archive, journals, series_of(ds))
        assert describe_study(archive, journals, series_of(one).study)
        path = study_document_path(series_of(one).study)
        with archive.store.open(f"{path}.parts") as file:
            parts = file.readline().rstrip(b"\n")
        assert parts == study_parts(study_views(archive, journals, series_of(one).study))
        store(archive, synthetic.ct_series(2, series="2")[1])
        catalogue_all(archive)
        assert parts != study_parts(study_views(archive, journals, series_of(one).study))

    def test_count_in_the_index_is_corrected(self, archive: Archive) -> None:
        ds = synthetic.ct()
        store(archive, ds)
        catalogue_all(archive)
        row = archive.index.series(series_of(ds))
        assert row is not None
        state = DicomStateMeta("clinic", ds.StudyInstanceUID, ds.SeriesInstanceUID, modality="CT")
        archive.index.put([replace(state, number_of_series_related_instances=7)])
        journals = Journals(archive.store)
        assert describe_series(archive, journals, series_of(ds)) is None
        correct_count(archive, series_of(ds), journals.view(series_of(ds)))
        row = archive.index.series(series_of(ds))
        assert row is not None
        assert row["number_of_series_related_instances"] == 1
        assert describe_series(archive, journals, series_of(ds)) is not None
        told = DicomStateMeta.from_json(records(archive, Topic.DICOM_STATE)[-1])
        assert told.number_of_series_related_instances == 1  # the warehouse is told, too

    def test_series_whose_append_is_on_its_way_is_left_alone(self, archive: Archive) -> None:
        """The consumer writes to the index before it writes to the journal."""
        ds = synthetic.ct()
        store(archive, ds)
        stopped: Any = Crashing(archive.store, "append", after=False)
        with pytest.raises(Crash):
            catalogue_all(replace(archive, store=stopped))
        assert describe_series(archive, Journals(archive.store), series_of(ds)) is None
        assert archive.index.series(series_of(ds)) is not None
