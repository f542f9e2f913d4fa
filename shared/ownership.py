"""The owner of a store. An object in the store, its mark, holds the id of the one installation that uses it.

Only rows tell which objects are still needed. So before objects are deleted, the mark must show that the rows belong to
this store: see docs/decisions/0012-a-store-has-one-owner.md.
"""

from __future__ import annotations

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from shared.addresses import FOLDERS
from shared.errors import NotFound, Unavailable
from shared.models import Image, Installation, Project, User
from shared.runtime import Runtime

log = structlog.get_logger()

MARK = ".bootlora-owner"
LATEST = 5  # pictures that are searched in a store without a mark
HOW_TO_ADOPT = "if no other installation uses it, run `bootlora-admin adopt-store`"


class WrongStore(Unavailable):
    """The store belongs to another installation, or may do so. Nothing may be deleted in it."""

    code = "wrong_store"


def check(runtime: Runtime) -> bool:
    """Whether the store has this installation's mark. False if it has none.

    Raises:
        WrongStore: it has the mark of another installation.
    """
    mark = runtime.storage.peek(MARK)
    if mark is None:
        return False
    own = _own_id(runtime)
    if mark.strip() != own.encode():
        raise WrongStore(
            f"the store at {runtime.settings.storage_url} belongs to the installation {_shown(mark)}, and this one is "
            f"{own!r}: give each installation a bucket or a prefix of its own (BOOTLORA_STORAGE_URL). If the database "
            f"was made anew or restored from a backup of before the mark, {HOW_TO_ADOPT}"
        )
    return True


def check_at_start(runtime: Runtime) -> None:
    """Check the mark before an API or a worker starts. If the store is down, the collector and /readyz check it later.

    Raises:
        WrongStore: the store belongs to another installation, or has none of the pictures in the database.
    """
    try:
        if not check(runtime):
            _look_for_pictures(runtime)
    except WrongStore:
        raise
    except (Unavailable, SQLAlchemyError) as error:
        log.warning("ownership.unchecked", error=str(error))


def ensure(runtime: Runtime) -> None:
    """Check the mark. A store without a mark gets one, unless it has objects of unknown projects.

    Raises:
        WrongStore: the store belongs to another installation, or may do so.
    """
    if check(runtime):
        return
    _look_for_pictures(runtime)
    if strangers := _unknown_projects(runtime):
        raise WrongStore(
            f"the store at {runtime.settings.storage_url} has no mark of an owner, and objects of {len(strangers)} "
            f"projects that the database does not know, such as {min(strangers)}: another installation may keep "
            f"them there; {HOW_TO_ADOPT}"
        )
    runtime.storage.put_new(MARK, _own_id(runtime).encode())
    if not check(runtime):  # raises an error of its own if another installation was quicker
        raise WrongStore(f"the store at {runtime.settings.storage_url} does not keep its mark, {MARK}")


def adopt(runtime: Runtime) -> str:
    """Make this installation the owner of the store, whatever its mark. Returns the installation's id."""
    own = _own_id(runtime)
    runtime.storage.put_bytes(MARK, own.encode())
    return own


def _own_id(runtime: Runtime) -> str:
    with runtime.db.reading() as session:
        own = session.scalar(select(Installation.id))
    if own is None:
        raise Unavailable("the tables are not ready; run `bootlora-admin migrate`", code="no_installation")
    return own


def _look_for_pictures(runtime: Runtime) -> None:
    """Refuse a store without the latest pictures. Older versions ignored the prefix, so they may be outside of it."""
    with runtime.db.reading() as session:
        keys = list(
            session.scalars(select(Image.key).where(Image.state == "ready").order_by(Image.id.desc()).limit(LATEST))
        )
    if keys and not any(_is_there(runtime, key) for key in keys):
        raise WrongStore(
            f"the store at {runtime.settings.storage_url} has none of the latest pictures that the database names. "
            "Versions before this one ignored a prefix in BOOTLORA_STORAGE_URL: move their objects (projects/, "
            f"incoming/) below it, or take it out. Otherwise correct the address; {HOW_TO_ADOPT}"
        )


def _is_there(runtime: Runtime, key: str) -> bool:
    try:
        runtime.storage.stat(key)
    except NotFound:
        return False
    return True


def _unknown_projects(runtime: Runtime) -> set[str]:
    """Projects with objects in the store but without a row. Rows are read last, so that they include new projects.

    The LoRAs that users bring are in folders of the users.
    """
    found = {key.key.split("/")[1] for folder in FOLDERS for key in runtime.storage.list(f"{folder}/")}
    with runtime.db.reading() as session:
        return found - set(session.scalars(select(Project.id))) - set(session.scalars(select(User.id)))


def _shown(mark: bytes) -> str:
    return repr(mark[:40].decode(errors="replace"))
