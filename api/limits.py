"""How much a client may send, and how often.

Counts of requests live in Redis, so that all processes count together. When Redis is away each process counts
for itself: a limiter must not be what takes the service down.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, cast

import structlog
from flask import Flask, Response, current_app, g, request
from redis import Redis
from redis.exceptions import RedisError

from api import context
from shared.errors import TooMany
from shared.settings import Settings

log = structlog.get_logger()

FORM_OVERHEAD_BYTES = 100_000  # around the file: boundaries and the other fields
WINDOW_SECONDS = 60
ANSWER_SECONDS = 0.5  # for Redis
REST_SECONDS = 10.0  # how long a Redis that failed is left alone


class Count(NamedTuple):
    """How much of a policy is used up in this window."""

    policy: str
    quota: int
    used: int
    resets_in: int

    @property
    def remaining(self) -> int:
        return max(0, self.quota - self.used)


class Limiter:
    """Counts requests by policy and caller, minute by minute."""

    def __init__(self, settings: Settings):
        self.quotas = {"requests": settings.requests_per_minute, "submits": settings.submits_per_minute}
        self._common = _connect(settings.broker_url)
        self._rest_until = 0.0
        self._lock = threading.Lock()
        self._own: Counter[str] = Counter()
        self._own_minute = 0

    def hit(self, policies: Sequence[str], caller: str) -> None:
        """Count one more of each.

        Raises:
            TooMany: that was one more than allowed.
        """
        now = time.time()
        resets_in = WINDOW_SECONDS - int(now) % WINDOW_SECONDS
        names = [f"bootlora/limits/{policy}/{caller}" for policy in policies]
        for policy, used in zip(policies, self._one_more(names, int(now) // WINDOW_SECONDS), strict=True):
            count = Count(policy=policy, quota=self.quotas[policy], used=used, resets_in=resets_in)
            g.setdefault("counts", []).append(count)
            if count.used > count.quota:
                raise TooMany(
                    f"more than {count.quota} {policy} in a minute; come back in {resets_in} seconds",
                    code="rate_limited",
                    retry_after_seconds=resets_in,
                )

    def _one_more(self, names: list[str], minute: int) -> list[int]:
        if self._common is not None and time.monotonic() >= self._rest_until:
            try:
                return _counted(self._common, [f"{name}/{minute}" for name in names])
            except RedisError as error:
                self._rest_until = time.monotonic() + REST_SECONDS
                log.warning("limits.redis_away", error=str(error))
        with self._lock:
            if minute != self._own_minute:
                self._own_minute = minute
                self._own.clear()
            self._own.update(names)
            return [self._own[name] for name in names]


def _counted(redis: Redis, names: list[str]) -> list[int]:
    """Of all processes together, in one round trip."""
    with redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.incr(name)
            pipe.expire(name, WINDOW_SECONDS)
        return [int(used) for used in pipe.execute()[::2]]


def register(app: Flask, settings: Settings) -> None:
    app.extensions["bootlora.limiter"] = Limiter(settings)
    app.before_request(_bound_body)
    app.after_request(_tell)


def count(*, submits: bool = False) -> None:
    """Count this request: by its key, or by its address when it has shown no good one."""
    limiter = cast(Limiter, current_app.extensions["bootlora.limiter"])
    caller = context.api_key().id if g.get("api_key") else f"address {request.remote_addr}"
    limiter.hit(("requests", "submits") if submits else ("requests",), caller)


def _bound_body() -> None:
    """Large where a file goes, small elsewhere."""
    settings = context.runtime().settings
    has_file = request.mimetype == "multipart/form-data" and "Authorization" in request.headers
    request.max_content_length = (
        settings.max_upload_bytes + FORM_OVERHEAD_BYTES if has_file else settings.max_body_bytes
    )
    request.max_form_memory_size = settings.max_body_bytes


def _tell(answer: Response) -> Response:
    """Say what is left (draft-ietf-httpapi-ratelimit-headers; that draft may still change)."""
    counts: list[Count] = g.get("counts", [])
    if counts:
        policies = ", ".join(f'"{c.policy}";q={c.quota};w={WINDOW_SECONDS}' for c in counts)
        left = ", ".join(f'"{c.policy}";r={c.remaining};t={c.resets_in}' for c in counts)
        answer.headers.extend([("RateLimit-Policy", policies), ("RateLimit", left)])
    return answer


def _connect(url: str) -> Redis | None:
    """Redis, or None when the broker is something else."""
    if not url.startswith(("redis://", "rediss://")):
        return None
    return Redis.from_url(url, socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS)
