"""`make chaos`: a cluster of its own, senders, faults, and the count at the end.

Exit code 1 if something is lost, doubled, or answered as it must not be.
"""

import argparse
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from chaos.report import markdown
from chaos.run import Plan, chaos

SCRIPTS = Path(__file__).resolve().parents[1]
_DISK = "size=3g"
_STOPS_WITHIN_S = 90


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Put a file system of its own at a folder, so that it can be filled; root only."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        print("chaos: not root, so no file system can be mounted: the disk is never full")
        yield
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", _DISK, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


@contextmanager
def cluster(folder: Path) -> Iterator[Path]:
    """Run a cluster below a folder; its ``cluster.json``."""
    command = [sys.executable, str(SCRIPTS / "cluster.py"), "--root", str(folder)]
    with (folder / "cluster.log").open("a") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", *command],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("ready"):
            sys.exit(f"chaos: the cluster does not start:\n{(folder / 'cluster.log').read_text()}")
        print(line, end="", flush=True)
        yield folder / "cluster.json"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_STOPS_WITHIN_S)


def main() -> None:
    """Read the options, run, report."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, help="repeat the faults of a run")
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--rate", type=float, default=8.0, help="images a second of each sender")
    parser.add_argument("--cluster", type=Path, help="cluster.json of one that runs already")
    parser.add_argument("--root", type=Path, help="folder of the cluster; default: a temporary one")
    parser.add_argument("--report", type=Path, help="also write the report to this file")
    options = parser.parse_args()
    seed = secrets.randbelow(1 << 30) if options.seed is None else options.seed
    plan = Plan(seed, options.minutes * 60, options.senders, options.rate)
    with ExitStack() as stack:
        root = options.root or Path(stack.enter_context(tempfile.TemporaryDirectory("-chaos")))
        file = options.cluster
        if file is None:
            stack.enter_context(small_disk(root / "storage"))
            file = stack.enter_context(cluster(root))
        result = chaos(file, root, plan, lambda line: print(line, flush=True))
    text = markdown(result)
    print(text)
    if options.report:
        options.report.write_text(text)
    sys.exit(1 if result.faults else 0)


if __name__ == "__main__":
    main()
