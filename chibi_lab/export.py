"""What ships: a plain StableDiffusionPipeline folder in half precision, with its sheet, config and checksums."""

import hashlib
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from .following import generate, load_pipeline
from .sheet import save_sheet
from .unet import NOISE_SCHEDULE
from .world import FRAMINGS, STYLES, VIEW_TAGS

PREFIX = "text_model."
CARD = Path(__file__).with_name("card.md")
SHEET_PEOPLE = (
    "1girl, solo, blonde hair, twintails, yellow eyes, fox ears, orange ears, fox tail, red kimono",
    "1boy, solo, dark skin, black hair, short hair, mustache, brown eyes, green vest, blue pants, brown boots",
    "1other, solo, robot, blue robot, yellow eyes",
    "1girl, solo, brown hair, long hair, black eyes, green tunic, green cape, belt, brown boots, holding crossbow",
    "1boy, solo, brown eyes, grey helmet, grey armor, red cape, belt, grey boots, holding sword",
)


def assemble(model: Path, dtype: torch.dtype = torch.float32) -> StableDiffusionPipeline:
    """The pipeline from the parts of a run."""
    return StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(model / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(model / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(model / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(model / "unet"),
        scheduler=DDIMScheduler(**NOISE_SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    ).to(dtype)


def sample_prompts() -> list[str]:
    """Five characters from six sides, two of them in every style and framing."""
    calm = "full body, cel shading, white background"
    prompts = [f"{who}, {view}, {calm}" for who in SHEET_PEOPLE for view in VIEW_TAGS.values()]
    prompts += [f"{SHEET_PEOPLE[1]}, looking at viewer, upper body, {style}" for style in STYLES]
    for framing in FRAMINGS:
        prompts += [f"{SHEET_PEOPLE[0]}, {t}, {framing}, cel shading" for t in ("smile, outdoors", "night")]
    return prompts


def checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def export(model: Path, config: Path, figures: dict, out: Path) -> int:
    """Write the folder anew; returns its size in bytes."""
    shutil.rmtree(out, ignore_errors=True)
    assemble(model, torch.float16).save_pretrained(out)
    name_keys(out / "text_encoder/model.safetensors")
    forget_places(out)
    load_in_fp32(out)
    save_sheet(out / "sheet.png", generate(load_pipeline(out), sample_prompts()), len(VIEW_TAGS))
    shutil.copy(config, out / "training.toml")
    (out / "following.json").write_text(json.dumps(figures, indent=2) + "\n")
    (out / "README.md").write_text(card(figures))
    sums = {str(path.relative_to(out)): checksum(path) for path in sorted(out.rglob("*.safetensors"))}
    (out / "sha256.json").write_text(json.dumps(sums, indent=2) + "\n")
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def name_keys(path: Path) -> None:
    """With the prefix of the text model, as transformers 4 looks for them; transformers 5 finds them too."""
    weights = load_file(path)
    named = {key if key.startswith(PREFIX) else PREFIX + key: value for key, value in weights.items()}
    save_file(named, path, {"format": "pt"})


def forget_places(out: Path) -> None:
    """diffusers notes in its configs where a part was loaded from, which is nobody's business."""
    for path in out.rglob("config.json"):
        values = json.loads(path.read_text())
        if values.pop("_name_or_path", None):
            path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def load_in_fp32(out: Path) -> None:
    """transformers loads a part in the precision that its config names, diffusers in fp32; a pipeline needs one."""
    path = out / "text_encoder/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dtype": "float32"}, indent=2, sort_keys=True) + "\n")


def card(figures: dict) -> str:
    """The model card, from its template beside this file."""
    heads = [
        f"| {head} | {share:.2f} | {figures['on_true_drawings'][head]:.2f} |"
        for head, share in figures["obeyed"].items()
    ]
    views = [f"| {view} | {share:.2f} |" for view, share in figures["by_view"].items()]
    text = CARD.read_text()
    for name, value in {"HEADS": "\n".join(heads), "VIEWS": "\n".join(views), "MEAN": f"{figures['mean']:.2f}"}.items():
        text = text.replace("{" + name + "}", value)
    return text
