"""add the key that created a key, and when a user was disabled"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Both may be null, because processes of the earlier version still write rows without them."""
    op.add_column("api_keys", sa.Column("parent_id", sa.String(), nullable=True))
    op.create_index("ix_api_keys_parent_id", "api_keys", ["parent_id"])
    op.add_column("users", sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("users", "disabled_at")
    op.drop_index("ix_api_keys_parent_id", "api_keys")
    op.drop_column("api_keys", "parent_id")
