"""Skills: right answers, and a language in which every question means one thing."""

import csv

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditdm_lib import paths
from auditdm_lib.testbed.scenes import Scene, Thing
from auditdm_lib.testbed.skills import CANNOT_TELL, PLURALS, SKILLS, SLOTS, answer, parse_question, phrase, slots_of

FAIR = Scene("mint", (
    Thing("umbrella", "red", "small", 0), Thing("star", "blue", "large", 4), Thing("star", "red", "small", 5),
    Thing("digit", "black", "large", 6, "seven"), Thing("anchor", "purple", "large", 8)))
# clock  .     star(over the cow)      digit 3  word  cow      chart  bead  digit 8
BUSY = Scene("grey", (
    Thing("clock", "red", "large", 0, "three"), Thing("star", "blue", "large", 2, material="striped", covers="below"),
    Thing("digit", "green", "small", 3, "three"), Thing("word", "red", "large", 4, "tea"), Thing("cow", "black", "large", 5),
    Thing("chart", "pink", "large", 6, "one four two"), Thing("bead", "blue", "tiny", 7),
    Thing("digit", "blue", "large", 8, "eight")), "rainy")
MELT = Scene("mint", (Thing("snowman", "red", "large", 0), Thing("snowflake", "blue", "large", 4)))
FEW = Scene("white", (
    Thing("person", "red", "large", 0, "running"), Thing("sign", "blue", "large", 1, "no entry"),
    Thing("face", "red", "large", 2, "angry"), Thing("arrow", "green", "small", 4, "up"),
    Thing("chart", "red", "large", 8, "two two one")))


@pytest.mark.parametrize(("scene", "question", "right"), [
    (FAIR, "what colour is the umbrella?", "red"),
    (FAIR, "what colour is the star?", CANNOT_TELL),  # there are two
    (FAIR, "which colour does the heart have?", CANNOT_TELL),  # there is none
    (FAIR, "what is the purple thing?", "anchor"),
    (FAIR, "which thing is red?", CANNOT_TELL),
    (FAIR, "is the anchor small or large?", "large"),
    (BUSY, "how large is the bead?", CANNOT_TELL),  # beads have one size
    (BUSY, "how large is the star?", "large"),
    (FAIR, "which row is the anchor in?", "bottom"),
    (FAIR, "how far right is the umbrella?", "left"),
    (FAIR, "how many things are there?", "five"),
    (FAIR, "how many red things are there?", "two"),
    (FAIR, "how many stars are there?", "two"),
    (FAIR, "what is the number of crosses?", "zero"),
    (FAIR, "is there any blue star?", "yes"),
    (FAIR, "do you see any green star?", "no"),
    (FAIR, "what colour is the background?", "mint"),
    (FAIR, "which digit is written?", "seven"),
    (BUSY, "which digit is written?", CANNOT_TELL),
    (FAIR, "what colour is the thing that keeps you dry?", "red"),
    (FAIR, "what colour is the thing that flies?", CANNOT_TELL),
    (BUSY, "which colour has the thing that gives milk?", "black"),
    (BUSY, "what time does the clock show?", "three"),
    (FAIR, "what time does the clock show?", CANNOT_TELL),
    (BUSY, "which word can be read?", "tea"),
    (BUSY, "how high is the middle bar of the chart?", "four"),
    (BUSY, "which bar of the chart is the highest?", "middle"),
    (FEW, "where is the highest bar of the chart?", CANNOT_TELL),  # two are equal
    (FEW, "which height has the right bar of the chart?", "one"),
    (BUSY, "where is the tiny bead?", "bottom centre"),
    (BUSY, "is the star plain, striped, dotted or hollow?", "striped"),
    (BUSY, "how is the circle filled?", CANNOT_TELL),
    (BUSY, "what is the weather like?", "rainy"),
    (BUSY, "there is a red clock. what colour is the cow?", "black"),
    (BUSY, "forget the blue star: what colour is the chart?", "pink"),
    (BUSY, "forget the green star: what colour is the chart?", CANNOT_TELL),  # there is none
    (BUSY, "there is a pink chart. what colour is the chart?", CANNOT_TELL),  # that gives it away
    (MELT, "what colour is the thing that melts in spring?", CANNOT_TELL),  # a snowflake melts too
    (FEW, "what is the person doing?", "running"),
    (FEW, "what does the sign mean?", "no entry"),
    (FEW, "which mood does the face show?", "angry"),
    (FEW, "which way does the arrow point?", "up"),
    (FAIR, "which is larger, the umbrella or the anchor?", "anchor"),
    (FAIR, "is the digit or the umbrella larger?", "digit"),
    (FAIR, "which is larger, the digit or the anchor?", "the same"),
    (FAIR, "which is larger, the anchor or the anchor?", CANNOT_TELL),
    (FEW, "which is larger, the sign or the arrow?", CANNOT_TELL),  # signs have one size
    (FEW, "what is directly right of the person?", "sign"),
    (FEW, "which thing is just below the sign?", "arrow"),
    (FEW, "what is directly left of the person?", "nothing"),
    (FEW, "what is directly above the cup?", CANNOT_TELL),
    (FEW, "is the arrow left or right of the face?", "left"),
    (FEW, "on which side of the person is the chart?", "right"),
    (FEW, "is the arrow left or right of the sign?", CANNOT_TELL),  # one column
    (FEW, "is the arrow above or below the sign?", "below"),
    (FEW, "compared with the chart, is the face above or below?", "above"),
    (FEW, "is the sign above or below the face?", CANNOT_TELL),
    (BUSY, "what partly hides the cow?", "star"),
    (BUSY, "which thing is in front of the star?", CANNOT_TELL),
    (FEW, "are the person and the face of the same colour?", "yes"),
    (FEW, "do the person and the sign share a colour?", "no"),
    (BUSY, "which are more, the red or the blue things?", "blue"),
    (BUSY, "are more things green or pink?", "the same"),
    (BUSY, "are more things purple or orange?", CANNOT_TELL),  # there is neither
    (BUSY, "what is the first thing in the middle row?", "digit"),
    (BUSY, "which thing comes last in the top row?", "star"),
    (FEW, "what is the last thing in the middle row?", "arrow"),
    (BUSY, "how many things are not blue?", "five"),
    (BUSY, "how many things have another colour than purple?", "eight"),
    (BUSY, "what is the sum of the two digits?", "eleven"),
    (FAIR, "what do the two digits add up to?", CANNOT_TELL),
    (FAIR, "how high up is the anchor?", "bottom"),
    (FAIR, "which column is the anchor in?", "right"),
    (FAIR, "how many things does the picture show?", "five"),
    (FAIR, "how many things are red?", "two"),
    (FAIR, "which colour is behind the things?", "mint"),
    (FAIR, "which digit can be read?", "seven"),
    (BUSY, "which hour is it on the clock?", "three"),
    (FEW, "which action does the person show?", "running"),
    (FEW, "which message does the sign give?", "no entry"),
    (BUSY, "which word is written?", "tea"),
    (FEW, "how does the face look?", "angry"),
    (FEW, "in which direction does the arrow point?", "up"),
    (BUSY, "in which place is the tiny bead?", "bottom centre"),
    (FAIR, "what is the weather behind the things?", "fair"),
    (FAIR, "why is the umbrella sad?", None),
])
def test_answers_follow_the_scene(scene, question, right):
    assert answer(scene, question) == right


