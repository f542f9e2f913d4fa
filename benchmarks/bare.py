"""A bare Celery worker with one task, which records its start time, and a bare Flask route that sends the task."""

from __future__ import annotations

import os
import time

from celery import Celery
from flask import Flask
from redis import Redis

BROKER = os.environ.get("BOOTLORA_BROKER_URL", "memory://")
QUEUE = "bare"

app = Celery("bare", broker=BROKER)
app.conf.update(task_default_queue=QUEUE, task_ignore_result=True, worker_prefetch_multiplier=1)
door = Flask("bare")


@app.task
def note(place: str) -> None:
    began = time.time()
    Redis.from_url(BROKER).rpush(place, began)


@door.post("/notes/<place>")
def send(place: str) -> tuple[dict[str, str], int]:
    note.delay(place)
    return {"place": place}, 202
