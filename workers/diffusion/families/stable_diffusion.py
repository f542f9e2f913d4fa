"""What Stable Diffusion 1.x, SDXL and models built like them share: a UNet on a VAE's latents, and CLIP."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor, nn

from shared.catalog import BaseModel
from workers.diffusion.families import components
from workers.diffusion.families.base import Family, has_fast_bf16
from workers.diffusion.families.components import Components
from workers.diffusion.families.original import Layout
from workers.diffusion.families.parts import Part, Role, on_all
from workers.diffusion.noise.discrete import Discrete

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")  # with attention: what kohya trains by default
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv")
UNET = {
    "attention": ATTENTION,
    "attention_ff": ATTENTION + FEED_FORWARD,
    "all": ATTENTION + FEED_FORWARD + CONVOLUTIONS,
}
CLIP = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


def unet_keys(path: str) -> tuple[str, str]:
    """A UNet submodule's keys as diffusers has written them since 2023. diffusers and ComfyUI read these.

    ComfyUI's key map (comfy/lora.py) has the projections of attention only under the old attention processors:
    `attn1.processor.to_out_lora.up.weight`, not `attn1.to_out.0.lora_B.weight`.
    """
    head, _, projection = path.partition(".to_")
    name = f"{head}.processor.to_{projection.removesuffix('.0')}_lora" if projection else f"{path}.lora"
    return f"{name}.down.weight", f"{name}.up.weight"


# Width : height of the buckets; what lies between is padded.
ASPECTS = (1.0, 3 / 4, 4 / 3, 9 / 16, 16 / 9)

# The VAE works on so many at once: in fp32, one picture of 1024x1024 takes about 4 GB.
VAE_PIXELS = 1024**2


class StableDiffusion(Family):
    """A diffusers folder, or one .safetensors file in the original layout."""

    layouts: ClassVar[Mapping[str, Layout]]  # of its components in a single file
    kohya_model: ClassVar[str]  # the name of such base models that predict epsilon, in kohya's files
    aspects: ClassVar[tuple[float, ...]] = ASPECTS
    decodes_in_fp32: ClassVar[bool] = True  # some bases' VAEs overflow in half precision and paint black

    def __init__(self, row: BaseModel, device: str | torch.device | None = None):
        self.row = row
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        on_cuda = self.device.type == "cuda"
        self.dtype = torch.float32 if not on_cuda else torch.bfloat16 if has_fast_bf16(self.device) else torch.float16
        found = components.of(row, self.layouts)
        self.noise = Discrete(found.noise_config(), self.device)
        self.vae = self._freeze(found.vae())
        self.unet = self._freeze(found.model("unet", UNet2DConditionModel, self.dtype))
        self.kohya_version = self.kohya_model + ("_v" if self.noise.prediction_type == "v_prediction" else "")
        self._factor = 2 ** (len(self.vae.config.block_out_channels) - 1)  # pixels of a latent's side
        self._unit = self._factor * 2 ** (len(self.unet.config.block_out_channels) - 1)  # what the UNet can halve
        self.parts = (self.unet_part(), *self.text_encoder_parts(found))

    # parts

    def unet_part(self) -> Part:
        """The denoiser, with keys of diffusers' names in kohya's files."""
        return Part(
            name="unet",
            module=self.unet,
            role=Role.DENOISER,
            targets=UNET,
            never=("add_embedding",),  # text embeddings carry attention names too, but no other tool knows their keys
            kohya_prefix="lora_unet_",
            peft_prefix="unet.",
            peft_keys=unet_keys,
        )

    @abstractmethod
    def text_encoder_parts(self, found: Components) -> list[Part]:
        """The text encoders, on the device and frozen."""

    def clip_part(
        self, name: str, module: nn.Module, kohya: str, others: Sequence[str] = (), never: Sequence[str] = ()
    ) -> Part:
        """A text encoder of CLIP; `kohya` begins its keys in kohya's files, as do `others` in files of other tools."""
        # In files its modules are under text_model. In transformers 5, those of CLIPTextModel are not.
        inner = "" if hasattr(module, "text_model") else "text_model."
        return Part(
            name=name,
            module=self._freeze(module),
            role=Role.TEXT_ENCODER,
            targets=on_all(CLIP),
            never=never,
            kohya_prefix=kohya + inner.replace(".", "_"),
            peft_prefix=f"{name}.{inner}",
            learning_rate="text_encoder_learning_rate",
            other_kohya_prefixes=[other + inner.replace(".", "_") for other in others],
            other_peft_prefixes=[f"{name}."] if inner else [],
        )

    def gradient_checkpointing(self, part: Part, enabled: bool) -> None:
        module: Any = part.module
        if part.role is Role.DENOISER:
            (module.enable_gradient_checkpointing if enabled else module.disable_gradient_checkpointing)()
        else:
            (module.gradient_checkpointing_enable if enabled else module.gradient_checkpointing_disable)()

    # pictures

    def sizes(self, resolution: int | None) -> list[tuple[int, int]]:
        side = resolution or self.row.resolution
        unit = self._unit
        sides = [(side * aspect**0.5, side * aspect**-0.5) for aspect in self.aspects]
        return [(max(unit, round(w / unit) * unit), max(unit, round(h / unit) * unit)) for w, h in sides]

    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        return self.unet.config.in_channels, height // self._factor, width // self._factor

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        pixels = torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in images]))
        means, stds = [], []
        for some in pixels.split(at_once(*images[0].size)):
            x = some.to(self.device, torch.float32).permute(0, 3, 1, 2) / 127.5 - 1  # (batch, 3, height, width)
            latents = self.vae.encode(x).latent_dist
            means.append(latents.mean * self.vae.config.scaling_factor)
            stds.append(latents.std * self.vae.config.scaling_factor)
        return torch.cat(means), torch.cat(stds)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        height, width = (side * self._factor for side in latents.shape[-2:])
        pictures: list[Image.Image] = []
        for some in (latents.float() / self.vae.config.scaling_factor).split(at_once(width, height)):
            with torch.autocast(self.device.type, enabled=False) if self.decodes_in_fp32 else nullcontext():
                x = self.vae.decode(some, return_dict=False)[0]
            pictures += VaeImageProcessor().postprocess(x.float(), output_type="pil")
        return pictures

    # texts

    def cut_off(self, text: str) -> str:
        return ""  # texts of any length are read, in chunks

    # loading

    def _freeze(self, module: Any) -> Any:
        return module.to(self.device).requires_grad_(False).eval()


def at_once(width: int, height: int) -> int:
    """How many pictures of a size the VAE takes at once."""
    return max(1, VAE_PIXELS // (width * height))
