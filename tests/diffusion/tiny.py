"""Tiny random-weight base models, built from configs: no downloads, and a second to make."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from shared import catalog
from shared.catalog import BaseModel
from workers.diffusion.conditioning import Placement
from workers.diffusion.families.base import Family
from workers.diffusion.families.components import SingleFile

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "models/chibi/base/tokenizer"
RESOLUTION = 32


def make_pipeline(
    prediction_type: str = "epsilon",
    seed: int = 0,
    tokenizer: CLIPTokenizer | None = None,
    zero_terminal_snr: bool = False,
    family: str = "sd15",
) -> StableDiffusionPipeline:
    """Stable Diffusion in every part, but of a few channels: 32x32 pixels, 8x8 latents."""
    torch.manual_seed(seed)
    tokenizer = tokenizer or make_tokenizer()
    if family == "sd2":
        tokenizer.pad_token = "!"
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=2,
        norm_num_groups=8,
        use_linear_projection=family == "sd2",
    )
    text_encoder = CLIPTextModel(clip_config(tokenizer, 32, hidden_act="gelu" if family == "sd2" else "quick_gelu"))
    return StableDiffusionPipeline(
        vae=make_vae(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1, prediction_type=prediction_type,
            rescale_betas_zero_snr=zero_terminal_snr,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def make_sdxl_pipeline(
    prediction_type: str = "epsilon",
    seed: int = 0,
    tokenizer: CLIPTokenizer | None = None,
    zero_terminal_snr: bool = False,
    family: str = "sdxl",
) -> StableDiffusionXLPipeline:
    """SDXL in every part and with its blocks, but of a few channels. Its two text encoders differ in width."""
    torch.manual_seed(seed)
    tokenizer = tokenizer or make_tokenizer()
    tokenizer_2 = copy.deepcopy(tokenizer)
    tokenizer_2.pad_token = "!"
    widths = (16, 24)
    return StableDiffusionXLPipeline(
        vae=make_vae(),
        text_encoder=CLIPTextModel(clip_config(tokenizer, widths[0])),
        text_encoder_2=CLIPTextModelWithProjection(clip_config(tokenizer, widths[1], projection_dim=20)),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16, 16),
            layers_per_block=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 1, 2),
            cross_attention_dim=sum(widths),
            attention_head_dim=(1, 2, 2),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 20,
            norm_num_groups=4,
        ),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
            prediction_type=prediction_type, rescale_betas_zero_snr=zero_terminal_snr,
        ),
        add_watermarker=False,
    )  # fmt: skip


def make_tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(TOKENIZER, local_files_only=True)


def clip_config(tokenizer: CLIPTokenizer, width: int, **more: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, **more,
    )  # fmt: skip


def make_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        sample_size=RESOLUTION,
    )


def make_base_model(
    folder: Path,
    prediction_type: str = "epsilon",
    seed: int = 0,
    family: str = "sd15",
    tokenizer: CLIPTokenizer | None = None,
    zero_terminal_snr: bool = False,
) -> BaseModel:
    """A row of the catalog for a tiny base model that is saved in `folder`."""
    make = make_sdxl_pipeline if family == "sdxl" else make_pipeline
    pipeline = make(prediction_type, seed, tokenizer, zero_terminal_snr, family)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return BaseModel(
        name=f"tiny-{prediction_type}", family=family, path=str(folder), resolution=RESOLUTION,
        prediction_type=prediction_type, zero_terminal_snr=zero_terminal_snr,
    )  # fmt: skip


def make_single_file(base: Any, path: Path, but: Container[str] = ()) -> Path:
    """The base model in one file of the original layout, without the components in `but`."""
    tensors: dict[str, Tensor] = {}
    for name, layout in base.layouts.items():
        tensors |= {} if name in but else layout.tensors(getattr(base, name))
    save_file(tensors, path)
    return path


def copy_configs(folder: Path, target: Path) -> Path:
    """A diffusers folder without its weights: what goes with a single file."""
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors"))
    return target


class WithoutWeights(SingleFile):
    """The components on torch's meta device."""

    def model(self, name: str, kind: type[Any], dtype: torch.dtype) -> Any:
        return self._empty(name, kind)


def without_weights(family: str) -> Any:
    """A base model at true size that takes no memory."""
    code = catalog.resolve(catalog.FAMILIES[family].code)
    row = BaseModel(name=family, family=family, path="", resolution=512)
    found = WithoutWeights(row, code.layouts)
    base = object.__new__(code)
    base.row, base.device, base.dtype = row, torch.device("meta"), torch.float16
    base.unet = found.model("unet", UNet2DConditionModel, base.dtype)
    base.parts = (base.unet_part(), *base.text_encoder_parts(found))
    return base


def make_image(seed: int, size: tuple[int, int] = (48, 48)) -> Image.Image:
    """A plain background with a few coloured shapes."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(rng.integers(200, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        x, y = rng.integers(5, 30, 2).tolist()
        draw.ellipse((x, y, x + 12, y + 12), fill=tuple(rng.integers(0, 200, 3).tolist()))
    return image


def output(base: Family) -> torch.Tensor:
    """What the base makes of a fixed question."""
    torch.manual_seed(0)
    noisy = torch.randn(2, 4, 8, 8)
    placement = Placement((64, 32), (0, 0), (32, 32))
    with torch.no_grad():
        prompts = base.place(base.encode_prompts(["1girl, solo", "from behind"]), [placement] * 2)
        return base.predict(noisy, torch.tensor([10, 700]), prompts)
