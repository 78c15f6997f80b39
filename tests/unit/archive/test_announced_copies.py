"""What the consumer asks to be converted: once, and when who converts can find it."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

import copies
import synthetic
import videos
from coded_streams import streams_of
from copies import (
    DEFLATED_FRAMES,
    EXPLICIT_VR_LITTLE_ENDIAN,
    HTJ2K_RPCL,
    deflated,
    derived_of,
)
from steps import batches, catalogue_all, series_of
from wado.archive.derived import copy_line, failure_line
from wado.archive.journal import Journals
from wado.archive.paths import journal_path
from wado.archive.reindex import reindex
from wado.archive.selection import Selection, views
from wado.archive.store import as_stored
from wado.archive.wanted_copies import Found, Wish, forget, wanted_copies
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


@pytest.mark.parametrize("kind", ["does not fit", "MP4", "transport stream"])
def test_what_stands_for_a_copy_is_not_asked_for_again(
    archive: Archive, corpus: Path, kind: str
) -> None:
    """A copy in another transfer syntax, or an original that viewers play as it is."""
    ds: Dataset
    if kind == "does not fit":  # pixels of one bit: HTJ2K can't have them
        ds = pydicom.dcmread(corpus / "syntaxes/pydicom-data__liver_deflate.dcm")
    else:
        stream = videos.content("h264.mp4" if kind == "MP4" else "h264.ts")
        ds = videos.instance(stream, videos.H264)
    (meta,) = copies.store(archive, ds)
    (order,) = asked(archive)
    copies.convert_all(archive)
    assert not derived_of(archive, ds).failures
    assert order.target_transfer_syntax_uid not in derived_of(archive, ds).copies or kind[0] == "t"
    archive.log.publish([Message(Topic.STORAGE, meta.key, meta.to_json())])
    catalogue_all(archive)
    assert asked(archive) == []
    found, wish = Found(), Wish(archive.transcode)
    journals = Journals(archive.store)
    series = views(archive, journals, Selection())
    assert list(wanted_copies(archive.store, journals, series, Selection(), wish, found)) == []
    assert (found.instances, found.there, found.failed) == (1, 1, 0)
    assert not found.wanted


def test_what_has_a_copy_in_its_place_by_now_is_no_failure_to_try_again(
    archive: Archive, corpus: Path
) -> None:
    ds = pydicom.dcmread(corpus / "syntaxes/pydicom-data__liver_deflate.dcm")
    (meta,) = copies.store(archive, ds)
    line = failure_line(meta.sop_instance_uid, meta.digest, HTJ2K_RPCL, "it took too long")
    wish, journals = Wish(archive.transcode, failed=True), Journals(archive.store)

    def to_try_again() -> list[str]:
        series = views(archive, journals, Selection())
        wanted = wanted_copies(archive.store, journals, series, Selection(), wish, Found())
        return [each.target_transfer_syntax_uid for each in wanted]

    copies.convert_all(archive)
    (copy,) = derived_of(archive, ds).copies.values()
    forget(archive, journals, meta.ref.series, [(ds.SOPInstanceUID, copy.transfer_syntax_uid)])
    assert archive.store.append({journal_path(meta.ref.series): line})
    assert to_try_again() == [HTJ2K_RPCL]
    assert archive.store.append(
        {journal_path(meta.ref.series): copy_line(ds.SOPInstanceUID, meta.digest, copy)}
    )
    assert to_try_again() == []


def test_a_copy_that_was_asked_for_stands_for_no_other(archive: Archive) -> None:
    """Native by wish: what the rules say is still to be made."""
    ds = deflated(synthetic.ct())
    (meta,) = copies.store(archive, ds)
    native = replace(asked(archive)[0], target_transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN)
    archive.log.publish([Message(Topic.TRANSCODE, native.key, native.to_json())])
    copies.convert_all(archive)
    assert set(derived_of(archive, ds).copies) == {HTJ2K_RPCL, EXPLICIT_VR_LITTLE_ENDIAN}
    view = Journals(archive.store).view(series_of(ds))
    assert view is not None
    forget(archive, Journals(archive.store), view.ref, [(ds.SOPInstanceUID, HTJ2K_RPCL)])
    asked(archive)
    archive.log.publish([Message(Topic.STORAGE, meta.key, meta.to_json())])
    catalogue_all(archive)
    assert [order.target_transfer_syntax_uid for order in asked(archive)] == [HTJ2K_RPCL]


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
