"""From what a reader sees to tags."""

import numpy as np

from ..world import palette
from .labels import BACKGROUNDS, HEADS
from .network import Reader

SURE = 0.5  # an attribute read with less is not tagged

Reading = dict[str, tuple[str, float]]  # head -> the likeliest value and its probability


def readings(reader: Reader, pictures: np.ndarray) -> list[Reading]:
    """The likeliest value of every head, for each picture."""
    heads = reader.read(pictures)
    best = {head: p.max(1) for head, p in heads.items()}
    return [
        {head: (HEADS[head][int(b.indices[i])], float(b.values[i])) for head, b in best.items()}
        for i in range(len(pictures))
    ]


def feature_tags(reading: Reading, sure: float = SURE) -> dict[str, float]:
    """What she is, as tags with their probabilities; two words are as sure as the less sure of them."""
    value = {head: found for head, (found, _) in reading.items()}
    p = {head: probability for head, (_, probability) in reading.items()}
    tags = {f"{value['hair']} hair": p["hair"], value["hair_style"]: p["hair_style"]}
    if value["view"] != "behind" and value["expression"] != "closed eyes":
        tags[f"{value['eyes']} eyes"] = p["eyes"]
    if value["skin"] == "dark":
        tags["dark skin"] = p["skin"]
    if value["ears"] != "none":
        tags |= {value["ears"]: p["ears"], f"{value['fur']} ears": min(p["ears"], p["fur"])}
    if value["tail"] != "none":
        tags[value["tail"]] = p["tail"]
    for noun, color in (("outfit", "outfit_color"), ("bottom", "bottom_color"), ("accessory", "accessory_color")):
        if value[noun] != "none":
            tags[f"{value[color]} {value[noun]}"] = min(p[noun], p[color])
    return {tag: round(probability, 3) for tag, probability in tags.items() if probability >= sure}


def shot_tags(reading: Reading, sure: float = SURE) -> dict[str, float]:
    """How she is shown, as tags with their probabilities."""
    found = {head: value for head, (value, probability) in reading.items() if probability >= sure}
    tags = {}
    if "view" in found:
        tags[palette.VIEW_TAGS[found["view"]]] = reading["view"][1]
    for head, nothing in (("framing", ""), ("expression", "neutral"), ("arms", "down"), ("style", "")):
        if found.get(head, nothing) != nothing:
            tags[found[head]] = reading[head][1]
    if found.get("background") in BACKGROUNDS and found.get("style") != "sketch":
        name = found["background"]
        tags[name if name in palette.SCENES else f"{name} background"] = reading["background"][1]
    return {tag: round(probability, 3) for tag, probability in tags.items()}
