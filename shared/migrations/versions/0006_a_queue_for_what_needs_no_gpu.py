"""move open jobs from the queue io to the queue cpu"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

OPEN = ("queued", "running")
jobs = sa.table("jobs", sa.column("id"), sa.column("state"), sa.column("queue"), sa.column("dispatched_at"))


def upgrade() -> None:
    _move("io", "cpu")


def downgrade() -> None:
    _move("cpu", "io")


def _move(old: str, new: str) -> None:
    """The messages sent for them lie in the old queue, so they are sent anew. Workers may be at work meanwhile.

    A row that somebody has locked is passed over, which avoids deadlocks; turns.reroute moves it later.
    """
    mine = sa.select(jobs.c.id).where(jobs.c.state.in_(OPEN), jobs.c.queue == old).with_for_update(skip_locked=True)
    resent = sa.case((jobs.c.state == "queued", None), else_=jobs.c.dispatched_at)
    op.execute(jobs.update().where(jobs.c.id.in_(mine)).values(queue=new, dispatched_at=resent))
