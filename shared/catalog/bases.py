"""Base models: those that ship, and those of the installation."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from shared import records
from shared.catalog.families import FAMILIES

PREDICTION_TYPES = ("epsilon", "v_prediction", "flow_prediction")
PLACES = ("path", "config", "vae")  # the fields of a base model that name files or folders


@dataclass(frozen=True)
class BaseModel:
    """A checkpoint of a family. `path` is a local folder or single file; the settings may add more."""

    name: str
    family: str
    path: str
    resolution: int
    prediction_type: str = "epsilon"
    zero_terminal_snr: bool = False  # whether the last time is pure noise
    vae: str = ""  # for a file without a VAE, or to replace it: a folder or a .safetensors file
    lineage: str = ""  # a name of its family's lineages; empty: its own name may tell
    config: str = ""  # for a single file: a diffusers folder with its configs and tokenizer
    license: str = ""
    description: str = ""


BASE_MODELS = {
    "chibi": BaseModel(
        name="chibi",
        family="chibi",
        path="models/chibi/base",
        resolution=128,
        prediction_type="v_prediction",
        license="Apache-2.0",
        description="A tiny base model of our own that draws chibi figures; runs on a CPU.",
    )
}


ROOT = Path(__file__).resolve().parent.parent.parent  # the folder that holds `models/`


def base_models(models_file: Path | None = None) -> dict[str, BaseModel]:
    """The base models of this installation: those that ship, and those of its own TOML file.

    Each table `[name]` of the file holds fields of `BaseModel`. A relative `path`, `config` or `vae` is taken from the
    file's folder.

    Raises:
        ValueError: the file is not TOML, or one of its tables is no base model.
    """
    models = {name: replace(row, path=str(ROOT / row.path)) for name, row in BASE_MODELS.items()}
    if models_file is None:
        return models
    try:
        tables = tomllib.loads(models_file.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{models_file} is not TOML: {error}") from error
    return models | {name: _own(models_file, name, table) for name, table in tables.items()}


def _own(models_file: Path, name: str, table: Any) -> BaseModel:
    """A base model of the installation's own file."""
    where, allowed = f"{models_file}: base model {name!r}", [each.name for each in fields(BaseModel)][1:]
    if not isinstance(table, dict):
        raise ValueError(f"{where} is not a table; write [{name}], and its fields below")
    if unknown := table.keys() - set(allowed):
        raise ValueError(f"{where} has unknown fields: {', '.join(sorted(unknown))}; use {', '.join(allowed)}")
    places = {
        key: str((models_file.parent / table[key]).resolve())
        for key in PLACES
        if isinstance(table.get(key), str) and table[key]
    }
    try:
        row = records.read(BaseModel, {"name": name, **table, **places})
    except TypeError as error:
        raise ValueError(f"{where} is incomplete or wrong: {error}") from error
    if row.family not in FAMILIES:
        raise ValueError(f"{where} is of the unknown family {row.family!r}; use one of {', '.join(FAMILIES)}")
    if row.prediction_type not in PREDICTION_TYPES:
        predictions = ", ".join(PREDICTION_TYPES)
        raise ValueError(f"{where} has the unknown prediction_type {row.prediction_type!r}; use one of {predictions}")
    lineages = FAMILIES[row.family].lineages
    if row.lineage and row.lineage not in lineages:
        known = f"use one of {', '.join(lineages)}" if lineages else "its family has none"
        raise ValueError(f"{where} is of the unknown lineage {row.lineage!r}; {known}")
    return row
