"""The components of a base model, from a folder or a single file: from the disk alone, and never from a pickle.

Errors name files without their folders, because users read them.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from accelerate import init_empty_weights
from diffusers import AutoencoderKL
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import CLIPTokenizer, PreTrainedModel

from shared.catalog import BaseModel
from shared.catalog.families import TEXT_ENCODER, UNET
from shared.checkpoints.folder import WEIGHTS, weights
from shared.checkpoints.header import BadModel
from workers.diffusion.families import clip
from workers.diffusion.families.original import VAE, BadCheckpoint, Layout

CONFIGS = Path(__file__).resolve().parents[3] / "models/configs"


class Components(ABC):
    """What a checkpoint consists of, by diffusers' names for it."""

    def __init__(self, row: BaseModel, configs: Path):
        self.row = row
        self.configs = configs  # a folder in diffusers' layout, with or without weights

    @abstractmethod
    def model(self, name: str, kind: type[Any], dtype: torch.dtype) -> Any:
        """A module with its weights, on the CPU.

        Raises:
            BadCheckpoint, OSError: it isn't there, or not whole.
        """

    def noise_config(self) -> Mapping[str, Any]:
        """The config of the base model's noise scheduler, with what its row says of it."""
        path = self.configs / "scheduler" / "scheduler_config.json"
        if not path.is_file():
            raise BadCheckpoint("scheduler/scheduler_config.json is missing")
        from_row = {
            "prediction_type": self.row.prediction_type,
            "rescale_betas_zero_snr": self.row.zero_terminal_snr,
        }
        return {**json.loads(path.read_text()), **from_row}

    def vae(self) -> Any:
        """The VAE that the row names, or else the checkpoint's own. It is in fp32, because some overflow in fp16."""
        if not self.row.vae:
            return self.model("vae", AutoencoderKL, torch.float32)
        path = Path(self.row.vae)
        if path.is_dir():
            return _from_folder(path, AutoencoderKL, torch.float32)
        vae = self._empty("vae", AutoencoderKL)
        with _open(path, self.row) as file:
            if any("mid_block" in key for key in file.keys()):  # noqa: SIM118
                return _from_diffusers(file, vae, path)
            _load(VAE, file, vae, torch.float32, path, "VAE")
        return vae

    def tokenizer(self, name: str, pad: str, text_encoder: Any) -> CLIPTokenizer:
        """The folder's own tokenizer, else CLIP's. `pad` fills up texts for CLIP's.

        Raises:
            BadCheckpoint: the text encoder has another vocabulary, and the folder doesn't hold it.
        """
        size = text_encoder.config.vocab_size
        if (self.configs / name).is_dir():
            found = CLIPTokenizer.from_pretrained(self.configs / name, local_files_only=True)
            found.model_max_length = min(found.model_max_length, text_encoder.config.max_position_embeddings)
        else:
            found = clip.tokenizer(pad)
        if len(found) > size or len(found) < size - 1:  # some have an unused place
            raise BadCheckpoint(
                f"base model {self.row.name}: its text encoder knows {size} tokens, and its tokenizer {len(found)}; "
                f"put the right one into its folder {name}"
            )
        return found

    def _empty(self, name: str, kind: type[Any]) -> Any:
        """A module without weights: its parameters are on torch's meta device."""
        places = (self.configs, CONFIGS / self.row.family)  # a folder may lack a VAE, which its row then names
        path = next((path for place in places if (path := place / name / "config.json").is_file()), None)
        if path is None:
            raise BadCheckpoint(f"base model {self.row.name}: {name}/config.json is missing")
        return empty(kind, path)


class Folder(Components):
    """A folder in diffusers' layout."""

    def __init__(self, row: BaseModel):
        super().__init__(row, Path(row.path))

    def model(self, name: str, kind: type[Any], dtype: torch.dtype) -> Any:
        return _from_folder(self.configs / name, kind, dtype)


