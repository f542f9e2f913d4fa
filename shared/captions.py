"""Captions. A LoRA attaches to its trigger word what its pictures have in common and their captions do not name.

docs/captions.md has examples.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from shared import denied
from shared.catalog import CAPTION_POLICIES, QUALITY_TAGS
from shared.errors import Invalid
from shared.texts import COMMAS, UNSEEN, UNSEEN_BEYOND, normal

CONTROLS = UNSEEN + UNSEEN_BEYOND  # removed from every caption

COMMA = re.compile(f"[{COMMAS}]")
ESCAPED = re.compile(r"\\([()\[\]{}])")
OPEN, CLOSE = re.compile(r"[(\[{]"), re.compile(r"[)\]}]")
WEIGHTED = re.compile(r"[(\[{]?(.+):[+-]?(?:\d+\.?\d*|\.\d+) ?[)\]}]")
TEXT = re.compile(r"[^\W_]{2}|_")
MAX_LAYERS = 8  # of nested brackets
# A face on either side of an underscore: one letter or digit, a few signs, or an eye in brackets.
SIDE = r"(?:\([^()\s]\)|<[^<>\s]>|[^\w\s]{1,3}|[^\W_])"
KAOMOJI = re.compile(f"{SIDE}_{SIDE}")
PONY = re.compile(r"score_\d(_up)?|source_[a-z]+|rating_[a-z]+")  # Pony's tags, which it was taught with underscores


def clean(texts: Iterable[str]) -> list[str]:
    """Tags in the one form that captions use, whatever tool wrote them. Duplicates are dropped, the order is kept.

    Commas separate tags. Weights and brackets of emphasis (`(long hair:1.2)`), backslashes before brackets and
    underscores are removed, except in kaomoji and in the tags of Pony. Cleaning twice changes nothing.
    """
    tags = (_plain(tag) for text in texts for tag in COMMA.split(normal(text)))
    return list(dict.fromkeys(tag for tag in tags if tag))


def _plain(tag: str) -> str:
    tag = ESCAPED.sub(r"\1", " ".join(tag.lower().split()))
    for _ in range(MAX_LAYERS):
        inside = _without_layer(tag)
        if inside == tag:
            break
        tag = inside
    return tag if KAOMOJI.fullmatch(tag) or PONY.fullmatch(tag) else " ".join(tag.replace("_", " ").split())


def _without_layer(tag: str) -> str:
    """A tag without its outermost weight or brackets, or without a bracket that is closed in another tag."""
    if weighted := WEIGHTED.fullmatch(tag):
        return weighted[1].strip()
    opens, closes = len(OPEN.findall(tag)), len(CLOSE.findall(tag))
    is_text = TEXT.search(tag) or not tag.strip("()[]{} ")  # `:)` and `(9)` are tags of their own
    if not is_text or not (opens or closes):
        return tag
    if OPEN.match(tag) and (opens > closes or _end(tag) == len(tag) - 1):
        return tag[1 : len(tag) - (opens <= closes)].strip()
    return tag[:-1].strip() if closes > opens and CLOSE.fullmatch(tag[-1]) else tag


def _end(tag: str) -> int:
    """The position at which the first bracket of a tag is closed."""
    depth = 0
    for place, letter in enumerate(tag):
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0:
            return place
    return len(tag)


def check_allowed(*texts: str) -> None:
    """Refuse denied words in tags and prompts, also across two tags and in other spellings."""
    if word := denied.found(texts):
        raise Invalid(f"{word!r} is not allowed here; leave it out", code="denied_tag")


def join(tags: Iterable[str]) -> str:
    """Join tags to a caption. Duplicates are dropped, the order and the case are kept."""
    return ", ".join(dict.fromkeys(tag for tag in tags if tag))


def without_quality(prompt: str) -> str:
    """The caption of a picture that was drawn with a prompt: its tags, without those that only improve pictures."""
    return join(tag for tag in (each.strip() for each in prompt.split(",")) if tag not in QUALITY_TAGS)


def captions(
    *,
    policy: str,
    trigger_word: str,
    subject_tags: Sequence[str],
    feature_tags: Sequence[str],
    image_tags: Sequence[str],
) -> list[str]:
    """The caption variants of one image.

    - `full` (style rounds): trigger, subject, the features that this image shows, the rest of its tags.
    - `prune` (character rounds): the same without the features, so that the trigger word learns them. View, framing,
      pose, expression and background are kept; otherwise the trigger word would learn them too.
    - `mixed`: the pruned caption, and one without the trigger that names everything.

    An image's tags say which features it shows. A feature that is not among them is not visible (such as eyes from
    behind), and a caption that named it would be wrong.
    """
    subject_tags, feature_tags, image_tags = clean(subject_tags), clean(feature_tags), clean(image_tags)
    shown = [tag for tag in feature_tags if tag in image_tags]
    rest = [tag for tag in image_tags if tag not in feature_tags and tag not in subject_tags]
    full = join([trigger_word, *subject_tags, *shown, *rest])
    pruned = join([trigger_word, *subject_tags, *rest])
    described = join([*subject_tags, *shown, *rest])
    if policy == "full":
        return [full]
    if policy == "prune":
        return [pruned]
    if policy == "mixed":
        return [pruned, described]
    raise Invalid(f"unknown caption policy {policy!r}; use one of {', '.join(CAPTION_POLICIES)}")
