"""`wado status`: what answers, waits, runs and is stored, and what came of transcoding."""

import json
import time
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table as TextTable
from rich.text import Text

from wado.archive.health import MOST_COUNTED, Question, Snapshot, Watch
from wado.archive.statistics import Attempts, Failure, attempts, failures
from wado.bootstrap import open_archive
from wado.dicom.sop_classes import transfer_syntax
from wado.ports import Archive
from wado.profile import default_urls
from wado.settings import Settings
from wado.supervisor import run_folder
from wado.urls import shown

_STATUS_S = 15.0
_MOST_REASONS = 5
_LAST = timedelta(hours=24)


def show_status(settings: Settings, *, quick: bool, out: Console) -> bool:
    """Print what answers, what waits, what runs and what the archive holds; whether all answer."""
    with open_archive(settings) as archive:
        found = Watch(archive, limit_s=_STATUS_S).look()
        _show_services(settings, found, out)
        _show_queues(found, out)
        _show_processes(settings, out)
        if not quick:
            _show_transcoding(archive, out)
        if not quick and found.ports["index"].answered:
            _show_tenants(archive, out)
    return all(port.answered for port in found.ports.values())


def _show_services(settings: Settings, found: Snapshot, out: Console) -> None:
    services = TextTable("service", "at", "answers", box=None)
    for port, url in default_urls(settings).items():
        port_found = found.ports.get(port)
        if port_found is None:
            answers = "not asked: one process at a time"
        elif port_found.answered:
            answers = f"in {port_found.seconds * 1000:.0f} ms"
        else:
            answers = f"NO: {port_found.reason}"
        services.add_row(port, Text(shown(url), overflow="fold"), Text(answers))
    out.print(services)


def _show_queues(found: Snapshot, out: Console) -> None:
    queues = TextTable("topic", "waiting", "dead letters", "read by", box=None)
    for queue in found.queues:
        lag = "unknown" if queue.lag is None else str(queue.lag)
        queues.add_row(queue.topic, lag, _counted(queue.dead_letters), queue.group)
    out.print(queues)
    out.print(f"series awaiting description: {_counted(found.awaiting_description)}")


def _counted(value: int | None) -> str:
    if value is None:
        return "unknown"
    return f"{value} or more" if value == MOST_COUNTED else str(value)


def _show_processes(settings: Settings, out: Console) -> None:
    pids = run_folder(settings) / "services.json"
    listed = json.loads(pids.read_text()) if pids.is_file() else {}
    # The list outlives a supervisor that was killed.
    running = {name: pid for name, pid in listed.items() if Path(f"/proc/{pid}").exists()}
    if running:
        out.print("running: " + ", ".join(f"{name} (pid {pid})" for name, pid in running.items()))
    else:
        out.print("not running by `wado up`" + (" here" if settings.profile != "embedded" else ""))


def _show_tenants(archive: Archive, out: Console) -> None:
    """Count what the index holds, row by row: in a large archive that takes its time."""
    table = TextTable("tenant", "studies", "series", "instances", box=None)
    for tenant, states in groupby(archive.index.all_series(), key=lambda s: s.tenant_id):
        studies = series = instances = 0
        last = ""
        for state in states:  # in order of the keys
            series += 1
            instances += state.number_of_series_related_instances
            studies += state.study_instance_uid != last
            last = state.study_instance_uid
        table.add_row(tenant, str(studies), str(series), str(instances))
    out.print(table if table.row_count else "The archive is empty.")


def _show_transcoding(archive: Archive, out: Console) -> None:
    """Sum up what the warehouse has of copies; while it is away the rest is shown all the same."""
    question = Question(lambda: _counted_copies(archive))
    question.begin()
    found = question.found(time.monotonic() + _STATUS_S)
    if not found.answered:
        out.print(f"transcoding: the warehouse can't be asked: {found.reason}", markup=False)
        return
    recent, in_all, reasons = found.value
    table = TextTable("transcoding", "copies made", "attempts failed", box=None)
    for name, counted in (("last 24 h", recent), ("in all", in_all)):
        table.add_row(name, str(counted.succeeded), str(counted.failed))
    out.print(table)
    for failure in reasons:
        source, target = (
            transfer_syntax(uid).name
            for uid in (failure.transfer_syntax_uid, failure.target_transfer_syntax_uid)
        )
        out.print(
            f"  not made: {failure.count} x {failure.reason} ({source} to {target}; "
            f"e.g. {failure.example.sop_instance_uid})",
            markup=False,
        )


def _counted_copies(archive: Archive) -> tuple[Attempts, Attempts, list[Failure]]:
    warehouse = archive.warehouse
    since = (datetime.now(UTC) - _LAST).isoformat(timespec="microseconds")
    recent = attempts(warehouse, since=since)
    return recent, attempts(warehouse), failures(warehouse, most=_MOST_REASONS)
