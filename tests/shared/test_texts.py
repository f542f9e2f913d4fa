import re
import sys
import unicodedata

from shared.texts import UNSEEN, UNSEEN_BEYOND


def test_the_unseen_letters_are_those_of_unicode() -> None:
    unseen = re.compile(f"[{UNSEEN}{UNSEEN_BEYOND}]")
    letters = map(chr, range(sys.maxunicode + 1))
    assert [each for each in letters if bool(unseen.match(each)) != (unicodedata.category(each) in HIDDEN)] == []


HIDDEN = ("Cc", "Cf", "Zl", "Zp")
