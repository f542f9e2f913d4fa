"""Stable Diffusion 1.x and every model with its parts: one UNet, one CLIP text encoder, one VAE."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import numpy as np
import torch
import transformers
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor, nn

from shared.catalog import BaseModel
from workers.diffusion.families.base import Conditioning, Family, has_fast_bf16

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")  # with attention: what kohya trains by default
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv")
TEXT_ENCODER = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")

# Width : height of the buckets; what lies between is padded.
ASPECTS = (1.0, 3 / 4, 4 / 3, 9 / 16, 16 / 9)


class StableDiffusion15(Family):
    """A diffusers folder, or one .safetensors file in the original layout with a folder of configs."""

    architecture = "stable-diffusion-v1"
    kohya_prefixes: ClassVar[Mapping[str, str]] = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}
    unet_modules: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "attention": ATTENTION,
        "attention_ff": ATTENTION + FEED_FORWARD,
        "all": ATTENTION + FEED_FORWARD + CONVOLUTIONS,
    }
    default_modules = "attention_ff"
    aspects: ClassVar[tuple[float, ...]] = ASPECTS
    decodes_in_fp32: ClassVar[bool] = True  # some bases' VAEs overflow in half precision and paint black

    def __init__(self, row: BaseModel, device: str | torch.device | None = None):
        self.row = row
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        on_cuda = self.device.type == "cuda"
        self.dtype = torch.float32 if not on_cuda else torch.bfloat16 if has_fast_bf16(self.device) else torch.float16
        pipeline: Any = _load(row)
        self.tokenizer = pipeline.tokenizer
        if self.dtype != torch.float32:
            pipeline.text_encoder.to(self.dtype)
            pipeline.unet.to(self.dtype)
        self.text_encoder = pipeline.text_encoder.to(self.device).requires_grad_(False).eval()
        self.unet = pipeline.unet.to(self.device).requires_grad_(False).eval()
        self.vae = pipeline.vae.to(self.device).requires_grad_(False).eval()
        self._noise_config = pipeline.scheduler.config
        self._noise = DDPMScheduler.from_config(self._noise_config)
        self._alphas = self._noise.alphas_cumprod.to(self.device)
        self.prediction_type = self._noise.config.prediction_type
        self.kohya_version = "sd_v1_v" if self.prediction_type == "v_prediction" else "sd_v1"
        self._factor = 2 ** (len(self.vae.config.block_out_channels) - 1)  # pixels of a latent's side

    # components

    @property
    def components(self) -> Mapping[str, nn.Module]:
        return {"unet": self.unet, "text_encoder": self.text_encoder}

    def lora_targets(self, component: str, modules: str | None) -> list[str]:
        ends = self.unet_modules[modules or self.default_modules] if component == "unet" else TEXT_ENCODER
        paths = [path for path, _ in self.components[component].named_modules()]
        # pooled-text embeddings (add_embedding) carry attention names too, but no other tool knows their keys
        return [p for p in paths if f".{p}".endswith(tuple(f".{end}" for end in ends)) and "add_embedding" not in p]

    def gradient_checkpointing(self, component: str, enabled: bool) -> None:
        module: Any = self.components[component]
        if component == "unet":
            (module.enable_gradient_checkpointing if enabled else module.disable_gradient_checkpointing)()
        else:
            (module.gradient_checkpointing_enable if enabled else module.gradient_checkpointing_disable)()

    # pictures

    def sizes(self, resolution: int | None) -> list[tuple[int, int]]:
        side = resolution or self.row.resolution
        unit = self._factor * 2 ** (len(self.unet.config.block_out_channels) - 1)  # 64 pixels for SD 1.5
        sides = [(side * aspect**0.5, side * aspect**-0.5) for aspect in self.aspects]
        return [(max(unit, round(w / unit) * unit), max(unit, round(h / unit) * unit)) for w, h in sides]

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        return self.unet.config.in_channels, height // self._factor, width // self._factor

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        pixels = torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in images]))
        x = pixels.to(self.device, torch.float32).permute(0, 3, 1, 2) / 127.5 - 1  # (batch, 3, height, width)
        latents = self.vae.encode(x).latent_dist
        return latents.mean * self.vae.config.scaling_factor, latents.std * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        with torch.autocast(self.device.type, enabled=False) if self.decodes_in_fp32 else nullcontext():
            x = self.vae.decode(latents.float() / self.vae.config.scaling_factor, return_dict=False)[0]
        return VaeImageProcessor().postprocess(x.float(), output_type="pil")

    # texts

    def encode_prompts(self, texts: Sequence[str], clip_skip: int = 0) -> Conditioning:
        length = self.tokenizer.model_max_length
        tokens = self.tokenizer(
            list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        encoded = self.text_encoder(tokens.input_ids.to(self.device), output_hidden_states=clip_skip > 0)
        states = encoded[0]
        if clip_skip:
            # the final norm stands at a different depth in transformers 4 and 5
            inner = getattr(self.text_encoder, "text_model", self.text_encoder)
            states = inner.final_layer_norm(encoded.hidden_states[-(clip_skip + 1)])
        return {"encoder_hidden_states": states}  # (batch, tokens, channels)

    def unread(self, text: str) -> str:
        places = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        ).offset_mapping
        beyond = places[self.tokenizer.model_max_length - 2 :]  # the two are those that begin and end it
        return text[beyond[0][0] :] if beyond else ""

    # noise

    @property
    def noise_config(self) -> Mapping[str, Any]:
        return self._noise_config

    @property
    def train_timesteps(self) -> int:
        return self._noise.config.num_train_timesteps

    def noised(self, x0: Tensor, eps: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        abar = self._alphas[t].view(-1, 1, 1, 1)
        alpha, sigma = abar.sqrt(), (1 - abar).sqrt()
        target = alpha * eps - sigma * x0 if self.prediction_type == "v_prediction" else eps
        return alpha * x0 + sigma * eps, target

    def loss_weights(self, t: Tensor, min_snr_gamma: float) -> Tensor:
        # min-SNR (arXiv 2303.09556) evens out epsilon's loss. With v it would all but silence the high noise,
        # where colours and layout are decided, so there every timestep counts the same.
        if self.prediction_type != "epsilon" or min_snr_gamma <= 0:
            return torch.ones_like(t, dtype=torch.float32)
        snr = self._alphas[t] / (1 - self._alphas[t])
        return snr.clamp(max=min_snr_gamma) / snr

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        return self.unet(noisy.to(self.dtype), t, **conditioning, return_dict=False)[0]


def _load(row: BaseModel) -> Any:
    """From the disk alone, in fp32, and never a pickle."""
    path = Path(row.path)
    # Without an explicit dtype, transformers would take over the one stored in the file.
    options: dict[str, Any] = {"dtype": torch.float32, "local_files_only": True, "safety_checker": None}
    with _no_progress_bars():
        if path.is_dir():
            return StableDiffusionPipeline.from_pretrained(path, use_safetensors=True, **options)
        if not path.is_file():
            raise FileNotFoundError(f"base model {row.name}: {row.path} is neither a folder nor a file")
        if path.suffix != ".safetensors":
            raise ValueError(f"base model {row.name}: {path.name} must be a .safetensors file")
        if not row.config:
            raise ValueError(f"base model {row.name}: a single file needs `config`, a folder of configs and tokenizer")
        pipeline = StableDiffusionPipeline.from_single_file(str(path), config=row.config, **options)
    # A single file doesn't say what its UNet predicts: the catalog does.
    pipeline.scheduler.register_to_config(prediction_type=row.prediction_type)
    return pipeline


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
