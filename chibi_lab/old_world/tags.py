"""The tags of a character, of a shot, and of a picture (only what can be seen in it)."""

from . import palette
from .character import Character
from .shot import Shot

SUBJECT_TAGS = ("1girl", "solo")
MONOCHROME_STYLES = ("sketch",)


def feature_parts(character: Character) -> list[tuple[str, str]]:
    """Each feature tag with the part of the drawing that must be seen for it to be true."""
    c = character
    pairs = [
        (f"{c.hair} hair", "hair"),
        (c.hair_style, "hair" if c.hair_style in ("short hair", "medium hair") else "tresses"),
        (f"{c.eyes} eyes", "eyes"),
    ]
    if c.skin == "dark":
        pairs.append(("dark skin", "skin"))
    if c.ears != "none":
        pairs += [(c.ears, "ears"), (f"{c.fur} ears", "ears")]
    if c.tail != "none":
        pairs.append((c.tail, "tail"))
    pairs.append((f"{c.outfit_color} {c.outfit}", "outfit"))
    if c.bottom != "none":
        pairs.append((f"{c.bottom_color} {c.bottom}", "bottom"))
    if c.accessory != "none":
        pairs.append((f"{c.accessory_color} {c.accessory}", "accessory"))
    return pairs


def feature_tags(character: Character) -> list[str]:
    """What she is, whatever the picture."""
    return [tag for tag, _ in feature_parts(character)]


def background_tags(background: str) -> list[str]:
    if background in palette.SCENES:
        return [background]
    color = background.split()[0]
    plain = [f"{color} background"]
    return ["gradient background", *plain] if background.endswith("gradient") else plain


def shot_tags(shot: Shot) -> list[str]:
    """What this picture is: view, framing, expression, arms, style, background."""
    tags = [palette.VIEW_TAGS[shot.view], shot.framing]
    if shot.expression != "neutral" and shot.view != "behind":
        tags.append(shot.expression)
    if shot.arms != "down":
        tags.append(shot.arms)
    tags.append(shot.style)
    if shot.style in MONOCHROME_STYLES:
        return [*tags, "monochrome"]
    return tags + background_tags(shot.background)


def seen_feature_tags(character: Character, seen: frozenset[str]) -> list[str]:
    """Her feature tags as far as this picture shows them."""
    return [tag for tag, part in feature_parts(character) if part in seen]


def picture_tags(character: Character, shot: Shot, seen: frozenset[str]) -> list[str]:
    """Complete and correct tags of one drawing."""
    return [*SUBJECT_TAGS, *seen_feature_tags(character, seen), *shot_tags(shot)]


def all_tags() -> list[str]:
    """Every tag that the world knows, in a fixed order."""
    p = palette
    colored = [
        (p.HAIR, ["hair"]),
        (p.EYES, ["eyes"]),
        (p.FUR, ["ears"]),
        (p.CLOTH, p.OUTFITS),
        (p.BOTTOM, p.BOTTOMS),
        (p.TRINKET, p.ACCESSORIES[1:]),
        (p.BACKDROP, ["background"]),
    ]
    tags = [*SUBJECT_TAGS, *p.HAIR_STYLES, *p.EARS[1:], *p.TAILS[1:], "dark skin"]
    tags += [f"{color} {noun}" for colors, nouns in colored for noun in nouns for color in colors]
    tags += [*p.VIEW_TAGS.values(), *p.FRAMINGS, *p.EXPRESSIONS[1:], *p.ARMS[1:]]
    return [*tags, *p.STYLES, "monochrome", "gradient background", *p.SCENES]
