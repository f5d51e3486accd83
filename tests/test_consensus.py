"""The judge D and the consensus of the references."""

from itertools import combinations_with_replacement, permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditdm_lib.answers import abstains, normalise, same_answer
from auditdm_lib.audit.consensus import RULES, consensus, disagrees, still_open

WORDS = st.sampled_from(["red", "Red.", "the red", "blue", "two", "2", "cannot tell", "", "yes", None])


@pytest.mark.parametrize(("a", "b"), [("Two.", "2"), ("the Umbrella", "umbrella"), ("YES", "yes"), ("centre", "center"),
                                      ("can't tell", "cant tell"), ("a  red star.", "red star")])
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


@pytest.mark.parametrize(("answers", "agreed"), [
    (["red", "Red.", "blue"], "red"), (["blue", "the red", "red"], "red"), (["red", "red", "blue", "blue"], None),
    (["red", "blue", "green"], None), (["red", "red", "blue", "green"], None), (["red", "red", "blue", None], "red"),
    (["red", "blue", "cannot tell"], None), (["red", "cannot tell", None], None), (["red", "red"], "red"), (["red"], "red"),
    (["red", "red", "cannot tell", "cannot tell", "cannot tell"], "red"), ([None], None), ([], None)])
def test_a_majority_is_more_than_half_of_at_least_two_voters(answers, agreed):
    assert consensus(answers, "majority") == agreed


def test_nothing_disagrees_that_was_not_said():
    assert not disagrees(None, "red") and not disagrees(None, None)


@pytest.mark.parametrize("ask", [lambda: consensus(["red"], "most"), lambda: still_open("red", ["red"], 1, "most")])
def test_an_unknown_rule_is_refused_with_the_known_ones(ask):
    with pytest.raises(ValueError, match="'most': give one of unanimity, majority"):
        ask()


def near(a, b):
    """A judge that is symmetric but not transitive: answers one letter apart are the same."""
    return abs(ord(a) - ord(b)) <= 1


def test_unanimity_compares_every_pair_of_voters():
    assert consensus(["c", "b", "d"], same=near) is None  # c is the same as each, b and d are not
    assert consensus(["b", "c"], same=near) == "b"
    assert consensus(["b", "c", "d"], "majority", same=near) == "c"  # held by all three, b and d by two
    assert not disagrees("b", "c", same=near) and disagrees("b", "d", same=near)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("same", [same_answer, near], ids=["match", "near"])
def test_the_order_of_the_references_does_not_change_the_consensus(rule, same):
    for answers in combinations_with_replacement(["b", "c", "d", "e", "cannot tell", None], 4):
        assert len({consensus(list(order), rule, same) for order in permutations(answers)}) == 1


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("members", [1, 2, 3, 4])
def test_a_disagreement_is_open_just_where_some_further_answers_make_it(rule, members):
    said = ["red", "Blue.", "green", "cannot tell", None]
    further = [*said, "pink", "grey"]  # four members cannot give more kinds of answer than these
    for target, asked in product(["the red", "unknown", None], range(members + 1)):
        for answers in product(said, repeat=asked):
            possible = any(disagrees(target, consensus([*answers, *rest], rule))
                           for rest in product(further, repeat=members - asked))
            assert still_open(target, list(answers), members - asked, rule) == possible, (target, answers)


@given(st.lists(WORDS, min_size=1, max_size=4))
def test_a_consensus_is_what_every_voter_said(answers):
    agreed, votes = consensus(answers), [a for a in answers if not abstains(a)]
    assert (agreed is not None) == (len(votes) >= min(2, len(answers)) and len({normalise(v) for v in votes}) == 1)
