"""How a character is shown: view, framing, art style, background, expression, pose."""

from bisect import bisect
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate

import numpy as np

from . import palette
from .pose import POSES
from .style import STYLES

VIEWS = tuple(palette.VIEW_TAGS)
VIEW_WEIGHTS = (0.24, 0.17, 0.17, 0.16, 0.13, 0.13)
FRAMING_WEIGHTS = (0.16, 0.24, 0.60)
STYLE_WEIGHTS = (0.21, 0.09, 0.07, 0.08, 0.09, 0.08, 0.13, 0.18, 0.07)
EXPRESSION_WEIGHTS = (0.40, 0.18, 0.09, 0.14, 0.08, 0.11)
POSE_WEIGHTS = (0.46, 0.18, 0.12, 0.08, 0.08, 0.08)


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One way of drawing a character. The defaults are a calm reference picture."""

    view: str = "front"
    framing: str = "full body"
    style: str = "cel shading"
    background: str = "white"  # a colour, "<colour> gradient", or a scene
    expression: str = "neutral"
    pose: str = "standing"
    raised: str = "left"  # the hand that waves
    turn: float = 0.0  # -1..1 within what the view allows
    tilt: float = 0.0  # -1..1, the same for looking up and down
    mirrored: bool = False  # seen from the other side; the character stays as it is
    roll: float = 0.0  # degrees
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    seed: int = 0  # paper grain, clouds, stars

    def to_dict(self) -> dict:
        return asdict(self)

    @staticmethod
    def from_dict(values: dict) -> "Shot":
        return Shot(**{**values, "shift": tuple(values["shift"])})


def pick(rng: np.random.Generator, values: Iterable[str], weights: Sequence[float] | None = None) -> str:
    """One of the values; weights need not sum to 1. (`rng.choice` takes ten times as long.)"""
    words = list(values)
    if weights is None:
        return words[int(rng.random() * len(words))]
    limits = list(accumulate(weights))
    return words[bisect(limits, rng.random() * limits[-1])]


def sample_background(rng: np.random.Generator) -> str:
    draw = rng.random()
    if draw < 0.42:
        return "white"
    if draw < 0.67:
        return pick(rng, [c for c in palette.BACKDROP if c != "white"])
    if draw < 0.80:
        return pick(rng, [c for c in palette.BACKDROP if c != "white"]) + " gradient"
    return pick(rng, palette.SCENES)


def sample_shot(rng: np.random.Generator, **fixed: object) -> Shot:
    """A random shot; keywords hold what must be so."""
    drawn = {
        "view": pick(rng, VIEWS, VIEW_WEIGHTS),
        "framing": pick(rng, palette.FRAMINGS, FRAMING_WEIGHTS),
        "style": pick(rng, STYLES, STYLE_WEIGHTS),
        "background": sample_background(rng),
        "expression": pick(rng, palette.EXPRESSIONS, EXPRESSION_WEIGHTS),
        "pose": pick(rng, POSES, POSE_WEIGHTS),
        "raised": pick(rng, ("left", "right")),
        "turn": float(rng.uniform(-1, 1)),
        "tilt": float(rng.uniform(-1, 1)),
        "mirrored": bool(rng.random() < 0.5),
        "roll": float(rng.normal() * 2.0),
        "zoom": float(rng.uniform(0.97, 1.08)),
        "shift": (float(rng.normal() * 0.02), float(rng.normal() * 0.02)),
        "seed": int(rng.integers(1 << 30)),
    }
    return Shot(**{**drawn, **fixed})  # type: ignore[arg-type]


def view_angles(shot: Shot) -> tuple[float, float]:
    """Azimuth and elevation in degrees: the middle of each view, and how far a shot may stray."""
    azimuth, sway, elevation, lift = {
        "front": (0, 9, 2, 6),
        "three-quarter": (42, 9, 3, 7),
        "side": (89, 10, 2, 6),
        "behind": (180, 24, 3, 7),
        "above": (0, 30, 49, 7),
        "below": (0, 30, -36, 6),
    }[shot.view]
    side = -1 if shot.mirrored else 1
    return side * azimuth + sway * shot.turn, elevation + lift * shot.tilt
