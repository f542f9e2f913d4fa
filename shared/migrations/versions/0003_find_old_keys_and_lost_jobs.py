"""find old idempotency keys and lost jobs"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

LOST = sa.text("lost_attempts > 0")


def upgrade() -> None:
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])
    op.create_index("jobs_lost", "jobs", ["lost_attempts"], sqlite_where=LOST, postgresql_where=LOST)


def downgrade() -> None:
    op.drop_index("jobs_lost", "jobs")
    op.drop_index("ix_idempotency_keys_created_at", "idempotency_keys")
