"""What counts as common while an auditor is trained: topics of question and answers, and how evenly they are drawn."""

import numpy as np
import pandas as pd
import pytest

from auditdm_lib.training.topics import even_weights, topics_of


def disagreements(*rows):
    """Judged probes that disagree, from (question, consensus, target's answer)."""
    return pd.DataFrame(rows, columns=["question", "consensus", "target_answer"]).assign(disagrees=True)


def test_topics_come_from_the_words_alone():
    row = next(disagreements(("What colour is the cup?", "The Red", "Blue.")).itertuples())
    assert topics_of(row) == (("what colour", "red"), ("what colour", "blue"))


def test_a_disagreement_is_as_common_as_the_commoner_of_its_two_topics():
    """Four times the same wrong answer whatever is right, four times the same right one, and one of each alone."""
    said = [("what is last?", right, "star") for right in "abcd"] + [("how many cups?", "one", wrong) for wrong in "efgh"]
    rows = disagreements(*said, ("which row?", "top", "bottom"))
    weights = even_weights([topics_of(row) for row in rows.itertuples()], ["question"] * 9)
    assert weights == pytest.approx(np.array([0.5] * 8 + [1.0]) / np.mean([0.5] * 8 + [1.0]))


def test_each_kind_of_text_is_drawn_as_often_as_there_are_examples_of_it():
    topics = [topics_of(row) for row in disagreements(*[("what is it?", str(i // 3), "x") for i in range(30)]).itertuples()]
    kinds = ["question"] * 24 + ["edit"] * 6
    weights = even_weights(topics, kinds)
    assert weights[:24].sum() == pytest.approx(24) and weights[24:].sum() == pytest.approx(6)
