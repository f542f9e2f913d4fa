"""The entry of WSGI servers: `gunicorn api.wsgi:app`."""

from __future__ import annotations

from api.app import create_app
from shared import logs
from shared.runtime import Runtime
from shared.settings import Settings

settings = Settings.from_env()
logs.configure(settings.log_format)
app = create_app(Runtime.from_settings(settings))
