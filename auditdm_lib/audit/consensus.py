"""The oracle of the audit: the judge D of Equation 1, and the consensus of the reference models."""

import re
import string
from collections.abc import Callable
from functools import lru_cache

RULES = ("unanimity", "majority")
ABSTENTIONS = frozenset({
    "cannot tell", "cant tell", "can not tell", "unanswerable", "unknown", "i dont know", "not sure", "none of above", ""})
_NUMBERS = {word: str(i) for i, word in enumerate(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty".split())}
_SAME = {"yeah": "yes", "yep": "yes", "true": "yes", "nope": "no", "false": "no", "grey": "gray", "centre": "center"}


@lru_cache(100_000)  # a panel compares the same few answers over and over
def normalise(text: str) -> str:
    """A short answer without case, punctuation, articles and spelling variants, numbers as digits ('The Two.' -> '2')."""
    text = text.lower().replace("'", "").replace("\u2019", "")
    words = re.sub(f"[{re.escape(string.punctuation)}]", " ", text).split()
    words = [_SAME.get(_NUMBERS.get(w, w), _NUMBERS.get(w, w)) for w in words if w not in ("a", "an", "the")]
    return " ".join(words)


def abstains(text: str | None) -> bool:
    """Whether an answer declines ("cannot tell", nothing at all), or there is none (None: not asked, or an error)."""
    return text is None or normalise(text) in ABSTENTIONS


def same_answer(a: str, b: str) -> bool:
    """The judge D: normalised match of two short answers. An equivalence relation."""
    return normalise(a) == normalise(b)


def check_rule(rule: str) -> None:
    """Raises ValueError where `rule` is none of RULES."""
    if rule not in RULES:
        raise ValueError(f"There is no consensus rule {rule!r}: give one of {', '.join(RULES)}.")


def consensus(answers: list[str | None], rule: str = "unanimity",
              same: Callable[[str, str], bool] = same_answer) -> str | None:
    """What the references agree on, or None. Members that abstain or erred (None) do not vote.

    `unanimity`: all voters say the same; `majority`: more than half of the voters do, so a tie is none. Both ask for two
    votes, except of a single reference (the paper's two-model mode), whose vote is the consensus. Returned as the first
    voter of that answer put it. Raises ValueError on an unknown rule.
    """
    check_rule(rule)
    votes = [a for a in answers if not abstains(a)]
    if len(votes) < _needed(len(answers)):
        return None
    held = [sum(same(v, w) for w in votes) for v in votes]
    if min(held) < len(votes) if rule == "unanimity" else 2 * max(held) <= len(votes):
        return None
    # Where `same` is no equivalence relation several answers can qualify: the one held by most, then the first by the
    # alphabet, so that the order of the references decides on spelling only.
    return min(zip(held, votes, strict=True), key=lambda pair: (-pair[0], normalise(pair[1])))[1]


def disagrees(target_answer: str | None, agreed: str | None, same: Callable[[str, str], bool] = same_answer) -> bool:
    """Equation 1: there is a consensus and the target's answer differs from it.

    An abstaining target disagrees; one that erred or was not asked (None) does not.
    """
    return target_answer is not None and agreed is not None and not same(target_answer, agreed)


def open_still(target_answer: str | None, answers: list[str | None], waiting: int, rule: str = "unanimity") -> bool:
    """Whether Equation 1 can still come out as a disagreement when `waiting` more references answer after `answers`.

    Exact for the normalised match: in the best case all that wait vote for the answer that is held most and is not the
    target's, so n votes, h of them for it, become n + w and h + w (or, with h = 0, for one that nobody gave yet).
    Raises ValueError on an unknown rule.
    """
    check_rule(rule)
    votes = [normalise(a) for a in answers if not abstains(a)]
    if target_answer is None or len(votes) + waiting < _needed(len(answers) + waiting):
        return False
    h = max((votes.count(v) for v in votes if v != normalise(target_answer)), default=0)
    return h == len(votes) if rule == "unanimity" else 2 * (h + waiting) > len(votes) + waiting


def _needed(members: int) -> int:
    """How many of so many references must vote for a consensus: two, or the only one."""
    return 1 if members <= 1 else 2
