"""LoRAs, and their files."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

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
    """List the LoRAs of a project, the oldest first, with links to download their files

    With the scope to download, that is written into the audit log.
    """
    session = _written_down_if_links_are_shown()
    found = select(Lora).where(Lora.project_id == owned.project(session, project_id).id)
    return page(session, found, Lora, query, newest_first=False)


@blp.get("/loras/<id:lora_id>")
@blp.needs("projects:read")
@blp.fails(404)
@blp.etag
@blp.response(200, LoraSchema)
def get_lora(lora_id: str) -> Any:
    """Show a LoRA, with links to download its files

    With the scope to download, that is written into the audit log.
    """
    return owned.lora(_written_down_if_links_are_shown(), lora_id)


def _written_down_if_links_are_shown() -> Session:
    """What a request writes is in the audit log; whoever is shown links may download."""
    return writing() if allowed("artifacts:read") else reading()
