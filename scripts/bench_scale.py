"""What one more image costs in a large archive, and what a second consumer brings.

    PYTHONPATH=tests .venv/bin/python scripts/bench_scale.py [--studies 100 100000] [--images 2000]

Runs on a real PostgreSQL and a real Kafka (one broker each, loopback). *Cost*: one archive has few
index rows and journals, another has many (made up: `wado synthesize` and small journals beside
them); the same new images are received and catalogued in both, by turns, in this process.
*Consumers*: a backlog is catalogued by one `wado consumer`, and another such backlog by two; with
`--share 0.2` each may use a fifth of a core (cgroup v1, root), so that the cores allow for two.
"""

import argparse
import gc
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

import synthetic
from backing import kafka, postgresql
from backing.program import Program
from wado.archive.catalogue import catalogue_batch
from wado.archive.journal import Journals, described_line
from wado.archive.paths import journal_path
from wado.archive.store import Committer, Reception, Source
from wado.archive.synthesize import study_state, synthesize
from wado.bootstrap import open_archive, prepare_archive
from wado.ports import Archive, Message
from wado.records import Topic
from wado.settings import Settings, load_settings

GROUP = "wado-consumer"
TENANT = "default"
PER_SERIES = 50
JOINED_S = 20.0
"""After so long consumers have started and shared the partitions among them."""


@contextmanager
def running(programs: list[Program]) -> Iterator[None]:
    """Run programs while the context is open."""
    try:
        for program in programs:
            program.start()
        for program in programs:
            program.wait()
        yield
    finally:
        for program in reversed(programs):
            program.stop()


@dataclass(frozen=True, slots=True)
class Site:
    """An archive of its own on the shared services."""

    name: str
    settings: Settings
    config: Path


def site(work: Path, name: str, log_url: str, superuser: str, database: Path) -> Site:
    """Make an archive: a root, a database and a prefix of topics."""
    port = int(superuser.rpartition(":")[2].partition("/")[0])
    postgresql.prepare(superuser, name)
    values: dict[str, Any] = {
        "storage": {"root": str(work / name)},
        "log": {
            "url": f"{log_url}/{name}",
            "replication_factor": 1,
            "min_in_sync_replicas": 1,
        },
        "index": {
            "url": postgresql.url_of(database, port, database=name),
            "owner_url": postgresql.url_of(database, port, user=postgresql.OWNER, database=name),
        },
        "consumer": {"load_tables": []},
    }
    settings = load_settings(None, **values)
    config = work / f"{name}.toml"
    config.write_text(
        "\n".join(
            f"[{section}]\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in items.items())
            for section, items in values.items()
        )
    )
    list(prepare_archive(settings))
    return Site(name, settings, config)


def fill(archive: Archive, studies: int) -> None:
    """Put made-up studies into the index, each with a journal."""
    synthesize(archive, TENANT, range(studies))
    for start in range(0, studies, 500):
        numbers = range(start, min(start + 500, studies))
        refs = (study_state(TENANT, number).series for number in numbers)
        archive.store.append({journal_path(ref): described_line() for ref in refs})


