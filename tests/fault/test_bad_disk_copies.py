"""Originals, copies and journals that the disk does not give, where copies are made and looked at.

All else goes on, and what can't be done is on record with the reason.
"""

import errno
import io
import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from rich.console import Console

import coded_streams
import copies
import synthetic
from attempts import rows_of
from bad_file import bad
from copies import DEFLATED_FRAMES, HTJ2K_RPCL, convert_all, deflated, derived_of
from fault.test_bad_disk import file_of
from steps import batches, catalogue_all, ref_of, series_of
from wado import cli_transcode as transcode
from wado import cli_verify as verify
from wado.archive.aside import deleted_files
from wado.archive.delete import request_deletion
from wado.archive.gone import no_instance
from wado.archive.grace import purge
from wado.archive.journal import Journals
from wado.archive.paths import derived_path, journal_path, unfinished_path
from wado.archive.pixel_workers import PixelWorkers
from wado.archive.selection import Selection, views
from wado.archive.unfinished import Unfinished
from wado.archive.verification import Finding, Report, Verifier, everything, mend
from wado.cli_transcode import transcode_stored
from wado.cli_verify import verify_stored
from wado.errors import Gone, NotFound
from wado.ports import Archive
from wado.records import Topic
from wado.services import transcode_worker
from wado.services.transcode_worker import GROUP
from wado.settings import Settings

ALL = Selection()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcode_worker, "_PAUSE_S", 0.01)


def path_of(archive: Archive, path: str) -> Path:
    local = archive.store.local_path(path)
    assert local is not None
    return local


def journal_of(archive: Archive, ds: Dataset) -> Path:
    return path_of(archive, journal_path(series_of(ds)))


def image(name: str) -> Dataset:
    return deflated(synthetic.ct(study=name, series=name))


def long_frames(name: str) -> Dataset:
    """Frames that a process for pixels reads by itself."""
    ds = synthetic.ct(study=name, series=name, rows=512, columns=512)
    frame = b"\x00" * (1 << 17)
    return synthetic.encapsulated(ds, DEFLATED_FRAMES, [frame])


# ------------------------------------------------------------------ conversion


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("make", [image, long_frames])
def test_an_original_is_tried_three_times_and_holds_up_no_other(
    archive: Archive, make: Callable[[str], Dataset], error: int
) -> None:
    broken, other = make("broken"), image("other")
    copies.store(archive, broken, other)
    with bad(file_of(archive, broken), error):
        convert_all(archive)
    assert archive.log.lag(Topic.TRANSCODE, GROUP) == 0
    assert derived_of(archive, other).copies
    assert "can't be read" in derived_of(archive, broken).failures[HTJ2K_RPCL]
    rows = rows_of(archive, broken)
    assert [row[:2] for row in rows] == [(1, False), (2, False), (3, False)]
    assert all("can't be read" in (row[2] or "") for row in rows)


def test_a_bad_place_that_is_met_while_the_copy_is_written(archive: Archive) -> None:
    noise = random.Random(1)
    frames = [coded_streams.deflated(noise.randbytes(64 * 64)) for _ in range(300)]
    broken = synthetic.multi_frame(300, rows=64, columns=64)
    broken = synthetic.encapsulated(broken, DEFLATED_FRAMES, frames)
    copies.store(archive, broken)
    view = Journals(archive.store).view(series_of(broken))
    assert view is not None
    pixel = view.entries[str(broken.SOPInstanceUID)].pixel
    assert pixel is not None
    ((offset, length),) = pixel.frame(200)
    with bad(file_of(archive, broken), place=range(offset, offset + length)):
        convert_all(archive)
    assert "can't be read" in derived_of(archive, broken).failures[HTJ2K_RPCL]
    assert [row[:2] for row in rows_of(archive, broken)] == [(1, False), (2, False), (3, False)]


@pytest.mark.parametrize("died", [False, True])
def test_what_has_a_journal_that_can_not_be_read_is_on_record_after_three_attempts(
    archive: Archive, died: bool
) -> None:
    broken, other = image("broken"), image("other")
    copies.store(archive, broken, other)
    batch = next(batches(archive, Topic.TRANSCODE, GROUP))
    if died:
        Unfinished(archive.store, batch.label).begin("0", 1, alone=False)
    with bad(journal_of(archive, broken)):
        convert_all(archive)
        assert archive.log.lag(Topic.TRANSCODE, GROUP) == 0
        assert derived_of(archive, other).copies
        rows = rows_of(archive, broken)
    assert [row[:2] for row in rows] == [(1, False), (2, False), (3, False)]
    assert "its journal can't be read" in (rows[-1][2] or "")
    assert archive.store.version(unfinished_path(batch.label)) is None
    assert not derived_of(archive, broken).failures, "the copy is still wanted"


