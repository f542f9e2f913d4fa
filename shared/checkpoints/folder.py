"""What a folder in diffusers' format is, by its JSON files and the headers of its weights."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from shared.catalog.families import TEXT_ENCODER, TEXT_ENCODER_2, UNET, VAE
from shared.checkpoints.evidence import EPSILON, Evidence, V
from shared.checkpoints.header import BadModel, read_header
from shared.checkpoints.recognition import (
    FAMILY_OF_WIDTH,
    LATENT_CHANNELS,
    PRECISIONS,
    USE_A_BASE,
    add_name,
    check_channels,
    refuse_refiner,
)

INDEX = "model_index.json"
MAX_JSON_BYTES = 10_000_000  # an index of shards names every tensor
CLASSES = {"StableDiffusionPipeline": "", "StableDiffusionXLPipeline": "sdxl"}
WEIGHTS = {UNET: "diffusion_pytorch_model", VAE: "diffusion_pytorch_model", TEXT_ENCODER: "model"}
SECOND = {TEXT_ENCODER_2: "model"}  # of SDXL
VAE_FACTOR = 8  # pixels of a latent's side
VARIANTS = ("", "bf16", "fp16", "fp32")  # in the order in which they are preferred; the empty one has no name
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle")


@dataclass(frozen=True)
class Weights:
    """The weights of a part."""

    variant: str  # one of VARIANTS
    files: list[Path]  # one, or its shards


def evidence_of_folder(folder: Path, name: str) -> Evidence:
    """What a diffusers folder says about itself.

    Raises:
        BadModel: it isn't a base model of SD 1.x, SD 2.x or SDXL, or a part of it is missing or damaged.
        OSError: a file can't be read.
    """
    kind = read_json(folder / INDEX).get("_class_name")
    if kind not in CLASSES:
        raise BadModel(
            f"{INDEX} says that this is a {kind}, and only {' and '.join(CLASSES)} can be used; {USE_A_BASE}"
        )
    unet = read_json(folder / UNET / "config.json")
    found = Evidence()
    check_channels(_whole(unet.get("in_channels", LATENT_CHANNELS)))
    _add_family(found, unet, CLASSES[kind])
    _add_scheduler(found, folder)
    if isinstance(unet.get("sample_size"), int):
        found.add("resolution", "unet/config.json", unet["sample_size"] * VAE_FACTOR)
    add_name(found, name)
    variants, stored = set(), ""
    for part, stem in (WEIGHTS | (SECOND if CLASSES[kind] else {})).items():
        held = weights(folder / part, stem)
        if held is None and part == VAE:
            found.has_vae = False
            continue
        if held is None:
            raise BadModel(_without_weights(folder / part))
        variants.add(held.variant)
        dtypes = Counter(_dtype(file) for file in held.files)
        stored = dtypes.most_common(1)[0][0] if part == UNET else stored
    if variant := max(variants):
        found.notes.append(f"some of its weights are there as {variant} only")
    found.notes.append(f"its UNet is stored in {PRECISIONS.get(stored, stored)}")
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file.

    Raises:
        BadModel: there is no such file, or it isn't a JSON object.
    """
    shown = f"{path.parent.name}/{path.name}" if path.name != INDEX else path.name
    if not path.is_file():
        raise BadModel(f"the folder has no {shown}; copy or download it again")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise BadModel(f"{shown} has {path.stat().st_size} bytes, and {MAX_JSON_BYTES} are allowed")
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadModel(f"{shown} can't be read: {error}") from error


def weights(folder: Path, stem: str) -> Weights | None:
    """The weights of a part, of the first variant that is there; None if there are none.

    The names are those of diffusers: `model.fp16.safetensors`, and `model.safetensors.index.fp16.json` of shards.

    Raises:
        BadModel: a shard is missing, or the index of the shards can't be read.
    """
    for variant in VARIANTS:
        dotted = f".{variant}" if variant else ""
        index = folder / f"{stem}.safetensors.index{dotted}.json"
        if index.is_file():
            return Weights(variant, _shards(index))
        whole = folder / f"{stem}{dotted}.safetensors"
        if whole.is_file():
            return Weights(variant, [whole])
    return None


def _shards(index: Path) -> list[Path]:
    folder, names = index.parent, sorted(map(str, set(read_json(index).get("weight_map", {}).values())))
    if not names:
        raise BadModel(f"{folder.name}/{index.name} names no shards; copy or download it again")
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise BadModel(f"{folder.name}/{name} is missing, which its index names; copy or download it again")
    return [folder / name for name in names]


def _without_weights(folder: Path) -> str:
    if folder.is_dir() and any(path.suffix in PICKLES for path in folder.iterdir()):
        return f"{folder.name} holds only pickles, which can run any code; convert them to .safetensors"
    return f"{folder.name} holds no weights; copy or download the folder again"


def _dtype(path: Path) -> str:
    """The type of most of a file's weights."""
    try:
        header = read_header(path)
    except BadModel as error:
        raise BadModel(f"{path.parent.name}/{path.name}: {error}") from error
    return Counter(each.dtype for each in header.tensors.values()).most_common(1)[0][0]


def _add_family(found: Evidence, unet: dict[str, Any], of_class: str) -> None:
    width = _whole(unet.get("cross_attention_dim"))
    refuse_refiner(width)
    found.add("family", INDEX, of_class or None)
    found.add("family", f"unet/config.json with the width {width}", FAMILY_OF_WIDTH.get(width))


def _whole(value: Any) -> int:
    """A whole number; 0 for anything else."""
    return value if isinstance(value, int) else 0


def _add_scheduler(found: Evidence, folder: Path) -> None:
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    if str(scheduler.get("_class_name")).startswith("EDM"):
        raise BadModel(f"this model was trained with EDM, which uses another kind of noise; {USE_A_BASE}")
    prediction = scheduler.get("prediction_type")
    if prediction is not None and prediction not in (EPSILON, V):
        raise BadModel(
            f"its scheduler's prediction_type is {prediction!r}, and only epsilon and v_prediction can be used"
        )
    found.add("prediction_type", "scheduler/scheduler_config.json", prediction)
    found.add("zero_terminal_snr", "scheduler/scheduler_config.json", scheduler.get("rescale_betas_zero_snr"))
