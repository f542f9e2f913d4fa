"""Celery, as far as the domain needs it: an app, and messages that carry a job's id and attempt.

One of the two files that import Celery (the other is workers/tasks.py).
"""

from __future__ import annotations

import time
from typing import Any

from celery import Celery
from kombu import Connection, Queue
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from shared.catalog import QUEUES
from shared.catalog.kinds import KINDS
from shared.errors import Unavailable
from shared.settings import Settings

TASK = "bootlora.run_job"
# While the broker is down, one request per interval tries it again. The others fail at once.
PAUSE_SECONDS = 5.0


def make_celery(settings: Settings) -> Celery:
    """The Celery app, with the same settings in the API and in the workers."""
    app = Celery("bootlora", broker=settings.broker_url)
    longest = max(kind.timeout_seconds for kind in KINDS.values())
    app.conf.update(
        task_queues=[Queue(name) for name in QUEUES],
        task_create_missing_queues=False,
        task_ignore_result=True,  # results are in the jobs table
        task_serializer="json",
        accept_content=["json"],
        # A message only wakes a worker and is acknowledged when read. A lost one is sent again from the table.
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_soft_shutdown_timeout=20,
        worker_enable_soft_shutdown_on_idle=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": longest * 2,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "health_check_interval": 25,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
        },
    )
    return app


class Broker:
    """Sends messages. Fails at once while the broker is down."""

    def __init__(self, settings: Settings):
        self.app = make_celery(settings)
        self._down_until = 0.0  # monotonic

    def send(self, queue: str, job_id: str, attempt: int) -> None:
        """Wake a worker for a job.

        Raises:
            Unavailable: the broker can't be reached; the job stays queued and its message is sent again later.
        """
        if time.monotonic() < self._down_until:
            raise Unavailable(
                "the broker could not be reached a moment ago; try again in a few seconds", code="broker_unavailable"
            )
        try:
            self.app.send_task(TASK, args=[job_id, attempt], queue=queue, retry=False)
        except OperationalError as error:
            self._down_until = time.monotonic() + PAUSE_SECONDS
            raise Unavailable(f"the broker can't be reached: {error}", code="broker_unavailable") from error

    def ping(self) -> None:
        """Raise `Unavailable` if the broker does not answer or refuses writes (full, read-only, failing disk)."""
        try:
            with self.app.connection_for_write(connect_timeout=2) as connection:
                connection.ensure_connection(max_retries=1, timeout=2)
                _try_to_write(connection)
        except (OperationalError, OSError) as error:
            raise Unavailable(f"the broker can't be reached: {error}", code="broker_unavailable") from error
        except RedisError as error:
            raise Unavailable(f"the broker takes no messages: {error}", code="broker_unavailable") from error


def _try_to_write(connection: Connection) -> None:
    """Try a write that changes nothing: writing an empty string at offset 0 creates no key."""
    if connection.transport.driver_type == "redis":
        channel: Any = connection.default_channel
        channel.client.setrange("bootlora.ready", 0, "")
