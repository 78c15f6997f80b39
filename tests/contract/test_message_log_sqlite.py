"""What only the message log in SQLite promises."""

import resource
from pathlib import Path

import pytest

from contract import child
from contract.message_logs import GROUP, Open, bodies, first, messages, take
from wado.adapters.message_log.sqlite import SqliteMessageLog
from wado.errors import Unavailable
from wado.ports import MessageLog
from wado.records import Topic


@pytest.fixture
def log(open_sqlite_log: Open) -> MessageLog:
    return open_sqlite_log()


def test_no_space_is_unavailable_and_passes(open_sqlite_log: Open) -> None:
    log = open_sqlite_log()

    def publish() -> None:
        open_sqlite_log()  # what an empty log needs is there
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
        mine = open_sqlite_log()
        with pytest.raises(Unavailable):
            mine.publish(messages(*["x" * 10_000] * 50))
        assert mine.lag(Topic.STORAGE, GROUP) == 0
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        mine.publish(messages("later"))

    child.complete(publish)
    assert bodies(take(log, 1)) == [b"later"]


def test_a_file_in_place_of_the_folder_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("")
    with pytest.raises(Unavailable, match="cannot make the folder"):
        SqliteMessageLog(tmp_path / "log", partitions=1, durable=True)


def test_a_spoilt_file_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "reception.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(Unavailable, match=r"reception\.sqlite"):
        SqliteMessageLog(tmp_path / "log", partitions=1, durable=True)


def test_an_offset_is_never_given_twice_after_a_power_cut(
    open_sqlite_log: Open, tmp_path: Path
) -> None:
    log = open_sqlite_log(durable=False)
    log.publish(messages(1, 2))
    take(log, 2)
    log.close()
    (tmp_path / "log" / "reception.sqlite").unlink()  # as if it had never been flushed
    log = open_sqlite_log(durable=False)
    assert log.lag(Topic.STORAGE, GROUP) == 0
    log.publish(messages(3))
    assert [b.label for b in take(log, 1)] == ["storage_queue-0-2-2"]


def test_a_batch_lost_in_a_power_cut_stops_nobody(open_sqlite_log: Open, tmp_path: Path) -> None:
    log = open_sqlite_log(durable=False)
    log.publish(messages(1, 2))
    first(log)
    log.close()
    (tmp_path / "log" / "reception.sqlite").unlink()
    log = open_sqlite_log(durable=False)
    log.publish(messages(3))
    assert [b.label for b in take(log, 1)] == ["storage_queue-0-2-2"]


def test_the_write_ahead_log_stays_small(log: MessageLog, tmp_path: Path) -> None:
    for _ in range(100):
        log.publish(messages(*["x" * 1000] * 200))
        take(log, 1)
    sizes = [f.stat().st_size for f in (tmp_path / "log").glob("*-wal")]
    assert sizes
    assert max(sizes) < 20 << 20
