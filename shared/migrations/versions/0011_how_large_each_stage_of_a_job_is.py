"""keep the stages of a job: how large each is, and how long it took"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("base_model", sa.String(), nullable=True))
    op.add_column("jobs", sa.Column("stages", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "stages")
    op.drop_column("jobs", "base_model")
