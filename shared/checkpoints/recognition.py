"""What a single file is, by the names and shapes of its tensors and by its metadata.

The marker keys `v_pred`, `ztsnr` and `edm_*` are those that ComfyUI reads (comfy/supported_models.py); the metadata is
that of ModelSpec, https://github.com/Stability-AI/ModelSpec.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection

from shared.catalog import FAMILIES, lineage_named_in
from shared.checkpoints.evidence import EPSILON, Evidence, V
from shared.checkpoints.header import BadModel, Header

UNET, VAE, EMA = "model.diffusion_model.", "first_stage_model.", "model_ema."
CONV_IN = "input_blocks.0.0.weight"
# Its weights are as wide as the text that the UNet attends to.
TO_K = re.compile(r"input_blocks\.\d+\.1\.transformer_blocks\.0\.attn2\.to_k\.weight")
FAMILY_OF_WIDTH = {768: "sd15", 1024: "sd2", 2048: "sdxl"}
REFINER_WIDTH = 1280
TEXT_ENCODERS = {
    "sd15": ("cond_stage_model.transformer.",),
    "sd2": ("cond_stage_model.model.",),
    "sdxl": ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."),
}
LATENT_CHANNELS = 4
OTHER_INPUTS = {  # by channels
    9: "an inpainting model",
    8: "a model that edits pictures by instruction",
    7: "an upscaling model",
    5: "a depth model",
}
# The parts of a full SDXL; distilled ones lack some of them.
SDXL_DEPTHS = (
    *("input_blocks.7.1.transformer_blocks.9.", "input_blocks.8.1.transformer_blocks.9."),
    "middle_block.1.transformer_blocks.9.",
)

USE_A_BASE = "use an SD 1.x, SD 2.x or SDXL base checkpoint"
# Words in the names of tensors that only files of this sort have. The first that is found counts.
OTHER_FILES = {
    "a LoRA, not a base model; take it out of the folder, and put the base model that it was made for there": (
        *(".lora_down.", ".lora_up.", ".lora_A.", ".lora_B.", ".lora_mid.", ".hada_w1", ".lokr_w1", ".lokr_w2"),
        *("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_", ".dora_scale"),
    ),
    f"a model with quantised weights; {USE_A_BASE} in fp16, bf16 or fp32": (
        *(".quant_state", ".SCB", "scaled_fp8", ".scale_weight", ".comfy_quant", ".absmax"),
    ),
    f"a ControlNet, not a base model; {USE_A_BASE}": (
        "control_model.",
        "controlnet_",
        "input_hint_block.",
        "zero_convs.",
    ),
    f"an IP-Adapter, not a base model; {USE_A_BASE}": ("ip_adapter.", "image_proj."),
    f"a motion module of AnimateDiff, not a base model; {USE_A_BASE}": ("motion_modules.",),
    f"Anima, a diffusion transformer; {USE_A_BASE}": ("llm_adapter.",),
    f"Stable Diffusion 3, a diffusion transformer; {USE_A_BASE}": ("joint_blocks.",),
    f"Chroma, a diffusion transformer; {USE_A_BASE}": ("distilled_guidance_layer.",),
    f"Flux.2, a diffusion transformer; {USE_A_BASE}": ("double_stream_modulation_img.",),
    f"HiDream, a diffusion transformer; {USE_A_BASE}": ("double_stream_blocks.",),
    f"Flux, a diffusion transformer; {USE_A_BASE}": ("double_blocks.", "single_transformer_blocks."),
    f"AuraFlow, a diffusion transformer; {USE_A_BASE}": ("double_layers.", "joint_transformer_blocks."),
    f"Z-Image, a diffusion transformer; {USE_A_BASE}": ("cap_pad_token", "x_pad_token"),
    f"Lumina 2, a diffusion transformer; {USE_A_BASE}": ("cap_embedder.", "context_refiner."),
    f"Qwen-Image, a diffusion transformer; {USE_A_BASE}": (".add_q_proj.", "txt_norm."),
    f"PixArt, a diffusion transformer; {USE_A_BASE}": ("adaln_single.", "t_block."),
    f"Cosmos, a diffusion transformer; {USE_A_BASE}": ("adaln_modulation_self_attn.", "x_embedder.proj.1."),
    f"Stable Cascade; {USE_A_BASE}": ("clip_txt_mapper.",),
    f"a video model; {USE_A_BASE}": ("patch_embedding.", "time_stack.", "temporal_transformer"),
    f"a diffusion transformer; {USE_A_BASE}": (
        "final_layer.adaLN",
        "adaLN_modulation.",
        ".img_mlp.",
        "norm_out.linear.",
    ),
}
EDM = {
    "edm_mean": "Playground 2.5, which was trained with EDM",
    "edm_std": "Playground 2.5, which was trained with EDM",
    "edm_vpred.sigma_max": "a model that was trained with EDM's v-prediction",
    "edm_vpred.sigma_min": "a model that was trained with EDM's v-prediction",
    "edm_eps.sigma_max": "a model that was trained with EDM",
}
EMBEDDING = {"emb_params", "clip_l", "clip_g", "t5xxl", "string_to_param"}
MOST_EMBEDDINGS = 8  # tensors in a file of an embedding

FAMILY_OF_ARCHITECTURE = {word: name for name, row in FAMILIES.items() for word in row.architectures}
SPEC_PREDICTIONS = {"epsilon": EPSILON, "v": V, "v_prediction": V}
NAMED_V = re.compile(r"v[-_ .]?pred(?!a)", re.IGNORECASE)
NAMED_EPSILON = re.compile(r"(?<![a-z])eps(?:ilon|[-_ .]?pred)", re.IGNORECASE)
PRECISIONS = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "F8_E4M3": "fp8", "F8_E5M2": "fp8", "F64": "fp64"}


def evidence_of_file(header: Header, name: str) -> Evidence:
    """What a single file says about itself.

    Raises:
        BadModel: it isn't a base model of SD 1.x, SD 2.x or SDXL, or only a part of one.
    """
    keys = header.tensors.keys()
    _refuse_other_files(header)
    unet = {key.removeprefix(UNET): each for key, each in header.tensors.items() if key.startswith(UNET)}
    if CONV_IN not in unet:
        raise BadModel(_without_unet(keys))
    shape = unet[CONV_IN].shape
    if len(shape) != 4:
        raise BadModel(
            f"its UNet's first convolution has the shape {list(shape)}, with other than 4 sides; {USE_A_BASE}"
        )
    check_channels(shape[1])
    found = Evidence()
    width = next((each.shape[-1] for key, each in unet.items() if TO_K.fullmatch(key) and each.shape), None)
    _check_width(width, unet)
    found.add("family", f"the width of its cross-attention, {width},", FAMILY_OF_WIDTH.get(width or 0))
    _add_text_encoders(found, keys)
    found.has_vae = any(key.startswith(f"{VAE}decoder.") for key in keys)
    _add_markers(found, keys)
    add_metadata(found, header.metadata)
    add_name(found, name)
    found.notes.append(f"its UNet is stored in {_precision(header)}")
    if any(key.startswith(EMA) for key in keys):
        found.notes.append("its EMA weights are ignored; the plain ones beside them are used")
    return found


def _refuse_other_files(header: Header) -> None:
    keys = header.tensors.keys()
    for key, what in EDM.items():
        if key in keys:
            raise BadModel(f"this is {what}, which uses another kind of noise; {USE_A_BASE}")
    if len(keys) <= MOST_EMBEDDINGS and EMBEDDING & set(keys):
        raise BadModel(f"this is an embedding (textual inversion), not a base model; {USE_A_BASE}")
    for what, words in OTHER_FILES.items():
        if any(word in key for key in keys for word in words):
            raise BadModel(f"this is {what}")


def _without_unet(keys: Collection[str]) -> str:
    if any(key.startswith(EMA) for key in keys):
        return f"the file holds only EMA weights ({EMA}*) of a UNet; use the full checkpoint with its plain weights"
    if CONV_IN in keys or ("conv_in.weight" in keys and "down_blocks.0.resnets.0.conv1.weight" in keys):
        return "the file holds only a UNet; use the full checkpoint, with text encoder and VAE"
    bare = {key.removeprefix(VAE) for key in keys}
    if "decoder.conv_in.weight" in bare:
        return f"this is a VAE, not a base model; {USE_A_BASE}; its NAME.toml may name this file as `vae`"
    if any("text_model.encoder.layers." in key or "transformer.resblocks." in key for key in keys):
        return f"this is a text encoder, not a base model; {USE_A_BASE}"
    return f"this isn't a base model that is known here (it begins with the tensor {min(keys)[:100]}); {USE_A_BASE}"


def check_channels(channels: int) -> None:
    """Refuse a UNet that takes something else than latents alone."""
    if channels != LATENT_CHANNELS:
        what = OTHER_INPUTS.get(channels, "another model")
        raise BadModel(
            f"this is {what}: its UNet takes {channels} channels, and that of a base model takes {LATENT_CHANNELS}; "
            f"{USE_A_BASE}"
        )


def refuse_refiner(width: int) -> None:
    if width == REFINER_WIDTH:
        raise BadModel("this is SDXL's refiner, which only finishes pictures; use the SDXL base")


def _check_width(width: int | None, unet: Collection[str]) -> None:
    if width is None:
        raise BadModel(f"its UNet doesn't attend to a text, so it isn't a base model that is known here; {USE_A_BASE}")
    refuse_refiner(width)
    if FAMILY_OF_WIDTH.get(width) == "sdxl":
        for part in SDXL_DEPTHS:
            if not any(key.startswith(part) for key in unet):
                raise BadModel(f"this is a distilled SDXL with fewer blocks (it lacks {part}*); use the SDXL base")


def _add_text_encoders(found: Evidence, keys: Collection[str]) -> None:
    """Refuse a file without a text encoder, and one whose text encoder is that of another family."""
    family = found.agreed("family")
    fitting = [name for name, prefixes in TEXT_ENCODERS.items() if all(_any(keys, prefix) for prefix in prefixes)]
    if not fitting:
        rest = "the file holds only a UNet" if not _any(keys, VAE) else "the file holds no complete text encoder"
        raise BadModel(f"{rest}; use the full checkpoint, with text encoder and VAE")
    if family is not None and family not in fitting:
        raise BadModel(
            f"the parts contradict each other: the UNet is that of {FAMILIES[family].title}, the text encoder that of "
            f"{FAMILIES[fitting[0]].title}; use another file"
        )


def _add_markers(found: Evidence, keys: Collection[str]) -> None:
    if "v_pred" in keys:
        found.add("prediction_type", "the key `v_pred`", V)
        found.add("zero_terminal_snr", "the key `v_pred` without `ztsnr`", False if "ztsnr" not in keys else None)
    if "ztsnr" in keys:
        found.add("zero_terminal_snr", "the key `ztsnr`", True)


def add_metadata(found: Evidence, metadata: dict[str, str]) -> None:
    """Add what ModelSpec's metadata says."""
    architecture = metadata.get("modelspec.architecture", "").strip().lower()
    if architecture and architecture not in FAMILY_OF_ARCHITECTURE:
        raise BadModel(
            f"its metadata calls it {architecture[:100]!r} (modelspec.architecture), which isn't a base model that "
            f"is known here; {USE_A_BASE}"
        )
    found.add("family", "modelspec.architecture", FAMILY_OF_ARCHITECTURE.get(architecture))
    prediction = metadata.get("modelspec.prediction_type", "").strip().lower()
    found.add("prediction_type", "modelspec.prediction_type", SPEC_PREDICTIONS.get(prediction))
    sides = re.fullmatch(r"(\d{2,5})(?:\s*x\s*(\d{2,5}))?", metadata.get("modelspec.resolution", "").strip().lower())
    if sides:
        area = int(sides[1]) * int(sides[2] or sides[1])
        found.add("resolution", "modelspec.resolution", round(area**0.5))
    for fact, key in (("license", "license"), ("description", "title")):
        found.add(fact, f"modelspec.{key}", metadata.get(f"modelspec.{key}", "").strip()[:200] or None)
    found.add("lineage", "modelspec.title", _lineage(found, metadata.get("modelspec.title", "")))


def add_name(found: Evidence, name: str) -> None:
    """Add what the file's name says, with a note if nothing else says the prediction type."""
    silent = "prediction_type" not in found.values
    for pattern, prediction in ((NAMED_V, V), (NAMED_EPSILON, EPSILON)):
        if pattern.search(name):
            found.add("prediction_type", f"the name {name}", prediction)
    if silent and "prediction_type" in found.values:
        found.notes.append("prediction_type: only its name says it")
    if "lineage" not in found.values:
        found.add("lineage", f"the name {name}", _lineage(found, name))


def _lineage(found: Evidence, text: str) -> str | None:
    """The lineage that a title or a name shows, if the family has it."""
    family = found.agreed("family")
    return (lineage_named_in(family, text) or None) if family in FAMILIES else None


def _precision(header: Header) -> str:
    stored = Counter(each.dtype for key, each in header.tensors.items() if key.startswith(UNET) and len(each.shape) > 1)
    (dtype, _), *_ = stored.most_common(1)
    return PRECISIONS.get(dtype, dtype)


def _any(keys: Collection[str], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in keys)
