"""Drawing questions: answerable where promised, balanced, and described by their conditions."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditdm_lib.testbed.questions import all_questions, condition_names, conditions, sample_answerable, sample_question
from auditdm_lib.testbed.scenes import Scene, Thing, sample_scenes
from auditdm_lib.testbed.skills import CANNOT_TELL, SKILLS, answer, parse_question, phrase


@given(st.integers(0, 10**9))
@settings(max_examples=300, deadline=None)
def test_every_sampled_question_parses_back_and_has_an_answer_of_its_skill(seed):
    rng = random.Random(seed)
    scene = sample_scenes(1, "train", seed)[0]
    for text in (sample_question(scene, rng, 0.5), sample_answerable(scene, rng)):
        question = parse_question(text)
        skill = SKILLS[question.skill]
        assert text in [phrase(question, form) for form in range(len(skill.forms))]
        assert answer(scene, text) in (*skill.answers, CANNOT_TELL)
        assert set(conditions(scene, question)) <= set(condition_names(question.skill))
    assert answer(scene, text) != CANNOT_TELL


@pytest.mark.parametrize("skill", SKILLS)
def test_every_skill_is_askable_and_no_answer_is_the_answer_in_three_of_five(skill):
    rng = random.Random(0)
    drawn = [(scene, sample_answerable(scene, rng, skill)) for scene in sample_scenes(1500, "train", 0)]
    answers = Counter(answer(scene, text) for scene, text in drawn if text)
    assert answers.total() >= 100 and answers.most_common(1)[0][1] / answers.total() < 0.6, answers.most_common(3)


SCENE = Scene("mint", (Thing("cup", "purple", "small", 0), Thing("star", "red", "large", 8)))


def test_every_answerable_question_is_listed_once():
    listed = all_questions(SCENE)
    assert len(listed) == len(set(listed)) and all(answer(SCENE, q) not in (None, CANNOT_TELL) for q in listed)
    rng = random.Random(0)
    for _ in range(400):
        question = parse_question(sample_answerable(SCENE, rng))
        present = all(word in ("cup", "star") for slot, word in question.slots.items() if slot in ("kind", "kind2", "shape"))
        assert not present or question.skill == "distraction" or phrase(question) in listed
    absent = [q for q in listed if parse_question(q).skill == "count_kind" and answer(SCENE, q) == "zero"]
    assert absent == ["how many circles are there?", "how many umbrellas are there?"]  # one shape and one other thing


def test_conditions_tell_what_a_gap_can_hang_on():
    held = conditions(SCENE, parse_question("which row is the cup in?"))
    assert held == {"answer": "top", "background": "mint", "weather": "fair", "things": "two", "kind": "cup",
                    "thing.colour": "purple", "thing.size": "small", "thing.row": "top", "thing.column": "left",
                    "thing.detail": "", "thing.material": "plain"}
    assert conditions(SCENE, parse_question("what is the red thing?"))["thing.row"] == "bottom"
    assert "thing.size" not in conditions(SCENE, parse_question("what colour is the plane?"))
    assert "kind" in condition_names("count_kind") and not any(n.startswith("thing.") for n in condition_names("weather"))
