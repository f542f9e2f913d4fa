"""Connects settings, database, store and broker; commits transactions, dispatches jobs and requeues lost ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog
from sqlalchemy.orm import Session

from shared import catalog, denied, rounds
from shared.catalog import BaseModel
from shared.errors import Conflict, Unavailable
from shared.outside.db import Database
from shared.outside.secrets import Vault
from shared.outside.storage import Storage, storage_from_url
from shared.queue import jobs, turns
from shared.queue.broker import Broker
from shared.queue.turns import Turn
from shared.settings import Settings

log = structlog.get_logger()


class JobSender(Protocol):
    """Sends messages that wake workers: Celery over Redis, or a list in unit tests."""

    def send(self, queue: str, job_id: str, attempt: int) -> None: ...

    def ping(self) -> None: ...


def open_storage(settings: Settings) -> Storage:
    return storage_from_url(
        settings.storage_url,
        endpoint=settings.s3_endpoint,
        public_endpoint=settings.s3_public_endpoint,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key,
        region=settings.s3_region,
    )


@dataclass(kw_only=True)
class Runtime:
    """What the API and the workers share: settings and connections."""

    settings: Settings
    db: Database
    storage: Storage
    broker: JobSender
    vault: Vault
    base_models: dict[str, BaseModel]  # that this process can load itself; `inventory` knows those of all workers

    def __post_init__(self) -> None:
        denied.use(self.settings)

    @staticmethod
    def from_settings(settings: Settings) -> Runtime:
        return Runtime(
            settings=settings,
            db=Database(settings.database_url),
            storage=open_storage(settings),
            broker=Broker(settings),
            vault=Vault(settings.secret_key),
            base_models=catalog.base_models(),
        )

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A transaction that ends by dispatching the jobs that can run; messages follow after the commit."""
        with self.db.transaction() as session:
            yield session
            handed_out = {queue: self._turns(session, queue, patient=False) for queue in session.info.get("awake", ())}
        for queue, taken in handed_out.items():
            self._try_to_send(queue, taken)

    def dispatch(self) -> int:
        """Send a message for each job that a live worker can take now. Returns how many were sent.

        At most one per free slot. The rest waits in the table, where it can be ordered, counted and cancelled.
        """
        return sum(self._dispatch_queue(queue) for queue in catalog.QUEUES)

    def _try_to_send(self, queue: str, taken: list[Turn] | None) -> None:
        """Send messages after a commit. A failure is only logged, because the clock sends the messages again."""
        try:
            if taken is None:  # another dispatcher had the locks; wait for it now, after the commit
                self._dispatch_queue(queue)
            else:
                self._send(taken)
        except Exception as error:
            log.warning("dispatch.failed", error=str(error))

    def _dispatch_queue(self, queue: str) -> int:
        if not self._anything_waits(queue):
            return 0
        with self.db.transaction() as session:
            taken = self._turns(session, queue, patient=True)
        return self._send(taken or [])

    def _turns(self, session: Session, queue: str, *, patient: bool) -> list[Turn] | None:
        return turns.hand_out(session, queue, self.settings, patient=patient)

    def _send(self, taken: list[Turn]) -> int:
        for sent, turn in enumerate(taken):
            try:
                self.broker.send(turn.queue, turn.id, turn.attempt)
            except Unavailable as error:
                log.warning("dispatch.failed", job_id=turn.id, error=str(error))
                self._unsend(taken[sent:])
                return sent
        return len(taken)

    def _unsend(self, unsent: list[Turn]) -> None:
        with self.db.transaction() as session:
            for turn in unsent:
                turns.unsend(session, turn.id, turn.attempt)

    def _anything_waits(self, queue: str) -> bool:
        with self.db.reading() as session:
            return turns.anything_waits(session, queue, self.settings)

    def reap(self) -> int:
        """Requeue or fail the jobs whose workers are lost. Returns how many there were."""
        with self.db.reading() as session:
            overdue = [job.id for job in jobs.overdue(session)]
        return sum(self._reap_one(job_id) for job_id in overdue)

    def _reap_one(self, job_id: str) -> int:
        """Requeue or fail one job in its own transaction, so that an error does not affect the others."""
        with self.transaction() as session:
            job = jobs.take_overdue(session, job_id)
            if job is None:
                return 0
            self._lose(session, job)
        return 1

    def stop_disabled(self) -> int:
        """Cancel the open jobs of disabled users; running ones end at their next step. Returns how many it stopped."""
        with self.db.reading() as session:
            open_jobs = [job.id for job in jobs.of_disabled_users(session)]
        return sum(self._stop_one(job_id) for job_id in open_jobs)

    def _stop_one(self, job_id: str) -> int:
        """Cancel one job in its own transaction, which is rolled back if the job can't be cancelled."""
        try:
            with self.transaction() as session:
                rounds.cancel_job(session, session.get_one(jobs.Job, job_id))
        except Conflict as error:  # most likely it has just ended by itself
            log.info("job.not_stopped", job_id=job_id, reason=error.message)
            return 0
        return 1

    def bury_predecessor(self, worker: str) -> int:
        """Requeue the jobs that a dead worker of the same name held. Called when a worker starts."""
        with self.transaction() as session:
            lost = jobs.held_by(session, worker)
            for job in lost:
                self._lose(session, job)
        return len(lost)

    def _lose(self, session: Session, job: jobs.Job) -> None:
        if jobs.lose(session, job, self.settings):
            session.flush()
            rounds.job_ended_badly(session, job)

    def close(self) -> None:
        self.db.dispose()
