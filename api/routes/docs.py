"""The OpenAPI document, as JSON and as a page to read and try. Browsers load nothing from other hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import Blueprint, Response, current_app, send_from_directory

from api import document

FOLDER = Path(__file__).resolve().parent.parent / "docs"
FILES = ("swagger-ui.css", "swagger-ui-bundle.js", "start.js")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
KEEP_SECONDS = 3600

blp = Blueprint("docs", __name__)


@blp.get("/docs")
def show() -> Response:
    answer = send_from_directory(FOLDER, "index.html", max_age=KEEP_SECONDS)
    answer.headers["Content-Security-Policy"] = POLICY
    answer.headers["Referrer-Policy"] = "no-referrer"
    return answer


@blp.get(f"/docs/<any({', '.join(repr(name) for name in FILES)}):name>")
def give_file(name: str) -> Response:
    return send_from_directory(FOLDER, name, max_age=KEEP_SECONDS)


@blp.get("/openapi.json")
def give_document() -> Any:
    known = current_app.extensions
    if "bootlora.document" not in known:
        known["bootlora.document"] = document.plain_document(current_app)
    return current_app.json.response(known["bootlora.document"])
