"""Base models: those that ship, and those of the installation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

UNKNOWN = "unknown"
COMMERCIAL_USES = ("yes", "no", "ask", UNKNOWN)  # ask: under conditions of the licence, or with a paid one
HOSTINGS = ("yes", "no", UNKNOWN)  # whether others may be served with it for money

PREDICTION_TYPES = ("epsilon", "v_prediction", "flow_prediction")


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A checkpoint of a family, on this machine or on that of a worker. One with a `problem` can't be used."""

    name: str
    family: str
    path: str  # a local folder or single file
    resolution: int  # pixels of the side
    prediction_type: str = "epsilon"
    zero_terminal_snr: bool = False  # whether the last time is pure noise
    vae: str = ""  # for a file without a VAE, or to replace it: a folder or a .safetensors file
    lineage: str = ""  # a name of its family's lineages
    config: str = ""  # for a single file: a diffusers folder with its configs and tokenizer
    license: str = ""
    commercial_use: str = UNKNOWN  # one of COMMERCIAL_USES
    hosting: str = UNKNOWN  # one of HOSTINGS
    description: str = ""
    size_bytes: int = 0  # of its weights
    sha256: str = ""  # of its file, or of what its folder holds; empty until it is computed
    notes: tuple[str, ...] = ()  # what was filled in or ignored
    problem: str = ""  # why it can't be used, and what to do

    @property
    def companions(self) -> list[str]:
        """The files and folders that its row names besides its own."""
        return [path for path in (self.vae, self.config) if path]


BASE_MODELS = {
    "chibi": BaseModel(
        name="chibi",
        family="chibi",
        path="models/chibi/base",
        resolution=128,
        prediction_type="v_prediction",
        license="Apache-2.0",
        commercial_use="yes",
        hosting="yes",
        description="A tiny base model of our own that draws chibi figures; runs on a CPU.",
    )
}


ROOT = Path(__file__).resolve().parent.parent.parent  # the folder that holds `models/`


def base_models() -> dict[str, BaseModel]:
    """The base models that ship."""
    return {name: replace(row, path=str(ROOT / row.path)) for name, row in BASE_MODELS.items()}
