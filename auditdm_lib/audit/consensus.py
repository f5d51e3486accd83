"""The oracle of the audit: the consensus of the references, and Equation 1, which compares the target's answer with it."""

from collections.abc import Callable

from auditdm_lib.answers import abstains, normalise, same_answer

RULES = ("unanimity", "majority")


def check_rule(rule: str) -> None:
    """Raise ValueError if `rule` is not in RULES."""
    if rule not in RULES:
        raise ValueError(f"There is no consensus rule {rule!r}: give one of {', '.join(RULES)}.")


def consensus(answers: list[str | None], rule: str = "unanimity",
              same: Callable[[str, str], bool] = same_answer) -> str | None:
    """The answer that the references agree on, or None. References that abstain or raised an error (None) do not vote.

    `unanimity`: all voters give the same answer. `majority`: more than half of the voters do, so a tie is no consensus. Both
    rules need at least two votes, unless there is only one reference (the paper's two-model mode), whose vote is the
    consensus. Of the wordings of the agreed answer the most frequent is returned, then the shortest, then the first in the
    alphabet, so the order of the references has no effect. Raises ValueError on an unknown rule.
    """
    check_rule(rule)
    votes = [a for a in answers if not abstains(a)]
    if len(votes) < _needed(len(answers)):
        return None
    held = [sum(same(v, w) for w in votes) for v in votes]
    if min(held) < len(votes) if rule == "unanimity" else 2 * max(held) <= len(votes):
        return None
    # If `same` is not an equivalence relation, several answers can qualify: the one with the most votes is taken.
    agreed = min(zip(held, votes, strict=True), key=lambda pair: (-pair[0], normalise(pair[1])))[1]
    return min((v for v in votes if normalise(v) == normalise(agreed)), key=lambda v: (-votes.count(v), len(v), v))


def disagrees(target_answer: str | None, agreed: str | None, same: Callable[[str, str], bool] = same_answer) -> bool:
    """Equation 1: whether there is a consensus and the target's answer differs from it.

    A target that abstains disagrees; one that raised an error or was not asked (None) does not.
    """
    return target_answer is not None and agreed is not None and not same(target_answer, agreed)


def still_open(target_answer: str | None, answers: list[str | None], waiting: int, rule: str = "unanimity") -> bool:
    """Whether the target may still disagree with the consensus once `waiting` more references have answered after `answers`.

    Exact for the normalised match. The best case is that all w waiting references vote for the most frequent answer that
    differs from the target's, which turns h of n votes for it into h + w of n + w (if h = 0, for an answer not given so far).
    Raises ValueError on an unknown rule.
    """
    check_rule(rule)
    votes = [normalise(a) for a in answers if not abstains(a)]
    if target_answer is None or len(votes) + waiting < _needed(len(answers) + waiting):
        return False
    h = max((votes.count(v) for v in votes if v != normalise(target_answer)), default=0)
    return h == len(votes) if rule == "unanimity" else 2 * (h + waiting) > len(votes) + waiting


def _needed(members: int) -> int:
    """How many votes a consensus of this many references needs: two, or one if there is a single reference."""
    return 1 if members <= 1 else 2
