"""The words of the world and the colours they stand for."""

Color = tuple[float, float, float]

HAIR: dict[str, Color] = {
    "blonde": (0.98, 0.83, 0.38),
    "brown": (0.52, 0.32, 0.18),
    "black": (0.17, 0.16, 0.22),
    "red": (0.82, 0.22, 0.18),
    "blue": (0.28, 0.45, 0.88),
    "green": (0.33, 0.68, 0.38),
    "pink": (0.98, 0.58, 0.74),
    "white": (0.93, 0.93, 0.97),
}
EYES: dict[str, Color] = {
    "blue": (0.20, 0.45, 0.95),
    "green": (0.15, 0.65, 0.30),
    "red": (0.85, 0.12, 0.15),
    "brown": (0.45, 0.25, 0.10),
    "purple": (0.55, 0.20, 0.75),
    "yellow": (0.92, 0.72, 0.05),
}
CLOTH: dict[str, Color] = {
    "red": (0.86, 0.20, 0.20),
    "blue": (0.22, 0.38, 0.82),
    "green": (0.22, 0.60, 0.34),
    "white": (0.96, 0.96, 0.96),
    "black": (0.20, 0.20, 0.24),
    "pink": (0.98, 0.62, 0.74),
    "yellow": (0.97, 0.83, 0.30),
    "purple": (0.56, 0.32, 0.74),
}
BOTTOM: dict[str, Color] = {
    "black": (0.20, 0.20, 0.24),
    "blue": (0.28, 0.36, 0.62),
    "brown": (0.50, 0.34, 0.22),
    "grey": (0.60, 0.60, 0.62),
}
FUR: dict[str, Color] = {
    "yellow": (0.96, 0.74, 0.25),
    "orange": (0.93, 0.50, 0.18),
    "white": (0.95, 0.95, 0.95),
    "black": (0.20, 0.19, 0.22),
    "brown": (0.50, 0.32, 0.20),
    "grey": (0.60, 0.60, 0.64),
}
TRINKET: dict[str, Color] = {
    "red": (0.88, 0.15, 0.20),
    "blue": (0.20, 0.40, 0.90),
    "green": (0.20, 0.65, 0.35),
    "white": (0.97, 0.97, 0.97),
}
SKIN: dict[str, Color] = {"light": (1.00, 0.87, 0.78), "dark": (0.66, 0.45, 0.33)}
SHOES: dict[str, Color] = {
    "brown": (0.36, 0.22, 0.16),
    "black": (0.16, 0.16, 0.20),
    "red": (0.70, 0.18, 0.20),
    "white": (0.92, 0.92, 0.92),
}
BACKDROP: dict[str, Color] = {
    "white": (1.00, 1.00, 1.00),
    "grey": (0.72, 0.72, 0.74),
    "blue": (0.62, 0.80, 0.96),
    "pink": (0.98, 0.80, 0.86),
    "green": (0.72, 0.90, 0.74),
    "yellow": (0.98, 0.93, 0.68),
}

HAIR_STYLES = ("short hair", "medium hair", "long hair", "twintails", "ponytail")
EARS = ("none", "fox ears", "cat ears", "rabbit ears")
TAILS = ("none", "fox tail", "cat tail")
OUTFITS = ("dress", "kimono", "shirt")
BOTTOMS = ("pants", "skirt")
ACCESSORIES = ("none", "ribbon", "hairband", "hat", "scarf")

VIEW_TAGS = {
    "front": "looking at viewer",
    "three-quarter": "three-quarter view",
    "side": "from side",
    "behind": "from behind",
    "above": "from above",
    "below": "from below",
}
FRAMINGS = ("portrait", "upper body", "full body")
EXPRESSIONS = ("neutral", "smile", "open mouth", "closed eyes")
ARMS = ("down", "arms up", "waving", "outstretched arms")
SCENES = ("outdoors", "indoors", "night")
STYLES = ("cel shading", "flat color", "pastel colors", "sketch", "pixel art", "watercolor")
