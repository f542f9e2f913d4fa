"""The judge of the bench: a reader of another architecture and seed, because what curates must not judge itself."""

from pathlib import Path

from torch import nn

from models.chibi.reader import Reader
from models.chibi.reader.network import conv

FOLDER = Path(__file__).parent  # where the trained judge lies


class Judge(Reader):
    kind = "judge"
    width = 256

    @classmethod
    def make_trunk(cls) -> nn.Sequential:
        """Plain, larger kernels, another way to the same 4 x 4 positions."""
        layers: list[nn.Module] = []
        for a, b in ((3, 16), (16, 40), (40, 80), (80, 112), (112, 128)):
            layers += [conv(a, b, 2, 5 if a < 80 else 3)]
        return nn.Sequential(
            *layers, conv(128, 128), nn.Flatten(), nn.Dropout(0.3), nn.Linear(128 * 16, cls.width), nn.GELU()
        )
