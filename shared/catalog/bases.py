"""Base models: those that ship, and those of the installation."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from shared.catalog.families import FAMILIES


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

    A row of the file is a table `[name]` with the fields of `BaseModel`; a relative `path` or `config` is taken
    from the file's folder.
    """
    models = {name: replace(row, path=str(ROOT / row.path)) for name, row in BASE_MODELS.items()}
    if models_file is not None:
        for name, row in tomllib.loads(models_file.read_text()).items():
            places = {
                key: str((models_file.parent / row[key]).resolve()) for key in ("path", "config", "vae") if row.get(key)
            }
            models[name] = BaseModel(name=name, **(row | places))
            if models[name].family not in FAMILIES:
                raise ValueError(f"{models_file}: base model {name!r} is of the unknown family {models[name].family!r}")
    return models
