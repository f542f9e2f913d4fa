"""Logs: events with ids as fields, as JSON or as text for a terminal."""

from __future__ import annotations

import contextlib
import logging
import sys
from functools import cache
from typing import Any, TextIO, cast

import structlog

from shared import json_text

SECRET_WORDS = ("authorization", "secret", "api_key", "password", "signature")


def redact(logger: Any, method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Redact every value whose name looks like that of a secret."""
    for name in event:
        if _is_secret(name):
            event[name] = "[redacted]"
    return event


@cache
def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in SECRET_WORDS)


class Unbreakable:
    """A stream that ignores errors: a full disk or a closed pipe loses log lines, but raises nothing."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def configure(log_format: str) -> None:
    """Set up structlog and the standard library's logging. `log_format` is json or console."""
    # Plain tracebacks, because rich ones show the values of variables, which may be secret.
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer: Any = (
        console if log_format == "console" else structlog.processors.JSONRenderer(serializer=json_text.write)
    )
    common: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
    ]
    structlog.configure(
        processors=[*common, structlog.processors.format_exc_info, renderer],
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, Unbreakable(sys.stderr))),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(Unbreakable(sys.stderr))
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=common))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
