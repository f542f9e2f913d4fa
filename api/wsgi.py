"""The entry of WSGI servers: `gunicorn api.wsgi:app`."""

from __future__ import annotations

import atexit

from api.app import create_app
from shared import ownership
from shared.outside import logs
from shared.runtime import Runtime
from shared.settings import Settings

settings = Settings.from_env()
logs.configure(settings.log_format)
runtime = Runtime.from_settings(settings)
ownership.check_at_start(runtime)
app = create_app(runtime)
atexit.register(app.extensions["bootlora.holder"].close)
