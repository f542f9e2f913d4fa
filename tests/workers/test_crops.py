"""Automatic crops, guessed from the outline of a figure."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from PIL import Image

from shared.catalog import kinds
from shared.catalog.kinds import CropInputs, CropParams, ImageInput
from shared.models import Job
from shared.queue import jobs
from tests.domain import make_project, make_runtime, make_user
from workers.runner import run_job


def test_a_figure_of_one_pixel_is_named_as_the_reason(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (64, 64))
    picture.putpixel((30, 30), (255, 0, 0, 255))
    file = io.BytesIO()
    picture.save(file, "PNG")
    runtime = make_runtime(tmp_path)
    runtime.storage.put_bytes("projects/x/images/x.png", file.getvalue(), "image/png")
    image = ImageInput(id="img_x", key="projects/x/images/x.png", sha256=hashlib.sha256(file.getvalue()).hexdigest())
    with runtime.transaction() as session:
        project = make_project(session, make_user(session))
        inputs = CropInputs(image=image, base_model="chibi")
        job = jobs.enqueue(session, project, kinds.CROP, params=CropParams(mode="auto"), inputs=inputs)
    run_job(runtime, job.id, 1, "cpu@test", lambda: False)
    with runtime.db.reading() as session:
        ended = session.get_one(Job, job.id)
    assert ended.state == "failed"
    assert ended.error is not None
    assert (ended.error["code"], ended.error["retryable"]) == ("figure_too_small", False)
    runtime.close()
