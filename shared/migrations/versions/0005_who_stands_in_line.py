"""mark users with open jobs, so that dispatchers skip all others"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("in_line", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.drop_index("users_by_turn", "users")
    op.create_index("users_by_turn", "users", ["in_line", "served_at", "id"])


def downgrade() -> None:
    op.drop_index("users_by_turn", "users")
    op.create_index("users_by_turn", "users", ["served_at", "id"])
    op.drop_column("users", "in_line")
