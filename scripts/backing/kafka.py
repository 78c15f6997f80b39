"""Apache Kafka in KRaft mode: one broker, or several that replicate, from its own Java archives.

Maven fetches them once into a cache of this user; the brokers' heaps are small and fail-over takes
seconds, which suits tests and `make cluster`, not a hospital.
"""

import base64
import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from backing.program import Program, connects, free_port

_MADE_OF = Path(__file__).parent / "kafka"
_HEAP = "-Xms96m -Xmx320m -XX:+UseSerialGC -XX:TieredStopAtLevel=1"
_ANSWER_S = 10.0


def libraries() -> Path:
    """Folder of Kafka's Java archives; fetched by Maven when this user asks for the first time."""
    pom = (_MADE_OF / "pom.xml").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wado-backing"
    folder = cache / f"kafka-{hashlib.sha256(pom).hexdigest()[:12]}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            _maven("dependency:copy-dependencies", f"-DoutputDirectory={partial}")
            partial.rename(folder)
    return folder


@dataclass(slots=True)
class Broker(Program):
    """One broker (and controller), listening at `port` of 127.0.0.1."""

    node_id: int = 0
    port: int = 0


def brokers(
    folder: Path,
    count: int = 1,
    *,
    properties: Mapping[str, str] | None = None,
    name: str = "kafka",
    ports: Sequence[tuple[int, int]] | None = None,
) -> list[Program]:
    """Describe combined broker-controllers that form one cluster; start all, then wait for all.

    Where `folder` holds the data of an earlier run, they go on with it.

    Parameters
    ----------
    folder
        Each broker has a folder ``<name>-<n>`` in it; with one broker, ``<name>``.
    count
        1, or 3 where the loss of one must be borne.
    properties
        Further lines of ``server.properties``; they win over those set here.
    name
        Begins the names of the programs.
    ports
        Of each broker: for clients, and for the controllers; None: free ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jars = libraries()
    cluster_id = _cluster_id(folder)
    ports = ports or [(free_port(), free_port()) for _ in range(count)]
    voters = ",".join(f"{n}@127.0.0.1:{ports[n - 1][1]}" for n in range(1, count + 1))
    made: list[Program] = []
    for node_id, (port, controller_port) in enumerate(ports, start=1):
        own = f"{name}-{node_id}" if count > 1 else name
        home = folder / own
        home.mkdir(exist_ok=True)
        values = {
            **_properties(count),
            "node.id": str(node_id),
            "controller.quorum.voters": voters,
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
            "log.dirs": str(home / "data"),
            **(properties or {}),
        }
        lines = "".join(f"{key}={value}\n" for key, value in values.items())
        (home / "server.properties").write_text(lines)
        made.append(
            Broker(
                name=own,
                kind="kafka",
                arguments=["sh", "-c", _command(jars, home, cluster_id)],
                folder=home,
                answers=partial(_answers, port, node_id),
                start_within_s=200.0,
                node_id=node_id,
                port=port,
            )
        )
    return made


def addresses(programs: Sequence[Program]) -> str:
    """Where clients reach the brokers: ``host:port,host:port``."""
    return ",".join(f"127.0.0.1:{b.port}" for b in programs if isinstance(b, Broker))


def url(programs: Sequence[Program]) -> str:
    """``kafka://…``, as in `log.url`."""
    return f"kafka://{addresses(programs)}"


def _maven(*goals: str) -> None:
    done = subprocess.run(
        ["mvn", "-B", "-q", "-f", str(_MADE_OF / "pom.xml"), *goals],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"mvn {' '.join(goals)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def _cluster_id(folder: Path) -> str:
    kept = folder / "cluster.id"
    if not kept.exists():
        # As Kafka writes it: 16 bytes in URL-safe base64; a leading dash would be an option.
        made = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        kept.write_text("w" + made[1:])
    return kept.read_text()


def _properties(count: int) -> dict[str, str]:
    replicas, in_sync = str(min(count, 3)), str(2 if count > 2 else 1)
    return {
        "process.roles": "broker,controller",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        # A reader that dies, or a broker, is missed within seconds.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "4000",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "num.replica.fetchers": "1",
        "num.recovery.threads.per.data.dir": "2",
        "log.cleaner.dedupe.buffer.size": "16777216",
        "log.index.size.max.bytes": "1048576",
        "controlled.shutdown.enable": "true",
    }


def _command(jars: Path, home: Path, cluster_id: str) -> str:
    """Format the data folder if it is new, then become the broker (same process id)."""
    java = (
        f"java -Dlog4j2.configurationFile={shlex.quote(str(_MADE_OF / 'log4j2.properties'))} "
        f"-cp {shlex.quote(str(jars))}/'*'"
    )
    data, config = shlex.quote(str(home / "data")), shlex.quote(str(home / "server.properties"))
    return (
        f"[ -e {data}/meta.properties ] || "
        f"{java} -Xmx64m -XX:TieredStopAtLevel=1 kafka.tools.StorageTool"
        f" format -t {cluster_id} -c {config} || exit 1; "
        f"exec {java} {_HEAP} kafka.Kafka {config}"
    )


def _answers(port: int, node_id: int) -> bool:
    """Whether this broker serves, and every one that it knows knows it."""
    if not connects(port):
        return False
    import logging  # noqa: PLC0415

    from confluent_kafka import KafkaException  # noqa: PLC0415 - only for those who wait
    from confluent_kafka.admin import AdminClient  # noqa: PLC0415

    quiet = logging.Logger("kafka")  # noqa: LOG001 - what it says while it starts is of no use
    quiet.addHandler(logging.NullHandler())
    client = AdminClient({"bootstrap.servers": f"127.0.0.1:{port}"}, logger=quiet)
    try:
        return node_id in client.list_topics(timeout=_ANSWER_S).brokers
    except KafkaException:
        return False
