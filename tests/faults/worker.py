"""The worker of the fault suite: the real one, but what runs in its jobs takes no torch and no minutes.

Started as `celery -A tests.faults.worker`, where the service is started as `celery -A workers.tasks`.
"""

import os
import time
from dataclasses import replace
from datetime import UTC, datetime

from shared.catalog.kinds import KINDS
from shared.catalog.params import TrainParams
from shared.outside import db
from tests.faults.handlers import TroubledCrop, TroubledGenerate, TroubledScore

# A clock that is wrong, as far as the service looks at clocks.
_offset = float(os.environ.get("BOOTLORA_TEST_CLOCK_OFFSET", "0"))
if _offset:
    _right = time.time
    time.time = lambda: _right() + _offset
    db.utcnow = lambda: datetime.fromtimestamp(_right() + _offset, UTC)

_PARAMS = {"train": TrainParams, "generate": TroubledGenerate, "score": TroubledScore, "crop": TroubledCrop}
for _name, _params in _PARAMS.items():
    KINDS[_name] = replace(KINDS[_name], handler=f"tests.faults.handlers:{_name}", params=_params)

from workers.tasks import app  # noqa: E402

__all__ = ["app"]
