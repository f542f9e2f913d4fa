"""What can go wrong, each with a stable code that clients may branch on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class BootloraError(Exception):
    """Something the reader can act on: `code` is stable, the message says what to do."""

    status = 500
    code = "internal"

    def __init__(self, message: str, *, code: str | None = None, errors: list[dict[str, Any]] | None = None):
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.errors = errors or []


@contextmanager
def under(pointer: str) -> Iterator[None]:
    """Prefix the pointers of errors that are raised inside: code that checks a part need not know where it stands."""
    try:
        yield
    except BootloraError as error:
        error.errors = [each | {"pointer": pointer + each["pointer"]} for each in error.errors]
        raise


class Invalid(BootloraError):
    """The request is understood, but what it says can't be."""

    status = 422
    code = "invalid"


class Unauthorized(BootloraError):
    """No key, or one that isn't (or is no longer) good."""

    status = 401
    code = "unauthorized"


class Forbidden(BootloraError):
    """A good key that lacks the scope."""

    status = 403
    code = "forbidden"


class UnsupportedType(BootloraError):
    """The body is of another media type than the route takes."""

    status = 415
    code = "unsupported_media_type"


class NotFound(BootloraError):
    """No such thing, or it is someone else's."""

    status = 404
    code = "not_found"


class Conflict(BootloraError):
    """The thing exists, but its state doesn't allow this now."""

    status = 409
    code = "conflict"


class PreconditionFailed(BootloraError):
    """The thing has changed since the client read it."""

    status = 412
    code = "precondition_failed"


class TooLarge(BootloraError):
    """More bytes, pixels or items than the limits allow."""

    status = 413
    code = "too_large"


class PreconditionRequired(BootloraError):
    """A write that must say which version it is based on."""

    status = 428
    code = "precondition_required"


class TooMany(BootloraError):
    """A limit of this user is reached; the message says which and when to come back."""

    status = 429
    code = "too_many"

    def __init__(self, message: str, *, retry_after_seconds: int = 60, code: str | None = None):
        super().__init__(message, code=code)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(BootloraError):
    """A part of the service is down; the same request may succeed later."""

    status = 503
    code = "unavailable"


class JobFailed(Exception):
    """A job that can't go on: `code` says why, `retryable` whether a retry may help."""

    def __init__(self, code: str, message: str, *, retryable: bool = False):
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable
