"""One file decides what comes out of a training."""

import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class DataConfig:
    size: int
    shards: int
    workers: int
    shard: int = 1024  # pictures in one
    held_out: int = 512  # pictures of held-out characters, for measuring


@dataclass(frozen=True)
class VaeConfig:
    channels: list[int]
    latent_channels: int
    batch: int
    crop: int
    steps: int
    learning_rate: float
    decay: float
    decoder_steps: int
    kl_weight: float
    centre_weight: float


@dataclass(frozen=True)
class TextConfig:
    width: int
    layers: int
    heads: int
    steps: int
    batch: int
    learning_rate: float


@dataclass(frozen=True)
class UNetConfig:
    channels: list[int]
    heads: int
    batch: int
    steps: int
    learning_rate: float
    decay: float
    ema: float
    caption_dropout: float
    critic_weight: float


@dataclass(frozen=True)
class CriticConfig:
    steps: int
    batch: int
    learning_rate: float


@dataclass(frozen=True)
class ReaderConfig:
    steps: int
    batch: int
    learning_rate: float


@dataclass(frozen=True)
class Config:
    seed: int
    data: DataConfig
    vae: VaeConfig
    text: TextConfig
    critic: CriticConfig
    unet: UNetConfig
    reader: ReaderConfig

    @staticmethod
    def load(path: Path = HERE / "config.toml") -> "Config":
        values = tomllib.loads(Path(path).read_text())
        return Config(
            values["seed"],
            DataConfig(**values["data"]),
            VaeConfig(**values["vae"]),
            TextConfig(**values["text"]),
            CriticConfig(**values["critic"]),
            UNetConfig(**values["unet"]),
            ReaderConfig(**values["reader"]),
        )

    def to_dict(self) -> dict:
        return asdict(self)
