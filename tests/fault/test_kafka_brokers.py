"""Three brokers, of which some die or freeze, and readers that do."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from confluent_kafka import KafkaException

import backing_kafka
from backing import kafka
from backing.program import Program
from contract import child
from contract.message_logs import GROUP, bodies, messages
from freezing import freeze, frozen, thaw
from real import require
from service import wait_until
from wado.adapters.message_log.kafka import KafkaMessageLog
from wado.adapters.message_log.kafka_cluster import Cluster
from wado.errors import InvalidRequest, Unavailable
from wado.ports import Batch
from wado.records import Topic

_SAFE = {"replication_factor": 3, "min_in_sync_replicas": 2, "session_timeout_s": 3.0}
_TOPICS = [Topic.STORAGE]
_WITHIN_S = 120.0
"""Brokers that were hurt are back by then, however busy the machine is."""

OpenLog = Callable[..., KafkaMessageLog]


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Program]]:
    """Three brokers of this module's own: they are hurt."""
    require("java")
    require("mvn")
    programs = kafka.brokers(tmp_path_factory.mktemp("kafka"), 3)
    try:
        for program in programs:
            program.start()
        for program in programs:
            program.wait()
        yield programs
    finally:
        for program in programs:
            program.kill()


@pytest.fixture
def url(brokers: list[Program]) -> str:
    """Where the topics of an archive are; each has two partitions on three brokers."""
    url = f"{kafka.url(brokers)}/{backing_kafka.new_prefix()}"
    deadline = time.monotonic() + _WITHIN_S
    while True:  # those that the test before has hurt may not be back among the others yet
        try:
            backing_kafka.prepared(url, _TOPICS, partitions=2, **_SAFE)
        except (Unavailable, InvalidRequest, KafkaException):
            assert time.monotonic() < deadline, "the brokers do not come back"
            time.sleep(0.2)
        else:
            return url


@pytest.fixture
def cluster(url: str) -> Cluster:
    return Cluster.of(url, backing_kafka.settings(url, **_SAFE))


@pytest.fixture
def open_log(cluster: Cluster) -> Iterator[OpenLog]:
    opened: list[KafkaMessageLog] = []

    def open_it(**changes: Any) -> KafkaMessageLog:
        opened.append(KafkaMessageLog(replace(cluster, **changes)))
        return opened[-1]

    yield open_it
    for log in opened:
        log.close()


def insist(log: KafkaMessageLog, *sent: object, key: str = "t/1.2") -> int:
    """Publish as a sender does: again after a failure, but not for ever; how often it was sent.

    After a failure none, some or all may be in the log.
    """
    deadline = time.monotonic() + _WITHIN_S
    attempts = 1
    while True:
        try:
            log.publish(messages(*sent, key=key))
        except Unavailable:
            assert time.monotonic() < deadline, "Kafka did not come back"
            attempts += 1
        else:
            return attempts


def assert_kept(found: list[bytes], **sent: int) -> None:
    """What was acknowledged is there, and never more often than it was sent."""
    for body, attempts in sent.items():
        assert 1 <= found.count(body.encode()) <= attempts, (body, found)


def lag(log: KafkaMessageLog) -> int:
    """Ask as the monitor does: again while leaders change."""
    deadline = time.monotonic() + _WITHIN_S
    while True:
        try:
            return log.lag(Topic.STORAGE, GROUP)
        except Unavailable:
            assert time.monotonic() < deadline, "Kafka did not come back"


def take_all(log: KafkaMessageLog) -> list[Batch]:
    """Read and commit all that is there as the services do: again after a failure.

    A batch that comes again has its label.
    """
    found: dict[str, Batch] = {}
    deadline = time.monotonic() + _WITHIN_S
    while lag(log):
        stop = Event()
        try:
            for batch in log.read(Topic.STORAGE, GROUP, stop):
                found[batch.label] = batch
                batch.commit()
                if not lag(log):
                    stop.set()
        except Unavailable:
            assert time.monotonic() < deadline, "Kafka did not come back"
            time.sleep(0.2)
    return list(found.values())


def test_a_broker_dies_while_images_come_in(brokers: list[Program], open_log: OpenLog) -> None:
    log, acknowledged, stop = open_log(), [], Event()
    failures: list[str] = []

    def send(sender: int) -> None:
        n = 0
        while not stop.is_set():
            try:
                log.publish(messages(f"{sender}-{n}", key=str(n)))
            except Unavailable as e:
                failures.append(str(e))
            else:
                acknowledged.append(f"{sender}-{n}".encode())
            n += 1

    def wait_for(count: int) -> None:
        wait_until(
            lambda: len(acknowledged) > count, timeout_s=_WITHIN_S, reason="they are acknowledged"
        )

    seen: dict[str, Batch] = {}
    threads = [threading.Thread(target=send, args=(i,)) for i in range(2)]
    threads.append(threading.Thread(target=_read_on, args=(open_log(), stop, seen)))
    for thread in threads:
        thread.start()
    try:
        wait_for(50)
        brokers[0].kill()
        try:
            wait_for(len(acknowledged) + 200)
        finally:
            brokers[0].start()
            brokers[0].wait()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    seen |= {batch.label: batch for batch in take_all(open_log())}
    found = list(seen.values())
    delivered = bodies(found)
    assert set(acknowledged) <= set(delivered)
    offsets = [(m.partition, m.offset) for b in found for m in b.messages]
    assert len(offsets) == len(set(offsets))
    # Nothing is in the log twice; without a failure nothing but what was acknowledged.
    assert len(delivered) == len(set(delivered))
    assert failures or len(delivered) == len(acknowledged)


