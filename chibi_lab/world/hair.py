"""Hair: a cap with a fringe cut out of it, what stands up from it and what hangs down."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import palette
from .body import SIDES, Body
from .character import Character
from .solid import Array, Keep, Solid, ball, cone, ellipsoid, rotate_x, rotate_z

FRINGES: dict[str, Callable[[Array], Array]] = {  # the lower edge of the hair over the forehead, by azimuth
    "zigzag": lambda a: 0.12 + 0.26 * np.abs(((a * 1.55 + 0.25) % 1.0) - 0.5) * 2,
    "straight": lambda a: np.full_like(a, 0.24),
    "swept left": lambda a: 0.34 - 0.30 * a,
    "swept right": lambda a: 0.34 + 0.30 * a,
    "parted": lambda a: 0.62 - 0.55 * np.abs(a),
    "high": lambda a: np.full_like(a, 0.56),
    "widow's peak": lambda a: 0.36 + 0.42 * np.minimum(np.abs(a), 0.5),
}


def cap_keep(fringe: str, low: float) -> Keep:
    edge_of = FRINGES[fringe]

    def keep(p: Array) -> Array:
        azimuth = np.arctan2(p[..., 0], p[..., 2])
        return p[..., 1] > np.where(np.abs(azimuth) < 0.98, edge_of(azimuth), low)

    return keep


@dataclass(frozen=True)
class Cut:
    """A way to wear hair: how low the cap reaches behind, and its other parts."""

    low: float = -0.60
    volume: float = 1.0
    weights: tuple[float, float] = (1.0, 1.0)  # how often a woman and a man wear it
    rising: Callable[["Strands"], list[Solid]] | None = None  # not worn under hats
    hanging: Callable[["Strands"], list[Solid]] | None = None


@dataclass(frozen=True)
class Strands:
    """What the parts of a cut are made with."""

    body: Body
    length: float
    volume: float
    color: Array
    side: int
    band: Array

    @property
    def dark(self) -> Array:
        return 0.94 * self.color

    @property
    def width(self) -> float:
        return float(self.body.radii[0] * self.volume)

    def reach(self, share: float) -> float:
        """A height below the head, from the neck to the ground."""
        return max(0.10, self.body.neck - share * self.length * (0.45 + 0.25 * self.body.size))

    def blob(
        self, part: str, x: float, y: float, z: float, radii: tuple[float, float, float], turn: Array | None = None
    ) -> Solid:
        """An ellipsoid, placed and measured in radii of the head."""
        return ellipsoid(part, self.body.on_head(x, y, z), self.body.radii * radii, self.dark, turn)


def bob(s: Strands) -> list[Solid]:
    """To the chin, wide at the ends."""
    w = s.width
    back = cone(
        "tresses", s.body.on_head(0, -0.95, -0.30), s.body.on_head(0, 0.1, -0.25), 0.98 * w, 0.93 * w, s.color, 0.66
    )
    return [back, *(s.blob(f"tresses:{n}", k * 0.97, -0.42, 0.16, (0.20, 0.56, 0.34)) for n, k in SIDES)]


def medium(s: Strands) -> list[Solid]:
    """To the shoulders."""
    w = s.width
    end = (0.0, s.body.neck - 0.10 * s.length, -0.16)
    back = cone("tresses", end, s.body.on_head(0, 0, -0.35), 0.94 * w, 0.88 * w, s.color, 0.60)
    return [back, *(s.blob(f"tresses:{n}", k * 0.96, -0.62, 0.14, (0.18, 0.62, 0.28)) for n, k in SIDES)]


def long_hair(s: Strands) -> list[Solid]:
    """Down to the hips."""
    w = s.width
    back = cone("tresses", (0, s.reach(0.9), -0.24), s.body.on_head(0, 0, -0.42), 0.74 * w, 0.92 * w, s.dark, 0.52)
    locks = [
        s.blob(f"tresses:{n}", k * 0.95, -0.75, 0.14, (0.18, 0.90 * s.length, 0.26), rotate_z(k * 3)) for n, k in SIDES
    ]
    return [back, *locks]


def twintails(s: Strands) -> list[Solid]:
    solids = []
    for name, side in SIDES:
        knot = s.body.on_head(side * 1.08, 0.34, -0.15)
        fall = 0.42 * s.length * (0.6 + 0.5 * s.body.radii[1])
        solids.append(
            ellipsoid(
                f"tresses:{name}",
                knot + (side * 0.16, -fall, 0),
                (0.14, 1.15 * fall, 0.14),
                s.dark,
                rotate_z(side * 13),
            )
        )
        solids.append(ball(f"band:{name}", knot, 0.085, s.band))
    return solids


def ponytail(s: Strands) -> list[Solid]:
    knot = s.body.on_head(0, 0.55, -0.98)
    hang = ellipsoid(
        "tresses", knot + (0, -0.34 * s.length, -0.16), (0.15, 0.44 * s.length, 0.14), s.dark, rotate_x(12)
    )
    return [hang, ball("band", knot, 0.10, s.band)]


def side_ponytail(s: Strands) -> list[Solid]:
    knot = s.body.on_head(s.side * 1.05, 0.10, -0.35)
    hang = ellipsoid(
        "tresses",
        knot + (s.side * 0.12, -0.34 * s.length, 0),
        (0.14, 0.42 * s.length, 0.14),
        s.dark,
        rotate_z(s.side * 10),
    )
    return [hang, ball("band", knot, 0.085, s.band)]


def braided(s: Strands, start: Array, step: tuple[float, float, float]) -> list[Solid]:
    """Beads, smaller and smaller."""
    beads = [ball(f"tresses:{i % 2}", start + i * np.array(step), 0.115 - 0.010 * i, s.dark) for i in range(6)]
    return [*beads, ball("band", start + 6 * np.array(step), 0.055, s.band)]


def braid(s: Strands) -> list[Solid]:
    return braided(s, s.body.on_head(0, -0.55, -1.0), (0.0, -0.125 * s.length, -0.012))


def twin_braids(s: Strands) -> list[Solid]:
    return [
        bead
        for _, side in SIDES
        for bead in braided(s, s.body.on_head(side * 0.85, -0.62, 0.10), (side * 0.012, -0.115 * s.length, 0.02))
    ]


def bun(s: Strands) -> list[Solid]:
    return [ball("tresses", s.body.on_head(0, 0.88, -0.62), 0.40 * s.body.radii[0], s.dark)]


def double_bun(s: Strands) -> list[Solid]:
    return [
        ball(f"tresses:{n}", s.body.on_head(k * 0.78, 0.92, -0.10), 0.36 * s.body.radii[0], s.dark) for n, k in SIDES
    ]


def spikes(s: Strands) -> list[Solid]:
    """Standing up and back."""
    solids = []
    for i, (x, y, z) in enumerate(
        ((0, 0.92, 0.35), (0.5, 0.85, 0.2), (-0.5, 0.85, 0.2), (0.85, 0.5, -0.1), (-0.85, 0.5, -0.1),
         (0.35, 0.9, -0.4), (-0.35, 0.9, -0.4), (0, 0.55, -0.9), (0.6, 0.1, -0.85), (-0.6, 0.1, -0.85))
    ):  # fmt: skip
        root = s.body.on_head(0.88 * x, 0.88 * y, 0.88 * z)
        tip = s.body.on_head(1.42 * x, 1.42 * y + 0.10, 1.42 * z - 0.08)
        solids.append(cone(f"tresses:{i % 3}", root, tip, 0.34 * s.body.radii[0], 0.012, s.color, capped=False))
    return solids


def curls(s: Strands) -> list[Solid]:
    """Balls all over, down to the neck."""
    places = [
        (0.0, 1.0, 0.1),
        (0.55, 0.85, 0.25),
        (-0.55, 0.85, 0.25),
        (0.9, 0.4, 0.05),
        (-0.9, 0.4, 0.05),
        (0.98, -0.1, -0.1),
        (-0.98, -0.1, -0.1),
        (0.0, 0.75, -0.75),
        (0.6, 0.45, -0.8),
        (-0.6, 0.45, -0.8),
        (0.0, 0.1, -1.05),
        (0.62, -0.35, -0.8),
        (-0.62, -0.35, -0.8),
        (0.0, -0.5, -0.9),
    ]
    return [ball(f"tresses:{i % 3}", s.body.on_head(*p), 0.40 * s.body.radii[0], s.color) for i, p in enumerate(places)]


def afro(s: Strands) -> list[Solid]:
    return [
        ellipsoid(
            "tresses", s.body.on_head(0, 0.34, -0.18), s.body.radii * (1.48, 1.30, 1.34), s.color,
            keep=lambda p: (p[..., 2] < 0.42) | (p[..., 1] > 0.12),
        )
    ]  # fmt: skip


def mohawk(s: Strands) -> list[Solid]:
    crest = [(0.30, 0.98), (0.0, 1.08), (-0.35, 1.02), (-0.70, 0.82)]
    return [
        cone(
            "tresses",
            s.body.on_head(0, 0.8 * y, 0.8 * z),
            s.body.on_head(0, 1.42 * y, 1.35 * z),
            0.30 * s.body.radii[0],
            0.10,
            s.color,
            0.8,
        )
        for z, y in crest
    ]


HAIR_STYLES: dict[str, Cut] = {
    "bald": Cut(weights=(0.1, 1.1)),
    "buzz cut": Cut(-0.42, 0.94, weights=(0.2, 1.3)),
    "short hair": Cut(-0.46, weights=(1.0, 2.4)),
    "spiked hair": Cut(-0.42, 1.0, rising=spikes, weights=(0.4, 1.4)),
    "curly hair": Cut(-0.40, 1.0, rising=curls, weights=(0.7, 0.8)),
    "afro": Cut(-0.30, 1.0, rising=afro, weights=(0.4, 0.5)),
    "mohawk": Cut(-0.42, 0.93, rising=mohawk, weights=(0.25, 0.7)),
    "bob cut": Cut(-0.55, hanging=bob, weights=(1.0, 0.3)),
    "medium hair": Cut(hanging=medium, weights=(1.0, 0.7)),
    "long hair": Cut(hanging=long_hair, weights=(1.5, 0.6)),
    "ponytail": Cut(hanging=ponytail, weights=(1.0, 0.5)),
    "side ponytail": Cut(hanging=side_ponytail, weights=(0.6, 0.05)),
    "twintails": Cut(hanging=twintails, weights=(1.0, 0.0)),
    "braid": Cut(hanging=braid, weights=(0.6, 0.2)),
    "twin braids": Cut(hanging=twin_braids, weights=(0.7, 0.05)),
    "hair bun": Cut(rising=bun, weights=(0.7, 0.3)),
    "double bun": Cut(rising=double_bun, weights=(0.6, 0.0)),
}


def hair(body: Body, character: Character, hat_on: bool) -> list[Solid]:
    """Under a hat nothing stands up."""
    style = character.hair_style
    if style == "bald":
        return []
    look, cut = character.look, HAIR_STYLES[style]
    color = character.dyed(character.hair, palette.HAIR)
    volume = max(1.015, look.volume * cut.volume)
    side = 1 if look.hair_side == "left" else -1
    strands = Strands(body, look.hair_length, volume, color, side, character.dyed(look.accent))
    scalp = 0.5 * color + 0.5 * character.skin_color if style in ("mohawk", "buzz cut") else color
    cap = ellipsoid(
        "hair", body.on_head(0, 0.03, -0.035), body.radii * volume, scalp, keep=cap_keep(look.fringe, cut.low)
    )
    parts = [cut.hanging, None if hat_on else cut.rising]
    return [cap, *(solid for part in parts if part for solid in part(strands))]
