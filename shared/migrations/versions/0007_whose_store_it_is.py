"""give each installation an id, which marks its store"""

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
    """Keep the table: the store is marked with its id, and a new id would not match after the next upgrade."""
