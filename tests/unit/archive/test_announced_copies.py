"""What the consumer asks to be converted: once, and when who converts can find it."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

import copies
import synthetic
from coded_streams import streams_of
from copies import DEFLATED_FRAMES, HTJ2K_RPCL, deflated, derived_of
from steps import batches, catalogue_all, series_of
from wado.archive.journal import Journals
from wado.archive.reindex import reindex
from wado.archive.store import as_stored
from wado.errors import Unavailable
from wado.ports import Archive, Message
from wado.records import DicomStoreMeta, Topic, TranscodeMeta
from wado.services.transcode_worker import GROUP
from wado.transcode_settings import TranscodeRule


def asked(archive: Archive) -> list[TranscodeMeta]:
    """All that was asked for since this was called last."""
    found = []
    for batch in batches(archive, Topic.TRANSCODE, "test"):
        found += [TranscodeMeta.from_json(m.body) for m in batch.messages]
        batch.commit()
    return found


def catalogue_again(archive: Archive) -> None:
    """Announce and catalogue all originals once more, as after a crash."""
    for file in archive.store.instances():
        ref = file.ref
        meta = DicomStoreMeta(
            tenant_id=ref.tenant_id,
            study_instance_uid=ref.study_instance_uid,
            series_instance_uid=ref.series_instance_uid,
            sop_instance_uid=ref.sop_instance_uid,
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            transfer_syntax_uid=DEFLATED_FRAMES,
            patient_id="",
            file_name="",
            file_path=file.file_path,
            file_size=file.file_size,
            digest="",
            received_at="2026-11-23T00:00:00.000000+00:00",
            trace_id="0" * 32,
        )
        meta = as_stored(archive, meta)
        archive.log.publish([Message(Topic.STORAGE, meta.key, meta.to_json())])
    catalogue_all(archive)


def test_what_viewers_cannot_show_is_asked_for(archive: Archive) -> None:
    hidden, shown = deflated(synthetic.ct(study="1")), deflated(synthetic.ct(study="2"))
    shown = synthetic.encapsulated(shown, "1.2.840.10008.1.2.4.80", streams_of(shown))
    copies.store(archive, hidden, shown)
    (meta,) = asked(archive)
    view = Journals(archive.store).view(series_of(hidden))
    assert view is not None
    entry = view.entries[str(hidden.SOPInstanceUID)]
    assert meta.ref.series == series_of(hidden)
    assert (meta.sop_instance_uid, meta.sop_class_uid) == (
        hidden.SOPInstanceUID,
        hidden.SOPClassUID,
    )
    assert (meta.transfer_syntax_uid, meta.target_transfer_syntax_uid) == (
        DEFLATED_FRAMES,
        HTJ2K_RPCL,
    )
    assert (meta.digest, meta.file_size) == (entry.digest, entry.file_size)
    assert archive.store.version(meta.file_path)
    assert (meta.quality, meta.attempt) == (0, 1)


def test_rules_are_followed(archive: Archive) -> None:
    lossy = TranscodeRule(target="1.2.840.10008.1.2.4.91", modalities=("CT",), quality=70)
    settings = archive.transcode.model_copy(update={"rules": (lossy,)})
    archive = replace(archive, transcode=settings)
    copies.store(archive, deflated(synthetic.ct()))
    found = [(meta.target_transfer_syntax_uid, meta.quality) for meta in asked(archive)]
    assert found == [(HTJ2K_RPCL, 0), (lossy.target, 70)]


def test_nothing_is_asked_for_when_it_is_switched_off(archive: Archive) -> None:
    off = archive.transcode.model_copy(update={"enabled": False})
    copies.store(replace(archive, transcode=off), deflated(synthetic.ct()))
    assert asked(archive) == []


@pytest.mark.parametrize("made", [deflated, copies.broken], ids=["made", "failed"])
def test_what_is_known_is_not_asked_for_again(archive: Archive, made: Any) -> None:
    ds = made(synthetic.ct())
    copies.store(archive, ds)
    assert len(asked(archive)) == 1
    copies.convert_all(archive)
    known = derived_of(archive, ds)
    assert known.copies or known.failures
    catalogue_again(archive)
    assert asked(archive) == []
    assert derived_of(archive, ds) == known


def test_a_replaced_original_needs_a_copy_of_its_own(archive: Archive) -> None:
    archive = replace(archive, replace_duplicates=True)
    ds = deflated(synthetic.ct())
    copies.store(archive, ds)
    copies.convert_all(archive)
    first = asked(archive)
    ds.PatientComments = "another version"
    copies.store(archive, ds)
    (second,) = asked(archive)
    assert second.digest != first[0].digest
    assert not derived_of(archive, ds).copies
    copies.convert_all(archive)
    assert derived_of(archive, ds).copies


class Watched:
    """A log that looks into the journal when a copy is asked for, and may fail then."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self.fails = False
        self.seen: list[bool] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._archive.log, name)

    def publish(self, messages: Iterable[Message]) -> None:
        given = list(messages)
        for message in given:
            if message.topic is Topic.TRANSCODE:
                meta = TranscodeMeta.from_json(message.body)
                view = Journals(self._archive.store).view(meta.ref.series)
                self.seen.append(bool(view and meta.sop_instance_uid in view.entries))
                if self.fails:
                    raise Unavailable("the log is away")
        self._archive.log.publish(given)


def test_who_converts_finds_the_instance_in_the_journal(archive: Archive) -> None:
    log = Watched(archive)
    copies.store(replace(archive, log=log), *map(deflated, synthetic.ct_series(3)))
    assert log.seen == [True] * 3


def test_what_could_not_be_asked_for_is_asked_for_when_the_batch_comes_again(
    archive: Archive,
) -> None:
    log = Watched(archive)
    log.fails = True
    ds = deflated(synthetic.ct())
    with pytest.raises(Unavailable):
        copies.store(replace(archive, log=log), ds)
    assert asked(archive) == []
    catalogue_all(archive)
    assert len(asked(archive)) == 1


def test_a_rebuild_asks_for_all_copies_again(archive: Archive) -> None:
    datasets = [deflated(ds) for ds in synthetic.ct_series(2)]
    copies.store(archive, *datasets)
    copies.convert_all(archive)
    assert len(asked(archive)) == 2
    reindex(archive)
    assert len(asked(archive)) == 2
    copies.convert_all(archive)
    assert all(derived_of(archive, ds).copies for ds in datasets)
    assert archive.log.lag(Topic.TRANSCODE, GROUP) == 0
