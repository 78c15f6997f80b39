"""What the page on monitoring says: its metrics exist, its alerts ask for them."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from wado.archive.health import Watch
from wado.ports import Archive
from wado.services.monitor import ArchiveCollector, BoardCollector
from wado.services.server.access_log import AccessLog
from wado.vitals import HELP, Board, Metric

PAGE = (Path(__file__).parents[2] / "docs" / "operations" / "monitoring.md").read_text()
TABLE = PAGE.partition("## Metrics")[2].partition("## Alerts")[0]
ALERTS: dict[str, Any] = yaml.safe_load(PAGE.partition("```yaml\n")[2].partition("```")[0])
RULES = ALERTS["groups"][0]["rules"]


@pytest.fixture
def known(archive: Archive) -> set[str]:
    registry = CollectorRegistry()
    registry.register(BoardCollector(Board(["one"])))
    registry.register(ArchiveCollector(Watch(archive, limit_s=60)))
    AccessLog(archive, registry)
    names = set(re.findall(r"^# TYPE (\w+) ", generate_latest(registry).decode(), re.MULTILINE))
    return {name for name in names if not name.endswith("_created")}


def test_every_metric_is_in_the_table_and_no_other(known: set[str]) -> None:
    assert set(re.findall(r"wado_\w+[a-z]", TABLE)) == known


def test_alerts_ask_for_metrics_that_exist(known: set[str]) -> None:
    for rule in RULES:
        names = set(re.findall(r"wado_[a-z_]+[a-z]", rule["expr"]))
        assert names
        assert names <= known


def test_every_alert_has_its_line_of_what_to_do() -> None:
    lines = dict(re.findall(r"^\| (Wado\w+) \| .* \| (.+) \|$", PAGE, re.MULTILINE))
    assert list(lines) == [rule["alert"] for rule in RULES]


def test_every_counter_is_explained() -> None:
    assert set(HELP) == set(get_args(Metric))
