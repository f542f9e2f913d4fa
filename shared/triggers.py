"""Warnings about trigger words with a meaning: the base model's idea of the word mixes with the character."""

from __future__ import annotations

from dataclasses import dataclass

from shared.captions import clean
from shared.catalog import FRAMINGS, VIEWS

# Tags of quality, age and rating.
QUALITY = """
4k, 8k, absurdres, aesthetic, amazing quality, bad quality, best quality, detailed, displeasing, early, explicit,
general, good quality, great quality, hd, high quality, highly detailed, highres, hires, low quality, lowres,
masterpiece, medium quality, mid, newest, normal quality, official art, old, oldest, photorealistic, questionable,
raw, realistic, recent, safe, score 4, score 4 up, score 5, score 5 up, score 6, score 6 up, score 7, score 7 up,
score 8, score 8 up, score 9, score 9 up, sensitive, source anime, source cartoon, source furry, source pony, uhd,
ultra detailed, very aesthetic, very detailed, worst quality
"""

# Words that every base model knows: common things and names. The list is a hint for people, and far from complete.
ORDINARY = """
alien android angel animal anime anna apple archer armor army art artist aunt axe baby background bag ball bear beard
beast beauty belt bikini bird black blonde blood blue boat body book boots bow boy bride brother brown bunny butterfly
cake camera cape car cartoon castle cat catgirl character chibi child circle city clothes cloud clown coat comic cow
creature crown cute dancer dark daughter day deer demon detective devil dinosaur doctor dog doll dragon drawing dress
duck dwarf eagle ear earring ears elf emma emperor eyes face fairy family fantasy farmer father feather female fight
figure fire fish flower forest fox friend frog game garden gem ghost giant girl glass glasses glove goat goblin god
goddess gold gray green grey guard gun guy hair hand hat head heart helmet hero heroine hood horn horns horse house
human hunter ice idol illustration jack jacket jewel john joker kid kimono king kitten knight lady lamp leaf leg light
lily lion lord love luna machine mage magic maid male man maria mary mask mecha mermaid mice miku model monkey monster
moon mother mountain mouse mushroom neko night ninja nurse ocean office ogre orange orc original outfit owl painting
panda panther pants paper penguin people person photo picture pig pilot pink pirate pixel plant police portrait priest
prince princess purple queen rabbit rain raven red robot rock rogue room rose sailor samurai sand school sea shadow
shark sheep ship shirt shoes silver sister skeleton skirt sky slime smile snake snow soldier sorcerer spider spirit
sport squirrel star stone student style suit summer sun sword tail teacher teen tiger tomboy toy tree turtle unicorn
uniform vampire van victim villain wand warrior water weapon white wing wings winter witch wizard wolf woman women
wood world yellow zombie
"""
SHORTEST = 3  # letters; every tokenizer knows shorter ones as words or parts of words

_quality, _ordinary = frozenset(clean([QUALITY])), frozenset(ORDINARY.split())


@dataclass(frozen=True, kw_only=True)
class ProjectWarning:
    """A warning about a part of a project that was accepted but may disappoint."""

    code: str
    pointer: str
    detail: str


def warnings(trigger_word: str, tags: list[str]) -> list[ProjectWarning]:
    """Warnings about a trigger word in a project with these tags."""
    trigger = " ".join(clean([trigger_word])).replace("_", " ")
    if trigger in _quality:
        return [_warning("quality", trigger_word, "is a tag of quality, which most prompts contain")]
    words = trigger.split()
    hers = {word for tag in (*tags, *VIEWS.values(), *FRAMINGS.values()) for word in tag.split()}
    if all(word in _ordinary or word in hers or word.isdigit() or len(word) < SHORTEST for word in words):
        return [_warning("ordinary", trigger_word, "has a meaning already")]
    return []


def _warning(kind: str, trigger_word: str, what: str) -> ProjectWarning:
    advice = "it mixes with what the base model draws for it; choose a word without a meaning, such as `eiei21girl`"
    return ProjectWarning(
        code=f"trigger_is_{kind}", pointer="/trigger_word", detail=f"the trigger word {trigger_word!r} {what}: {advice}"
    )
