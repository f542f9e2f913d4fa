"""allow seeds of any size, as SQLite does"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        op.alter_column("images", "seed", type_=sa.BigInteger())


def downgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        op.alter_column("images", "seed", type_=sa.Integer())
