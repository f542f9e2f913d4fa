"""LoRA files of any family and kind, written by hand: no array library, and no library of the format."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping

from shared.lora_files import modules
from shared.lora_files.modules import Module, Shape

BYTES = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8, "I64": 8, "F8_E4M3": 1}
RANK = 2

Tensors = dict[str, tuple[str, Shape]]  # key -> type, shape


def safetensors(
    tensors: Tensors, metadata: Mapping[str, str] | None = None, values: Mapping[str, bytes] | None = None
) -> bytes:
    """A file of zeros, but for the given `values`."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    body = b""
    for key, (dtype, shape) in tensors.items():
        content = (values or {}).get(key, bytes(math.prod(shape) * BYTES[dtype]))
        header[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(body), len(body) + len(content)]}
        body += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def kohya_name(module: Module) -> str:
    prefix = {"unet": "lora_unet_", "text_encoder": "lora_te_", "text_encoder_2": "lora_te2_"}[module.part]
    return prefix + module.path.replace(".", "_")


def sgm_name(module: Module) -> str:
    return "lora_unet_" + module.original.replace(".", "_") if module.original else kohya_name(module)


def lora(chosen: Iterable[Module], name: Callable[[Module], str] = kohya_name, dtype: str = "F16") -> Tensors:
    """A plain LoRA of some modules."""
    tensors: Tensors = {}
    for module in chosen:
        out, into, *kernel = module.shape
        ones = [1] * len(kernel)
        tensors[f"{name(module)}.lora_down.weight"] = (dtype, (RANK, into, *kernel))
        tensors[f"{name(module)}.lora_up.weight"] = (dtype, (out, RANK, *ones))
        tensors[f"{name(module)}.alpha"] = ("F32", ())
    return tensors


def attention(family: str) -> list[Module]:
    """The modules that most LoRAs change: attention of the UNet and the text encoder."""
    return [module for module in modules.of_family(family) if ".attn" in module.path or "self_attn" in module.path]


def some(family: str, *ends: str) -> list[Module]:
    """The first module for each of the endings."""
    return [next(module for module in modules.of_family(family) if module.path.endswith(end)) for end in ends]
