"""Make the chibi base model, stage by stage; every stage goes on where it was stopped.

python -m chibi_lab.train all --config chibi_lab/config.toml --run DIR
python -m chibi_lab.train all --run DIR --start models/chibi/base   # from shipped weights, fresh optimizers
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from models.chibi.reader import Reader
from models.chibi.reader.pixels import to_pictures, to_tensor

from . import machine, parallel
from .config import HERE, Config
from .critic import Critic, train_critic
from .data import PictureSet, Record, render_held_out, render_set
from .export import assemble, export
from .following import measure
from .judge import Judge
from .labels import CARD
from .reading import accuracy, train_reader
from .sheet import save_sheet
from .text import train_text
from .tokenizer import TagEncoder, make_tokenizer
from .unet import Batches, make_unet, train_unet
from .vae import encode, make_vae, psnr, train_decoder, train_vae

STAGES = ("data", "tokenizer", "text", "vae", "latents", "decoder", "reader", "critic", "unet", "follow", "export")
SHARED_STAGES = ("vae", "latents", "decoder", "critic", "unet")  # in which several processes share the work
SCALE_PICTURES = 512  # enough to tell the scale of the latents
ROOT = HERE.parent
BASE, READER, JUDGE = "models/chibi/base", "models/chibi/reader", "chibi_lab/judge"  # where they lie in the repository
CHECKPOINT = "models/chibi/checkpoint"
GATE = 0.9  # of following.GATE, each: what a base must obey to be worth shipping


class Run:
    """One training: its config, its folder, where to begin from, where to put what ships and how good it must be."""

    def __init__(self, config: Path, folder: Path, start: Path | None = None, out: Path = ROOT, gate: float = GATE):
        self.config_path, self.folder, self.start, self.out, self.gate = config, folder, start, out, gate
        self.config = Config.load(config)
        self.model = folder / "model"

    def data(self) -> None:
        c, seed = self.config.data, self.config.seed
        render_held_out(self.folder / "held-out", seed, c.size, c.held_out)
        render_set(self.folder / "data", c.shards, seed, c.size, c.workers, c.shard)

    def pictures(self, records: bool = True) -> PictureSet:
        return PictureSet(self.folder / "data", records)

    def held_out(self) -> PictureSet:
        return PictureSet(self.folder / "held-out")

    def started(self, part: str) -> Path | None:
        """The part in `start`, if there is one; what is not there begins fresh."""
        path = self.start / part if self.start else None
        return path if path and path.exists() else None

    def taken_over(self, part: str) -> bool:
        """Copied from `start`: what a UNet has learned to read must stay as it is."""
        shipped = self.started(part)
        if shipped:
            shutil.copytree(shipped, self.model / part, dirs_exist_ok=True)
        return shipped is not None

    def tokenizer(self) -> None:
        if not self.taken_over("tokenizer"):
            make_tokenizer(self.model / "tokenizer")

    def load_tokenizer(self) -> CLIPTokenizer:
        return CLIPTokenizer.from_pretrained(self.model / "tokenizer")

    def text(self) -> None:
        if self.taken_over("text_encoder"):
            return
        model = train_text(self.config.text, self.load_tokenizer(), self.folder, self.config.seed)
        model.save_pretrained(self.model / "text_encoder")

    def load_text(self) -> CLIPTextModel:
        model = CLIPTextModel.from_pretrained(self.model / "text_encoder", dtype=torch.float32)
        return model.eval().requires_grad_(False)

    def vae(self) -> None:
        c = self.config
        vae = train_vae(c.vae, self.new_vae(), self.pictures(False), self.folder, c.seed)
        if parallel.rank() > 0:
            return
        pictures = self.pictures(False)
        some = encode(vae.eval(), pictures.pictures(range(min(SCALE_PICTURES, len(pictures)))))
        vae.register_to_config(scaling_factor=float(1 / some.float().std()))
        vae.save_pretrained(self.model / "vae")
        self.show_vae(vae)

    def new_vae(self) -> AutoencoderKL:
        """Fresh, or from the weights of `start`."""
        if shipped := self.started("vae"):
            return AutoencoderKL.from_pretrained(shipped, torch_dtype=torch.float32)
        torch.manual_seed(self.config.seed)
        return make_vae(self.config.vae, self.config.data.size)

    def load_vae(self) -> AutoencoderKL:
        return AutoencoderKL.from_pretrained(self.model / "vae").eval().to(machine.device())

    def decoder(self) -> None:
        c = self.config
        vae = train_decoder(c.vae, self.load_vae(), self.pictures(False), self.folder, c.seed)
        if parallel.rank() > 0:
            return
        vae.eval().save_pretrained(self.model / "vae")
        self.show_vae(vae)

    def show_vae(self, vae: AutoencoderKL) -> None:
        held_out = self.held_out()
        pictures = held_out.pictures(range(min(128, len(held_out))))
        print(f"PSNR on held-out characters: {psnr(vae, pictures):.2f} dB", flush=True)
        with torch.no_grad():
            x = to_tensor(pictures[:24]).to(vae.device)
            back = to_pictures(vae.decode(vae.encode(x).latent_dist.mean).sample.cpu())
        rows = [row for i in range(0, len(x), 12) for row in (*pictures[i : i + 12], *back[i : i + 12])]
        save_sheet(self.folder / "sheets" / "vae.png", rows, 12)

    def latents(self) -> None:
        """Encode the pictures, shard by shard; copies take turns."""
        vae = self.load_vae()
        for index, shard in enumerate(self.pictures(False).shards):
            path = self.folder / "latents" / f"{index:04d}.pt"
            if index % parallel.copies() == parallel.rank() and not path.exists():
                path.parent.mkdir(exist_ok=True)
                torch.save(encode(vae, shard), path.with_suffix(".part"))
                path.with_suffix(".part").rename(path)

    def load_latents(self) -> torch.Tensor:
        """Those of the first shards, as far as they are encoded, scaled as the pipeline scales them."""
        paths = sorted((self.folder / "latents").glob("*.pt"))
        scale = self.load_vae().config.scaling_factor
        return torch.cat([torch.load(path).float().mul_(scale).half() for path in paths])

    def new_unet(self) -> UNet2DConditionModel:
        """Fresh, or from the weights of `start`."""
        if shipped := self.started("unet"):
            return UNet2DConditionModel.from_pretrained(shipped, torch_dtype=torch.float32)
        c = self.config
        torch.manual_seed(c.seed)
        return make_unet(c.unet, c.vae.latent_channels, c.data.size // 8, c.text.width)

    def load_unet(self) -> UNet2DConditionModel:
        return UNet2DConditionModel.from_pretrained(self.model / "unet").eval()

    def encoded(self) -> tuple[torch.Tensor, list[Record]]:
        latents = self.load_latents()
        return latents, self.pictures().records[: len(latents)]

    def critic(self) -> None:
        c = self.config
        critic = train_critic(c.critic, *self.encoded(), self.folder, c.seed)
        if parallel.rank() == 0:
            torch.save(critic.state_dict(), self.folder / "critic.pt")

    def load_critic(self) -> Critic:
        critic = Critic(self.config.vae.latent_channels, self.config.data.size // 8)
        critic.load_state_dict(torch.load(self.folder / "critic.pt", weights_only=True))
        return critic.eval().requires_grad_(False)

    def unet(self) -> None:
        c, text = self.config, self.load_text().to(machine.device())
        batches = Batches(*self.encoded(), TagEncoder(self.load_tokenizer()), c.unet, c.seed)

        @torch.no_grad()
        def text_encode(ids: torch.Tensor) -> torch.Tensor:
            with machine.autocast():
                return text(ids).last_hidden_state

        def keep(step: int, average: UNet2DConditionModel) -> None:
            average.save_pretrained(self.model / "unet")

        train_unet(c.unet, self.new_unet(), batches, text_encode, self.load_critic(), self.folder, c.seed, keep)

    def reader(self) -> None:
        """Two of them: what curates must not be what judges."""
        c = self.config
        for kind, seed in ((Reader, c.seed), (Judge, c.seed + 1)):
            reader = train_reader(kind, c.reader, self.pictures(), self.folder, seed)
            figures = {"seed": seed, "accuracy": accuracy(reader, self.held_out())}
            reader.save(self.folder / kind.kind, CARD | figures)
            print(kind.kind, figures, flush=True)

    def follow(self) -> None:
        """Measure how far prompts are obeyed, and leave the figures for the model card."""
        judge = Judge.load(self.folder / "judge")
        asked = min(192, self.config.data.held_out)
        figures = measure(assemble(self.model), judge, self.folder / "sheets", asked)
        print(json.dumps(figures), flush=True)

    def checkpoint(self) -> None:
        """Put the parts that there are beside the base that ships, for a run on another machine to --start from."""
        out = self.out / CHECKPOINT
        loaders = {"vae": self.load_vae, "text_encoder": self.load_text, "unet": self.load_unet}
        shutil.copytree(self.model / "tokenizer", out / "tokenizer", dirs_exist_ok=True)
        for part, load in loaders.items():
            if (self.model / part).exists():
                load().half().save_pretrained(out / part)

    def export(self) -> None:
        """Put what ships in its place, if it is good enough."""
        figures = json.loads((self.folder / "sheets" / "following.json").read_text())
        short = {head: share for head, share in figures["gate"].items() if share < self.gate}
        if short:
            raise SystemExit(f"not exported: below the gate of {self.gate}: {short}; train on, or lower --gate")
        size = export(self.model, self.config_path, figures, self.out / BASE)
        for name, place in (("reader", READER), ("judge", JUDGE)):
            shutil.copytree(self.folder / name, self.out / place, dirs_exist_ok=True)
        print(f"{self.out / BASE}: {size / 1e6:.1f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", nargs="?", default="all", choices=["all", *STAGES, "checkpoint"])
    parser.add_argument("--config", type=Path, default=HERE / "config.toml")
    parser.add_argument("--run", type=Path, default=Path("runs/chibi"))
    parser.add_argument("--start", type=Path, help="a folder whose parts to begin from, as models/chibi/base")
    parser.add_argument("--out", type=Path, default=ROOT, help="the repository in which `export` puts what ships")
    parser.add_argument("--gate", type=float, default=GATE, help="what `export` asks of prompt-following")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda; one process a card")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="copies that share the batches")
    arguments = parser.parse_args()
    if arguments.processes > 1 and "RANK" not in os.environ:
        sys.exit(parallel.relaunch(arguments.processes, sys.argv[1:]))
    parallel.join()
    torch.set_num_threads(arguments.threads)
    machine.use(arguments.device)
    run = Run(arguments.config, arguments.run, arguments.start, arguments.out, arguments.gate)
    for stage in STAGES if arguments.stage == "all" else [arguments.stage]:
        if stage in SHARED_STAGES or parallel.rank() == 0:
            getattr(run, stage)()
        parallel.wait()


if __name__ == "__main__":
    main()
