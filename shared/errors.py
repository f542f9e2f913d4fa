"""Errors, each with a stable code for clients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class BootloraError(Exception):
    """An error for a client: `code` is stable, the message says what is wrong and what to do."""

    status = 500
    code = "internal"

    def __init__(self, message: str, *, code: str | None = None, errors: list[dict[str, Any]] | None = None):
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.errors = errors or []


@contextmanager
def under(pointer: str) -> Iterator[None]:
    """Prefix the pointers of errors that are raised inside: code that checks a part need not know its place."""
    try:
        yield
    except BootloraError as error:
        error.errors = [each | {"pointer": pointer + each["pointer"]} for each in error.errors]
        raise


class Invalid(BootloraError):
    """The request is well-formed, but not valid."""

    status = 422
    code = "invalid"


class Unauthorized(BootloraError):
    """The API key is missing, unknown, expired or revoked."""

    status = 401
    code = "unauthorized"


class Forbidden(BootloraError):
    """The API key lacks the scope."""

    status = 403
    code = "forbidden"


class UnsupportedType(BootloraError):
    """The route does not take a body of this media type."""

    status = 415
    code = "unsupported_media_type"


class NotFound(BootloraError):
    """There is no such row, or it belongs to another user."""

    status = 404
    code = "not_found"


class Conflict(BootloraError):
    """The state of a row does not allow this now."""

    status = 409
    code = "conflict"


class PreconditionFailed(BootloraError):
    """The row has changed since the client read it."""

    status = 412
    code = "precondition_failed"


class TooLarge(BootloraError):
    """The request has more bytes, pixels or items than the limits allow."""

    status = 413
    code = "too_large"


class PreconditionRequired(BootloraError):
    """A write must name the version that it is based on."""

    status = 428
    code = "precondition_required"


class TooMany(BootloraError):
    """The user has reached a limit. The message names it, and says when to try again."""

    status = 429
    code = "too_many"

    def __init__(self, message: str, *, retry_after_seconds: int = 60, code: str | None = None):
        super().__init__(message, code=code)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(BootloraError):
    """A part of the service is down. The same request may succeed later."""

    status = 503
    code = "unavailable"


class JobFailed(Exception):
    """The job can't continue. `code` says why, `retryable` whether a retry may help."""

    def __init__(self, code: str, message: str, *, retryable: bool = False):
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable
