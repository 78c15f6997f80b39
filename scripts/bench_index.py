"""Time the index in PostgreSQL: loading, the usual searches, and puts, in this process.

    .venv/bin/python scripts/bench_index.py [--studies 1000000] [--work bench-work/index]

Starts a PostgreSQL of its own in the folder (a second run finds it filled), loads synthetic studies
of one series each as the owner of the tables, and prints Markdown tables: milliseconds (least, p50,
p95) of one call after the other, and how much processor time one took, here and in the server.
"""

import argparse
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import psycopg

from backing import postgresql
from backing.program import Program
from wado.adapters.index.postgresql import PostgresqlIndex
from wado.adapters.index.postgresql_schema import prepare
from wado.archive.synthesize import study_state, uids
from wado.dicom.matching import Level, Match, Query
from wado.records import DicomStateMeta

TENANT = "default"
LIMIT = 101
_BATCH = 20_000
_TICKS = os.sysconf("SC_CLK_TCK")
_NEW = count(int(time.time()) * 1000)
Draw = Callable[[DicomStateMeta, random.Random], Query]


def asked(
    *matches: Match, level: Level = Level.STUDY, fuzzy: bool = False, offset: int = 0
) -> Query:
    """Write a query as the viewer asks it: a page and one row more."""
    return Query(TENANT, level, matches, limit=LIMIT, offset=offset, fuzzy=fuzzy)


def one(keyword: str, kind: str, *values: str | None) -> Match:
    """Write a match."""
    return Match(keyword, kind, tuple(value or "" for value in values))  # type: ignore[arg-type]


def name(s: DicomStateMeta) -> str:
    """Give the family name."""
    return (s.patient_name or "").partition("^")[0]


def _month(s: DicomStateMeta) -> Match:
    month = (s.study_date or "")[:6]
    return one("study_date", "range", f"{month}01", f"{month}31")


SEARCHES: dict[str, Draw] = {
    "PatientID": lambda s, _: asked(one("patient_id", "single", s.patient_id)),
    "StudyInstanceUID": lambda s, _: asked(
        one("study_instance_uid", "single", s.study_instance_uid)
    ),
    "series of a study": lambda s, _: asked(
        one("study_instance_uid", "single", s.study_instance_uid), level=Level.SERIES
    ),
    "newest page": lambda _, __: asked(),
    "page from row 400 on": lambda _, __: asked(offset=400),
    "page from any row on": lambda s, _: asked(offset=int(s.study_id or 0)),
    "a day": lambda s, _: asked(one("study_date", "single", s.study_date)),
    "month and modality": lambda s, _: asked(
        _month(s), one("modalities_in_study", "single", s.modality)
    ),
    "beginning of a name (1 % of all)": lambda s, _: asked(
        one("patient_name", "wildcard", f"{name(s)}*")
    ),
    "part of a name (1 % of all)": lambda s, _: asked(
        one("patient_name", "wildcard", f"*{name(s)[1:]}*")
    ),
    "fuzzy name (1 % of all)": lambda s, _: asked(
        one("patient_name", "single", name(s)), fuzzy=True
    ),
    "whole name": lambda s, _: asked(one("patient_name", "single", s.patient_name)),
    "part of an id (few)": lambda s, _: asked(
        one("patient_id", "wildcard", f"*{(s.patient_id or '')[4:]}*")
    ),
    "part of a description (2 % of all)": lambda s, _: asked(
        one("study_description", "wildcard", f"*{(s.study_description or '')[3:]}")
    ),
}


@contextmanager
def running(program: Program) -> Iterator[None]:
    """Run a program while the context is open."""
    try:
        program.start()
        program.wait()
        yield
    finally:
        program.stop()


def load(index: PostgresqlIndex, server: int, studies: int) -> None:
    """Load studies and say how quick it was."""
    began, before = time.perf_counter(), all_cpu_s(server)
    with index.loading() as put:
        for start in range(0, studies, _BATCH):
            numbers = range(start, min(start + _BATCH, studies))
            put([study_state(TENANT, number) for number in numbers])
        arrived = time.perf_counter() - began
    index.close()
    took, cpu = time.perf_counter() - began, all_cpu_s(server) - before
    print(
        f"\nLoaded {studies:,} studies in {took:.0f} s ({arrived:.0f} s until all had arrived), "
        f"which took {cpu:.0f} s of processor time; load average {os.getloadavg()[0]:.1f}\n",
        flush=True,
    )


