"""`bootlora-admin`: the operator's commands."""

from __future__ import annotations

from pathlib import Path

import click
from alembic import command
from alembic.config import Config
from environs import EnvError
from sqlalchemy import select

from shared import audit, inventory, ownership, reconcile, users
from shared.catalog import BaseModel
from shared.errors import BootloraError
from shared.models import ApiKey
from shared.outside.db import Database
from shared.queue import jobs
from shared.runtime import Runtime, open_storage
from shared.settings import Settings


@click.group(help="Administer a Bootlora installation. Settings are read from the environment (BOOTLORA_*).")
def main() -> None:
    pass


@main.command()
def migrate() -> None:
    """Upgrade the tables to this version."""
    upgrade(Settings.from_env().database_url)


def upgrade(database_url: str) -> None:
    command.upgrade(migrations(database_url), "head")


def migrations(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["database_url"] = database_url
    return config


@main.command()
def create_bucket() -> None:
    """Create the bucket if it does not exist."""
    open_storage(Settings.from_env()).prepare()


@main.command()
def adopt_store() -> None:
    """Make this installation the owner of the store, for example after its database was created again.

    Do it only if no other installation uses the store.
    """
    settings = Settings.from_env()
    click.echo(f"{settings.storage_url} now belongs to {ownership.adopt(Runtime.from_settings(settings))}")


@main.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["member", "admin"]), default="member", show_default=True)
def create_user(name: str, role: str) -> None:
    """Create a user."""
    with _database().transaction() as session:
        user = users.create(session, name, role)
        audit.record_operator(session, "create_user", "/v1/users")
        click.echo(user.id)


@main.command()
@click.argument("user_name")
@click.option("--name", default="command line", show_default=True, help="What the key is for.")
@click.option(
    "--scope", "scopes", multiple=True, type=click.Choice(list(users.SCOPES)), help="Default: all but keys:write."
)
def create_key(user_name: str, name: str, scopes: tuple[str, ...]) -> None:
    """Create an API key and print it. It can't be shown again."""
    settings = Settings.from_env()
    with _database().transaction() as session:
        user = users.by_name(session, user_name)
        _, text = users.create_key(session, user, settings.secret_key, name=name, scopes=list(scopes) or None)
        audit.record_operator(session, "create_user_key", f"/v1/users/{user.id}/keys")
    click.echo(text)


@main.command()
@click.argument("user_name")
def disable_user(user_name: str) -> None:
    """Refuse all keys of a user and cancel the user's jobs. The data is kept."""
    _set_enabled(user_name, False)


@main.command()
@click.argument("user_name")
def enable_user(user_name: str) -> None:
    """Accept the keys of a user again."""
    _set_enabled(user_name, True)


@main.command()
@click.argument("user_name", required=False)
def list_keys(user_name: str | None) -> None:
    """List the keys that are not revoked, of one user or of all: id, prefix, user, last use, name."""
    query = select(ApiKey).join(ApiKey.user).where(ApiKey.revoked_at.is_(None)).order_by(ApiKey.created_at)
    with _database().reading() as session:
        if user_name is not None:
            query = query.where(ApiKey.user_id == users.by_name(session, user_name).id)
        for key in session.scalars(query):
            used = key.last_used_at.isoformat(timespec="seconds") if key.last_used_at else "never used"
            click.echo(f"{key.id}  {key.prefix}  {key.user.name}  {used}  {key.name}")


@main.command()
@click.argument("key")
def revoke_key(key: str) -> None:
    """Revoke a key and all keys that were created with it. KEY is its id, its prefix or the key itself."""
    with _database().transaction() as session:
        row = users.find_key(session, key)
        users.revoke(session, row)
        audit.record_operator(session, "revoke_user_key", f"/v1/users/{row.user_id}/keys/{row.id}")
    click.echo(f"{row.id} of {row.user.name} is revoked")


@main.command()
def models() -> None:
    """List the base models: what they are, their licence, what is wrong with them, and the copy of each worker."""
    settings = Settings.from_env()
    with Database(settings.database_url).reading() as session:
        known, at_hand = inventory.known(session, settings), inventory.at_hand(session, settings)
        copies = inventory.copies(session, settings)
    for model in known.values():
        if model.problem:
            click.echo(f"{model.name}  {_state(model)}")
        else:
            click.echo("  ".join(_facts(model, at_hand is None or model.name in at_hand)))
            for note in model.notes:
                click.echo(f"    {note}")
        for worker, copy in copies.get(model.name, {}).items():
            click.echo(f"    {worker}: {_state(copy)}")


def _facts(model: BaseModel, available: bool) -> list[str]:
    return [
        model.name,
        f"{model.family}{f' ({model.lineage})' if model.lineage else ''}",
        f"{model.prediction_type}{' with zero terminal SNR' if model.zero_terminal_snr else ''}",
        f"{model.resolution} px",
        f"{model.size_bytes / 1e9:.2f} GB",
        _state(model),
        f"licence: {model.license or 'unknown'}, commercial use: {model.commercial_use}, hosting: {model.hosting}",
        "on a live worker" if available else "on no live worker",
    ]


def _state(model: BaseModel) -> str:
    return f"can't be used: {model.problem}" if model.problem else f"sha256 {model.sha256 or 'not computed yet'}"


@main.command("reconcile")
@click.option("--read", is_flag=True, help="Also read every object and check its SHA-256.")
@click.option("--repair", is_flag=True, help="Remove lost pictures from datasets and delete old orphans.")
@click.option("--grace-hours", default=24.0, show_default=True, help="Objects younger than this are not orphans.")
def reconcile_(read: bool, repair: bool, grace_hours: float) -> None:
    """Compare the tables with the object store, for example after a backup was restored."""
    runtime = Runtime.from_settings(Settings.from_env())
    found = reconcile.compare(runtime, grace_seconds=grace_hours * 3600, read=read)
    for name in ("missing", "damaged"):
        for each in getattr(found, name):
            click.echo(f"{name}  {each.table} {each.row_id}  {each.key}")
    for key in found.orphans:
        click.echo(f"orphan  {key}")
    counts = f"{len(found.missing)} missing, {len(found.damaged)} damaged, {len(found.orphans)} orphans"
    click.echo(f"{found.objects} objects: {counts}, {found.young} too young to judge")
    if repair:
        click.echo(f"repaired: {reconcile.repair(runtime, found)} pictures removed from datasets, orphans deleted")
    elif found.missing or found.damaged:
        raise SystemExit(1)


@main.command()
@click.argument("worker")
def alive(worker: str) -> None:
    """Exit with 0 if a worker, such as cpu@HOST, has checked in lately. For health checks."""
    settings = Settings.from_env()
    with Database(settings.database_url).reading() as session:
        if not jobs.is_alive(session, worker, settings.worker_seen_seconds):
            raise SystemExit(f"bootlora-admin: {worker} has not checked in for {settings.worker_seen_seconds:g} s")


def _set_enabled(user_name: str, enabled: bool) -> None:
    with _database().transaction() as session:
        user = users.get_locked(session, users.by_name(session, user_name).id)
        users.change(session, user, {"enabled": enabled})
        audit.record_operator(session, "change_user", f"/v1/users/{user.id}")


def _database() -> Database:
    return Database(Settings.from_env().database_url)


def run() -> None:
    try:
        main(standalone_mode=True)
    except (BootloraError, EnvError) as error:
        raise SystemExit(f"bootlora-admin: {error}") from None


if __name__ == "__main__":
    run()
