"""Three brokers, of which some die or freeze, and readers that do."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest

import backing_kafka
from backing import kafka
from backing.program import Program
from contract import child
from contract.message_logs import GROUP, bodies, messages, take
from real import require
from wado.adapters.message_log.kafka import KafkaMessageLog
from wado.adapters.message_log.kafka_cluster import Cluster
from wado.errors import Unavailable
from wado.ports import Batch
from wado.records import Topic

_SAFE = {"replication_factor": 3, "min_in_sync_replicas": 2, "session_timeout_s": 3.0}
_TOPICS = [Topic.STORAGE]


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
def cluster(brokers: list[Program]) -> Cluster:
    """An archive's topics, each with two partitions on three brokers."""
    url = f"{kafka.url(brokers)}/{backing_kafka.new_prefix()}"
    return backing_kafka.prepared(url, _TOPICS, partitions=2, **_SAFE)


@pytest.fixture
def open_log(cluster: Cluster) -> Iterator[Callable[[], KafkaMessageLog]]:
    opened: list[KafkaMessageLog] = []

    def open_it() -> KafkaMessageLog:
        opened.append(KafkaMessageLog(cluster))
        return opened[-1]

    yield open_it
    for log in opened:
        log.close()


def insist(log: KafkaMessageLog, body: object, *, within_s: float) -> None:
    """Publish as a sender does: again after a failure, but not for ever."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            log.publish(messages(body, key=str(body)))
        except Unavailable:
            assert time.monotonic() < deadline, "Kafka did not come back"
        else:
            return


def lag(log: KafkaMessageLog, *, within_s: float = 60) -> int:
    """Ask as the monitor does: again while leaders change."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return log.lag(Topic.STORAGE, GROUP)
        except Unavailable:
            assert time.monotonic() < deadline, "Kafka did not come back"


def test_a_broker_dies_while_images_come_in(
    brokers: list[Program], open_log: Callable[[], KafkaMessageLog]
) -> None:
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

    senders = [threading.Thread(target=send, args=(i,)) for i in range(2)]
    for sender in senders:
        sender.start()
    seen: dict[str, Batch] = {}
    reading = threading.Thread(target=_read_on, args=(open_log(), stop, seen))
    reading.start()
    _wait_for(lambda: len(acknowledged) > 50)
    brokers[0].kill()
    before = len(acknowledged)
    try:
        _wait_for(lambda: len(acknowledged) > before + 200)
    finally:
        brokers[0].start()
        brokers[0].wait()
        stop.set()
        for thread in (*senders, reading):
            thread.join()
    rest = lag(open_log())
    if rest:
        seen |= {batch.label: batch for batch in take(open_log(), rest)}
    found = list(seen.values())
    delivered = bodies(found)
    assert set(acknowledged) <= set(delivered)
    offsets = [(m.partition, m.offset) for b in found for m in b.messages]
    assert len(offsets) == len(set(offsets))
    # Nothing is in the log twice; without a failure nothing but what was acknowledged.
    assert len(delivered) == len(set(delivered))
    assert failures or len(delivered) == len(acknowledged)


def test_all_brokers_are_killed_and_come_back(
    brokers: list[Program], open_log: Callable[[], KafkaMessageLog]
) -> None:
    log = open_log()
    log.publish(messages("before"))
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
    insist(log, "after", within_s=30)
    found = bodies(take(open_log(), 2))
    assert found.count(b"before") == found.count(b"after") == 1
    assert set(found) <= {b"before", b"after"}, "a message that failed was sent later"


def test_all_brokers_are_frozen(
    brokers: list[Program], open_log: Callable[[], KafkaMessageLog]
) -> None:
    log = open_log()
    log.publish(messages("before"))
    for broker in brokers:
        os.kill(broker.pid, signal.SIGSTOP)
    try:
        _hears_of_it_soon(log, "frozen")
    finally:
        for broker in brokers:
            os.kill(broker.pid, signal.SIGCONT)
    insist(log, "after", within_s=60)
    found = bodies(take(open_log(), lag(open_log())))
    assert found.count(b"before") == found.count(b"after") == 1
    # The brokers may have had it in their sockets already: not acknowledged, and perhaps there.
    assert found.count(b"frozen") <= 1


def test_one_broker_is_frozen_and_senders_wait(
    brokers: list[Program], open_log: Callable[[], KafkaMessageLog]
) -> None:
    log = open_log()
    log.publish(messages("before"))
    os.kill(brokers[0].pid, signal.SIGSTOP)
    try:
        for n in range(4):  # on a busy machine one may fail before the leaders have changed
            insist(log, n, within_s=60)
    finally:
        os.kill(brokers[0].pid, signal.SIGCONT)
    found = bodies(take(open_log(), lag(open_log())))
    assert set(found) == {b"before", b"0", b"1", b"2", b"3"}


def test_senders_hear_soon_that_one_broker_of_three_is_left(
    brokers: list[Program], open_log: Callable[[], KafkaMessageLog]
) -> None:
    log = open_log()
    log.publish(messages("before"))
    for broker in brokers[:2]:
        broker.kill()
    try:
        _hears_of_it_soon(log, "away")
    finally:
        for broker in brokers[:2]:
            broker.start()
        for broker in brokers[:2]:
            broker.wait()
    insist(log, "after", within_s=60)
    found = bodies(take(open_log(), lag(open_log())))
    assert found.count(b"before") == found.count(b"after") == 1
    assert found.count(b"away") <= 1, "a message that failed was sent later"


def _hears_of_it_soon(log: KafkaMessageLog, body: str) -> None:
    """Publish while too few brokers answer: the first is told soon, those after it sooner."""
    took: list[float] = []
    for n in range(5):
        began = time.monotonic()
        with pytest.raises(Unavailable):
            log.publish(messages(body if n == 0 else f"{body}-{n}"))
        took.append(time.monotonic() - began)
    assert max(took) < 8  # a client that knows nothing of it waits for longer
    assert min(took[1:]) < 1, "each asked for itself"


