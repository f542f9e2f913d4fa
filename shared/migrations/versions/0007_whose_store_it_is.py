"""give each installation an id, which its store is marked with"""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if sa.inspect(op.get_bind()).has_table("installation"):
        return
    table = op.create_table("installation", sa.Column("id", sa.String(), primary_key=True))
    op.bulk_insert(table, [{"id": f"ins_{secrets.token_hex(16)}"}])


def downgrade() -> None:
    """The table stays. The store is marked with its id; after the next upgrade a new one would not match."""
