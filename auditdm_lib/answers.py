"""Short answers as texts: when two are the same, when one abstains, and the notation of options and boxes."""

import re
import string
from functools import lru_cache

LETTERS = "ABCDEFGH"  # labels of the options of a multiple-choice item
BINS = 1024  # PaliGemma's location tokens <loc0000> to <loc1023> span the picture
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
                "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty")
ABSTENTIONS = frozenset({
    "cannot tell", "cant tell", "can not tell", "unanswerable", "unknown", "i dont know", "not sure", "none of above", ""})
_DIGITS = {word: str(i) for i, word in enumerate(NUMBER_WORDS)}
_SAME = {"yeah": "yes", "yep": "yes", "true": "yes", "nope": "no", "false": "no", "grey": "gray", "centre": "center"}


@lru_cache(100_000)  # a panel compares the same few answers repeatedly
def normalise(text: str) -> str:
    """A short answer without case, punctuation, articles and spelling variants, numbers as digits ('The Two.' -> '2')."""
    text = text.lower().replace("'", "").replace("\u2019", "")
    words = re.sub(f"[{re.escape(string.punctuation)}]", " ", text).split()
    words = [_SAME.get(_DIGITS.get(w, w), _DIGITS.get(w, w)) for w in words if w not in ("a", "an", "the")]
    return " ".join(words)


def abstains(text: str | None) -> bool:
    """Whether an answer is an abstention ("cannot tell", an empty text) or missing (None: not asked, or an error)."""
    return text is None or normalise(text) in ABSTENTIONS


def same_answer(a: str, b: str) -> bool:
    """The default judge D: whether two short answers are equal when normalised. An equivalence relation."""
    return normalise(a) == normalise(b)


def location(box: tuple[float, float, float, float]) -> str:
    """A box (x1, y1, x2, y2), in fractions of the picture, as PaliGemma's location tokens: y1, x1, y2, x2 in 1,024 bins."""
    x1, y1, x2, y2 = (min(BINS - 1, max(0, round(side * (BINS - 1)))) for side in box)
    return f"<loc{y1:04d}><loc{x1:04d}><loc{y2:04d}><loc{x2:04d}>"


def located(text: str) -> tuple[float, float, float, float] | None:
    """The first box (x1, y1, x2, y2) that a text gives in location tokens; None if there is none."""
    match = re.search(r"<loc(\d{4})>\s*<loc(\d{4})>\s*<loc(\d{4})>\s*<loc(\d{4})>", text, re.ASCII)
    if match is None or any(int(token) >= BINS for token in match.groups()):
        return None
    y1, x1, y2, x2 = (int(token) / (BINS - 1) for token in match.groups())
    return x1, y1, x2, y2
