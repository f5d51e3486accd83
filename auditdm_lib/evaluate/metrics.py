"""The metrics of the benchmarks, as their owners compute them: the score of a prediction, 0 to 1, given the accepted answers.

They are apart from the judge D (`answers.same_answer`), which says whether two models disagree. Longer ones have a module
of their own: `vqa`, `multiple_choice`, `captions`. Where the kit departs from an owner's script, the docstring says so and
why. An empty prediction is wrong, but for the two whose scripts say otherwise (`vqa_accuracy`, `relaxed_accuracy`).
"""

import math
from decimal import Decimal
from fractions import Fraction

from anls_star import anls_score

from auditdm_lib.boxes import located, overlap
from auditdm_lib.evaluate.captions import cider_d
from auditdm_lib.evaluate.multiple_choice import choice, value
from auditdm_lib.evaluate.vqa import vqa_accuracy

__all__ = ["anls", "choice", "cider_d", "exact_match", "iou", "mme", "polled", "polled_by_mme", "pope", "relaxed_accuracy",
           "vqa_accuracy"]
TOLERANCE = Fraction(5, 100)  # of relaxed accuracy


def exact_match(prediction: str, answers: list[str]) -> float:
    """1 if the prediction is one of the accepted answers, else 0 (GQA, RealWorldQA, the open questions of MMMU).

    GQA's script compares the texts as they are. Here case, blanks and final punctuation do not count, as in lmms-eval, and
    numbers are compared by value, to two decimals, as in MMMU's `eval_open` ("1,000" is "1000"; a comma that sets off no
    thousands makes no number). Articles, spellings, signs and units count.
    """
    said = _tidy(prediction)
    return float(bool(said) and any(said == right or _equal(value(said), value(right)) for right in map(_tidy, answers)))


def _tidy(text: str) -> str:
    text = " ".join(text.lower().split())
    return text.rstrip(".!?,;:").rstrip() or text


def _equal(a: float | None, b: float | None) -> bool:
    return a is not None and b is not None and round(a, 2) == round(b, 2)


def anls(prediction: str, answers: list[str]) -> float:
    """Normalised Levenshtein similarity to the nearest answer, 0 if it is below 0.5 (Biten et al. 2019; DocVQA).

    Case and repeated blanks do not count. A similarity of exactly 0.5 counts, as in the challenge's script; the formula of
    Biten et al. gives 0 there.
    """
    return float(anls_score(tuple(answers), prediction)) if prediction.strip() else 0.0


def relaxed_accuracy(prediction: str, answers: list[str]) -> float:
    """1 if a number is within 5 % of an answer, or if any other text is the same but for case (Methani et al. 2020; ChartQA).

    As in pix2struct's `relaxed_correctness`: a number is what `float` reads, "12%" is 0.12, and number words, "$5" and
    "1,000" are texts; two empty texts are the same. Departures: exactly 5 % counts (there, floating point decides: 105 is
    near 100, 4.2 is not near 4), and zeros in the same notation are equal ("0.0" and "0"; there, zero is compared as a text).
    """
    return float(any(_near(prediction, answer) for answer in answers))


def _near(prediction: str, answer: str) -> bool:
    said, right = _number(prediction), _number(answer)
    if said is None or right is None:
        return prediction.lower() == answer.lower()
    if not math.isfinite(said) or not math.isfinite(right):
        return False
    if right == 0:
        return said == 0 and prediction.endswith("%") == answer.endswith("%")
    return abs(said - right) <= TOLERANCE * abs(right)


def _number(text: str) -> Fraction | float | None:
    """The number in a text, exact (infinite or NaN as a float); None if it is none."""
    percent = text.endswith("%")
    text = text.rstrip("%") if percent else text
    try:
        number = float(text)
    except ValueError:
        return None
    if number and math.isfinite(number):
        number = Fraction(Decimal(text.strip()))
    return number / 100 if percent else number


def pope(text: str) -> str:
    """A free answer to a yes/no question as POPE's script reads it: "no" if its first sentence has the word No, no or not.

    Anything else is "yes", also what declines ("I cannot tell.") or denies in other words ("There is none.", "NO").
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def mme(text: str) -> str:
    """A free answer to a yes/no question as MME's script reads it: "yes" or "no" by its first four letters, else "other"."""
    start = text.lower().strip().replace(".", "")
    if len(start) == 1:
        return {"y": "yes", "n": "no"}.get(start, "other")
    return "yes" if "yes" in start[:4] else "no" if "no" in start[:4] else "other"


def polled(prediction: str, answers: list[str]) -> float:
    """1 if a free answer to a yes/no question, read by `pope`, equals the item's answer (POPE).

    An empty answer is wrong; the script takes it for a yes.
    """
    return float(bool(prediction.strip()) and pope(prediction) == answers[0])


def polled_by_mme(prediction: str, answers: list[str]) -> float:
    """1 if a free answer to a yes/no question, read by `mme`, equals the item's answer (MME); "other" never does."""
    return float(mme(prediction) == answers[0])


def iou(prediction: str, answers: list[str]) -> float:
    """Intersection over union of the predicted and the right box, 0 if no box can be read (RefCOCO).

    Computed in exact fractions, so that a half is a half. A box with a corner the wrong way round holds no area.
    """
    a, b = located(prediction), located(answers[0])
    if a is None or b is None:
        return 0.0
    return overlap(a, b)