class SingleFile(Components):
    """A file in the original layout."""

    def __init__(self, row: BaseModel, layouts: Mapping[str, Layout]):
        super().__init__(row, Path(row.config) if row.config else CONFIGS / row.family)
        self.layouts = layouts

    def model(self, name: str, kind: type[Any], dtype: torch.dtype) -> Any:
        model, path = self._empty(name, kind), Path(self.row.path)
        with _open(path, self.row) as file:
            _load(self.layouts[name], file, model, dtype, path, name.replace("_", " "))
        return model.eval()

    def vae(self) -> Any:
        if not self.row.vae:
            with _open(Path(self.row.path), self.row) as file:
                if not self.layouts["vae"].is_in(file, self._empty("vae", AutoencoderKL)):
                    raise BadCheckpoint(
                        f"base model {self.row.name}: {Path(self.row.path).name} has no VAE; name one with `vae`"
                    )
        return super().vae()


def of(row: BaseModel, layouts: Mapping[str, Layout]) -> Components:
    """The components of a base model.

    Raises:
        FileNotFoundError, ValueError: there is nothing, or no safetensors.
    """
    path = Path(row.path)
    if path.is_dir():
        return Folder(row)
    if not path.is_file():
        raise FileNotFoundError(f"base model {row.name}: {path.name} is neither a folder nor a file")
    if path.suffix != ".safetensors":
        raise ValueError(f"base model {row.name}: {path.name} must be a .safetensors file")
    return SingleFile(row, layouts)


def empty(kind: type[Any], config: Path) -> Any:
    """A module of diffusers or transformers without weights: its parameters are on torch's meta device."""
    values = json.loads(config.read_text())
    with init_empty_weights(include_buffers=False):
        if issubclass(kind, PreTrainedModel):
            return kind(kind.config_class(**values))
        return kind.from_config(values)


def _from_folder(folder: Path, kind: type[Any], dtype: torch.dtype) -> Any:
    """Without an explicit dtype, transformers would take over the one stored in the file."""
    if not folder.is_dir():
        raise BadCheckpoint(f"the folder {folder.name} is missing")
    of_transformers = issubclass(kind, PreTrainedModel)
    as_dtype = {"dtype" if of_transformers else "torch_dtype": dtype}
    try:
        found = weights(folder, WEIGHTS[TEXT_ENCODER if of_transformers else UNET])
    except BadModel as error:
        raise BadCheckpoint(str(error)) from error
    if found is None:
        raise BadCheckpoint(f"the folder {folder.name} holds no weights as .safetensors")
    with _no_progress_bars():
        return kind.from_pretrained(
            folder, variant=found.variant or None, use_safetensors=True, local_files_only=True, **as_dtype
        )


def _load(layout: Layout, file: Any, model: nn.Module, dtype: torch.dtype, path: Path, what: str) -> None:
    try:
        layout.load(file, model, dtype)
    except BadCheckpoint as error:
        raise BadCheckpoint(f"{path.name} has no {what} of this family: {error}") from error


OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _from_diffusers(file: Any, vae: nn.Module, path: Path) -> nn.Module:
    """A VAE under the names of diffusers, or those it once had."""
    shapes = {name: parameter.shape for name, parameter in vae.named_parameters()}
    state = {}
    for key in file.keys():  # noqa: SIM118
        name = key
        for old, new in OLD_ATTENTION.items():
            name = name.replace(f"attentions.0.{old}.", f"attentions.0.{new}.")
        if name in shapes:
            state[name] = file.get_tensor(key).reshape(shapes[name]).to(torch.float32, copy=True)
    if missing := [name for name in shapes if name not in state]:
        raise BadCheckpoint(f"{path.name} is no whole VAE: {missing[0]} is missing")
    vae.load_state_dict(state, assign=True)
    return vae


@contextmanager
def _open(path: Path, row: BaseModel) -> Iterator[Any]:
    """A safetensors file."""
    try:
        file = safe_open(path, framework="pt")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"base model {row.name}: {path.name} is missing") from error
    except SafetensorError as error:
        raise BadCheckpoint(f"base model {row.name}: {path.name} is no whole safetensors file: {error}") from error
    with file as opened:
        yield opened


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """A worker's log is no terminal."""
    for each in (diffusers.utils.logging, transformers.utils.logging):
        each.disable_progress_bar()
    try:
        yield
    finally:
        for each in (diffusers.utils.logging, transformers.utils.logging):
            each.enable_progress_bar()
