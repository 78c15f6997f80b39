"""What only the message log on Kafka promises."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Timer
from typing import Any

import pytest

import backing_kafka
from backing import kafka
from backing.program import free_port
from contract import child
from contract.message_logs import GROUP, Open, bodies, messages, take
from real import require
from service import wait_until
from wado.adapters.message_log import kafka_publisher, kafka_reader
from wado.adapters.message_log.kafka import KafkaMessageLog
from wado.adapters.message_log.kafka_cluster import MAX_MESSAGE_BYTES, Cluster
from wado.adapters.message_log.kafka_topics import prepare
from wado.errors import InvalidRequest, TooLarge, Unavailable
from wado.ports import Message
from wado.records import Topic

_ONE = [Topic.STORAGE]


@pytest.fixture
def url(run_folder: Path) -> str:
    return f"{backing_kafka.shared_kafka(run_folder)}/{backing_kafka.new_prefix()}"


class TestTopics:
    def test_are_made_once_and_left_as_they_are(self, url: str) -> None:
        settings = backing_kafka.settings(url, partitions=2)
        made = prepare(Cluster.of(url, settings), settings, _ONE)
        assert made[0].startswith("2 topics were made")
        backing_kafka.wait_until_known(Cluster.of(url, settings), _ONE)
        assert prepare(Cluster.of(url, settings), settings, _ONE) == ["2 topics are there"]
        other = backing_kafka.settings(url, partitions=3)
        lines = prepare(Cluster.of(url, other), other, _ONE)
        assert any("partitions is 2; the settings say 3" in line for line in lines)

    def test_too_few_brokers_are_named(self, url: str) -> None:
        settings = backing_kafka.settings(url, replication_factor=3)
        with pytest.raises(InvalidRequest, match="does not make the topic"):
            prepare(Cluster.of(url, settings), settings, _ONE)

    @pytest.mark.usefixtures("patient_kafka")
    def test_missing_ones_are_not_made_by_use(self, url: str) -> None:
        log = KafkaMessageLog(Cluster.of(url, backing_kafka.settings(url)))
        for _ in range(2):
            with pytest.raises(Unavailable, match="wado init"):
                log.publish(messages("x"))
        with pytest.raises(Unavailable, match="wado init"):
            next(log.read(Topic.STORAGE, GROUP, Event()))
        with pytest.raises(Unavailable, match="wado init"):
            log.lag(Topic.STORAGE, GROUP)
        backing_kafka.prepared(url, _ONE)
        log.publish(messages("x"))
        assert bodies(take(log, 1)) == [b"x"]
        log.close()


class TestSizes:
    def test_a_message_of_megabytes_passes_and_a_larger_one_is_refused(
        self, open_kafka_log: Open
    ) -> None:
        log = open_kafka_log()
        long = "x" * MAX_MESSAGE_BYTES
        with pytest.raises(TooLarge):
            log.publish(messages("small", long + "x"))
        assert log.lag(Topic.STORAGE, GROUP) == 0
        log.publish(messages(long, "behind"))
        assert b"".join(bodies(take(log, 2))) == (long + "behind").encode()


class TestThreads:
    """What goes wrong in a thread of the log is told to whoever waits for it."""

    def test_a_reader_that_fails_says_so(
        self, open_kafka_log: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log = open_kafka_log()
        log.publish(messages("x"))

        def broken(*_: object) -> None:
            raise ZeroDivisionError

        stop = Event()
        too_late = Timer(120, stop.set)
        too_late.start()
        with monkeypatch.context() as patch:
            patch.setattr(kafka_reader, "_delivered", broken)
            with pytest.raises(ZeroDivisionError):
                next(log.read(Topic.STORAGE, GROUP, stop))
        too_late.cancel()
        assert bodies(take(log, 1)) == [b"x"]

    @pytest.mark.usefixtures("patient_kafka")
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_a_publisher_that_fails_is_replaced(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log = KafkaMessageLog(backing_kafka.prepared(url, _ONE, publish_timeout_s=60))
        take_report = kafka_publisher._Reports.take

        def broken(reports: kafka_publisher._Reports, error: Any, message: Any) -> None:
            take_report(reports, error, message)
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(kafka_publisher._Reports, "take", broken)
            publisher = log._publisher.get()
            log.publish(messages("x"))
            wait_until(lambda: not publisher.is_usable, timeout_s=60, reason="its thread ended")
        log.publish(messages("y"))
        assert b"y" in bodies(take(log, 2))
        log.close()


class TestBacklog:
    @pytest.mark.parametrize("partitions", [1, 3])
    def test_is_read_in_full_batches_at_their_bounds(
        self, open_kafka_log: Open, partitions: int
    ) -> None:
        """More than is held in memory, so that fetching is held back and goes on."""
        log = open_kafka_log(partitions=partitions)
        count, body = 24_000, b"x" * 3000
        for n in range(0, count, 4000):
            log.publish(
                Message(Topic.STORAGE, str(i // 10), b"%d %s" % (i, body))
                for i in range(n, n + 4000)
            )
        seen: list[int] = []
        next_offset = dict.fromkeys(range(partitions), 0)
        stop = Event()
        for batch in log.read(Topic.STORAGE, GROUP, stop, max_messages=500):
            first, last = batch.messages[0], batch.messages[-1]
            assert first.offset == next_offset[first.partition]
            assert last.offset - first.offset + 1 == len(batch.messages)
            next_offset[first.partition] = last.offset + 1
            seen += [int(m.body.split()[0]) for m in batch.messages]
            if len(seen) == len(batch.messages):
                time.sleep(2)  # what is fetched meanwhile is more than is held
            batch.commit()
            if len(seen) >= count:
                stop.set()
        assert sorted(seen) == list(range(count))

    @pytest.mark.parametrize("partitions", [1, 3])
    def test_a_reader_killed_after_a_commit_leaves_the_bounds_of_the_next_batch(
        self, open_kafka_log: Open, tmp_path: Path, partitions: int
    ) -> None:
        """The end of the next batch goes on record with the commit of the one before it."""
        open_kafka_log(partitions=partitions).publish(
            Message(Topic.STORAGE, str(n % 30), b"%d" % n) for n in range(150)
        )
        labels = tmp_path / "labels"

        def read(reached: child.Reached) -> None:
            log = open_kafka_log(partitions=partitions)
            with labels.open("w") as said:
                for batch in log.read(Topic.STORAGE, GROUP, Event(), max_messages=6):
                    print(batch.label, file=said, flush=True)
                    if batch.messages[0].offset == 12:
                        reached()
                    batch.commit()

        child.crash(read)
        *committed, in_hand = labels.read_text().split()
        log = open_kafka_log(partitions=partitions)
        found = [b.label for b in take(log, log.lag(Topic.STORAGE, GROUP), max_messages=5)]
        assert in_hand in found
        assert not set(committed) & set(found)


def test_nobody_there_is_unavailable_at_once() -> None:
    url = f"kafka://127.0.0.1:{free_port()}"
    settings = backing_kafka.settings(url, publish_timeout_s=120)
    log = KafkaMessageLog(Cluster.of(url, settings))
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(Unavailable):
            log.publish(messages("x"))
        assert time.monotonic() - began < settings.publish_timeout_s / 2
    with pytest.raises(Unavailable):
        next(log.read(Topic.STORAGE, GROUP, Event()))
    with pytest.raises(Unavailable):
        log.lag(Topic.STORAGE, GROUP)
    log.close()


@pytest.mark.parametrize("bad", ["kafka://", "kafka:///prefix", "kafka://h:1/a.b", "kafka://h:1/ä"])
def test_an_address_without_server_or_with_a_strange_prefix_is_refused(bad: str) -> None:
    with pytest.raises(InvalidRequest):
        Cluster.of(bad, backing_kafka.settings(bad))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A broker of its own behind TLS and SASL: its address, and the file of its certificate."""
    require("java")
    require("mvn")
    folder = tmp_path_factory.mktemp("secured")
    key, certificate, both = folder / "key.pem", folder / "certificate.pem", folder / "both.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            *subject,
            *files,
        ],
        check=True,
        capture_output=True,
    )
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    port, inner, controller = free_port(), free_port(), free_port()
    login = (
        "org.apache.kafka.common.security.plain.PlainLoginModule required"
        ' username="x" password="x" user_wado="se/cret";'
    )
    (program,) = kafka.brokers(
        folder,
        properties={
            "listeners": f"PLAINTEXT://127.0.0.1:{inner},SAFE://127.0.0.1:{port},"
            f"CONTROLLER://127.0.0.1:{controller}",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,"
            "SAFE:SASL_SSL",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(both),
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.safe.plain.sasl.jaas.config": login,
        },
        ports=[(inner, controller)],
    )
    try:
        program.start()
        program.wait()
        yield f"127.0.0.1:{port}", certificate
    finally:
        program.kill()


