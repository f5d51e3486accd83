"""The oracle of the audit: the judge D of Equation 1, and the consensus of the reference models."""

from collections.abc import Callable

from auditdm_lib.answers import abstains, normalise, same_answer

RULES = ("unanimity", "majority")


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
