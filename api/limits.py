"""Limits of the rate and the size of requests.

All keys of a user count together, since a user may create many keys. Counts are in Redis, so that all processes share
them. When Redis does not answer, each process counts in its own memory.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import structlog
from flask import Flask, Response, current_app, g, request
from limits import RateLimitItem, RateLimitItemPerMinute, WindowStats
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import FixedWindowRateLimiter

from api import context
from shared.errors import TooMany
from shared.settings import Settings

log = structlog.get_logger()

FORM_OVERHEAD_BYTES = 100_000  # for boundaries and the other fields
WINDOW_SECONDS = 60
ANSWER_SECONDS = 0.5  # how long Redis may take
REST_SECONDS = 10.0  # after a failure, Redis is not used for so long


class Limiter:
    """Counts requests by policy and caller, in windows of a minute that begin with a caller's first request."""

    def __init__(self, settings: Settings):
        self.quotas = {
            "requests": RateLimitItemPerMinute(settings.requests_per_minute, namespace="requests"),
            "submits": RateLimitItemPerMinute(settings.submits_per_minute, namespace="submits"),
        }
        self._own = FixedWindowRateLimiter(MemoryStorage())
        self._common = _connect(settings.broker_url)
        self._rest_until = 0.0

    def hit(self, policies: Sequence[str], caller: str) -> None:
        """Count one request for each policy.

        Raises:
            TooMany: a policy's quota is used up.
        """
        for policy in policies:
            quota = self.quotas[policy]
            is_within, window = self._counted(quota, caller)
            resets_in = max(1, math.ceil(window.reset_time - time.time()))
            g.setdefault("counts", []).append(Count(policy, quota.amount, window.remaining, resets_in))
            if not is_within:
                raise TooMany(
                    f"more than {quota.amount} {policy} in a minute; try again in {resets_in} seconds",
                    code="rate_limited",
                    retry_after_seconds=resets_in,
                )

    def _counted(self, quota: RateLimitItem, caller: str) -> tuple[bool, WindowStats]:
        if self._common is not None and time.monotonic() >= self._rest_until:
            try:
                return self._common.hit(quota, caller), self._common.get_window_stats(quota, caller)
            except StorageError as error:
                self._rest_until = time.monotonic() + REST_SECONDS
                log.warning("limits.redis_away", error=str(error))
        return self._own.hit(quota, caller), self._own.get_window_stats(quota, caller)


class Count(NamedTuple):
    """How much of a policy is left in this window."""

    policy: str
    quota: int
    remaining: int
    resets_in: int


def register(app: Flask, settings: Settings) -> None:
    app.extensions["bootlora.limiter"] = Limiter(settings)
    app.before_request(_bound_body)
    app.after_request(_add_headers)


def count(*, submits: bool = False) -> None:
    """Count this request: for its user, or without a valid key, for its address."""
    limiter = cast(Limiter, current_app.extensions["bootlora.limiter"])
    caller = context.user().id if g.get("api_key") else f"address {request.remote_addr}"
    limiter.hit(("requests", "submits") if submits else ("requests",), caller)


def _bound_body() -> None:
    """Limit the size of the body. Forms with files may be large."""
    settings = context.runtime().settings
    view = current_app.view_functions.get(request.endpoint or "")
    largest_file = getattr(view, "largest_file", None)  # the name of a setting
    request.max_content_length = settings.max_body_bytes
    if largest_file and request.mimetype == "multipart/form-data" and "Authorization" in request.headers:
        request.max_content_length = getattr(settings, largest_file) + FORM_OVERHEAD_BYTES
    request.max_form_memory_size = settings.max_body_bytes


def _add_headers(answer: Response) -> Response:
    """Add what is left of each quota (draft-ietf-httpapi-ratelimit-headers; the draft may still change)."""
    counts: list[Count] = g.get("counts", [])
    if counts:
        policies = ", ".join(f'"{c.policy}";q={c.quota};w={WINDOW_SECONDS}' for c in counts)
        left = ", ".join(f'"{c.policy}";r={c.remaining};t={c.resets_in}' for c in counts)
        answer.headers.extend([("RateLimit-Policy", policies), ("RateLimit", left)])
    return answer


def _connect(url: str) -> FixedWindowRateLimiter | None:
    """A limiter that counts in Redis. None if the broker is not Redis."""
    if not url.startswith(("redis://", "rediss://")):
        return None
    patience: dict[str, Any] = {"socket_timeout": ANSWER_SECONDS, "socket_connect_timeout": ANSWER_SECONDS}
    return FixedWindowRateLimiter(RedisStorage(url, wrap_exceptions=True, key_prefix="bootlora/limits", **patience))
