"""Logging: one JSON object per line on standard error, or readable lines on a terminal."""

import logging
import sys
import uuid

import structlog


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
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")


def get_logger(service: str) -> structlog.typing.FilteringBoundLogger:
    """Logger of a service; its name stands on each line."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(service=service)
    return logger


def new_trace_id() -> str:
    """Make an identifier that follows one image or request through all services."""
    return uuid.uuid4().hex