def receive(archive: Archive, images: int, seed: str) -> float:
    """Receive images of new series; how long it took in seconds."""
    began = time.perf_counter()
    with Committer(archive) as committer:
        futures = []
        for number in range(images):
            series = number // PER_SERIES
            ds = synthetic.ct(
                StudyInstanceUID=synthetic.uid(seed, series // 2),
                SeriesInstanceUID=synthetic.uid(seed, series // 2, series),
                SOPInstanceUID=synthetic.uid(seed, series // 2, series, number),
                PatientID=f"{seed}{series // 2}",
            )
            reception = Reception(archive, TENANT, Source())
            reception.write(synthetic.part10(ds))
            reception.finish()
            futures.append(committer.submit(reception))
        for future in futures:
            future.result()
    return time.perf_counter() - began


def catalogue(archive: Archive, images: int) -> tuple[float, float]:
    """Catalogue what was received: seconds of the clock, and of this process's processor."""
    journals, done, stop = Journals(archive.store), 0, Event()
    reading = archive.log.read(Topic.STORAGE, GROUP, stop)
    batch = next(reading)  # joining the group is not counted
    gc.collect()
    began, cpu = time.perf_counter(), time.process_time()
    while True:
        catalogue_batch(archive, journals, batch)
        batch.commit()
        done += len(batch.messages)
        if done >= images:
            break
        batch = next(reading)
    took = time.perf_counter() - began, time.process_time() - cpu
    stop.set()
    reading.close()  # type: ignore[attr-defined]  # it is a generator
    return took


def cost(sites: list[Site], images: int, runs: int) -> None:
    """Print what an image costs in each archive, by turns."""
    with ExitStack() as stack:
        archives = [stack.enter_context(open_archive(s.settings)) for s in sites]
        found: list[list[tuple[float, float, float]]] = [[] for _ in sites]
        for run in range(runs + 1):
            turns = list(range(len(sites)))
            for at in turns if run % 2 else reversed(turns):
                seed = f"{sites[at].name}-{run}-{os.getpid()}"
                received = receive(archives[at], images, seed)
                wall, cpu = catalogue(archives[at], images)
                if run:  # the first warms up
                    found[at].append((received, wall, cpu))
    print(
        f"\nms per image, median of {runs} runs of {images} new images (S: {PER_SERIES} a series)"
    )
    print("archive | received | catalogued | of that our processor")
    rows = []
    for each, figures in zip(sites, found, strict=True):
        row = [statistics.median(f[n] for f in figures) * 1000 / images for n in range(3)]
        rows.append(row)
        print(f"{each.name} | {row[0]:.3f} | {row[1]:.3f} | {row[2]:.3f}")
    ratios = [last / first for first, last in zip(rows[0], rows[-1], strict=True)]
    print("ratio, largest to smallest | " + " | ".join(f"{r:.2f}" for r in ratios))


class Held:
    """Keeps what is published until all consumers are there."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def publish(self, messages: Iterable[Message]) -> None:
        """Keep messages."""
        self.messages += messages


def confine(pid: int, share: float) -> None:
    """Let a process use only a share of one core."""
    group = Path(f"/sys/fs/cgroup/cpu/wado-bench-{pid}")
    group.mkdir()
    (group / "cpu.cfs_quota_us").write_text(str(int(share * 100_000)))
    (group / "cgroup.procs").write_text(str(pid))


def consumers(where: Site, images: int, share: float) -> None:
    """Print how long one consumer, and two, take for the same backlog."""
    rates = {}
    for count in (1, 2):
        with open_archive(where.settings) as archive:
            held: Any = Held()
            receive(replace(archive, log=held), images, f"consumers-{count}-{os.getpid()}")
            arguments = [sys.executable, "-m", "wado", "--config", str(where.config), "consumer"]
            children = [subprocess.Popen(arguments) for _ in range(count)]
            try:
                for child in children:
                    if share:
                        confine(child.pid, share)
                time.sleep(JOINED_S)
                archive.log.publish(held.messages)
                began = time.perf_counter()
                while archive.log.lag(Topic.STORAGE, GROUP):
                    time.sleep(0.05)
                rates[count] = images / (time.perf_counter() - began)
            finally:
                for child in children:
                    child.send_signal(signal.SIGTERM)
                for child in children:
                    child.wait()
                    if share:
                        Path(f"/sys/fs/cgroup/cpu/wado-bench-{child.pid}").rmdir()
        each = f", each {share:g} of a core" if share else ""
        print(f"{count} consumer(s){each}: {rates[count]:.0f} images/s (backlog of {images})")
    print(f"two do {rates[2] / rates[1]:.2f} times the work of one, on {os.cpu_count()} cores")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("bench-work/scale"))
    parser.add_argument("--studies", type=int, nargs="+", default=[100, 100_000])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--backlog", type=int, default=6000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--share", type=float, default=0.0)
    chosen = parser.parse_args()
    work = chosen.work.absolute()
    shutil.rmtree(work, ignore_errors=True)
    brokers = kafka.brokers(work / "kafka")
    database, superuser = postgresql.server(work / "postgresql")
    with running([*brokers, database]):
        sites = []
        for studies in chosen.studies:
            made = site(work, f"s{studies}", kafka.url(brokers), superuser, work / "postgresql")
            began = time.perf_counter()
            with open_archive(made.settings) as archive:
                fill(archive, studies)
            print(f"{made.name}: {studies} studies made up in {time.perf_counter() - began:.0f} s")
            sites.append(made)
        if chosen.runs:
            cost(sites, chosen.images, chosen.runs)
        consumers(sites[0], chosen.backlog, chosen.share)
    shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
