"""LoRAs and their files: those of trainings, and those that users bring."""

from __future__ import annotations

from functools import partial
from typing import Any

import structlog
from sqlalchemy import select

from api import owned, uploads
from api.blueprint import Blueprint
from api.context import after, allowed, begin_transaction, reading, runtime, user
from api.pagination import PageQuery, page, page_of
from api.schemas.fields import address
from api.schemas.loras import LoraSchema, NewLoraSchema
from shared import loras, usage
from shared.errors import Unavailable
from shared.models import ImportedLora, Lora

log = structlog.get_logger()
blp = Blueprint("loras", __name__, url_prefix="/v1", description="Trained LoRAs, LoRAs of other tools, and their files")


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


@blp.post("/loras")
@blp.needs("uploads:write")
@blp.fails(413, 415, 503)
@blp.idempotent
@blp.arguments(NewLoraSchema, location="multipart")
@blp.response(201, LoraSchema)
@blp.alt_response(200, schema=LoraSchema, description="You had this file already", success=True)
def import_lora(body: dict[str, Any]) -> Any:
    """Bring a LoRA of another tool, to draw with

    LoRA, LoCon, LoHa, LoKr and DoRA are read, for SD 1.x, SD 2.x, SDXL and chibi, as kohya's scripts, LyCORIS,
    diffusers and peft write them. A file with anything else is refused as a whole, and the answer names it. The family
    is told by the names and shapes of the weights.
    """
    usage.check_stored_bytes(reading(), user().id, runtime().settings)
    columns = uploads.store_lora(body.pop("file"), body.pop("family"))
    session = begin_transaction()
    lora, is_new = loras.take_in(session, user(), columns | (body if "key" in columns else {}))
    if not is_new and "key" in columns:
        after(partial(_delete_object, columns["key"]))
    return lora, 201 if is_new else 200, {"Location": address(f"/v1/loras/{lora.id}")}


@blp.get("/loras")
@blp.needs("projects:read")
@blp.arguments(PageQuery, location="query")
@blp.response(200, page_of(LoraSchema))
def list_imported_loras(query: dict[str, Any]) -> Any:
    """List the LoRAs that you have brought, the newest first

    If your key may download, the audit log notes it.
    """
    _note_links()
    return page(reading(), select(ImportedLora).where(ImportedLora.user_id == user().id), ImportedLora, query)


@blp.delete("/loras/<id:lora_id>")
@blp.needs("uploads:write")
@blp.fails(404, 409)
@blp.response(204)
def delete_imported_lora(lora_id: str) -> Any:
    """Delete a LoRA that you have brought

    No job that waits or runs may draw with it. A LoRA that was trained here is deleted with its project.
    """
    session = begin_transaction()
    lora = owned.imported_lora(lora_id)
    loras.delete(session, lora)
    after(partial(_delete_object, lora.key))


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


def _delete_object(key: str) -> None:
    """Once the row is gone. What can't be deleted now, the collector of orphans deletes."""
    try:
        runtime().storage.delete(key)
    except Unavailable as error:
        log.warning("lora.object_left", key=key, error=str(error))
