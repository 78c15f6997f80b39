"""Rendering leaves the server light: libraries for pixels are loaded by workers alone."""

import subprocess
import sys

import pytest

from wado.archive.journal import Journals, SeriesView
from wado.archive.retrieve import Item
from wado.dicom.uids import InstanceRef, SeriesRef
from wado.services.server.calls import Answer
from wado.services.server.rendered import keep

HEAVY = ("numpy", "PIL", "imagecodecs", "pydicom")


def test_the_server_loads_no_library_for_pixels():
    code = (
        "import sys, wado.services.server.app; "
        f"sys.exit(', '.join(m for m in {HEAVY!r} if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("pieces", "kept"),
    [
        ((b"picture",), True),
        ((b"--a\r\n", b"one", b"\r\n--a--"), True),
        ((b"x" * (1 << 20) + b"x",), False),
        ((), False),
    ],
)
def test_answers_that_are_kept(pieces: tuple[bytes, ...], kept: bool):
    ref = InstanceRef("t", "1", "1.2", "1.2.3")
    view = SeriesView(SeriesRef("t", "1", "1.2"), 1, 1, {}, described=False)
    found = Item(ref, None, view)  # type: ignore[arg-type]  # the entry is not looked at
    answer = Answer(200, [], pieces)
    keep(answer, found, Journals.recent)
    assert (answer.basis is not None) is kept
    if answer.basis is not None:
        assert answer.basis.view is view
        assert answer.basis.in_memory
        assert answer.pieces == (b"".join(pieces),)
