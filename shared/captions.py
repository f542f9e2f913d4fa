"""Captions: what the trigger word takes up is what the caption does not say.

The one pure function that the whole method turns on. See docs/captions.md for examples.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from shared.catalog import CAPTION_POLICIES, DENIED_TAGS
from shared.errors import Invalid

# Control characters, those that turn the direction of a line, and the byte-order mark: no text of ours holds them.
CONTROLS = r"\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\ufeff"

WORDS = re.compile(r"[^\W_]+")
DENIED = re.compile(f" ({'|'.join(sorted(DENIED_TAGS))}) ")  # in words with a space around each


def clean(tags: Iterable[str]) -> list[str]:
    """Tags as captions want them: lower case, single spaces, each once, in the order given."""
    spaced = (" ".join(tag.replace("_", " ").lower().split()) for tag in tags)
    return list(dict.fromkeys(tag for tag in spaced if tag))


def check_allowed(*texts: str) -> None:
    """Refuse what a generator must not be asked for, wherever in a tag or prompt it stands, however it is written."""
    for text in texts:
        words = f" {' '.join(WORDS.findall(unicodedata.normalize('NFKC', text).lower()))} "
        if denied := DENIED.search(words):
            raise Invalid(f"the tag {denied[1]!r} is not allowed here", code="denied_tag")


def join(tags: Iterable[str]) -> str:
    """Tags as one caption, each once, in the order given. The trigger word keeps its case."""
    return ", ".join(dict.fromkeys(tag for tag in tags if tag))


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
    - `prune` (character rounds): the same without the features, so that they sink into the trigger word.
      View, framing, pose, expression and background stay in, or they would be baked into her.
    - `mixed`: the pruned caption, and one without the trigger that names everything.

    An image's own tags say which features it shows: a feature that is not among them is not visible
    in this picture (eyes from behind), and naming it would teach the base model a lie.
    """
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
