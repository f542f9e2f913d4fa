"""Queues, and the properties of their jobs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Queue:
    """The properties of a queue's jobs."""

    capped: bool = False  # while they wait, they count towards `max_queued_jobs`
    metered: bool = False  # their seconds are added to the user's and the project's `gpu_seconds`
    uses_device: bool = False  # they run on BOOTLORA_DEVICE, so their worker does not start without it


QUEUES = {
    "gpu": Queue(capped=True, metered=True, uses_device=True),
    "cpu": Queue(),
}
FORMER_QUEUES = {"io": "cpu"}  # names of queues in rows of older versions, and their present names
