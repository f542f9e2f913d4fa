"""The words of the world and the colours that they stand for."""

import numpy as np

Color = tuple[float, float, float]

HAIR: dict[str, Color] = {
    "blonde": (0.98, 0.83, 0.38),
    "brown": (0.52, 0.32, 0.18),
    "black": (0.17, 0.16, 0.22),
    "red": (0.82, 0.22, 0.18),
    "orange": (0.90, 0.52, 0.22),
    "blue": (0.28, 0.45, 0.88),
    "green": (0.33, 0.68, 0.38),
    "pink": (0.98, 0.58, 0.74),
    "purple": (0.58, 0.38, 0.76),
    "grey": (0.62, 0.63, 0.66),
    "white": (0.94, 0.94, 0.97),
}
EYES: dict[str, Color] = {
    "black": (0.07, 0.06, 0.09),
    "brown": (0.45, 0.25, 0.10),
    "blue": (0.20, 0.45, 0.95),
    "green": (0.15, 0.65, 0.30),
    "red": (0.85, 0.12, 0.15),
    "purple": (0.55, 0.20, 0.75),
    "yellow": (0.94, 0.75, 0.05),
}
CLOTH: dict[str, Color] = {  # of everything that is worn, and of robots
    "red": (0.84, 0.19, 0.19),
    "orange": (0.93, 0.55, 0.20),
    "yellow": (0.97, 0.83, 0.30),
    "green": (0.20, 0.56, 0.32),
    "blue": (0.22, 0.42, 0.82),
    "purple": (0.54, 0.31, 0.72),
    "pink": (0.97, 0.60, 0.72),
    "brown": (0.50, 0.32, 0.20),
    "black": (0.19, 0.19, 0.23),
    "grey": (0.56, 0.58, 0.61),
    "white": (0.95, 0.95, 0.95),
}
SKIN: dict[str, Color] = {
    "light": (1.00, 0.86, 0.76),
    "tan": (0.90, 0.68, 0.50),
    "dark skin": (0.64, 0.42, 0.29),
    "very dark skin": (0.40, 0.25, 0.18),
    "green skin": (0.52, 0.70, 0.38),
    "grey skin": (0.66, 0.68, 0.70),
    "blue skin": (0.50, 0.66, 0.86),
}
FUR: dict[str, Color] = {
    "yellow": (0.96, 0.74, 0.25),
    "orange": (0.93, 0.50, 0.18),
    "brown": (0.52, 0.34, 0.22),
    "white": (0.95, 0.95, 0.95),
    "grey": (0.58, 0.58, 0.62),
    "black": (0.20, 0.19, 0.22),
}
BACKDROP: dict[str, Color] = {
    "white": (1.00, 1.00, 1.00),
    "grey": (0.72, 0.72, 0.74),
    "blue": (0.62, 0.80, 0.96),
    "pink": (0.98, 0.80, 0.86),
    "green": (0.72, 0.90, 0.74),
    "yellow": (0.98, 0.93, 0.68),
}
BONE = (0.93, 0.90, 0.82)
METAL = (0.66, 0.69, 0.74)
GOLD = (0.93, 0.75, 0.30)
WOOD = (0.53, 0.34, 0.19)
LEATHER = (0.47, 0.29, 0.18)
DARK = (0.18, 0.17, 0.20)
PAPER = (0.96, 0.94, 0.86)

TONES = ("muted", "plain", "candy")  # how strong the colours of a picture's world are

VIEW_TAGS = {
    "front": "looking at viewer",
    "three-quarter": "three-quarter view",
    "side": "from side",
    "behind": "from behind",
    "above": "from above",
    "below": "from below",
}
FRAMINGS = ("portrait", "upper body", "full body")
EXPRESSIONS = ("neutral", "smile", "grin", "open mouth", "frown", "closed eyes")
SCENES = ("outdoors", "indoors", "night")


def toned(color: Color, tone: str) -> np.ndarray:
    """A colour as the tone gives it; its name stays true."""
    rgb = np.array(color, np.float32)
    grey = np.float32(rgb @ np.array((0.30, 0.59, 0.11), np.float32))
    if tone == "muted":
        rgb = grey + 0.66 * (rgb - grey)
        return np.clip(0.96 * rgb + 0.01, 0, 1)
    if tone == "candy":
        return np.clip(1.06 * (grey + 1.22 * (rgb - grey)) + 0.03, 0, 1)
    return rgb
