"""Logs: events with ids as fields, as JSON in a container and readable on a terminal."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

SECRET_WORDS = ("authorization", "secret", "api_key", "password", "signature")


def redact(logger: Any, method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Whatever is named like a secret is not written down."""
    for name in event:
        if any(word in name.lower() for word in SECRET_WORDS):
            event[name] = "[redacted]"
    return event


def configure(log_format: str) -> None:
    """Set up structlog and the standard library alike. `log_format` is json or console."""
    # Plain tracebacks: rich ones show the values of variables, and so every secret.
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer: Any = console if log_format == "console" else structlog.processors.JSONRenderer()
    common: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
    ]
    structlog.configure(
        processors=[*common, structlog.processors.format_exc_info, renderer],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=common))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