def test_every_form_of_every_skill_is_tried():
    asked = [text for _, text, right in test_answers_follow_the_scene.pytestmark[0].args[1] if right]
    tried = {(parse_question(text).skill, form) for text in asked
             for form in range(2) if phrase(parse_question(text), form) == text}
    assert {(name, form) for name, skill in SKILLS.items() for form in range(len(skill.forms))} == tried


def test_there_are_enough_skills_and_each_category_of_the_paper_has_one():
    with open(paths.ROOT / "figures" / "paper_values.csv") as file:
        figure_4 = {row["category"] for row in csv.DictReader(file) if row["item"] == "fig4_failure_share"}
    assert len(figure_4) == 15 and {s.category for s in SKILLS.values()} - {""} == figure_4
    assert sum(s.category == "" for s in SKILLS.values()) >= 9 and len(SKILLS) >= 24


def test_each_kind_has_one_plural_of_its_own():
    assert len(set(PLURALS.values())) == len(PLURALS) and PLURALS["snowman"] == "snowmen" and "snowmans" not in SLOTS["plural"]


def test_a_question_means_one_thing_whatever_the_form():
    for skill in SKILLS.values():
        assert len(skill.forms) >= 2
        for form in skill.forms:
            for i in range(max([len(SLOTS[slot]) for slot in slots_of(form)], default=1)):
                text = form.format(**{slot: SLOTS[slot][i % len(SLOTS[slot])] for slot in slots_of(form)})
                question = parse_question(text)
                said = [phrase(question, i) for i in range(len(skill.forms))]
                assert question.skill == skill.name and text in said


@given(st.text(max_size=60))
@settings(max_examples=500, deadline=None)
def test_text_outside_the_language_has_no_answer_and_raises_nothing(text):
    assert answer(FAIR, text) is None
