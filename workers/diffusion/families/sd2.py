"""Stable Diffusion 2.x: the UNet of 1.x on OpenCLIP's larger text encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from shared.catalog import BaseModel
from workers.diffusion.families import original
from workers.diffusion.families.original import Layout
from workers.diffusion.families.sd15 import StableDiffusion15


class StableDiffusion2(StableDiffusion15):
    """The UNet attends to the last states but one of OpenCLIP's text encoder; its config has no last layer."""

    kohya_model: ClassVar[str] = "sd_v2"
    layouts: ClassVar[Mapping[str, Layout]] = {
        **StableDiffusion15.layouts,
        "text_encoder": original.open_clip("cond_stage_model.model."),
    }
    padding: ClassVar[str] = "!"

    def __init__(self, row: BaseModel, device: str | torch.device | None = None):
        super().__init__(row, device)
        predicts_v = self.noise.prediction_type == "v_prediction"
        self.architecture = "stable-diffusion-v2-768-v" if predicts_v else "stable-diffusion-v2-512"
