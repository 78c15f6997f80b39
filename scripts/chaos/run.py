"""One chaos run from beginning to end, against a cluster that runs already."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

from chaos.faults import Happened, Trouble, schedule
from chaos.ledger import Ledger
from chaos.peers import Target
from chaos.senders import Senders
from chaos.verify import Outcome, Verifier
from chaos.watch import Prober, brokers_in_sync, wait_drained, wait_ready
from wado.settings import load_settings

_READY_WITHIN_S = 300.0
_ACKNOWLEDGED_WITHIN_S = 300.0
_DRAINED_WITHIN_S = 300.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to be; the same plan does the same things."""

    seed: int
    duration_s: float
    senders: int = 4
    images_per_s: float = 8.0
    """Most images of each sender in a second."""


@dataclass
class Result:
    """All that a report tells."""

    plan: Plan
    cluster: dict[str, Any]
    ledger: Ledger
    prober: Prober
    began_at: str
    events: list[Happened] = field(default_factory=list)
    end_s: float = 0.0
    ready_after_s: float = 0.0
    acknowledged_after_s: float = 0.0
    drained_after_s: float = 0.0
    outcome: Outcome = field(default_factory=Outcome)

    @property
    def faults(self) -> list[str]:
        """What is wrong: nothing, if the archive keeps its promises."""
        return [*self.ledger.findings, *self.outcome.faults]


def chaos(cluster_file: Path, folder: Path, plan: Plan, say: Callable[[str], None]) -> Result:
    """Send while members suffer; then wait for calm, and count.

    Parameters
    ----------
    cluster_file
        ``cluster.json`` of a cluster that runs.
    folder
        Takes the books of the senders.
    plan
        What to do.
    say
        Takes a line for each event.
    """
    cluster = json.loads(cluster_file.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(folder / "ledger.jsonl")
    prober = Prober(cluster["dicomweb"], ledger.now_s)
    result = Result(plan, cluster, ledger, prober, f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    kinds = {name: str(member["kind"]) for name, member in cluster["members"].items()}
    is_small_disk = Path(cluster["storage_root"]).is_mount()
    faults = schedule(
        plan.seed, kinds, plan.duration_s, is_root=os.geteuid() == 0, disk=is_small_disk
    )
    say(f"seed {plan.seed}, {plan.duration_s:.0f} s, {len(faults)} faults")
    target = Target(cluster["dicomweb"], cluster["dimse"], cluster["aet"])
    senders = Senders(
        target, ledger, seed=plan.seed, count=plan.senders, images_per_s=plan.images_per_s
    )
    settings = load_settings(Path(cluster["config"]))
    trouble = Trouble(
        cluster_file,
        ledger.now_s,
        brokers_in_sync(settings.log.url),
        settings.warehouse.http_url,
        say,
        result.events,
    )
    prober.start()
    senders.start()
    try:
        trouble.run(faults, plan.duration_s, Event())
        result.end_s = ledger.now_s()
        _calm_down(result, senders, say)
    finally:
        senders.give_up()
        prober.stop()
    say("counting")
    result.outcome = Verifier(cluster, ledger, result.outcome).verify()
    return result


def _calm_down(result: Result, senders: Senders, say: Callable[[str], None]) -> None:
    """No more faults: the members recover, the senders finish, the backlog drains, unaided."""
    say("no more faults")
    result.ready_after_s = wait_ready(result.cluster, _READY_WITHIN_S)
    began = time.monotonic()
    senders.finish(_ACKNOWLEDGED_WITHIN_S)
    result.acknowledged_after_s = result.ready_after_s + time.monotonic() - began
    took_s, left = wait_drained(result.cluster, _DRAINED_WITHIN_S)
    result.drained_after_s = result.acknowledged_after_s + took_s
    result.outcome.expect("the backlog does not drain:", holds=not left, detail=left)
