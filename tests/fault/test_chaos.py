"""A short chaos run of a whole cluster: nothing acknowledged is lost, and nothing is there twice.

Longer by ``WADO_TEST_CHAOS_S=600``; ``WADO_TEST_SEED`` repeats the faults of a run. `make chaos`
does the same from the command line, and writes the report of docs/reliability.md.
"""

import os
import random
from pathlib import Path

import pytest

from chaos.__main__ import small_disk
from chaos.faults import Kind, schedule
from chaos.report import markdown
from chaos.run import Plan, chaos
from running_cluster import RunningCluster

DURATION_S = float(os.environ.get("WADO_TEST_CHAOS_S", "60"))


@pytest.mark.timeout(DURATION_S * 3 + 1800)
def test_nothing_is_lost_and_nothing_doubled(tmp_path: Path) -> None:
    seed = int(os.environ.get("WADO_TEST_SEED", str(random.randrange(1 << 30))))
    print(f"WADO_TEST_SEED={seed} WADO_TEST_CHAOS_S={DURATION_S:.0f}")  # noqa: T201 - to repeat it
    root = tmp_path / "data"
    with small_disk(root / "storage"), RunningCluster(root) as cluster:
        plan = Plan(seed, DURATION_S, senders=4, images_per_s=4.0)
        result = chaos(root / "cluster.json", tmp_path, plan, print)
        report = markdown(result)
        log = cluster.log_path.read_text()
    print(report)  # noqa: T201 - what was done, beside what went wrong
    assert not result.faults, f"{report}\n{log}"
    assert result.events, "nothing was done to the cluster"
    assert all(len(times) > 10 for times in result.ledger.acknowledgements.values())
    assert len(result.ledger.acknowledgements) == plan.senders
    assert "SIGSEGV" not in log
    assert "SIGABRT" not in log


def test_the_same_seed_gives_the_same_faults() -> None:
    kinds = {"kafka-1": "kafka", "kafka-2": "kafka", "doris": "doris", "server-1": "server"}
    faults = schedule(7, kinds, 600, is_root=True, disk=True)
    assert faults == schedule(7, dict(reversed(kinds.items())), 600, is_root=True, disk=True)
    assert faults != schedule(8, kinds, 600, is_root=True, disk=True)
    assert {fault.kind for fault in faults} == set(Kind)
    assert {fault.member for fault in faults} == {*kinds, "storage"}
    assert all(fault.at_s + fault.lasts_s <= 600 for fault in faults)
