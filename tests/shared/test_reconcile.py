from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from shared import ids, projects, reconcile, rounds
from shared.models import Image, Job, Project
from shared.queue import jobs
from shared.runtime import Runtime
from tests.domain import claim, make_job, work_off

HOUR = 3600.0


@pytest.fixture
def project(runtime: Runtime, project: Project) -> Project:
    """Its pictures are in the store."""
    with runtime.transaction() as session:
        for image in session.scalars(select(Image)):
            stored = runtime.storage.put_bytes(f"projects/{project.id}/images/{image.id}.png", image.id.encode())
            image.key, image.sha256 = stored.key, stored.sha256
    return project


def ended_job(runtime: Runtime, project: Project, name: str = "0001.png") -> str:
    """The key of an object that an attempt left behind."""
    with runtime.transaction() as session:
        job = make_job(session, project)
    held = claim(runtime, job)
    assert held is not None
    key = f"projects/{project.id}/jobs/{job.id}/{held.attempt}/{name}"
    runtime.storage.put_bytes(key, b"left behind")
    with runtime.transaction() as session:
        jobs.fail(session, held, {"code": "internal", "message": "", "retryable": True})
    return key


def test_rows_and_objects_that_agree_have_no_differences(runtime: Runtime, project: Project) -> None:
    found = reconcile.compare(runtime, grace_seconds=0, read=True)
    assert (found.objects, found.missing, found.damaged, found.orphans) == (4, [], [], [])


def test_what_a_lost_attempt_left_is_collected_after_a_grace_time(runtime: Runtime, project: Project) -> None:
    key = ended_job(runtime, project)
    assert reconcile.collect(runtime, grace_seconds=HOUR) == 0
    assert reconcile.compare(runtime, grace_seconds=0).orphans == [key]
    assert reconcile.collect(runtime, grace_seconds=0) == 1
    assert key not in {found.key for found in runtime.storage.list("projects/")}


def test_the_mask_of_a_job_that_waits_is_left_alone(runtime: Runtime, project: Project) -> None:
    key = f"incoming/{project.id}/upl_{'0' * 26}"
    mask = {"key": runtime.storage.put_bytes(key, b"mask").key, "sha256": "0" * 64}
    original = {"image_id": "img_1", "image": mask, "mask": mask, "strength": 0.5, "width": 64, "height": 64}
    with runtime.transaction() as session:
        job = make_job(session, project)
        job.inputs = {**job.inputs, "pictures": [{"prompt": "a", "seed": 1, "original": original}]}
    assert reconcile.collect(runtime, grace_seconds=0) == 0
    held = claim(runtime, job)
    assert held is not None
    with runtime.transaction() as session:
        jobs.fail(session, held, {"code": "internal", "message": "", "retryable": True})
    assert reconcile.compare(runtime, grace_seconds=0).orphans == [key]


def test_the_objects_of_a_job_at_work_are_left_alone(runtime: Runtime, project: Project) -> None:
    with runtime.transaction() as session:
        job = make_job(session, project)
    assert claim(runtime, job) is not None
    runtime.storage.put_bytes(f"projects/{project.id}/jobs/{job.id}/1/half.png", b"x")
    assert reconcile.collect(runtime, grace_seconds=0) == 0


@pytest.mark.parametrize("kind", ["upload", "crop"])
def test_what_an_open_job_reads_is_left_alone_whatever_its_kind(runtime: Runtime, project: Project, kind: str) -> None:
    key = f"incoming/prj_{'0' * 26}/upl_{'0' * 26}"
    runtime.storage.put_bytes(key, b"posted")
    with runtime.transaction() as session:
        job = make_job(session, project, kind)
        job.inputs = {**job.inputs, "key": key, "image": {"id": "img_0", "key": key, "sha256": "0"}}
    assert reconcile.compare(runtime, grace_seconds=HOUR).orphans == []
    with runtime.transaction() as session:
        session.get_one(Job, job.id).state = "failed"
    assert reconcile.compare(runtime, grace_seconds=HOUR).orphans == [key]


