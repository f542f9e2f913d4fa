"""keep what a project is for, and what the licence of a LoRA's base model allows"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("projects", sa.Column("intended_use", sa.String(), nullable=True))
    op.add_column("loras", sa.Column("terms", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True))


def downgrade() -> None:
    op.drop_column("loras", "terms")
    op.drop_column("projects", "intended_use")
