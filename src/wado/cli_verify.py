"""`wado verify`: copies decoded again and compared with their originals, all or a sample."""

import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import groupby
from threading import Event
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress
from rich.table import Table as TextTable

from wado.archive.journal import Journals
from wado.archive.pixel_workers import PixelWorkers
from wado.archive.selection import JOURNAL_BYTES, Selection, ref_of, views
from wado.archive.verification import (
    Checked,
    Chosen,
    Report,
    Verifier,
    everything,
    mend,
    sample_of,
)
from wado.bootstrap import open_archive
from wado.cli_progress import progress_bar
from wado.dicom.sop_classes import transfer_syntax
from wado.ports import Archive
from wado.settings import Settings

_FRAMES = 3
"""Frames of an instance that are looked at, unless all are."""
_SHOWN = 50
_SEEDS = 1_000_000
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for; see `wado verify --help`. A `sample` of 0 is all."""

    studies: tuple[str, ...] = ()
    tenant_id: str | None = None
    sample: int = 100
    seed: int | None = None
    originals: bool = True
    repair: bool = False
    workers: int = 0

    def selection(self, settings: Settings) -> Selection:
        """Name what is chosen; studies are of the default tenant, unless another is named."""
        tenant_id = self.tenant_id or settings.storage.default_tenant
        return Selection.of([ref_of(tenant_id, [uid]) for uid in self.studies], self.tenant_id)


def verify_stored(settings: Settings, asked: Asked, *, out: Console, err: Console) -> bool:
    """Check copies and originals; whether nothing is wrong.

    Raises
    ------
    InvalidRequest, NotFound
        A study is none, or not there.
    Unavailable
        A service does not answer.
    """
    seed = secrets.randbelow(_SEEDS) if asked.seed is None else asked.seed
    report, began_s = Report(), time.monotonic()
    with open_archive(settings) as archive:
        journals = Journals(archive.store, max_bytes=JOURNAL_BYTES)
        with progress_bar(err) as bar:
            try:
                _check_all(archive, journals, settings, asked, seed, report, bar)
            except KeyboardInterrupt:
                _summarise(report, asked, seed, began_s, out)
                out.print("broken off: the rest was not looked at")
                raise
        _summarise(report, asked, seed, began_s, out)
        if report.wrong and asked.repair:
            removed, ordered = mend(archive, journals, settings.transcode, report.wrong)
            out.print(f"{removed} copies removed, {ordered} ordered anew from the webworkers")
        elif any(checked.is_bad_copy for checked in report.wrong):
            out.print("run it with --repair to have bad copies made anew")
    return report.is_good


def _check_all(
    archive: Archive,
    journals: Journals,
    settings: Settings,
    asked: Asked,
    seed: int,
    report: Report,
    bar: Progress,
) -> None:
    selection = asked.selection(settings)
    task = bar.add_task("looking", total=None)
    chosen: Iterable[Chosen] = everything(
        views(archive, journals, selection, report.pass_over),
        selection,
        originals=asked.originals,
    )
    if asked.sample:
        chosen = sample_of(chosen, asked.sample, seed)
        bar.update(task, total=len(chosen))
    workers = asked.workers or settings.transcode.images_at_a_time
    pixels = PixelWorkers(
        workers=workers,
        timeout_s=settings.transcode.frame_timeout_s,
        max_memory_bytes=settings.transcode.memory_bytes,
    )
    frames = _FRAMES if asked.sample else 0
    max_pixels = settings.transcode.max_pixels
    verifier = Verifier(archive, journals, pixels, max_pixels, frames, seed)
    with ThreadPoolExecutor(workers, "verify") as pool, closing(pixels), _set_at_end(verifier.stop):
        for checked in _several(pool, verifier.check, chosen, 2 * workers):
            report.count(checked)
            text = f"{report.copies} copies, {report.originals} originals, {len(report.wrong)} bad"
            bar.update(task, description=text, advance=1)


@contextmanager
def _set_at_end(stop: Event) -> Iterator[None]:
    try:
        yield
    finally:
        stop.set()


def _several(
    pool: ThreadPoolExecutor, work: Callable[[T], R], things: Iterable[T], ahead: int
) -> Iterator[R]:
    """Work on several things at a time; the results in order, and never many begun."""
    waiting: deque[Future[R]] = deque()
    try:
        for thing in things:
            waiting.append(pool.submit(work, thing))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _summarise(report: Report, asked: Asked, seed: int, began_s: float, out: Console) -> None:
    table = TextTable("checked", "number", "frames", "bad", box=None)
    bad_copies = sum(1 for c in report.wrong if c.chosen.transfer_syntax_uid)
    lossy = f" ({report.lossy_copies} lossy)" if report.lossy_copies else ""
    table.add_row(
        f"copies{lossy}", str(report.copies), str(report.compared_frames), str(bad_copies)
    )
    if asked.originals:
        bad = len(report.wrong) - bad_copies
        table.add_row("originals", str(report.originals), str(report.decoded_frames), str(bad))
    out.print(table)
    how = f"a sample, --seed {seed} takes it again" if asked.sample else "all there is"
    seconds = time.monotonic() - began_s
    out.print(f"{report.read_bytes / 1e6:.1f} MB read in {seconds:.1f} s: {how}")
    if report.gone:
        out.print(f"{report.gone} went while they were looked at")
    for reason, count in report.not_decoded.most_common():
        out.print(f"  not decoded: {count} x {reason}", markup=False)
    _show_wrong(report.wrong, out)
    _show_unread(report, out)


def _show_unread(report: Report, out: Console) -> None:
    if report.unread:
        out.print(f"WRONG: {len(report.unread)} x series whose journal the disk does not give")
    for ref, why in report.unread[:_SHOWN]:
        out.print(f"  {ref.tenant_id} {ref.path}: {why}", markup=False)


def _show_wrong(wrong: list[Checked], out: Console) -> None:
    kind = [checked for checked in wrong if checked.finding is not None]
    kind.sort(key=lambda checked: str(checked.finding))
    for finding, group in groupby(kind, key=lambda checked: checked.finding):
        found = list(group)
        out.print(f"WRONG: {len(found)} x {finding}")
        for checked in found[:_SHOWN]:
            ref, uid = checked.chosen
            name = f" in {transfer_syntax(uid).name} ({uid})" if uid else ""
            detail = f": {checked.detail}" if checked.detail else ""
            out.print(f"  {ref.tenant_id} {ref.path}{name}{detail}", markup=False)
        if len(found) > _SHOWN:
            out.print(f"  … and {len(found) - _SHOWN} more")
