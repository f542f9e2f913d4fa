"""What an installation says of a base model: a row of `BOOTLORA_MODELS_FILE`, or a sidecar `NAME.toml`."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.catalog import FAMILIES
from shared.catalog.bases import COMMERCIAL_USES, HOSTINGS, PREDICTION_TYPES
from shared.checkpoints.header import BadModel

MAX_FILE_BYTES = 1_000_000
LINEAGES = [name for row in FAMILIES.values() for name in row.lineages]
PLACES = ("path", "vae", "config")


def read_file(path: Path) -> dict[str, Any]:
    """A TOML file.

    Raises:
        BadModel: it can't be read, or isn't TOML; the message names the line.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadModel(f"{path.name} has more than {MAX_FILE_BYTES} bytes; a list of base models is smaller")
        return tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadModel(f"{path.name} can't be read: {_reason(error)}") from error


def checked(row: Any, where: str, folder: Path, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """A row with its values checked, and its places as absolute paths; relative ones are taken from `folder`.

    `where` names file and row in messages; `without` lists keys that have no meaning there.

    Raises:
        BadModel: a key is unknown, or a value is of another type or not among the choices.
    """
    if not isinstance(row, dict):
        raise BadModel(f"{where} isn't a table; write [name] and its keys below")
    found = {}
    for key, value in row.items():
        if key not in CHECKS or key in without:
            raise BadModel(f"{where} has the unknown key `{key}`{_guess(key, without)}")
        problem = CHECKS[key](value)
        if problem:
            raise BadModel(f"{where}: `{key}` is {_shown(value)}, but {problem}")
        found[key] = str((folder / value).resolve()) if key in PLACES and value else value
    return found


def _reason(error: Exception) -> str:
    """What went wrong, without the place on this machine's disk, since all users read it."""
    return error.strerror or "" if isinstance(error, OSError) else str(error)


def _one_of(*choices: str) -> Callable[[Any], str | None]:
    return lambda value: None if value in choices else f"must be one of {', '.join(filter(None, choices))}"


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) and len(value) <= 1000 else "must be a text of at most 1000 characters"


def _place(value: Any) -> str | None:
    if not isinstance(value, str) or "\0" in value:
        return "must be a text: the path of a file or folder"
    return "~ is not expanded; write the whole path" if value.startswith("~") else None


def _resolution(value: Any) -> str | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return None if whole and 8 <= value <= 8192 else "must be a whole number of pixels from 8 to 8192, without quotes"


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be true or false, without quotes"


CHECKS: dict[str, Callable[[Any], str | None]] = {
    "family": _one_of(*FAMILIES),
    "path": _place,
    "resolution": _resolution,
    "prediction_type": _one_of(*PREDICTION_TYPES),
    "zero_terminal_snr": _flag,
    "vae": _place,
    "lineage": _one_of("", *LINEAGES),
    "config": _place,
    "license": _text,
    "commercial_use": _one_of(*COMMERCIAL_USES),
    "hosting": _one_of(*HOSTINGS),
    "description": _text,
}


def _guess(key: str, without: tuple[str, ...]) -> str:
    known = [each for each in CHECKS if each not in without]
    near = difflib.get_close_matches(key, known, 1)
    return f"; do you mean `{near[0]}`?" if near else f"; the keys are {', '.join(known)}"


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
