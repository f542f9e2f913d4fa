"""The one reader of the environment. Every setting is in the README's table; a test compares the two."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from environs import Env, ValidationError, validate

from shared import addresses


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of an installation. Times are in seconds unless the name says otherwise, sizes in bytes."""

    # where things are
    database_url: str = field(repr=False)  # may contain a password, so it is never logged
    broker_url: str = field(repr=False)
    storage_url: str  # s3://bucket or s3://bucket/prefix, used by this installation alone; file:///folder in unit tests
    secret_key: str = field(repr=False)  # 32 characters or more: peppers API keys, encrypts webhook secrets
    public_url: str = "http://127.0.0.1:8000"
    s3_endpoint: str = "http://127.0.0.1:9000"
    s3_public_endpoint: str = ""  # the address that clients use; presigned links are signed for it
    s3_access_key: str = ""
    s3_secret_key: str = field(default="", repr=False)
    s3_region: str = "us-east-1"
    scratch_dir: Path = Path(tempfile.gettempdir()) / "bootlora"
    models_dir: Path | None = None  # a folder of base models: .safetensors files and diffusers folders
    models_file: Path | None = None  # a TOML file with more base models, and with facts about those in the folder
    device: str = "auto"  # auto, cpu, cuda, cuda:1, ...

    # when a worker counts as lost
    lease_seconds: float = 90.0
    heartbeat_seconds: float = 5.0
    redispatch_seconds: float = 60.0  # a message that is not claimed in this time is sent again
    worker_seen_seconds: float = 30.0  # a worker that is silent for longer gets no jobs
    max_lost_attempts: int = 3
    kill_after_seconds: float = (
        60.0  # a running job that ignores its cancel for so long gets SIGKILL; SIGTERM after half of it
    )
    max_worker_bytes: int = 16_000_000_000  # of memory; a worker that uses more is replaced. 0: no limit
    keep_model_bytes: int = 8_000_000_000  # of base models that a worker keeps in memory between jobs
    store_patience_seconds: float = 300.0  # how long a job waits for a store that is down
    orphan_grace_seconds: float = 86_400.0  # how long objects that no row names are kept; at least an hour

    # how long rows are kept; events and the audit log are kept for ever
    keep_deliveries_days: int = 30  # after they are delivered or failed; at least 7
    keep_idempotency_keys_days: int = 1  # at least 1

    # limits, shown by GET /v1/limits
    max_upload_bytes: int = 20_000_000
    max_image_pixels: int = 40_000_000
    min_image_side: int = 32
    max_body_bytes: int = 1_000_000
    max_images_per_project: int = 1_000
    max_pictures_per_import: int = 100
    max_import_bytes: int = 200_000_000  # of a zip, packed and unpacked
    max_pixels_per_import: int = 500_000_000  # of all pictures of a zip together
    max_lora_bytes: int = 1_000_000_000  # of a LoRA that a user brings
    max_lora_header_bytes: int = 16_000_000  # of the header of such a file
    max_pictures_per_job: int = 200
    max_running_jobs: int = 2  # for each user
    max_queued_jobs: int = 20
    max_queued_imports: int = 10  # for each user
    max_keys_per_user: int = 100  # that are neither revoked nor expired
    max_projects_per_user: int = 10_000
    max_stored_bytes_per_user: int = 100_000_000_000  # of pictures and LoRAs; what runs when it is reached may add some
    requests_per_minute: int = 600  # of all keys of a user together
    submits_per_minute: int = 60  # requests that start work, of all keys of a user together
    download_seconds: int = 1800  # life of a presigned link
    max_held_per_user: int = 30  # streams and requests that wait, in each process

    # what must not be drawn: a courtesy that stops the careless, no filter
    denied_words: tuple[str, ...] = (
        "loli",
        "shota",
        "lolicon",
        "shotacon",
        "nsfw",
        "nude",
        "naked",
        "sex",
        "child porn",
    )
    denied_words_except: tuple[str, ...] = (
        "nude lipstick",
        "nude heels",
        "nude nail polish",
        "naked eye",
        "naked sword",
    )

    # webhooks
    webhook_allow_http: bool = False
    webhook_allow_networks: tuple[str, ...] = ()  # networks that are private and yet allowed, as CIDR
    webhook_deny_ports: tuple[int, ...] = ()  # in these networks: those of the store and the broker, if they are there
    webhook_connect_seconds: float = 5.0
    webhook_timeout_seconds: float = 15.0  # for a whole request
    webhook_retry_seconds: tuple[int, ...] = (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    webhook_disable_seconds: float = 432_000.0  # an endpoint is disabled if every attempt fails for so long
    webhook_threads: int = 16  # requests at once; endpoints that fail or are slow get half of them at most
    max_webhooks_per_user: int = 20

    log_format: str = "json"  # json or console

    @staticmethod
    def from_env() -> Settings:
        """Read `BOOTLORA_*`. One error lists everything that is missing or wrong."""
        env = Env(eager=False)
        with env.prefixed("BOOTLORA_"):
            values: dict[str, Any] = {
                "database_url": env.str("DATABASE_URL", validate=_checked(addresses.database)),
                "broker_url": env.str("BROKER_URL", validate=_checked(addresses.broker)),
                "storage_url": env.str("STORAGE_URL", validate=_checked(addresses.store)),
                "secret_key": env.str("SECRET_KEY", validate=validate.Length(min=32)),
                "public_url": env.str("PUBLIC_URL", Settings.public_url, validate=_checked(addresses.service)),
                "s3_endpoint": env.str("S3_ENDPOINT", Settings.s3_endpoint, validate=_checked(addresses.store_server)),
                "s3_public_endpoint": env.str(
                    "S3_PUBLIC_ENDPOINT", "", validate=lambda url: url and _checked(addresses.store_server)(url)
                ),
                "models_dir": env.path("MODELS_DIR", None),
                "models_file": env.path("MODELS_FILE", None),
                "scratch_dir": env.path("SCRATCH_DIR", Settings.scratch_dir),
            }
            for name, default in _DEFAULTS.items():
                if name in values:
                    continue
                if isinstance(default, tuple):
                    subcast = int if _TYPES[name] == "tuple[int, ...]" else str
                    values[name] = tuple(env.list(name.upper(), list(default), subcast=subcast))
                elif isinstance(default, bool):  # before int: a bool is an int
                    values[name] = env.bool(name.upper(), default)
                elif isinstance(default, int):
                    values[name] = env.int(name.upper(), default, validate=validate.Range(min=LEAST.get(name)))
                elif isinstance(default, float):
                    values[name] = env.float(name.upper(), default, validate=validate.Range(min=LEAST.get(name)))
                else:
                    values[name] = env.str(name.upper(), default)
        env.seal()
        return Settings(**values)


def _checked(check: Callable[[str], object]) -> Callable[[str], None]:
    """Turn a check of `addresses` into a validator, so that a bad address is reported with the other errors."""

    def validate(url: str) -> None:
        try:
            check(url)
        except ValueError as error:
            raise ValidationError(str(error)) from error

    return validate


# Minimum values: an upload may take an hour, an idempotency key is valid for a day, deliveries are retried for days.
LEAST = {"orphan_grace_seconds": 3600.0, "keep_idempotency_keys_days": 1, "keep_deliveries_days": 7}
_TYPES = {name: row.type for name, row in Settings.__dataclass_fields__.items()}
_DEFAULTS: dict[str, Any] = {
    name: row.default
    for name, row in Settings.__dataclass_fields__.items()
    if name not in ("database_url", "broker_url", "storage_url", "secret_key")
}
