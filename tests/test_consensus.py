"""The judge D and the consensus of the references."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditdm_lib.consensus import abstains, consensus, disagrees, normalise, same_answer

WORDS = st.sampled_from(["red", "Red.", "the red", "blue", "two", "2", "cannot tell", "", "yes", None])


@pytest.mark.parametrize(("a", "b"), [("Two.", "2"), ("the Umbrella", "umbrella"), ("YES", "yes"), ("centre", "center"),
                                      ("can't tell", "cant tell"), ("a  red, star", "red star")])
def test_spelling_does_not_make_a_difference(a, b):
    assert same_answer(a, b)


@pytest.mark.parametrize(("a", "b"), [("red", "blue"), ("two", "3"), ("yes", "no"), ("left", "right")])
def test_different_answers_differ(a, b):
    assert not same_answer(a, b)


@given(st.text(max_size=30))
def test_normalising_twice_changes_nothing(text):
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize("text", ["cannot tell", "Cannot tell.", "can't tell", "", "I don't know", None])
def test_declining_is_no_vote(text):
    assert abstains(text)
    assert consensus(["red", text]) is None


def test_two_votes_that_agree_are_a_consensus():
    assert consensus(["red", "Red."]) == "red"
    assert consensus(["red", "red", "cannot tell"]) == "red"


def test_a_tie_is_no_consensus():
    assert consensus(["red", "blue"]) is None
    assert consensus(["red", "red", "blue"]) is None


def test_one_reference_is_the_two_model_mode():
    assert consensus(["red"]) == "red"
    assert consensus(["cannot tell"]) is None
    assert consensus([]) is None


def test_an_abstaining_target_disagrees_but_nothing_disagrees_without_a_consensus():
    assert disagrees("cannot tell", "red") and disagrees("blue", "red")
    assert not disagrees("The red", "red") and not disagrees("blue", None)


@given(st.lists(WORDS, min_size=1, max_size=4))
def test_a_consensus_is_what_every_voter_said(answers):
    agreed, votes = consensus(answers), [a for a in answers if not abstains(a)]
    assert (agreed is not None) == (len(votes) >= min(2, len(answers)) and len({normalise(v) for v in votes}) == 1)
