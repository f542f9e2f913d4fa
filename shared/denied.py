"""Words that are denied in tags and prompts. This stops careless requests; it does not filter pictures."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

from shared.settings import Settings
from shared.texts import COMMAS

# Letters that look like a Latin one and that NFKD does not change: Cyrillic, Greek, and a few Latin ones.
LOOK_ALIKE = {
    "a": "аαɑ", "b": "ьʙ", "c": "сϲ", "d": "ԁɗ", "e": "еҽєɛε", "g": "ɡց", "h": "һհ", "i": "іıιɩ", "j": "јϳ", "k": "кκ",
    "l": "ӏⅼʟ", "m": "мм", "n": "ոпη", "o": "оοօσ", "p": "рρ", "q": "ԛ", "r": "гʀ", "s": "ѕꜱ", "t": "тτ", "u": "υսц",
    "v": "ѵν", "w": "ԝωш", "x": "хχ", "y": "уүγ", "z": "ᴢ",
}  # fmt: skip
LATIN = str.maketrans({other: latin for latin, others in LOOK_ALIKE.items() for other in others})
# Digits and signs that stand for letters.
WRITTEN_FOR = {
    "a": "4@", "b": "8", "e": "3", "g": "9", "i": "1!|", "l": "1!|", "o": "0", "s": "5$", "t": "7+", "z": "2"
}  # fmt: skip

COMMA = re.compile(f"[{COMMAS}]")
WORD = re.compile(r"[^\W_]+")
DROPPED = {"Mn", "Me", "Cf", "Cc"}  # accents and invisible characters


class Denied:
    """A list of denied words, and of phrases that may contain one of them."""

    def __init__(self, words: Iterable[str], innocent: Iterable[str]):
        self._phrases = {word: WORD.findall(plain(word)) for word in words if WORD.search(plain(word))}
        self._patterns = {word: re.compile(_pattern(letters)) for word, letters in self._phrases.items()}
        allowed = "|".join(_spaced(WORD.findall(plain(phrase))) for phrase in innocent)
        self._innocent = re.compile(rf"(?<![^\W_])(?:{allowed})(?![^\W_])") if allowed else None

    def found(self, texts: Iterable[str]) -> str | None:
        """The first denied word in tags, prompts or captions, also across two tags: a caption may join any two."""
        tags = [tag for text in texts for tag in COMMA.split(self._without_innocent(plain(text)))]
        for word, pattern in self._patterns.items():
            if any(_has_letters(match[0]) for tag in tags for match in pattern.finditer(tag)):
                return word
        said = [WORD.findall(tag) for tag in tags]
        for word, phrase in self._phrases.items():
            if any(_is_joined(said, phrase[:cut], phrase[cut:]) for cut in range(1, len(phrase))):
                return word
        return None

    def _without_innocent(self, text: str) -> str:
        return self._innocent.sub(",", text) if self._innocent else text


def plain(text: str) -> str:
    """Replace look-alikes by small Latin letters, and drop accents and invisible characters."""
    letters = unicodedata.normalize("NFKD", text).lower()
    return "".join(each for each in letters if unicodedata.category(each) not in DROPPED).translate(LATIN)


def found(texts: Iterable[str]) -> str | None:
    """The first of this installation's denied words in these texts."""
    return _denied.found(texts)


def use(settings: Settings) -> None:
    """Use the words of an installation in this process."""
    global _denied  # noqa: PLW0603  (one process serves one installation)
    _denied = _made(settings.denied_words, settings.denied_words_except)


@cache
def _made(words: tuple[str, ...], innocent: tuple[str, ...]) -> Denied:
    return Denied(words, innocent)


def _pattern(words: list[str]) -> str:
    """A pattern of words and their plurals, with signs between some letters, or signs and spaces between all."""
    tight = r"[\W_]+".join(r"[^\w\s,]{0,3}".join(map(_letter, word)) for word in words)
    spread = r"[\W_]{1,3}".join(_letter(letter) for word in words for letter in word)
    return rf"(?<![^\W\d_])(?:{tight}|{spread})(?:e?[s5$])?(?![^\W\d_])"


def _spaced(words: list[str]) -> str:
    return r"[\W_]+".join(map(re.escape, words))


def _letter(letter: str) -> str:
    return f"[{re.escape(letter + WRITTEN_FOR.get(letter, ''))}]"


def _has_letters(text: str) -> bool:
    return any(letter.isalpha() for letter in text)


def _is_joined(tags: list[list[str]], head: list[str], tail: list[str]) -> bool:
    ends = any(tag[-len(head) :] == head for tag in tags)
    return ends and any(tag[: len(tail)] == tail for tag in tags)


_denied = _made(Settings.denied_words, Settings.denied_words_except)
