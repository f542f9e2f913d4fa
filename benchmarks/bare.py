"""A bare Celery worker: its one task notes when it was started."""

from __future__ import annotations

import os
import time

from celery import Celery
from redis import Redis

BROKER = os.environ.get("BOOTLORA_BROKER_URL", "memory://")
QUEUE = "bare"

app = Celery("bare", broker=BROKER)
app.conf.update(task_default_queue=QUEUE, task_ignore_result=True, worker_prefetch_multiplier=1)


@app.task
def note(place: str) -> None:
    began = time.time()
    Redis.from_url(BROKER).rpush(place, began)
