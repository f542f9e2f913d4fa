"""How she is shown: view, framing, art style, background, expression, arms."""

from dataclasses import asdict, dataclass

import numpy as np

from . import palette
from .character import pick

VIEWS = tuple(palette.VIEW_TAGS)
VIEW_WEIGHTS = (0.24, 0.17, 0.17, 0.16, 0.13, 0.13)
FRAMING_WEIGHTS = (0.20, 0.25, 0.55)
STYLE_WEIGHTS = (0.45, 0.15, 0.10, 0.10, 0.10, 0.10)


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One way of drawing a character. The defaults are a calm reference picture."""

    view: str = "front"
    framing: str = "full body"
    style: str = "cel shading"
    background: str = "white"  # a colour, "<colour> gradient", or a scene
    expression: str = "neutral"
    arms: str = "down"
    turn: float = 0.0  # -1..1 within what the view allows
    tilt: float = 0.0  # -1..1, the same for looking up and down
    mirrored: bool = False
    roll: float = 0.0  # degrees
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    stride: float = 0.0
    seed: int = 0  # paper grain, clouds, stars

    def to_dict(self) -> dict:
        return asdict(self)

    @staticmethod
    def from_dict(values: dict) -> "Shot":
        return Shot(**{**values, "shift": tuple(values["shift"])})


def sample_background(rng: np.random.Generator) -> str:
    draw = rng.random()
    if draw < 0.40:
        return "white"
    if draw < 0.65:
        return pick(rng, [c for c in palette.BACKDROP if c != "white"])
    if draw < 0.80:
        return pick(rng, [c for c in palette.BACKDROP if c != "white"]) + " gradient"
    return pick(rng, palette.SCENES)


def sample_shot(rng: np.random.Generator, **fixed: object) -> Shot:
    """A random shot; keywords hold what must be so."""
    drawn = {
        "view": pick(rng, VIEWS, VIEW_WEIGHTS),
        "framing": pick(rng, palette.FRAMINGS, FRAMING_WEIGHTS),
        "style": pick(rng, palette.STYLES, STYLE_WEIGHTS),
        "background": sample_background(rng),
        "expression": pick(rng, palette.EXPRESSIONS, (0.40, 0.25, 0.20, 0.15)),
        "arms": pick(rng, palette.ARMS, (0.70, 0.10, 0.10, 0.10)),
        "turn": float(rng.uniform(-1, 1)),
        "tilt": float(rng.uniform(-1, 1)),
        "mirrored": bool(rng.random() < 0.5),
        "roll": float(rng.normal() * 2.0),
        "zoom": float(rng.uniform(0.96, 1.06)),
        "shift": (float(rng.normal() * 0.02), float(rng.normal() * 0.02)),
        "stride": float(rng.normal() * 0.05),
        "seed": int(rng.integers(1 << 30)),
    }
    return Shot(**{**drawn, **fixed})  # type: ignore[arg-type]


def view_angles(shot: Shot) -> tuple[float, float]:
    """Azimuth and elevation in degrees: the middle of each view, and how far a shot may stray."""
    azimuth, sway, elevation, lift = {
        "front": (0, 9, 2, 6),
        "three-quarter": (42, 9, 3, 7),
        "side": (89, 10, 2, 6),
        "behind": (180, 20, 3, 7),
        "above": (0, 30, 49, 7),
        "below": (0, 30, -36, 6),
    }[shot.view]
    side = -1 if shot.mirrored else 1
    return side * azimuth + sway * shot.turn, elevation + lift * shot.tilt
