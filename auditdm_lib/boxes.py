"""Boxes in texts: the notation in which a model says where something is, as fractions of the picture."""

import re
from fractions import Fraction

BINS = 1024  # PaliGemma's location tokens <loc0000> to <loc1023> span the picture
_TOKENS = re.compile(r"\s*".join([r"<loc(\d{4})>"] * 4), re.ASCII)
_BRACKETS = re.compile(r"\[\s*" + r"\s*,\s*".join([r"(-?\d{1,9}(?:\.\d{1,30})?)"] * 4) + r"\s*\]", re.ASCII)


def location(box: tuple[float, float, float, float]) -> str:
    """A box (x1, y1, x2, y2), in fractions of the picture, as PaliGemma's location tokens: y1, x1, y2, x2 in 1,024 bins."""
    x1, y1, x2, y2 = (min(BINS - 1, max(0, round(side * (BINS - 1)))) for side in box)
    return f"<loc{y1:04d}><loc{x1:04d}><loc{y2:04d}><loc{x2:04d}>"


def located(text: str) -> tuple[Fraction, Fraction, Fraction, Fraction] | None:
    """The first box (x1, y1, x2, y2) that a text gives, in exact fractions of the picture; None if it gives none.

    Read are four location tokens (y1, x1, y2, x2), and where there are none, "[x1, y1, x2, y2]" with numbers from 0 to 1.
    """
    if match := _TOKENS.search(text):
        y1, x1, y2, x2 = (Fraction(int(token), BINS - 1) for token in match.groups())
    elif match := _BRACKETS.search(text):
        x1, y1, x2, y2 = (Fraction(side) for side in match.groups())
    else:
        return None
    return (x1, y1, x2, y2) if all(0 <= side <= 1 for side in (x1, y1, x2, y2)) else None


def overlap(a: tuple[Fraction, ...], b: tuple[Fraction, ...]) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2), 0 to 1, 0 if neither holds an area."""
    common = _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    union = _area(a) + _area(b) - common
    return float(common / union) if union else 0.0


def _area(box: tuple[Fraction, ...]) -> Fraction:
    x1, y1, x2, y2 = box
    return max(Fraction(0), x2 - x1) * max(Fraction(0), y2 - y1)
