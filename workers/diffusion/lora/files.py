"""LoRA files: written for other tools at the right strength, and read whoever wrote them.

There are two forms of the same weights: kohya's and peft's. diffusers' own converter between them writes alpha = rank
whatever the alpha was, so we write both ourselves.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from safetensors import safe_open
from safetensors import torch as safetensors

from shared.checkpoints.header import BadModel, Header, read_header
from shared.lora_files import keys, recognition
from shared.lora_files.alphas import Alphas
from shared.lora_files.kinds import BadLora
from shared.lora_files.modules import Module, UNet
from workers.diffusion.families.base import Family
from workers.diffusion.families.parts import Part, Role
from workers.diffusion.lora import changes, kohya, peft
from workers.diffusion.lora.about import About, modelspec_metadata, sidecar, ss_metadata
from workers.diffusion.lora.changes import Change
from workers.diffusion.lora.weights import Changes, TrainedLora

# writing


def save(lora: TrainedLora, base: Family, about: About, *, kohya: Path, peft: Path) -> None:
    """Write both forms, each complete before it has its name."""
    save_kohya(lora, base, about, kohya)
    save_peft(lora, base, about, peft)


def save_kohya(lora: TrainedLora, base: Family, about: About, path: Path) -> None:
    """For ComfyUI, A1111, Forge, sd-scripts and everything that reads their files."""
    tensors = kohya.tensors(lora.weights, base)
    ss = ss_metadata(lora, base, about)
    # The hashes that A1111 goes by are taken over a file with nothing but ss_* in its header.
    plain = safetensors.save(tensors, ss)
    digest = hashlib.sha256(plain[8 + int.from_bytes(plain[:8], "little") :]).hexdigest()
    hashes = {
        "sshs_model_hash": digest,
        "sshs_legacy_hash": hashlib.sha256(plain[0x100000:0x110000]).hexdigest()[:8],
        "modelspec.hash_sha256": f"0x{digest}",
    }
    _write(path, safetensors.save(tensors, ss | modelspec_metadata(lora, base, about) | hashes))


def save_peft(lora: TrainedLora, base: Family, about: About, path: Path) -> None:
    """For diffusers and peft: full precision, with the adapter's config in the metadata."""
    metadata = peft.metadata(lora, base) | modelspec_metadata(lora, base, about)
    _write(path, safetensors.save(peft.tensors(lora.weights, base), metadata))


def save_sidecar(base: Family, about: About, path: Path) -> None:
    """For A1111 and Forge, which look for it beside the file of kohya's form."""
    _write(path, sidecar(base, about).encode())


def _write(path: Path, data: bytes) -> None:
    """Under another name first: a reader never sees half a file."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        partial = Path(file.name)
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            partial.chmod(0o644)
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


# reading


def read(path: Path, base: Family) -> Changes:
    """The changes that a LoRA file makes to this base model, whoever wrote it.

    Raises:
        BadLora: the file is no LoRA, is of a kind that we don't read, or was made for another base model.
    """
    header = _header(path)
    alphas = Alphas(header.metadata)
    known = dict(_modules(base))
    found: dict[str, dict[str, Change]] = defaultdict(dict)
    with safe_open(path, framework="pt") as file:
        for module, kind, sides in recognition.matched(recognition.group(header.tensors), _named(known, base)):
            tensors = {side: file.get_tensor(key) for side, (key, _) in sides.items()}
            alpha = tensors.pop(keys.ALPHA).item() if keys.ALPHA in tensors else None
            if alpha is None:
                alpha = alphas.of(module.part, module.path, kind.rank)
            path_in_part = known[module]
            weight = base.part(module.part).module.get_parameter(f"{path_in_part}.weight")
            found[module.part][path_in_part] = changes.of(kind, tensors, alpha, weight)
    return found


def _header(path: Path) -> Header:
    try:
        return read_header(path)
    except BadModel as error:
        raise BadLora(str(error), code="not_safetensors") from error


def _modules(base: Family) -> Iterator[tuple[Module, str]]:
    """What a LoRA could change in a base model, with its path in its part."""
    for part in base.parts:
        originals = _originals(part)
        for path in part.could_carry():
            weight = part.module.get_parameter(f"{path}.weight")
            yield Module(part.name, _full_path(part, path), tuple(weight.shape), originals.get(path, "")), path


def _full_path(part: Part, path: str) -> str:
    """A submodule's path as all files have it: in transformers 5, the modules of CLIPTextModel lack `text_model.`."""
    return path if part.role is Role.DENOISER or path.startswith("text_") else f"text_model.{path}"


def _originals(part: Part) -> dict[str, str]:
    """The paths of a UNet's modules, with those that Stability's code has for them."""
    config = getattr(part.module, "config", {})
    if part.role is not Role.DENOISER or "block_out_channels" not in config:
        return {}
    return {module.path: module.original for module in UNet.of(config).modules()}


def _named(known: dict[Module, str], base: Family) -> dict[str, Module]:
    """The modules by their names in files: those of Stable Diffusion's parts, and those that the family itself has."""
    own: dict[str, Module] = {}
    for module, path in known.items():
        part = base.part(module.part)
        own |= dict.fromkeys((*part.kohya_names(path), *part.peft_names(path)), module)
    return own | recognition.named(known)
