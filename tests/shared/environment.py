"""The least that the environment must say."""

from __future__ import annotations

NEEDED = {
    "BOOTLORA_DATABASE_URL": "sqlite:////tmp/x.db",
    "BOOTLORA_BROKER_URL": "memory://",
    "BOOTLORA_STORAGE_URL": "file:///tmp/x",
    "BOOTLORA_SECRET_KEY": "a secret for tests, 32 characters and more",
}
