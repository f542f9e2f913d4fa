"""Stable Diffusion 1.x and every model with its parts: one UNet, one CLIP text encoder, one VAE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from transformers import CLIPTextModel

from workers.diffusion.conditioning import Conditioning
from workers.diffusion.families import clip, original
from workers.diffusion.families.components import Components
from workers.diffusion.families.original import Layout
from workers.diffusion.families.parts import Part
from workers.diffusion.families.stable_diffusion import StableDiffusion


@dataclass(frozen=True)
class ClipStates(Conditioning):
    """What the UNet attends to."""

    encoder_hidden_states: list[Tensor]  # of each text: (tokens, channels)


class StableDiffusion15(StableDiffusion):
    """The UNet attends to the last states of CLIP's text encoder."""

    architecture = "stable-diffusion-v1"
    kohya_model: ClassVar[str] = "sd_v1"
    layouts: ClassVar[Mapping[str, Layout]] = {
        "unet": original.UNET,
        "vae": original.VAE,
        "text_encoder": original.clip("cond_stage_model.transformer."),
    }
    padding: ClassVar[str] = "<|endoftext|>"  # of texts

    def text_encoder_parts(self, found: Components) -> list[Part]:
        self.text_encoder = found.model("text_encoder", CLIPTextModel, self.dtype)
        self.tokenizer = found.tokenizer("tokenizer", self.padding, self.text_encoder)
        return [self.clip_part("text_encoder", self.text_encoder, "lora_te_", others=["lora_te1_"])]

    def encode_prompts(self, texts: Sequence[str], clip_skip: int = 0, syntax: str = "plain") -> ClipStates:
        def states(ids: Tensor) -> tuple[Tensor, None]:
            encoded = self.text_encoder(ids, output_hidden_states=clip_skip > 0)
            if not clip_skip:
                return encoded[0], None
            # the final norm stands at a different depth in transformers 4 and 5
            inner = getattr(self.text_encoder, "text_model", self.text_encoder)
            return inner.final_layer_norm(encoded.hidden_states[-(clip_skip + 1)]), None

        chunked = [clip.chunks(self.tokenizer, text, syntax) for text in texts]
        return ClipStates(clip.encode(states, self.tokenizer, chunked, self.device)[0])

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        assert isinstance(conditioning, ClipStates)
        states, mask = clip.stack(conditioning.encoder_hidden_states)
        return self.unet(
            noisy.to(self.dtype), t, encoder_hidden_states=states, encoder_attention_mask=mask, return_dict=False
        )[0]