def test_a_note_that_can_not_be_read_is_written_anew(archive: Archive) -> None:
    ds = image("one")
    copies.store(archive, ds)
    batch = next(batches(archive, Topic.TRANSCODE, GROUP))
    Unfinished(archive.store, batch.label).begin("0", 1, alone=True)
    with bad(path_of(archive, unfinished_path(batch.label))):
        assert not Unfinished(archive.store, batch.label).was_cut_short


# ------------------------------------------------------------------ looking


def test_verification_reports_what_can_not_be_read_and_goes_on(archive: Archive) -> None:
    names = "original", "copy", "journal", "good"
    datasets = dict(zip(names, map(image, names), strict=True))
    copies.store(archive, *datasets.values())
    convert_all(archive)
    journals, report = Journals(archive.store), Report()
    copy = path_of(archive, derived_path(ref_of(datasets["copy"]), HTJ2K_RPCL))
    pixels = PixelWorkers(workers=1, timeout_s=60, max_memory_bytes=8 << 30)
    with (
        closing(pixels),
        bad(file_of(archive, datasets["original"])),
        bad(copy),
        bad(journal_of(archive, datasets["journal"])),
    ):
        verifier = Verifier(archive, journals, pixels, 1 << 28)
        found = views(archive, journals, ALL, report.pass_over)
        for chosen in everything(found, ALL, originals=True):
            report.count(verifier.check(chosen))
        assert mend(archive, journals, archive.transcode, report.wrong) == (0, 0)
    assert [ref for ref, _ in report.unread] == [series_of(datasets["journal"])]
    assert {checked.finding for checked in report.wrong} == {Finding.UNREAD}
    assert {checked.chosen.ref for checked in report.wrong} == {
        ref_of(datasets["original"]),
        ref_of(datasets["copy"]),
    }
    assert not report.is_good
    assert all(derived_of(archive, ds).copies for ds in datasets.values()), "nothing was removed"
    assert copy.exists()


def test_commands_pass_over_a_series_whose_journal_can_not_be_read(
    archive: Archive, settings: Settings
) -> None:
    broken, other = image("broken"), image("other")
    copies.store(archive, broken, other)
    out, err = (Console(file=io.StringIO(), width=300) for _ in range(2))
    with bad(journal_of(archive, broken)):
        assert not transcode_stored(settings, transcode.Asked(dry_run=True), out=out, err=err)
        assert not transcode_stored(settings, transcode.Asked(), out=out, err=err)
        assert not verify_stored(settings, verify.Asked(sample=0), out=out, err=err)
    said, where = (each.file.getvalue() for each in (out, err))  # type: ignore[attr-defined]
    assert "1 copies would be made of 1 instances" in said
    assert "1 copies made, 0 failed" in said
    assert derived_of(archive, other).copies
    assert "WRONG: 1 x series whose journal the disk does not give" in said
    assert where.count(series_of(broken).path) == 2
    assert transcode_stored(settings, transcode.Asked(), out=out, err=err)
    assert derived_of(archive, broken).copies


# ------------------------------------------------------------------ purging


def test_a_journal_that_can_not_be_read_is_purged_when_it_can(archive: Archive) -> None:
    broken, other = image("broken"), image("other")
    copies.store(archive, broken, other)
    for ds in (broken, other):
        request_deletion(archive, ref_of(ds).study)
    catalogue_all(archive)
    journals = Journals(archive.store)
    with bad(journal_of(archive, broken)):
        assert purge(archive, journals, keep_s=-60, limit=1) == 1
        assert purge(archive, journals, keep_s=-60, limit=1) == 0
        assert [file.ref for file in deleted_files(archive.store)] == [ref_of(broken)]
        assert type(no_instance(journals, ref_of(other))) is NotFound
    assert type(no_instance(journals, ref_of(broken))) is Gone
    assert purge(archive, journals, keep_s=-60, limit=1) == 1
    assert type(no_instance(journals, ref_of(broken))) is NotFound
    assert not list(deleted_files(archive.store))
