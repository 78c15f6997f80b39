"""Logging."""

import errno
import io
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
