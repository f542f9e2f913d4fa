"""LoRAs, and their files."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from api import owned
from api.blueprint import Blueprint
from api.context import allowed, reading, writing
from api.pagination import PageQuery, page, page_of
from api.schemas.loras import LoraSchema
from shared.models import Lora

blp = Blueprint("loras", __name__, url_prefix="/v1", description="What trainings leave behind")


@blp.get("/projects/<id:project_id>/loras")
@blp.needs("projects:read")
@blp.fails(404)
@blp.arguments(PageQuery, location="query")
@blp.response(200, page_of(LoraSchema))
def list_loras(query: dict[str, Any], project_id: str) -> Any:
    """List the LoRAs of a project, the oldest first"""
    project = owned.project(reading(), project_id)
    found = select(Lora).where(Lora.project_id == project.id)
    return page(reading(), found, Lora, query, newest_first=False)


@blp.get("/loras/<id:lora_id>")
@blp.needs("projects:read")
@blp.fails(404)
@blp.etag
@blp.response(200, LoraSchema)
def get_lora(lora_id: str) -> Any:
    """Show a LoRA, with links to download its files

    With the scope to download, that is written into the audit log.
    """
    if allowed("artifacts:read"):
        return owned.lora(writing(), lora_id)
    return owned.lora(reading(), lora_id)
