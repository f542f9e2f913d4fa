"""Backups: restored elsewhere, and of another day than what they meet."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from embedded.backup import backup, restore
from shared import reconcile
from shared.models import Image
from tests.faults.service import Service


@pytest.mark.long
@pytest.mark.fault("F26", "a backup is restored, and goes on; its store is older or newer than its tables")
def test_a_backup_goes_on_where_it_was_taken(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    file = tmp_path / "backup"
    with Service(tmp_path / "first") as first:
        project = first.project(first.local_user())
        (done,) = first.await_done(first.submit(project, 3))
        waiting = [first.submit(project, 20) for _ in range(3)]
        first.await_running(waiting[0])
    backup(first.data_dir, file)
    restore(file, tmp_path / "second")

    with Service(tmp_path / "second") as second:
        ended = second.await_done(*waiting)
        assert {job.state for job in ended} == {"succeeded"}
        assert second.job(done).state == "succeeded"
        found = reconcile.compare(second.runtime, grace_seconds=0, read=True)
        assert not found.missing
        assert not found.damaged

        lost, *_ = pictures(second)
        second.runtime.storage.delete(lost.key)  # the store is older than the tables
        newer = f"projects/{project.id}/jobs/job_{'0' * 26}/1/0000.png"
        second.runtime.storage.put_bytes(newer, b"of a job that the tables don't know")  # and newer
        found = reconcile.compare(second.runtime, grace_seconds=0)
        assert ([each.row_id for each in found.missing], found.orphans) == ([lost.id], [newer])
        reconcile.repair(second.runtime, found)
        found = reconcile.compare(second.runtime, grace_seconds=0, read=True)
        assert (found.missing, found.damaged, found.orphans) == ([], [], [])
        row = {"fault": "F26", "what": "a backup is restored; store older and newer than the tables"}
        counted = {"database": "sqlite", "times": 1, "lost": 0, "doubled": 0, "seconds": None}
        request.node.user_properties.append(("trial", {**row, **counted}))


def pictures(service: Service) -> list[Image]:
    with service.runtime.db.reading() as session:
        return list(session.scalars(select(Image).order_by(Image.id)))


