"""How the keys of LoRA files spell a module, and which side of its change a tensor is.

kohya's sd-scripts writes underscores behind a prefix, with diffusers' paths for SD 1.x and 2.x, and Stability's for
SDXL. diffusers and peft write paths with dots; diffusers alone has had four endings for the same two matrices. LyCORIS
writes LoHa and LoKr under kohya's names.
"""

from __future__ import annotations

from shared.catalog.families import TEXT_ENCODER, UNET
from shared.lora_files.modules import Module

DOWN, UP, MID, ALPHA = "down", "up", "mid", "alpha"
MAGNITUDE, DORA_SCALE = "magnitude", "dora_scale"  # DoRA in peft's spelling, and in that of LyCORIS
LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
ENDS = {
    **dict.fromkeys((".lora_down.weight", ".lora.down.weight", "_lora.down.weight"), DOWN),
    **dict.fromkeys((".lora_A.weight", ".lora_A.default.weight", ".lora_linear_layer.down.weight"), DOWN),
    **dict.fromkeys((".lora_up.weight", ".lora.up.weight", "_lora.up.weight"), UP),
    **dict.fromkeys((".lora_B.weight", ".lora_B.default.weight", ".lora_linear_layer.up.weight"), UP),
    ".lora_mid.weight": MID,
    ".alpha": ALPHA,
    ".dora_scale": DORA_SCALE,
    **dict.fromkeys((".lora_magnitude_vector", ".lora_magnitude_vector.weight"), MAGNITUDE),
    ".lora_magnitude_vector.default.weight": MAGNITUDE,
    **{f".{side}": side for side in (*LOHA, *LOKR)},
}
# Endings of changes that are not read, and what these are.
UNREAD = {
    **dict.fromkeys((".diff", ".weight.diff", ".set_weight", ".reshape_weight"), "whole weights"),
    **dict.fromkeys((".diff_b", ".lora_A.bias", ".lora_B.bias"), "biases"),
    **dict.fromkeys((".w_norm", ".b_norm"), "norm layers"),
    **dict.fromkeys((".a1.weight", ".a2.weight", ".b1.weight", ".b2.weight"), "GLoRA"),
    **dict.fromkeys((".oft_blocks", ".oft_diag", ".oft_r", ".oft_R.weight", ".rescale"), "OFT"),
    **dict.fromkeys((".boft_R", ".boft_s"), "BOFT"),
    **dict.fromkeys((".on_input", ".ia3_l"), "(IA)^3"),
    **dict.fromkeys((".lora_embedding_A", ".lora_embedding_B"), "token embeddings"),
    ".scalar": "LyCORIS with its scalar kept apart",
    **dict.fromkeys((".vera_lambda_b", ".vera_lambda_d"), "VeRA"),
}


def split(key: str) -> tuple[str, str | None]:
    """The module's name in a key, and the side of its change; None if the key has none."""
    end = _end_of(key, ENDS)
    if end is None:
        return key, None
    name = key.removesuffix(end).replace(".processor.", ".")
    return name + ".0" * name.endswith(".to_out"), ENDS[end]


def unread(key: str) -> str | None:
    """What a key changes, if such changes are known but not read here; otherwise None."""
    end = _end_of(key, UNREAD)
    return None if end is None else UNREAD[end]


def names(module: Module) -> list[str]:
    """All the names that files have for a module."""
    under = module.path.replace(".", "_")
    if module.part == UNET:
        names = [f"lora_unet_{under}", f"lycoris_{under}"]
        names += [f"{prefix}{module.path}" for prefix in ("unet.", "", "base_model.model.", "unet.base_model.model.")]
        if module.original:
            names += [f"lora_unet_{module.original.replace('.', '_')}", f"diffusion_model.{module.original}"]
        return names
    short = module.path.removeprefix("text_model.")
    prefixes = ("lora_te_", "lora_te1_") if module.part == TEXT_ENCODER else ("lora_te2_",)
    return [
        *(f"{prefix}{under}" for prefix in prefixes),
        *dict.fromkeys((f"{module.part}.{module.path}", f"{module.part}.{short}")),
        f"{module.part}.base_model.model.{module.path}",
        *([f"base_model.model.{module.path}"] if module.part == TEXT_ENCODER else []),
    ]


def _end_of(key: str, ends: dict[str, str]) -> str | None:
    """The longest of the endings that a key has."""
    return max((end for end in ends if key.endswith(end)), key=len, default=None)
