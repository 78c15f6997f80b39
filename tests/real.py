"""Real programs and files that tests stand on: found, or skipped, or (in CI) failed.

``WADO_TEST_REQUIRE=dcmtk,chromium,corpus`` names what must be there: its absence then fails the
test, so that nothing passes by not running.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]


def _program(*names: str) -> Callable[[], Path | None]:
    def find() -> Path | None:
        found = (shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin") for name in names)
        return next((Path(program) for program in found if program), None)

    return find


def _corpus() -> Path | None:
    named = os.environ.get("WADO_TEST_CORPUS")
    corpus = Path(named) if named else PROJECT.parent / "shared" / "corpus"
    return corpus if (corpus / "MANIFEST.tsv").is_file() else None


def _viewer() -> Path | None:
    page = PROJECT / "src" / "wado" / "viewer" / "index.html"
    return page.parent if page.is_file() else None


def _postgresql() -> Path | None:
    from backing import postgresql  # noqa: PLC0415  # its driver is an extra of ours

    return postgresql.programs()


_FIND: dict[str, Callable[[], Path | None]] = {
    "dcmtk": _program("storescu"),
    "cjpeg": _program("cjpeg"),
    "node": _program("node"),
    "chromium": _program("chromium", "chromium-browser", "google-chrome"),
    "ffmpeg": _program("ffmpeg"),
    "gdcm": _program("gdcmconv"),
    "nginx": _program("nginx"),
    "redis": _program("redis-server"),
    "orthanc": _program("Orthanc"),
    "java": _program("java"),
    "mvn": _program("mvn"),
    "wrk": _program("wrk"),
    "corpus": _corpus,
    "viewer": _viewer,
    "postgresql": _postgresql,
}


def find(name: str) -> Path | None:
    """Look for a real program or folder: the program, or the folder, or None."""
    return _FIND[name]()


def required() -> frozenset[str]:
    """What must not be absent on this machine."""
    return frozenset(filter(None, os.environ.get("WADO_TEST_REQUIRE", "").split(",")))


def require(name: str) -> Path:
    """Find a real program or folder; absent, the test is skipped, or failed where required."""
    found = find(name)
    if found is None:
        reason = f"{name} is not on this machine"
        if name in required():
            pytest.fail(f"{reason}, and WADO_TEST_REQUIRE names it")
        pytest.skip(reason)
    return found


def describe() -> str:
    """One line for the head of a test run: what is real on this machine."""
    return ", ".join(f"{name}: {find(name) or 'absent'}" for name in _FIND)
