"""Statistics of transcoding by HTTP: what is counted, for whom, and when nobody can count."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import orjson
import pytest

from backing.program import free_port
from contract.warehouses import FAILED, TRANSCODE
from service import wait_until
from wado.archive.statistics import TranscodingStatistics
from wado.bootstrap import open_archive
from wado.errors import Unavailable
from wado.ports import Archive, Message
from wado.records import Topic
from wado.services.server.service import Service, open_service
from wado.settings import Settings, load_settings
from web import Response, fetch

PATH = "/statistics/transcoding"
TENANT = {"x-tenant": TRANSCODE.tenant_id}


@contextmanager
def served(archive: Archive, settings: Settings) -> Iterator[Service]:
    with open_service(archive, settings.server, default_tenant="default") as service:
        yield service


@pytest.fixture
def service(archive: Archive, settings: Settings) -> Iterator[Service]:
    rows = [TRANSCODE.to_json(), FAILED.to_json()]
    archive.warehouse.load("dicom_transcode_log", rows, "a-0-0-1")
    with served(archive, settings) as service:
        yield service


def counted(answer: Response) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    value: dict[str, Any] = orjson.loads(answer.body)
    return value


def test_what_a_tenant_is_told(service: Service) -> None:
    said = counted(fetch(service, "GET", f"{PATH}?since=2026-11-01", **TENANT))
    uids = {"transfer_syntax_uid": TRANSCODE.transfer_syntax_uid}
    uids["target_transfer_syntax_uid"] = TRANSCODE.target_transfer_syntax_uid
    assert said == {
        "waiting": 0,
        "since": "2026-11-01T00:00:00.000000+00:00",
        "conversions": [
            {
                **uids,
                "succeeded": 1,
                "failed": 1,
                "frames": TRANSCODE.number_of_frames,
                "bytes_before": TRANSCODE.file_size,
                "bytes_after": TRANSCODE.derived_size,
                "mean_ms": TRANSCODE.duration_ms,
            }
        ],
        "failures": [
            {
                **uids,
                "reason": FAILED.reason,
                "count": 1,
                "last_at": FAILED.transcoded_at,
                "example": {
                    "study_instance_uid": FAILED.study_instance_uid,
                    "series_instance_uid": FAILED.series_instance_uid,
                    "sop_instance_uid": FAILED.sop_instance_uid,
                },
            }
        ],
    }


def test_another_tenant_is_told_nothing_of_it(service: Service) -> None:
    said = counted(fetch(service, "GET", f"{PATH}?since=2026-11-01"))
    assert (said["conversions"], said["failures"]) == ([], [])


def test_a_month_is_counted_unless_a_time_is_given(service: Service, archive: Archive) -> None:
    before = datetime.now(UTC) - timedelta(days=30)
    since = datetime.fromisoformat(counted(fetch(service, "GET", PATH, **TENANT))["since"])
    after = datetime.now(UTC) - timedelta(days=30)
    assert before.replace(second=0, microsecond=0) <= since <= after, "of a whole minute"
    later = counted(fetch(service, "GET", f"{PATH}?since=2026-11-01T12:00:01%2B02:00", **TENANT))
    assert later["since"] == "2026-11-01T10:00:01.000000+00:00"
    assert later["conversions"]
    plain = counted(fetch(service, "GET", f"{PATH}?since=2026-11-01T10:00:02Z", **TENANT))
    assert plain["conversions"] == []


def test_what_is_no_time(service: Service) -> None:
    answer = fetch(service, "GET", f"{PATH}?since=yesterday")
    assert answer.status == 400
    assert b"ISO 8601" in answer.body


def test_what_waits(service: Service, archive: Archive) -> None:
    stop = Event()
    groups = ("wado-transcode", "wado-transcode-video")
    readings = [archive.log.read(Topic.TRANSCODE, group, stop) for group in groups]
    archive.log.publish([Message(Topic.TRANSCODE, "k", b"{}") for _ in range(3)])
    for reading in readings:
        next(reading).commit()
    archive.log.publish([Message(Topic.TRANSCODE, "k", b"{}") for _ in range(2)])
    stop.set()
    assert counted(fetch(service, "GET", PATH))["waiting"] == 2


def test_a_warehouse_that_is_away_is_said(tmp_path: Path) -> None:
    settings = load_settings(
        storage={"root": tmp_path / "data"},
        warehouse={"url": f"doris://wado@127.0.0.1:{free_port()}/wado"},
    )
    with open_archive(settings) as archive, served(archive, settings) as service:
        answer = fetch(service, "GET", PATH)
    assert answer.status == 503
    assert answer.headers["retry-after"]
    assert b"the warehouse can't be asked" in answer.body
    assert b"127.0.0.1" not in answer.body


class _SlowWarehouse:
    """One that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = Event()

    def query(self, _sql: str, _parameters: object = ()) -> list[dict[str, Any]]:
        self.asked += 1
        assert self.may_answer.wait(200)
        return []


def test_a_slow_warehouse_is_asked_once_and_its_answer_is_there_later(archive: Archive) -> None:
    warehouse: Any = _SlowWarehouse()
    slow = Archive(archive.log, archive.index, warehouse, archive.store, archive.cache)
    statistics = TranscodingStatistics(slow, limit_s=0.1)
    for _ in range(3):
        with pytest.raises(Unavailable, match="no answer for"):
            statistics.of("t", "2026-11-01")
        wait_until(lambda: warehouse.asked > 0, timeout_s=60, reason="it is asked")
    assert warehouse.asked == 1
    warehouse.may_answer.set()

    def answered() -> bool:
        try:
            return statistics.of("t", "2026-11-01").conversions == []
        except Unavailable:
            return False

    wait_until(answered, timeout_s=60, reason="the answer is there")
