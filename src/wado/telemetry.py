"""Logging: one JSON object per line on standard error, or readable lines on a terminal."""

import logging
import sys
import uuid
from contextlib import suppress
from typing import TextIO, cast

import structlog


class _Patient:
    """A stream that never fails: a full disk under the log must not stop a service."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, if it can be."""
        with suppress(OSError, ValueError):  # full, or closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if it can be."""
        with suppress(OSError, ValueError):  # full, or closed
            self._stream.flush()


class _OfLibraries(logging.Handler):
    """What libraries log becomes a line like ours, with the name of the library as service."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        log = get_logger(record.name)
        log.log(record.levelno, record.getMessage(), exc_info=record.exc_info)


def configure_logging(level: str = "INFO") -> None:
    """Set up logging for this process."""
    human = sys.stderr.isatty()
    renderer = (
        structlog.dev.ConsoleRenderer()
        if human
        else structlog.processors.JSONRenderer(sort_keys=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Patient(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_OfLibraries()])


def get_logger(service: str) -> structlog.typing.FilteringBoundLogger:
    """Logger of a service; its name stands on each line."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(service=service)
    return logger


def new_trace_id() -> str:
    """Make an identifier that follows one image or request through all services."""
    return uuid.uuid4().hex