def test_all_brokers_are_killed_and_come_back(brokers: list[Program], open_log: OpenLog) -> None:
    log = open_log()
    before = insist(log, "before")
    for broker in brokers:
        broker.kill()
    try:
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(Unavailable):
                log.publish(messages("away"))
            assert time.monotonic() - began < 30
        with pytest.raises(Unavailable):
            open_log().publish(messages("away"))
    finally:
        for broker in brokers:
            broker.start()
        for broker in brokers:
            broker.wait()
    after = insist(log, "after")
    found = bodies(take_all(open_log()))
    assert_kept(found, before=before, after=after)
    assert set(found) == {b"before", b"after"}, "a message that failed was sent later"


def test_all_brokers_are_frozen(brokers: list[Program], open_log: OpenLog) -> None:
    log = open_log(publish_timeout_s=60.0)
    before = insist(log, "before")
    with frozen(*(broker.pid for broker in brokers)):
        _hears_of_it_soon(log, "frozen")
    after = insist(log, "after")
    found = bodies(take_all(open_log()))
    assert_kept(found, before=before, after=after)
    # The brokers may have had it in their sockets already: not acknowledged, and perhaps there.
    assert found.count(b"frozen") <= 1


def test_one_broker_is_frozen_and_senders_wait(brokers: list[Program], open_log: OpenLog) -> None:
    log = open_log()
    sent = {"before": insist(log, "before")}
    with frozen(brokers[0].pid):
        for n in range(4):  # on a busy machine one may fail before the leaders have changed
            sent[str(n)] = insist(log, n, key=str(n))
    found = bodies(take_all(open_log()))
    assert_kept(found, **sent)
    assert set(found) == {b"before", b"0", b"1", b"2", b"3"}


def test_senders_hear_soon_that_one_broker_of_three_is_left(
    brokers: list[Program], open_log: OpenLog
) -> None:
    log = open_log(publish_timeout_s=60.0)
    before = insist(log, "before")
    for broker in brokers[:2]:
        broker.kill()
    try:
        _hears_of_it_soon(log, "away")
    finally:
        for broker in brokers[:2]:
            broker.start()
        for broker in brokers[:2]:
            broker.wait()
    after = insist(log, "after")
    found = bodies(take_all(open_log()))
    assert_kept(found, before=before, after=after)
    assert found.count(b"away") <= 1, "a message that failed was sent later"


def _hears_of_it_soon(log: KafkaMessageLog, body: str) -> None:
    """Publish while too few brokers answer: the first is told soon, those after it sooner."""
    took: list[float] = []
    for n in range(5):
        began = time.monotonic()
        with pytest.raises(Unavailable):
            log.publish(messages(body if n == 0 else f"{body}-{n}"))
        took.append(time.monotonic() - began)
    assert max(took) < 30  # a client that knows nothing of it waits for the minute that it may
    assert min(took[1:]) < 1, "each asked for itself"


def test_a_killed_reader_is_replaced_with_the_same_bounds(
    open_log: OpenLog, tmp_path: Path
) -> None:
    log = open_log()
    attempts = insist(log, *range(20))
    log.close()  # what it has running would be in no good state in a child
    label = tmp_path / "label"

    def read(reached: child.Reached) -> None:
        while True:
            reading = open_log().read(Topic.STORAGE, GROUP, Event(), max_messages=7)
            with suppress(Unavailable):
                label.write_text(next(reading).label)
                reached()

    child.crash(read)
    more = insist(open_log(), "more")
    began = time.monotonic()
    batches = take_all(open_log())
    assert batches[0].label == label.read_text()
    assert time.monotonic() - began < 60
    found = bodies(batches)
    assert_kept(found, more=more, **{str(n): attempts for n in range(20)})
    assert set(found) == {*(str(n).encode() for n in range(20)), b"more"}


