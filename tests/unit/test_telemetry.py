"""Logging."""

import errno
import io
import json
import subprocess
import sys

import pytest
import structlog

from wado.telemetry import configure_logging, get_logger


class Full(io.StringIO):
    """Standard error on a disk that is full."""

    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_log_that_cannot_be_written_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Full())
    configure_logging("INFO")
    try:
        get_logger("test").error("disk full")
    finally:
        structlog.reset_defaults()


def test_what_libraries_log_is_a_line_like_ours() -> None:
    script = (
        "import logging; from wado.telemetry import configure_logging; configure_logging()\n"
        "logging.getLogger('pydicom').warning('odd %s', 'charset')\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: logging.getLogger('asyncio').exception('failed')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=120
    )
    odd, failed = (json.loads(line) for line in done.stderr.splitlines())
    assert (odd["service"], odd["event"], odd["level"]) == ("pydicom", "odd charset", "warning")
    assert (failed["service"], failed["event"]) == ("asyncio", "failed")
    assert "ZeroDivisionError" in failed["exception"]
