"""What counts as common while an auditor is trained: topics of question and answers, and what a disagreement is worth."""

import numpy as np
import pandas as pd
import pytest

from auditdm_lib.topics import Tally, even_weights, topics_of


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


def test_what_is_common_so_far_is_worth_less_and_the_first_of_its_kind_is_worth_all():
    tally, common, rare = Tally(), ("what is last?", "cup", "star"), ("which row?", "top", "middle")
    new = disagreements(common, rare, ("what colour?", "red", "blue"))
    assert tally.worth(new, 0.5) == [1, 1, 1]  # nothing is known yet
    tally.add(disagreements(*[common] * 90, *[rare] * 10))
    even = np.exp(-(0.9 * np.log(0.9) + 0.1 * np.log(0.1)))  # effective number of topics
    assert tally.worth(new, 0.5) == pytest.approx([(0.9 * even) ** -0.5, 1, 1]) and 0.9 * even > 1 > 0.1 * even
    assert tally.worth(new, 0.0) == [1, 1, 1]  # the paper's reward
    assert tally.worth(new.assign(disagrees=False), 0.5) == [1, 1, 1]


def test_other_words_for_the_same_question_are_worth_no_more():
    tally = Tally()
    tally.add(disagreements(*[("what is last?", "cup", "star")] * 90, *[("which row?", "top", "middle")] * 10))
    new = disagreements(("what is last?", "cup", "star"), ("which colour comes last?", "key", "star"))
    same, reworded = tally.worth(new, 0.5)
    assert same == reworded < 1


def test_only_disagreements_are_counted():
    tally = Tally()
    tally.add(disagreements(("what is it?", "cup", "star")).assign(disagrees=False))
    assert [size.total() for size in tally.sizes] == [0, 0]