def test_a_reader_that_was_frozen_does_not_commit(open_log: OpenLog, tmp_path: Path) -> None:
    log = open_log()
    attempts = insist(log, "a", "b")
    log.close()  # what it has running would be in no good state in a child
    in_hand, outcome, go = tmp_path / "in_hand", tmp_path / "outcome", tmp_path / "go"

    def a_batch() -> tuple[Iterator[Batch], Batch]:
        while True:
            reading = open_log().read(Topic.STORAGE, GROUP, Event())
            with suppress(Unavailable):
                return reading, next(reading)

    def read() -> None:
        _reading, batch = a_batch()
        in_hand.touch()
        while not go.exists():
            time.sleep(0.01)
        try:
            batch.commit()
        except Unavailable as e:
            outcome.write_text(f"refused: {e}")
        else:
            outcome.write_text("committed")

    pid = os.fork()
    if pid == 0:
        try:
            read()
        except BaseException as e:  # noqa: BLE001 - the test says which
            outcome.write_text(repr(e))
        finally:
            os._exit(0)
    try:
        _wait_for(lambda: in_hand.exists() or outcome.exists())
        freeze(pid)
        found = bodies(take_all(open_log()))
        assert_kept(found, a=attempts, b=attempts)
        go.touch()
        thaw(pid)
        _wait_for(lambda: outcome.exists() and outcome.read_text() != "")
        assert outcome.read_text().startswith("refused")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert lag(open_log()) == 0


class _Work:
    """What readers do with batches, and whether two had a partition in hand at a time."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        self.seen: dict[tuple[int, int], bytes] = {}
        self.committed: Counter[tuple[int, int]] = Counter()
        self._holding: set[int] = set()

    def do(self, batch: Batch) -> None:
        partition = batch.messages[0].partition
        if partition in self._holding:
            self.broken.append(batch.label)
        self._holding.add(partition)
        time.sleep(0.02)
        self._holding.discard(partition)
        self.seen.update({(m.partition, m.offset): m.body for m in batch.messages})
        batch.commit()
        self.committed.update((m.partition, m.offset) for m in batch.messages)

    def read(self, log: KafkaMessageLog, stop: Event) -> None:
        while not stop.is_set():
            with suppress(Unavailable):
                for batch in log.read(Topic.STORAGE, GROUP, stop, max_messages=5):
                    self.do(batch)


def test_readers_come_and_go_without_double_work(open_log: OpenLog) -> None:
    log, work, sent = open_log(), _Work(), 0
    stops: list[Event] = []
    readers: list[threading.Thread] = []
    try:
        for _ in range(3):  # one more each second
            stops.append(Event())
            # Nobody dies here: one that gets no time of a busy machine is not to count as dead.
            mine = open_log(session_timeout_s=30.0), stops[-1]
            readers.append(threading.Thread(target=work.read, args=mine))
            readers[-1].start()
            until = time.monotonic() + 1
            while time.monotonic() < until:
                insist(log, sent, key=str(sent))
                sent += 1
        for left in stops[:2]:
            left.set()
        _wait_for(lambda: lag(log) == 0)
    finally:
        for left in stops:
            left.set()
        for reader in readers:
            reader.join()
    assert not work.broken
    assert max(work.committed.values()) == 1
    assert sorted(map(int, set(work.seen.values()))) == list(range(sent))


def _read_on(log: KafkaMessageLog, stop: Event, found: dict[str, Batch]) -> None:
    """Read as the services do: again after a failure. A batch that comes again has its label."""
    while not stop.is_set():
        try:
            for batch in log.read(Topic.STORAGE, GROUP, stop):
                found[batch.label] = batch
                batch.commit()
        except Unavailable:
            stop.wait(0.2)


def _wait_for(condition: Callable[[], bool]) -> None:
    wait_until(condition, timeout_s=_WITHIN_S, reason="it took too long")


_ASKS = """
import select, sys, time
from threading import Event
from wado.adapters.message_log.kafka import KafkaMessageLog
from wado.adapters.message_log.kafka_cluster import Cluster
from wado.errors import Unavailable
from wado.ports import Message
from wado.records import Topic
from wado.settings import load_settings

def insist(act, *arguments):
    end = time.monotonic() + 120
    while True:
        try:
            return act(*arguments)
        except Unavailable:
            assert time.monotonic() < end

def read(group):
    stop = Event()
    for batch in log.read(Topic.STORAGE, group, stop):
        batch.commit()
        stop.set()

def ask():
    assert all(log.lag(Topic.STORAGE, group) >= 0 for group in groups)

log = KafkaMessageLog(Cluster.of(sys.argv[1], load_settings(log={"url": sys.argv[1]}).log))
groups = [f"group-{n}" for n in range(8)]
for group in groups:
    insist(log.publish, [Message(Topic.STORAGE, str(n), b"x") for n in range(20)])
    insist(read, group)
print("reading", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        ask()
    except Unavailable:
        pass
insist(ask)  # at the end all must answer again
log.close()
print("done")
"""


def test_lag_can_be_asked_for_while_the_coordinators_of_groups_move(
    brokers: list[Program], url: str
) -> None:
    """In a process of its own: librdkafka's AdminClient ended it with SIGSEGV."""
    with subprocess.Popen(
        [sys.executable, "-c", _ASKS, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as asking:
        try:
            assert asking.stdin is not None
            assert asking.stdout is not None
            assert any(line == "reading\n" for line in asking.stdout)
            for broker in brokers:
                broker.stop()
                broker.start()
                broker.wait()
            asking.stdin.close()  # enough
            rest = asking.stdout.read()
            assert asking.wait() == 0
            assert rest.endswith("done\n")
        finally:
            asking.kill()
