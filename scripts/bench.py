"""Measure this archive and the peers that are installed, interleaved, with ../shared/bench.

Writes bench-work/results.jsonl (every run) and docs/benchmarks.md (medians and ratios). Ratios
within one run are what counts: machines differ and are noisy.

    make bench                          everything, about 25 minutes
    make bench OPTIONS="--quick"        one run of each with less data, about 5 minutes
    make bench OPTIONS="--only cstore"  some of it: cstore stow visible retrieve query memory

The first `query` makes an index of a million studies, which takes three minutes more.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bench_keys

PROJECT = Path(__file__).resolve().parents[1]
HARNESS = Path(os.environ.get("WADO_BENCH", PROJECT.parent / "shared" / "bench"))
WORK = PROJECT / "bench-work"
HTTP_PORT, DIMSE_PORT = 18080, 21112
BASE = f"http://127.0.0.1:{HTTP_PORT}/dicomweb"
ORTHANC = "http://127.0.0.1:8042/dicom-web"
NGINX = "http://127.0.0.1:8090"
PARTS = ("cstore", "stow", "visible", "retrieve", "query", "memory")
_READY_S = 60

Row = dict[str, Any]


@dataclass
class Bench:
    """What is asked for, and what was measured."""

    runs: int
    small: bool
    parts: Sequence[str]
    rows: list[Row] = field(default_factory=list)

    def count(self, full: int, small: int) -> int:
        """How many files or seconds."""
        return small if self.small else full

    def harness(self, script: str | Path, *arguments: object) -> list[Row]:
        """Run a script of the harness; the rows of its single runs."""
        command = [sys.executable, str(HARNESS / script), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode:
            print(f"  {script} failed: {done.stderr.strip().splitlines()[-1:]}", flush=True)
        singles = [r for r in rows if not r["bench"].endswith("-median")]
        for row in singles:
            self.rows.append(row)
            with (WORK / "results.jsonl").open("a") as f:
                f.write(json.dumps(row) + "\n")
            print(f"  {_short(row)}", flush=True)
        return singles


def _short(row: Row) -> str:
    keys = (
        "bench", "label", "set", "kind", "assocs", "batch", "conc", "files_s", "req_s", "mb_s",
        "p50_ms", "p99_ms", "p99_s", "server_cpu_s", "peak_pss_mb", "failed", "non2xx",
    )  # fmt: skip
    return " ".join(f"{k}={row[k]}" for k in keys if row.get(k) not in (None, ""))


# ------------------------------------------------------------------ servers


def _wait_http(url: str) -> None:
    end = time.monotonic() + _READY_S
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own
                return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"{url} did not answer")


@contextmanager
def wado(command: str = "up", root: Path | None = None, **env: str) -> Iterator[int]:
    """Run us on a root (a fresh one if not given); yields the pid."""
    root = root or WORK / "wado" / str(time.time_ns())
    options = ["--root", str(root), "--dimse", f"127.0.0.1:{DIMSE_PORT}"]
    if command == "up":
        options += ["--http", f"127.0.0.1:{HTTP_PORT}"]
    root.mkdir(parents=True, exist_ok=True)
    log = (root.parent / f"{root.name}.log").open("ab")
    process = subprocess.Popen(
        [sys.executable, "-m", "wado", command, *options],
        stdout=log,
        stderr=log,
        env={**os.environ, **env},
    )
    try:
        if command == "up":
            _wait_http(f"http://127.0.0.1:{HTTP_PORT}/readyz")
        else:
            time.sleep(3)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@contextmanager
def peer(name: str, *, fresh: bool = True) -> Iterator[str]:
    """Run a peer of the harness; yields its pids."""
    command = [sys.executable, str(HARNESS / "peers.py")]
    options = ["--work", str(WORK), *(["--fresh"] if fresh else [])]
    done = subprocess.run(
        [*command, "start", name, *options], capture_output=True, text=True, check=True
    )
    try:
        yield done.stdout.split("\n", maxsplit=1)[0].strip().replace(" ", ",")
    finally:
        subprocess.run([*command, "stop", name, "--work", str(WORK)], check=True)


def installed(*programs: str) -> bool:
    """Whether the programs of a peer are there."""
    return all(shutil.which(p) for p in programs)


# ------------------------------------------------------------------ measurements


def data(bench: Bench, name: str) -> Path:
    """Make a data set of the harness, once."""
    folder = WORK / "data" / name
    if not (folder / "manifest.json").exists():
        print(f"making data set {name}", flush=True)
        limit = {"S": bench.count(1000, 500), "T": bench.count(6000, 2000)}.get(name)
        arguments = ["--limit", str(limit)] if limit else []
        if name.startswith("Q"):
            arguments = ["--q-start", "0", "--q-count", name[1:], "--q-name", name]
        subprocess.run(
            [sys.executable, str(HARNESS / "make_data.py"), str(WORK / "data"),
             "--sets", name[0], *arguments],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    return folder


def cstore(bench: Bench) -> None:
    """C-STORE: to disk against DCMTK; with everything on against Orthanc."""
    for name in ("S", "T"):
        folder = data(bench, name)
        common = [folder, "--assocs", 4, "--runs", 1]
        for _ in range(bench.runs):
            with wado("storescp", WADO_STORAGE__DURABILITY="os") as pid:
                ours = ["--port", DIMSE_PORT, "--aet", "WADO", "--pids", pid]
                bench.harness("ingest_cstore.py", *common, *ours, "--label", "wado-os-receiver")
            if installed("storescp"):
                with peer("storescp-fork") as pids:
                    theirs = ["--port", 11112, "--aet", "DCMTK", "--pids", pids]
                    bench.harness("ingest_cstore.py", *common, *theirs, "--label", "dcmtk-fork")
            with wado() as pid:
                ours = ["--port", DIMSE_PORT, "--aet", "WADO", "--pids", pid, "--visible-at", BASE]
                bench.harness("ingest_cstore.py", *common, *ours, "--label", "wado-all-on")
            if installed("Orthanc"):
                with peer("orthanc-sqlite-sync") as pids:
                    theirs = ["--port", 4242, "--aet", "ORTHANC", "--pids", pids,
                              "--visible-at", ORTHANC]  # fmt: skip
                    bench.harness("ingest_cstore.py", *common, *theirs, "--label", "orthanc-sync")


def stow(bench: Bench) -> None:
    """STOW-RS, everything on."""
    for name, files, batch in (
        ("S", bench.count(600, 300), 10),
        ("T", bench.count(3000, 1000), 100),
    ):
        folder = data(bench, name)
        common = [folder, "--limit", files, "--connections", 4, "--batch", batch, "--runs", 1]
        for _ in range(bench.runs):
            with wado() as pid:
                bench.harness("ingest_stow.py", *common, "--base-url", BASE, "--pids", pid,
                              "--visible-at", BASE, "--label", "wado-all-on")  # fmt: skip
            if installed("Orthanc"):
                with peer("orthanc-sqlite-sync") as pids:
                    bench.harness("ingest_stow.py", *common, "--base-url", ORTHANC, "--pids", pids,
                                  "--visible-at", ORTHANC, "--label", "orthanc-sync")  # fmt: skip


def visible(bench: Bench) -> None:
    """Time from the C-STORE response to visibility, under full load."""
    for _ in range(bench.runs):
        with wado():
            bench.harness("visible.py", data(bench, "T"), "--load", data(bench, "S"),
                          "--port", DIMSE_PORT, "--aet", "WADO", "--base-url", BASE,
                          "--label", "wado-all-on")  # fmt: skip


def _load(folder: Path, port: int, aet: str, base: str) -> None:
    subprocess.run(
        [sys.executable, str(HARNESS / "ingest_cstore.py"), str(folder), "--port", str(port),
         "--aet", aet, "--assocs", "4", "--runs", "1",
         "--visible-at", base],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


KINDS = ("frame", "rawframe", "instance", "metadata", "study")


def retrieve(bench: Bench) -> None:
    """WADO-RS against nginx serving the same bytes as files, and against Orthanc."""
    for name, kinds in (("S", KINDS), ("T", ("frame",))):
        folder = data(bench, name)
        static = WORK / "static"
        shutil.rmtree(static, ignore_errors=True)
        subprocess.run([sys.executable, str(HARNESS / "make_static.py"), str(folder), str(static)],
                       check=True, stdout=subprocess.DEVNULL)  # fmt: skip
        root = WORK / "wado" / f"retrieve-{name}-{time.time_ns()}"
        with wado(root=root):
            _load(folder, DIMSE_PORT, "WADO", BASE)
            time.sleep(5)  # until the webworker has written the metadata documents
        if installed("Orthanc"):
            with peer("orthanc-sqlite"):
                _load(folder, 4242, "ORTHANC", ORTHANC)
        for _ in range(bench.runs):
            for kind in kinds:
                _retrieve_once(bench, folder, root, kind)


def _retrieve_once(bench: Bench, folder: Path, root: Path, kind: str) -> None:
    conc = 1 if kind == "study" else 8
    common = [folder, "--kinds", kind, "--conc", conc, "--runs", 1,
              "--seconds", bench.count(5, 3)]  # fmt: skip
    with wado(root=root) as pid:
        bench.harness("retrieve.py", *common, "--base-url", BASE, "--pids", pid,
                      "--label", "wado")  # fmt: skip
    if installed("nginx") and kind != "rawframe":
        with peer("nginx-static", fresh=False) as pids:
            bench.harness("retrieve.py", *common, "--base-url", NGINX, "--pids", pids,
                          "--label", "nginx")  # fmt: skip
    if installed("Orthanc") and kind != "rawframe":
        with peer("orthanc-sqlite", fresh=False) as pids:
            bench.harness("retrieve.py", *common, "--base-url", ORTHANC, "--pids", pids,
                          "--label", "orthanc")  # fmt: skip


def query(bench: Bench) -> None:
    """QIDO-RS: a real set against Orthanc; made-up archives of two sizes, key by key."""
    size = bench.count(10_000, 1_000)
    folder = data(bench, f"Q{size}")
    common = ["--data", folder, "--conc", 1, 8, "--runs", bench.runs, "--seconds", 2]
    with wado() as pid:
        _load(folder, DIMSE_PORT, "WADO", BASE)
        bench.harness("query.py", *common, "--base-url", BASE, "--pids", pid, "--label", "wado")
    if installed("Orthanc") and bench.small:
        with peer("orthanc-sqlite") as pids:
            _load(folder, 4242, "ORTHANC", ORTHANC)
            bench.harness("query.py", *common, "--base-url", ORTHANC, "--pids", pids,
                          "--label", "orthanc")  # fmt: skip
    for studies in (10_000, bench.count(1_000_000, 100_000)):
        _query_synthesized(bench, studies)


def _query_synthesized(bench: Bench, studies: int) -> None:
    """Measure an archive without files: one of a million studies takes minutes to make, once."""
    root = WORK / "synthesized" / str(studies)
    if not (root / "manifest.json").exists():
        print(f"making an index of {studies} studies", flush=True)
        root.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, "-m", "wado", "synthesize", "--root", str(root),
             "--studies", str(studies), "--manifest", str(root / "manifest.json")],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    kinds = ("patient-id", "name-prefix", "date-modality", "page", "series")
    with wado(root=root) as pid:
        bench.harness("query.py", "--data", root, "--kinds", *kinds, "--conc", 1, 8,
                      "--runs", bench.runs, "--seconds", 2, "--base-url", BASE, "--pids", pid,
                      "--label", "wado-synthesized")  # fmt: skip
        keys = Path(__file__).parent / "bench_keys.py"
        for _ in range(bench.runs):
            bench.harness(keys, "--base-url", BASE, "--studies", studies)


def memory(bench: Bench) -> None:
    """Start to ready; memory at rest, and for one instance of 4.19 GB."""
    for _ in range(bench.runs):
        began = time.monotonic()
        with wado():
            bench.rows.append({"bench": "start", "label": "wado",
                               "seconds": round(time.monotonic() - began, 2)})  # fmt: skip
            print(f"  {bench.rows[-1]}", flush=True)
    if bench.small:
        return
    folder = data(bench, "G")
    with wado() as pid:
        bench.harness("ingest_cstore.py", folder, "--assocs", 1, "--runs", 1, "--port", DIMSE_PORT,
                      "--aet", "WADO", "--pids", pid, "--visible-at", BASE,
                      "--label", "wado-all-on")  # fmt: skip


# ------------------------------------------------------------------ report


def median(of: Bench, value: str, **where: object) -> float | None:
    """Median of a value over the runs that match."""
    found = [
        row[value]
        for row in of.rows
        if all(row.get(k) == v for k, v in where.items()) and row.get(value) is not None
    ]
    return statistics.median(found) if found else None


@dataclass(frozen=True)
class Target:
    """A line of the report: a ratio of two medians, and what it should reach."""

    what: str
    value: str
    ours: dict[str, object]
    theirs: dict[str, object]
    reach: float


def targets() -> list[Target]:
    """List the ratios to reach (reference/peers.md)."""
    lines = []
    for name, disk, everything in (("S", 1.0, 2.0), ("T", 0.8, 3.0)):
        c = {"bench": "cstore", "set": name}
        lines += [
            Target(f"C-STORE {name} to disk, 4 associations / DCMTK storescp", "files_s",
                   {**c, "label": "wado-os-receiver"}, {**c, "label": "dcmtk-fork"}, disk),
            Target(f"C-STORE {name}, all on, fsync / Orthanc+SQLite sync", "files_s",
                   {**c, "label": "wado-all-on"}, {**c, "label": "orthanc-sync"}, everything),
            Target(f"STOW-RS {name}, all on / Orthanc+SQLite sync", "files_s",
                   {"bench": "stow", "set": name, "label": "wado-all-on"},
                   {"bench": "stow", "set": name, "label": "orthanc-sync"}, 3.0),
        ]  # fmt: skip
    for kind, name, nginx, orthanc in (
        ("frame", "S", 0.8, 3.5),
        ("frame", "T", 0.4, 13.0),
        ("instance", "S", 0.7, 5.0),
        ("metadata", "S", 0.7, 15.0),
        ("study", "S", 0.8, 1.2),
    ):
        r = {"bench": "retrieve", "set": name, "kind": kind}
        for label, reach in (("nginx", nginx), ("orthanc", orthanc)):
            lines.append(
                Target(f"{kind} {name} / {label}", "req_s", {**r, "label": "wado"},
                       {**r, "label": label}, reach)
            )  # fmt: skip
    return lines


def report(bench: Bench) -> str:
    """Write the tables of docs/benchmarks.md."""
    out = [
        "# Benchmarks",
        "",
        "Written by `make bench`" + (" (`--quick`)" if bench.small else "") + f", {bench.runs} "
        f"interleaved runs, medians, on {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, {time.strftime('%Y-%m-%d')}. S = CT 512x512x16 bit, "
        "0.53 MB; T = 64x64, 10.5 KB. 'All on' = default durability (fsync), log, consumer, "
        "index, metadata and warehouse on the same cores as the senders; the clock stops when "
        "QIDO-RS counts the last image. Compare ratios; absolute rates belong to the machine.",
        "",
        "| measurement | ours | peer | ratio | to reach |",
        "|---|---|---|---|---|",
    ]
    for t in targets():
        ours, theirs = median(bench, t.value, **t.ours), median(bench, t.value, **t.theirs)
        if ours is None or not theirs:
            continue
        ratio = ours / theirs
        mark = "" if ratio >= t.reach else " **(short)**"
        out.append(
            f"| {t.what} | {ours:.0f}/s | {theirs:.0f}/s | {ratio:.2f}{mark} | ≥ {t.reach} |"
        )
    out += ["", *_own_figures(bench), *_query_table(bench)]
    return "\n".join(out) + "\n"


def _own_figures(bench: Bench) -> list[str]:
    lines = ["| own figures | value | to reach |", "|---|---|---|"]

    def add(what: str, value: float | None, unit: str, reach: str) -> None:
        if value is not None:
            lines.append(f"| {what} | {value:.2f} {unit} | {reach} |")

    for name in ("S", "T"):
        where = {"bench": "cstore", "set": name, "label": "wado-all-on"}
        cpu, files = median(bench, "server_cpu_s", **where), median(bench, "files", **where)
        if cpu is not None and files:
            reach = "≤ 2" if name == "S" else ""
            add(f"CPU of the whole pipeline per {name} image", cpu / files * 1000, "ms", reach)
        add(f"peak memory (PSS), whole archive, C-STORE {name}",
            median(bench, "peak_pss_mb", **where), "MB", "≤ 400")  # fmt: skip
        add(f"peak memory (PSS), receiver alone, C-STORE {name}",
            median(bench, "peak_pss_mb", bench="cstore", set=name, label="wado-os-receiver"),
            "MB", "≤ 150")  # fmt: skip
    add("peak memory (PSS), one instance of 4.19 GB by C-STORE",
        median(bench, "peak_pss_mb", bench="cstore", set="G", label="wado-all-on"),
        "MB", "flat")  # fmt: skip
    for p in (50, 95, 99):
        add(f"visible after acknowledgement, under full load, p{p}",
            median(bench, f"p{p}_s", bench="visible"), "s", "p99 ≤ 1")  # fmt: skip
    add("load during that", median(bench, "load_files_s", bench="visible"), "files/s", "")
    add("start of `wado up` to ready", median(bench, "seconds", bench="start"), "s", "≤ 3")
    return [*lines, ""]


def _query_table(bench: Bench) -> list[str]:
    rows = [r for r in bench.rows if r["bench"] == "query" and r["label"] == "wado"]
    if not rows:
        return []
    lines = [
        f"QIDO-RS at {rows[0]['studies']} studies (p50 at one client; requests/s at eight):",
        "",
        "| query | ours p50 ms | ours p95 ms | ours req/s | Orthanc p50 ms | Orthanc req/s |",
        "|---|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(r["kind"] for r in rows):

        def value(name: str, label: str, conc: int, kind: str = kind) -> str:
            return _said(median(bench, name, bench="query", kind=kind, label=label, conc=conc))

        lines.append(
            f"| {kind} | {value('p50_ms', 'wado', 1)} | {value('p95_ms', 'wado', 1)} "
            f"| {value('req_s', 'wado', 8)} | {value('p50_ms', 'orthanc', 1)} "
            f"| {value('req_s', 'orthanc', 8)} |"
        )
    return [*lines, "", *bench_keys.table(bench.rows)]


def _said(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def main() -> None:
    """Measure and write the report."""
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("--quick", action="store_true", help="one run of each, with less data")
    ap.add_argument("--runs", type=int, help="runs of each measurement (default 3, quick 1)")
    ap.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    ap.add_argument("--no-write", action="store_true", help="leave docs/benchmarks.md alone")
    args = ap.parse_args()
    if not HARNESS.is_dir():
        raise SystemExit(f"the harness is not at {HARNESS}; name it by WADO_BENCH")
    WORK.mkdir(exist_ok=True)
    bench = Bench(args.runs or (1 if args.quick else 3), args.quick, args.only)
    measures: dict[str, Callable[[Bench], None]] = {
        "cstore": cstore, "stow": stow, "visible": visible,
        "retrieve": retrieve, "query": query, "memory": memory,
    }  # fmt: skip
    for part in bench.parts:
        print(part, flush=True)
        measures[part](bench)
    text = report(bench)
    print(text)
    if not args.no_write:
        (PROJECT / "docs" / "benchmarks.md").write_text(text)


if __name__ == "__main__":
    main()
