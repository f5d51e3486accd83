"""Topics, a proxy for failure types while an auditor is trained. They are computed from questions and answers alone.

A disagreement has two topics: the first two words of the question paired with the consensus, and paired with the target's
answer. A weakness of the target shows in either: it may always answer "star" to "the last thing ...", or fail on "what colour
..." when the right answer is purple. A disagreement therefore counts as common if one of its two topics is.
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
    """Sampling weights of disagreements: (size of the more common topic)^-1/2, scaled to a mean of 1 within each kind of text.

    Topics are counted separately for each kind of text, so that a kind keeps its share of the sample.
    """
    sizes = [Counter(zip(kinds, side, strict=True)) for side in zip(*topics, strict=True)]
    common = [max(size[kind, t] for size, t in zip(sizes, pair, strict=True)) for pair, kind in zip(topics, kinds, strict=True)]
    weights = pd.Series(np.power(common, -0.5))
    return (weights / weights.groupby(kinds).transform("mean")).to_numpy()