def all_cpu_s(server: int) -> float:
    """Processor time of this process, and of all the server's processes, those that ended too."""
    total = time.process_time() + sum(_ticks(server)) / _TICKS
    for child in _children(server):
        total += sum(_ticks(int(child))[:2]) / _TICKS
    return total


def _children(server: int) -> list[str]:
    return Path(f"/proc/{server}/task/{server}/children").read_text().split()


def _ticks(pid: int) -> list[int]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(field) for field in fields[11:15]]


def cpu_s(server: int) -> float:
    """Processor time of this process, and of the server's processes that serve it."""
    total = time.process_time()
    for child in _children(server):
        if b"postgres: wado " in Path(f"/proc/{child}/cmdline").read_bytes():
            total += sum(_ticks(int(child))[:2]) / _TICKS
    return total


def measured(label: str, server: int, calls: Sequence[Callable[[], object]]) -> None:
    """Time some calls and print a row."""
    calls[0]()
    took: list[float] = []
    before = cpu_s(server)
    for call in calls:
        began = time.perf_counter()
        call()
        took.append((time.perf_counter() - began) * 1000)
    cpu = (cpu_s(server) - before) / len(calls) * 1000
    took.sort()
    p50, p95 = took[len(took) // 2], took[int(len(took) * 0.95)]
    print(f"| {label} | {took[0]:.1f} | {p50:.1f} | {p95:.1f} | {cpu:.1f} |", flush=True)


def search_all(index: PostgresqlIndex, server: int, options: argparse.Namespace) -> None:
    """Time every search with values drawn at random."""
    print("| search | least | p50 | p95 | CPU |\n|---|---|---|---|---|")
    pick = random.Random(options.seed)  # noqa: S311 - must be the same each time
    for label, draw in SEARCHES.items():
        drawn = (study_state(TENANT, pick.randrange(options.studies)) for _ in range(options.calls))
        queries = [draw(state, pick) for state in drawn]
        measured(label, server, [partial(index.search, query) for query in queries])


def put_all(index: PostgresqlIndex, server: int) -> None:
    """Time puts of new series, of several sizes."""
    print("\n| put of new series | least | p50 | p95 | CPU |\n|---|---|---|---|---|")
    for size, calls in ((1, 60), (20, 30), (500, 10), (2000, 4)):
        batches = [[_new_state() for _ in range(size)] for _ in range(calls + 1)]
        index.put(batches.pop())
        measured(str(size), server, [partial(index.put, batch) for batch in batches])


def _new_state() -> DicomStateMeta:
    return study_state(TENANT, next(_NEW))


def main() -> int:
    """Run what the options say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--studies", type=int, default=1_000_000)
    parser.add_argument("--calls", type=int, default=60, help="calls of each search")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("bench-work/index"))
    parser.add_argument("--as-service", action="store_true", help="load as the services' role")
    parser.add_argument("--puts", action="store_true", help="time puts, too: the index grows")
    options = parser.parse_args()
    program, superuser = postgresql.server(options.work.resolve())
    port = int(psycopg.conninfo.conninfo_to_dict(superuser)["port"] or 0)
    database = f"index_{options.studies}{'_s' if options.as_service else ''}"
    folder = options.work.resolve()
    url = postgresql.url_of(folder, port, database=database)
    owner = postgresql.url_of(folder, port, user=postgresql.OWNER, database=database)
    with running(program):
        postgresql.prepare(superuser, database)
        prepare(url, owner, timeout_s=30)
        with closing(PostgresqlIndex(url if options.as_service else owner)) as loader:
            if not loader.search(asked(one("study_instance_uid", "single", uids(0)[0]))):
                load(loader, program.pid, options.studies)
        print(f"{options.studies:,} studies; load average {os.getloadavg()[0]:.1f}\n")
        with closing(PostgresqlIndex(url)) as index:
            search_all(index, program.pid, options)
            if options.puts:
                put_all(index, program.pid)
        print(f"\nload average at the end {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
