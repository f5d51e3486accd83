"""Stand-ins for the failure types while an auditor is trained: read from questions and answers alone, with no world's help.

A disagreement has two topics: the question's first two words with what the references said, and with what the target said. A
weakness shows in either ("the last thing" is always "star", whatever stands there; "what colour", where it is purple), so a
disagreement is as common as the commoner of its two.
"""

from collections import Counter

import numpy as np
import pandas as pd

from auditdm_lib.consensus import normalise

Topics = tuple[tuple[str, str], tuple[str, str]]


def topics_of(row) -> Topics:
    """The two topics of a judged probe that disagrees (fields question, consensus, target_answer)."""
    stem = " ".join(row.question.lower().split()[:2])
    agreed, said = _answers(row)
    return (stem, agreed), (stem, said)


def even_weights(topics: list[Topics], kinds: list[str]) -> np.ndarray:
    """Weights for drawing disagreements, (size of the commoner topic)^-1/2, scaled so that each kind's add up to its number.

    Topics are counted within each kind of text, so that what is rare stays rare only among its like.
    """
    sizes = [Counter(zip(kinds, side, strict=True)) for side in zip(*topics, strict=True)]
    common = [max(size[kind, t] for size, t in zip(sizes, pair, strict=True)) for pair, kind in zip(topics, kinds, strict=True)]
    weights = pd.Series(np.power(common, -0.5))
    return (weights / weights.groupby(kinds).transform("mean")).to_numpy()


class Tally:
    """Counts what was said in disagreements so far, and says what one more of them is worth.

    It goes by the two answers alone: a policy that is paid for rare topics would else learn to begin the same question with
    other words.
    """

    def __init__(self):
        self.sizes = (Counter(), Counter())  # of the consensus, of the target's answer

    def add(self, judged: pd.DataFrame) -> None:
        """Count the disagreements among judged probes."""
        for row in judged[judged["disagrees"]].itertuples():
            for size, answer in zip(self.sizes, _answers(row), strict=True):
                size[answer] += 1

    def worth(self, judged: pd.DataFrame, power: float) -> list[float]:
        """(even share / share of the commoner answer)^power, at most 1, of each disagreement; 1 of other probes.

        The even share is 1 / exp(entropy) of the shares so far: that of each answer if all were equally common.
        """
        shares = [{answer: n / size.total() for answer, n in size.items()} for size in self.sizes]
        numbers = [np.exp(-sum(p * np.log(p) for p in share.values())) for share in shares]
        common = [max(share.get(a, 0) * n for share, n, a in zip(shares, numbers, _answers(row), strict=True))
                  if row.disagrees else 0 for row in judged.itertuples()]
        return [float(max(c, 1.0) ** -power) for c in common]


def _answers(row) -> tuple[str, str]:
    return normalise(row.consensus), normalise(row.target_answer)
