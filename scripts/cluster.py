"""`make cluster`: the distributed profile on one machine, in the foreground.

Three Kafka brokers, PostgreSQL, Redis, nginx, a stand-in for Doris, and two of each of our
services, as native processes. Prints a line that begins with `ready`; ``cluster.json`` in the
folder then says who runs where. Who dies is started again. SIGTERM or Ctrl-C stops everything.
"""

import argparse
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from backing.cluster import AE_TITLE, Cluster


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder: two clusters in it would write to the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"cluster: another one runs in {folder}")
        yield


def say(line: str) -> None:
    """Tell a person what happens."""
    print(f"cluster: {line}", file=sys.stderr, flush=True)


def run(cluster: Cluster) -> None:
    """Start, stay until a signal comes, stop."""
    began = time.monotonic()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        cluster.supervisor.stop_asked.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    try:
        cluster.start()
        if not cluster.supervisor.stop_asked.is_set():
            seconds = time.monotonic() - began
            print(
                f"ready {cluster.http}/  DICOM {AE_TITLE}@{cluster.dimse}"
                f"  root {cluster.folder}  ({seconds:.1f} s)",
                flush=True,
            )
        cluster.supervisor.run()
    except RuntimeError as e:
        sys.exit(f"cluster: {e}")
    finally:
        cluster.stop()
    print("stopped", flush=True)


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("data/cluster"))
    parser.add_argument("--http", help="HOST:PORT of nginx; default 127.0.0.1:8080 or a free port")
    parser.add_argument(
        "--dimse", help="HOST:PORT of DICOM; default 127.0.0.1:11112 or a free port"
    )
    options = parser.parse_args()
    for name in [n for n in os.environ if n.startswith("WADO_")]:
        del os.environ[name]  # the settings of the members are those of the cluster
    with only_one(options.root):
        run(Cluster(options.root, http=options.http, dimse=options.dimse, say=say))


if __name__ == "__main__":
    main()
