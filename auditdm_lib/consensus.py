"""The oracle of the audit: the judge D of Equation 1, and the consensus of the reference models."""

import re
import string

ABSTENTIONS = frozenset({
    "cannot tell", "cant tell", "can not tell", "unanswerable", "unknown", "i dont know", "not sure", "none of above", ""})
_NUMBERS = {word: str(i) for i, word in enumerate(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty".split())}
_SAME = {"yeah": "yes", "yep": "yes", "true": "yes", "nope": "no", "false": "no", "grey": "gray", "centre": "center"}


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


def consensus(answers: list[str | None]) -> str | None:
    """What the references agree on, or None. Members that abstain, erred or were not asked do not vote.

    Unanimity of at least two votes; a single reference is the paper's two-model mode, where its answer is the consensus.
    """
    votes = [a for a in answers if not abstains(a)]
    if len(votes) < min(2, len(answers)) or not votes:
        return None
    return votes[0] if all(same_answer(votes[0], v) for v in votes[1:]) else None


def disagrees(target_answer: str, agreed: str | None) -> bool:
    """Equation 1: there is a consensus and the target's answer differs from it. An abstaining target disagrees."""
    return agreed is not None and not same_answer(target_answer, agreed)
