"""From what a reader sees to tags. The card says which: a tag may name the answers of several heads."""

import numpy as np

from .network import Reader

SURE = 0.5  # an attribute read with less is not tagged
UNSAID = ("none", "light", "human", "neutral", "down")  # answers that have no tag
HIDES_EYES = (("view", "behind"), ("expression", "closed eyes"))

Reading = dict[str, tuple[str, float]]  # head -> the likeliest value and its probability


def readings(reader: Reader, pictures: np.ndarray) -> list[Reading]:
    """The likeliest value of every head, for each picture."""
    heads = reader.read(pictures)
    best = {head: p.max(1) for head, p in heads.items()}
    return [
        {head: (reader.answers[head][int(b.indices[i])], float(b.values[i])) for head, b in best.items()}
        for i in range(len(pictures))
    ]


def feature_tags(card: dict, reading: Reading, sure: float = SURE) -> dict[str, float]:
    """What she is, as tags with their probabilities; two words are as sure as the less sure of them."""
    hidden = ["eyes"] if any(reading[head][0] == value for head, value in HIDES_EYES) else []
    for head, conditions in card.get("needs", {}).items():
        if any(reading[other][0] not in allowed for other, allowed in conditions.items()):
            hidden.append(head)
    return said(card, "feature_tags", without(reading, hidden), sure)


def shot_tags(card: dict, reading: Reading, sure: float = SURE) -> dict[str, float]:
    """How she is shown, as tags with their probabilities."""
    colourless = reading["style"][0] in card["monochrome_styles"]
    return said(card, "shot_tags", without(reading, ["background"] if colourless else []), sure)


def without(reading: Reading, heads: list[str]) -> Reading:
    return {head: found for head, found in reading.items() if head not in heads}


def said(card: dict, kind: str, reading: Reading, sure: float) -> dict[str, float]:
    """The tags whose heads were all read surely; the card maps each tag to the heads that it needs."""
    tags = {}
    for template, heads in card[kind].items():
        read = [reading[head] for head in heads if head in reading]
        if len(read) < len(heads) or any(value in UNSAID for value, _ in read):
            continue
        probability = min(p for _, p in read)
        if probability >= sure:
            words = {head: card["words"].get(head, {}).get(value, value) for head, (value, _) in reading.items()}
            tags[template.format(**words)] = round(probability, 3)
    return tags
