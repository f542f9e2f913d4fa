"""add a picture's repeats in an epoch, and its other captions"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("images", sa.Column("repeats", sa.Integer(), nullable=False, server_default="1"))
    op.add_column(
        "images", sa.Column("variants", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True)
    )


def downgrade() -> None:
    op.drop_column("images", "variants")
    op.drop_column("images", "repeats")
