"""How much a client may send, and how often."""

from __future__ import annotations

from flask import Flask, request

from shared.settings import Settings

FORM_OVERHEAD_BYTES = 100_000  # around the file: boundaries and the other fields


def register(app: Flask, settings: Settings) -> None:
    """Bound the body of every request: large where a file goes, small elsewhere."""

    def bound() -> None:
        large = request.mimetype == "multipart/form-data"
        request.max_content_length = (
            settings.max_upload_bytes + FORM_OVERHEAD_BYTES if large else settings.max_body_bytes
        )

    app.before_request(bound)
