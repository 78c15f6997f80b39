"""What the longer commands do, with progress on a terminal and plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from wado.archive.check import Report
from wado.archive.check import check as check_archive
from wado.archive.grace import deleted_series, restore
from wado.archive.health import COUNTED
from wado.archive.health import waiting as messages_waiting
from wado.archive.reindex import Rebuilt
from wado.archive.reindex import reindex as reindex_archive
from wado.archive.selection import ref_of
from wado.archive.synthesize import manifest as list_of_studies
from wado.archive.synthesize import synthesize as synthesize_archive
from wado.bootstrap import open_archive, prepare_archive
from wado.cli_progress import progress_bar
from wado.dicom.uids import validate_tenant_id
from wado.errors import InvalidRequest, NotFound
from wado.ports import Archive
from wado.records import Topic
from wado.settings import Settings
from wado.supervisor import RunLock, run_folder

_SHOWN = 50
_SETTLE_S = 30.0
_STANDS_STILL_S = 12.0
"""A log that has not moved for so long has no readers: they pause for less (`Patience`)."""
_LOOK_S = 0.5
_ON_ITS_WAY_S = 2.0
"""How long what was stored may need until it is announced."""


def send_with_progress(
    paths: Sequence[Path], to: str, *, associations: int, aet: str, out: Console, err: Console
) -> bool:
    """Send files, drawing a bar; whether every file was stored."""
    from wado.services.association import Peer  # noqa: PLC0415
    from wado.services.storescu import Progress as Sent  # noqa: PLC0415
    from wado.services.storescu import send  # noqa: PLC0415

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
    )
    with bar:
        task = bar.add_task("looking for files", total=None)

        def show(sent: Sent) -> None:
            doing = "looking for files" if sent.is_searching else "sending"
            bar.update(
                task,
                description=f"{doing} {sent.files_done}/{sent.files_total}",
                total=sent.bytes_total or None,
                completed=sent.bytes_done,
            )

        summary = send(
            paths, Peer.parse(to), calling_ae_title=aet, associations=associations, progress=show
        )
    seconds = max(summary.duration_s, 1e-9)
    out.print(
        f"{summary.files_sent} stored, {len(summary.failures)} failed, "
        f"{len(summary.skipped)} skipped in {seconds:.1f} s "
        f"({summary.files_sent / seconds:.0f} files/s, "
        f"{summary.bytes_sent / 1e6 / seconds:.1f} MB/s)"
    )
    for title, items in (
        ("failed", summary.failures),
        ("warning", summary.warnings),
        ("skipped", summary.skipped),
    ):
        for reason, found in summary.grouped(items):
            out.print(f"  {title}: {len(found)} x {reason} (e.g. {found[0]})", markup=False)
    return not summary.failures


def prepare_with_report(settings: Settings, *, wait_s: float, out: Console, err: Console) -> bool:
    """Prepare each port, and print what was done; whether all could be prepared."""
    failed = []
    for prepared in prepare_archive(settings, wait_s=wait_s):
        out.print(f"{prepared.port}: {prepared.url}", markup=False)
        for line in prepared.done:
            out.print(f"  {line}", markup=False)
        if prepared.failure is not None:
            failed.append(prepared)
            err.print(f"  not prepared: {prepared.failure}", markup=False)
    if failed:
        names = ", ".join(p.port for p in failed)
        err.print(
            f"wado: not prepared: {names}. What is done stays; mend that, and run `wado init` "
            "again (`--wait SECONDS` waits for services that are still starting)"
        )
    elif settings.profile == "embedded":
        out.print("nothing else is needed: `wado up` makes the rest as it goes")
    else:
        out.print("all is prepared")
    return not failed


def check_with_progress(
    settings: Settings,
    *,
    repair: bool,
    deep: bool,
    tenant_id: str | None,
    out: Console,
    err: Console,
) -> bool:
    """Check, drawing progress; whether nothing is wrong any more.

    Raises
    ------
    NotFound
        There is nothing of the tenant that is named.
    """
    if tenant_id is not None:
        validate_tenant_id(tenant_id)
    with open_archive(settings) as archive, _counting(err, "checking") as update:
        waiting = settle(archive, _SETTLE_S, update)

        def show(report: Report) -> None:
            update(f"{report.series} series, {report.instances} instances")

        def pause() -> None:
            time.sleep(_ON_ITS_WAY_S)
            if not waiting:  # else nobody reads
                settle(archive, _SETTLE_S, update)

        report = check_archive(
            archive, repair=repair, deep=deep, tenant_id=tenant_id, progress=show, settle=pause
        )
    if tenant_id is not None and not (report.series or report.instances or report.problems):
        raise NotFound(f"there is nothing of tenant {tenant_id}")
    for problem in report.problems[:_SHOWN]:
        state = "repaired" if problem.repaired else "WRONG"
        out.print(f"{state}: {problem.finding}: {problem.where} {problem.detail}", markup=False)
    if len(report.problems) > _SHOWN:
        out.print(f"… and {len(report.problems) - _SHOWN} more")
    out.print(
        f"{report.studies} studies, {report.series} series, {report.instances} instances, "
        f"{report.bytes / 1e6:.1f} MB: "
        f"{len(report.unrepaired)} wrong, {len(report.problems) - len(report.unrepaired)} repaired"
    )
    if waiting:
        out.print(f"{waiting} messages wait on the log: what they announce is not counted yet")
    if report.unrepaired and not repair:
        out.print("run `wado check --repair` to mend it")
    return not report.unrepaired


def settle(archive: Archive, seconds: float, update: Callable[[str], object]) -> int:
    """Wait until what counts is read from the log, as long as it moves; how many messages wait.

    One that stands still may have readers all the same: after an outage they pause before they
    try again.
    """
    now = time.monotonic()
    end, moved, last = now + seconds, now, -1
    while True:
        waiting = sum(messages_waiting(archive, topic) for topic in COUNTED)
        now = time.monotonic()
        if waiting != last:
            moved, last = now, waiting
        if not waiting or now > end or now - moved > _STANDS_STILL_S:
            return waiting
        update(f"waiting for {waiting} messages to be read")
        time.sleep(_LOOK_S)


def reindex_with_progress(settings: Settings, *, stopped: bool, out: Console, err: Console) -> None:
    """Rebuild, drawing progress.

    Raises
    ------
    InvalidRequest
        Services may run on other machines, and nobody said that they are stopped.
    """
    if settings.profile == "distributed" and not stopped:
        raise InvalidRequest(
            "wado reindex can't see what runs on other machines: stop all services there "
            "(storescp, server, consumer, webworker), then say so with --stopped"
        )
    with (
        RunLock(settings.storage.root / "run", "wado reindex"),
        open_archive(settings) as archive,
        _counting(err, "rebuilding") as update,
    ):

        def show(done: Rebuilt) -> None:
            update(f"{done.series} series, {done.instances} instances")

        done = reindex_archive(archive, show)
    out.print(
        f"rebuilt {done.instances} instances in {done.series} series; "
        f"{done.quarantined} files moved to the quarantine"
    )
    if done.unread:
        out.print(
            f"{done.unread} files could not be read (see the log) and are left out: once they "
            "can be, wado check --repair announces them"
        )


def synthesize_with_progress(
    settings: Settings, numbers: range, *, manifest: Path | None, out: Console, err: Console
) -> None:
    """Put made-up studies into the index, drawing a bar."""
    began = time.monotonic()
    bar = progress_bar(err)
    with RunLock(run_folder(settings), "wado synthesize"), open_archive(settings) as archive, bar:
        task = bar.add_task("making studies", total=len(numbers))
        synthesize_archive(
            archive,
            settings.storage.default_tenant,
            numbers,
            lambda done: bar.update(
                task,
                completed=done,
                description="making studies" if done < len(numbers) else "making indexes",
            ),
        )
    if manifest is not None:
        with manifest.open("w") as file:
            file.writelines(list_of_studies(numbers))
    seconds = time.monotonic() - began
    out.print(f"{len(numbers)} studies are in the index, without files ({seconds:.0f} s)")


@contextmanager
def _counting(err: Console, what: str) -> Iterator[Any]:
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        console=err,
        disable=not err.is_terminal,
    )
    with bar:
        task = bar.add_task(what, total=None)

        def update(text: str) -> None:
            bar.update(task, description=f"{what}: {text}")

        yield update


def list_dead_letters(settings: Settings, *, out: Console) -> None:
    """Print dead letters, oldest first."""
    with open_archive(settings) as archive:
        count = 0
        for topic in Topic:
            for letter in archive.log.dead_letters(topic):
                count += 1
                m = letter.message
                out.print(
                    f"{letter.rejected_at} {topic} {m.partition}:{m.offset} {m.key} "
                    f"({letter.group}): {letter.reason}",
                    markup=False,
                )
        out.print(f"{count} dead letters")


def replay_dead_letters(settings: Settings, topic: str | None, *, out: Console) -> None:
    """Publish dead letters again."""
    try:
        topics = [Topic(topic)] if topic else list(Topic)
    except ValueError as e:
        raise InvalidRequest(f"no such topic: {topic}; one of {', '.join(Topic)}") from e
    with open_archive(settings) as archive:
        count = sum(archive.log.replay(list(archive.log.dead_letters(t))) for t in topics)
    out.print(f"{count} messages published again")


def restore_deleted(
    settings: Settings, uids: Sequence[str], tenant_id: str | None, *, out: Console, err: Console
) -> bool:
    """Restore a study, series or instance; whether all that was kept of it is back."""
    ref = ref_of(tenant_id or settings.storage.default_tenant, uids)
    with open_archive(settings) as archive, _counting(err, "restoring") as update:
        done = restore(archive, ref)
        waiting = settle(archive, _SETTLE_S, update) if done.instances else 0
    out.print(f"{done.instances} instances restored")
    if waiting:
        out.print("they become visible when the archive runs, and has read its log")
    for instance in done.taken[:_SHOWN]:
        out.print(f"not restored, as it was stored anew: {instance.path}")
    if len(done.taken) > _SHOWN:
        out.print(f"… and {len(done.taken) - _SHOWN} more")
    return not done.taken


def list_deleted(settings: Settings, tenant_id: str | None, *, out: Console) -> None:
    """Print what can be restored, and until when."""
    if tenant_id is not None:
        validate_tenant_id(tenant_id)
    count = 0
    with open_archive(settings) as archive:
        for found in deleted_series(archive, tenant_id):
            count += found.instances
            left_s = found.first_s + settings.storage.deleted_keep_s - time.time()
            until = datetime.fromtimestamp(time.time() + max(left_s, 0), UTC)
            out.print(
                f"{found.ref.tenant_id} {found.ref.path}: {found.instances} instances, "
                f"{found.bytes / 1e6:.1f} MB, until {until:%Y-%m-%d %H:%M} UTC",
                markup=False,
            )
    out.print(f"{count} instances can be restored")
