"""keep LoRAs that users bring"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "imported_loras",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("user_id", sa.String(), sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("name", "family")),
        *(sa.Column(name, JSON, nullable=False) for name in ("kinds", "parts")),
        sa.Column("rank", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("trigger_word", "base_model", "license")),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("key", "filename", "sha256")),
        sa.Column("size_bytes", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("user_id", "sha256"),
    )
    op.create_index("imported_loras_by_user", "imported_loras", ["user_id", "created_at", "id"])


def downgrade() -> None:
    op.drop_table("imported_loras")