def test_the_last_checkpoint_of_a_failed_job_is_kept(runtime: Runtime, project: Project) -> None:
    key = ended_job(runtime, project, "checkpoint-50.safetensors")
    with runtime.transaction() as session:
        job = session.scalars(select(Job)).one()
        job.checkpoint = {"step": 50, "kept": [{"key": key, "sha256": "0", "step": 50}]}
        session.get_one(Project, project.id).state = "failed"
    assert reconcile.collect(runtime, grace_seconds=0) == 0


def test_an_upload_that_has_no_row_yet_is_given_time(runtime: Runtime, project: Project) -> None:
    runtime.storage.put_bytes(f"projects/{project.id}/images/{ids.new_id('img')}.png", b"x")
    assert reconcile.collect(runtime, grace_seconds=HOUR) == 0
    assert reconcile.compare(runtime, grace_seconds=HOUR).young == 1


def test_an_upload_that_nobody_completed_is_collected_after_a_grace_time(runtime: Runtime, project: Project) -> None:
    reconcile.collect(runtime, grace_seconds=HOUR)  # the first start, at which the store is still empty of others
    old, young = f"incoming/prj_{'0' * 26}/upl_{'0' * 26}", f"incoming/{project.id}/{ids.new_id('upl')}"
    for key in (old, young):
        runtime.storage.put_bytes(key, b"posted")
    assert reconcile.collect(runtime, grace_seconds=HOUR) == 1
    assert [found.key for found in runtime.storage.list("incoming/")] == [young]


def test_a_store_older_than_the_tables_lacks_pictures_and_the_repair_takes_them_out(
    runtime: Runtime, project: Project
) -> None:
    with runtime.db.reading() as session:
        gone, spoilt, *_ = session.scalars(select(Image).order_by(Image.id))
    runtime.storage.delete(gone.key)
    runtime.storage.put_bytes(spoilt.key, b"other bytes")
    found = reconcile.compare(runtime, grace_seconds=0, read=True)
    assert [each.row_id for each in found.missing] == [gone.id]
    assert [each.row_id for each in found.damaged] == [spoilt.id]
    assert reconcile.repair(runtime, found) == 2
    assert not reconcile.compare(runtime, grace_seconds=0).missing
    with runtime.db.reading() as session:
        states = {image.id: (image.state, image.decision) for image in session.scalars(select(Image))}
    assert states[gone.id] == states[spoilt.id] == ("missing", "rejected")


def test_an_id_tells_when_it_was_made(tmp_path: Path) -> None:
    import time

    before = time.time() - 0.01
    assert before <= ids.youngest_birth(f"projects/{ids.new_id('prj')}/x") <= time.time()
    assert ids.youngest_birth("projects/none") == 0


def test_what_a_cancelled_job_had_drawn_is_kept_for_the_retry_and_is_then_the_new_jobs(
    runtime: Runtime, project: Project
) -> None:
    with runtime.transaction() as session:
        projects.start(session, session.get_one(Project, project.id))
    work_off(runtime, until="generate")
    with runtime.db.reading() as session:
        job = session.scalars(select(Job).where(Job.kind == "generate")).one()
    held = claim(runtime, job)
    assert held is not None
    key = f"projects/{project.id}/jobs/{job.id}/{held.attempt}/0000.png"
    stored = runtime.storage.put_bytes(key, b"drawn")
    with runtime.transaction() as session:
        jobs.save_checkpoint(session, held, {"images": {"0": {"key": key, "sha256": stored.sha256}}})
    with runtime.transaction() as session:
        rounds.cancel_job(session, session.get_one(Job, job.id))
    with runtime.transaction() as session:
        rounds.job_ended_badly(session, jobs.stop(session, held))
    assert key not in reconcile.compare(runtime, grace_seconds=0).orphans
    with runtime.transaction() as session:
        rounds.retry(session, session.get_one(Project, project.id))
        again = session.scalars(select(Job).where(Job.state == "queued")).one()
    assert key not in reconcile.compare(runtime, grace_seconds=0).orphans
    runtime.storage.delete(key)
    assert key in [each.key for each in reconcile.compare(runtime, grace_seconds=0).missing]
    with runtime.transaction() as session:
        session.get_one(Job, again.id).state = "succeeded"
    assert key not in [each.key for each in reconcile.compare(runtime, grace_seconds=0).missing]