class TestSecurity:
    @pytest.mark.usefixtures("patient_kafka")
    def test_tls_and_a_password_of_a_file(self, secured: tuple[str, Path], tmp_path: Path) -> None:
        server, certificate = secured
        (tmp_path / "password").write_text("se/cret\n")
        cluster = backing_kafka.prepared(
            f"kafka://wado@{server}",
            _ONE,
            security="sasl_tls",
            sasl_mechanism="PLAIN",
            password_file=tmp_path / "password",
            ca_file=certificate,
        )
        log = KafkaMessageLog(cluster)
        log.publish(messages("secret"))
        assert bodies(take(log, 1)) == [b"secret"]
        assert "se/cret" not in repr(cluster)
        log.close()

    def test_a_wrong_password_is_unavailable(self, secured: tuple[str, Path]) -> None:
        server, certificate = secured
        url = f"kafka://wado:wrong@{server}"
        settings = backing_kafka.settings(
            url, security="sasl_tls", sasl_mechanism="PLAIN", ca_file=certificate
        )
        log = KafkaMessageLog(Cluster.of(url, settings))
        with pytest.raises(Unavailable) as caught:
            log.publish(messages("x"))
        assert "wrong" not in str(caught.value)
        log.close()

    def test_a_certificate_that_nobody_signed_is_refused(self, secured: tuple[str, Path]) -> None:
        server, _ = secured
        url = f"kafka://wado:se%2Fcret@{server}"
        settings = backing_kafka.settings(url, security="sasl_tls", sasl_mechanism="PLAIN")
        log = KafkaMessageLog(Cluster.of(url, settings))
        with pytest.raises(Unavailable):
            log.publish(messages("x"))
        log.close()


FORKS = """
import gc, os
os.register_at_fork(after_in_child=gc.collect)  # before ours, as other modules may do
from confluent_kafka import Producer
from wado.adapters.message_log.kafka_cluster import Handle
class Cycle: pass
for _ in range(3):
    gc.disable()
    garbage = Cycle()
    garbage.itself = garbage
    garbage.handle = Handle(Producer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}))
    garbage.handle.client.poll(0)
    del garbage
    gc.enable()
    child = os.fork()
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def test_a_forked_child_frees_no_client_of_its_parent() -> None:
    subprocess.run([sys.executable, "-c", FORKS], check=True, timeout=120)
