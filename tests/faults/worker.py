"""The worker of the fault suite: the real one, but what runs in its jobs takes no torch and no minutes.

Started as `celery -A tests.faults.worker`, where the service is started as `celery -A workers.tasks`.
"""

from dataclasses import replace

from shared.catalog import JOB_KINDS

for _name in ("train", "generate", "score"):
    JOB_KINDS[_name] = replace(JOB_KINDS[_name], code=f"tests.faults.handlers:{_name}")

from workers.tasks import app  # noqa: E402

__all__ = ["app"]
