"""find a user's jobs by state"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("jobs_by_user_and_state", "jobs", ["user_id", "state", "created_at", "id"])


def downgrade() -> None:
    op.drop_index("jobs_by_user_and_state", "jobs")
