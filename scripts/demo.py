"""`make demo`: `wado up`, a CT series sent to it over C-STORE, and the address to look at.

Takes the options of `wado up`. The series is the CT head of ``../shared/corpus``, or a synthetic
phantom where there is no corpus. Stays in the foreground until Ctrl-C or SIGTERM.
"""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from pydicom import dcmread

from phantom import write_phantom

PROJECT = Path(__file__).resolve().parents[1]
HEAD = PROJECT.parent / "shared" / "corpus" / "ct-volume" / "head-1mm-std"
WADO = [sys.executable, "-m", "wado"]
STOP_TIMEOUT_S = 30


@contextmanager
def sample() -> Iterator[Path]:
    """Folder of the series to show."""
    if HEAD.is_dir():
        yield HEAD
        return
    with tempfile.TemporaryDirectory(prefix="wado-phantom-") as folder:
        write_phantom(Path(folder))
        yield Path(folder)


def study_instance_uid(folder: Path) -> str:
    """Read which study a folder of DICOM files shows."""
    first = next(path for path in sorted(folder.iterdir()) if path.is_file())
    return str(dcmread(first, stop_before_pixels=True).StudyInstanceUID)


def destination(ready: str) -> tuple[str, str]:
    """Take the viewer's address and ``AET@HOST:PORT`` from the line `wado up` prints."""
    words = ready.split()
    return words[1], next(word for word in words if "@" in word)


def show(ready: str) -> int:
    """Send the sample and say where it can be seen; the exit status of `wado send`."""
    http, dimse = destination(ready)
    with sample() as folder:
        status = subprocess.run([*WADO, "send", str(folder), "--to", dimse], check=False).returncode
        if status == 0:
            study = study_instance_uid(folder)
            print(f"\ndemo: {http}#/study/{study}\n      Ctrl-C stops it.\n", flush=True)
    return status


def main(options: list[str]) -> int:
    """Run the demonstration; the exit status of `wado up`, or of a failed sending."""
    up = subprocess.Popen([*WADO, "up", *options], stdout=subprocess.PIPE, text=True)

    def stop(_number: int, _frame: FrameType | None) -> None:
        up.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    sent = 0
    assert up.stdout is not None
    for line in up.stdout:
        print(line, end="", flush=True)
        if line.startswith("ready"):
            sent = show(line)
            if sent != 0:
                print("demo: the sample could not be sent", file=sys.stderr)
                up.terminate()
    return up.wait(STOP_TIMEOUT_S) or sent


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
