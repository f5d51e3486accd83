"""Stand-ins for the failure types while an auditor is trained: read from questions and answers alone, with no world's help.

A disagreement has two topics: the question's first two words with what the references said, and with what the target said. A
weakness shows in either ("the last thing" is always "star", whatever stands there; "what colour", where it is purple), so a
disagreement is as common as the commoner of its two.
"""

from collections import Counter

import numpy as np
import pandas as pd

from auditdm_lib.answers import normalise

Topics = tuple[tuple[str, str], tuple[str, str]]


def topics_of(row) -> Topics:
    """The two topics of a judged probe that disagrees (fields question, consensus, target_answer)."""
    stem = " ".join(row.question.lower().split()[:2])
    return (stem, normalise(row.consensus)), (stem, normalise(row.target_answer))


def even_weights(topics: list[Topics], kinds: list[str]) -> np.ndarray:
    """Weights for drawing disagreements, (size of the commoner topic)^-1/2, scaled so that each kind's add up to its number.

    Topics are counted within each kind of text, so that what is rare stays rare only among its like.
    """
    sizes = [Counter(zip(kinds, side, strict=True)) for side in zip(*topics, strict=True)]
    common = [max(size[kind, t] for size, t in zip(sizes, pair, strict=True)) for pair, kind in zip(topics, kinds, strict=True)]
    weights = pd.Series(np.power(common, -0.5))
    return (weights / weights.groupby(kinds).transform("mean")).to_numpy()
