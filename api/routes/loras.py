"""LoRAs, and their files."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from api import owned
from api.blueprint import Blueprint
from api.context import allowed, begin_transaction, reading
from api.pagination import PageQuery, page, page_of
from api.schemas.loras import LoraSchema
from shared.models import Lora

blp = Blueprint("loras", __name__, url_prefix="/v1", description="Trained LoRAs and their files")


@blp.get("/projects/<id:project_id>/loras")
@blp.needs("projects:read")
@blp.fails(404)
@blp.arguments(PageQuery, location="query")
@blp.response(200, page_of(LoraSchema))
def list_loras(query: dict[str, Any], project_id: str) -> Any:
    """List the LoRAs of a project, oldest first, with links to download their files

    If your key may download, the audit log notes it.
    """
    _note_links()
    found = select(Lora).where(Lora.project_id == owned.project(project_id).id)
    return page(reading(), found, Lora, query, newest_first=False)


@blp.get("/loras/<id:lora_id>")
@blp.needs("projects:read")
@blp.fails(404)
@blp.with_etag
@blp.response(200, LoraSchema)
def get_lora(lora_id: str) -> Any:
    """Show a LoRA, with links to download its files

    If your key may download, the audit log notes it.
    """
    _note_links()
    return owned.lora(lora_id)


def _note_links() -> None:
    """Begin a transaction if the answer shows download links. The audit log notes every request that has one."""
    if allowed("artifacts:read"):
        begin_transaction()