def test_a_killed_reader_is_replaced_with_the_same_bounds(
    open_log: Callable[[], KafkaMessageLog], tmp_path: Path
) -> None:
    open_log().publish(m for n in range(20) for m in messages(n))
    label = tmp_path / "label"

    def read(reached: child.Reached) -> None:
        reading = open_log().read(Topic.STORAGE, GROUP, Event(), max_messages=7)
        label.write_text(next(reading).label)
        reached()

    child.crash(read)
    open_log().publish(messages("more"))
    began = time.monotonic()
    batches = take(open_log(), 21)
    assert batches[0].label == label.read_text()
    assert time.monotonic() - began < 30
    assert sorted(bodies(batches)) == sorted([*(str(n).encode() for n in range(20)), b"more"])


def test_a_reader_that_was_frozen_does_not_commit(
    open_log: Callable[[], KafkaMessageLog], tmp_path: Path
) -> None:
    open_log().publish(messages("a", "b"))
    in_hand, outcome, go = tmp_path / "in_hand", tmp_path / "outcome", tmp_path / "go"

    def read() -> None:
        reading = open_log().read(Topic.STORAGE, GROUP, Event())
        batch = next(reading)
        in_hand.touch()
        while not go.exists():
            time.sleep(0.01)
        try:
            batch.commit()
        except Unavailable as e:
            outcome.write_text(f"refused: {e}")
        else:
            outcome.write_text("committed")
        os._exit(0)

    pid = os.fork()
    if pid == 0:
        read()
    try:
        _wait_for(in_hand.exists)
        os.kill(pid, signal.SIGSTOP)
        assert bodies(take(open_log(), 2)) == [b"a", b"b"]
        go.touch()
        os.kill(pid, signal.SIGCONT)
        _wait_for(outcome.exists)
        _wait_for(lambda: outcome.read_text() != "")
        assert outcome.read_text().startswith("refused")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert lag(open_log()) == 0


def test_readers_come_and_go_without_double_work(
    open_log: Callable[[], KafkaMessageLog],
) -> None:
    log = open_log()
    stop = Event()
    committed: list[bytes] = []
    holding: set[int] = set()
    broken: list[str] = []

    def read(mine: Event) -> None:
        for batch in open_log().read(Topic.STORAGE, GROUP, mine, max_messages=5):
            partition = batch.messages[0].partition
            if partition in holding:
                broken.append(batch.label)
            holding.add(partition)
            time.sleep(0.02)
            holding.discard(partition)
            batch.commit()
            committed.extend(m.body for m in batch.messages)

    stops = [Event() for _ in range(3)]
    readers = [threading.Thread(target=read, args=(s,)) for s in stops]
    sent = 0
    for reader in readers:  # one more each second
        reader.start()
        until = time.monotonic() + 1
        while time.monotonic() < until:
            log.publish(messages(sent, key=str(sent)))
            sent += 1
    for left in stops[:2]:
        left.set()
    _wait_for(lambda: len(committed) >= sent)
    stops[2].set()
    for reader in readers:
        reader.join()
    stop.set()
    assert not broken
    assert sorted(map(int, committed)) == list(range(sent))


def _read_on(log: KafkaMessageLog, stop: Event, found: dict[str, Batch]) -> None:
    """Read as the services do: again after a failure. A batch that comes again has its label."""
    while not stop.is_set():
        try:
            for batch in log.read(Topic.STORAGE, GROUP, stop):
                found[batch.label] = batch
                batch.commit()
        except Unavailable:
            stop.wait(0.2)


def _wait_for(condition: Callable[[], bool], within_s: float = 40.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


_ASKS = """
import sys, time
from threading import Event
from wado.adapters.message_log.kafka import KafkaMessageLog
from wado.adapters.message_log.kafka_cluster import Cluster
from wado.errors import Unavailable
from wado.ports import Message
from wado.records import Topic
from wado.settings import load_settings

log = KafkaMessageLog(Cluster.of(sys.argv[1], load_settings(log={"url": sys.argv[1]}).log))
groups = [f"group-{n}" for n in range(8)]
log.publish([Message(Topic.STORAGE, str(n), b"x") for n in range(20)])
for group in groups:
    stop = Event()
    for batch in log.read(Topic.STORAGE, group, stop):
        batch.commit()
        stop.set()
print("reading", flush=True)
end = time.monotonic() + float(sys.argv[2])
answered = False
while time.monotonic() < end or not answered:  # at the end all must answer again
    try:
        answered = all(log.lag(Topic.STORAGE, group) >= 0 for group in groups)
    except Unavailable:
        answered = False
    assert time.monotonic() < end + 60
log.close()
print("done")
"""


def test_lag_can_be_asked_for_while_the_coordinators_of_groups_move(
    brokers: list[Program],
) -> None:
    """In a process of its own: librdkafka's AdminClient ended it with SIGSEGV."""
    url = f"{kafka.url(brokers)}/{backing_kafka.new_prefix()}"
    backing_kafka.prepared(url, _TOPICS, partitions=2, **_SAFE)
    asking = subprocess.Popen(
        [sys.executable, "-c", _ASKS, url, "20"], stdout=subprocess.PIPE, text=True
    )
    assert asking.stdout is not None
    with asking.stdout:
        assert any(line == "reading\n" for line in asking.stdout)
        for broker in brokers:
            broker.stop()
            broker.start()
            broker.wait()
        rest = asking.stdout.read()
    assert asking.wait(90) == 0
    assert rest.endswith("done\n")
