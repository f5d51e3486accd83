"""Scenes, drawing and the language of the testbed."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditdm_lib.testbed.render import render
from auditdm_lib.testbed.scenes import BACKGROUNDS, COLOURS, KINDS, SPLITS, Scene, Thing, digit_scans, sample_scenes, scans_of
from auditdm_lib.testbed.skills import CANNOT_TELL, SKILLS, answer, parse_question, phrase, sample_answerable, sample_question

SCENE = Scene("mint", (
    Thing("umbrella", "red", "small", 0), Thing("star", "blue", "large", 4), Thing("star", "red", "small", 5),
    Thing("anchor", "purple", "large", 8), Thing("digit", "black", "large", 6, scan=scans_of("test")[0])))


@pytest.mark.parametrize(("question", "right"), [
    ("what colour is the umbrella?", "red"),
    ("what colour is the star?", CANNOT_TELL),  # there are two
    ("what colour is the heart?", CANNOT_TELL),  # there is none
    ("what is the purple thing?", "anchor"),
    ("what is the red thing?", CANNOT_TELL),
    ("is the anchor small or large?", "large"),
    ("which row is the anchor in?", "bottom"),
    ("which column is the umbrella in?", "left"),
    ("how many things are there?", "five"),
    ("how many red things are there?", "two"),
    ("how many stars are there?", "two"),
    ("how many crosses are there?", "zero"),
    ("is there any blue star?", "yes"),
    ("is there any green star?", "no"),
    ("what colour is the background?", "mint"),
    ("what colour is the thing that keeps you dry?", "red"),
    ("what colour is the thing that flies?", CANNOT_TELL),
    ("why is the umbrella sad?", None),
])
def test_answers_follow_the_scene(question, right):
    assert answer(SCENE, question) == right


def test_a_digit_is_read_as_its_scan_is_labelled():
    names = "zero one two three four five six seven eight nine".split()
    assert answer(SCENE, "which digit is written?") == names[digit_scans()[1][scans_of("test")[0]]]


@given(st.integers(0, 10**9))
@settings(max_examples=300, deadline=None)
def test_every_sampled_question_parses_back_and_has_an_answer(seed):
    rng = random.Random(seed)
    scene = sample_scenes(1, "train", seed)[0]
    text = sample_question(scene, rng, unanswerable=0.5)
    assert phrase(parse_question(text)) == text
    assert answer(scene, text) is not None
    assert answer(scene, sample_answerable(scene, rng)) != CANNOT_TELL


@given(st.text(max_size=60))
@settings(max_examples=500, deadline=None)
def test_text_outside_the_language_has_no_answer_and_raises_nothing(text):
    assert answer(SCENE, text) is None or parse_question(text) is not None


def test_every_skill_is_asked_and_none_is_answered_by_one_word():
    rng, said = random.Random(0), {name: [] for name in SKILLS}
    for scene in sample_scenes(3000, "train", 0):
        text = sample_question(scene, rng, 0.35)
        said[parse_question(text).skill].append(answer(scene, text))
    for skill, answers in said.items():
        commonest = max(answers.count(a) for a in set(answers)) / len(answers)
        assert len(answers) > 50 and commonest < 0.66, f"{skill}: {len(answers)} asked, best constant {commonest:.2f}"


def test_splits_share_no_scan_and_no_scene():
    scans = [set(scans_of(split)) for split in SPLITS]
    assert sum(map(len, scans)) == len(set().union(*scans)) == len(digit_scans()[1])
    scenes = [set(sample_scenes(2000, split, 0)) for split in SPLITS]
    assert sum(map(len, scenes)) == len(set().union(*scenes))


def test_the_same_seed_draws_the_same_pixels():
    first, second = (np.stack([render(s) for s in sample_scenes(20, "train", 7)]) for _ in range(2))
    assert (first == second).all() and (first != np.stack([render(s) for s in sample_scenes(20, "train", 8)])).any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_thing_is_drawn_in_its_colour_and_in_its_cell(kind):
    thing = Thing(kind, "red", "large", 4, scan=0 if kind == "digit" else None)
    pixels = np.asarray(render(Scene("white", (thing,)))).astype(int)
    inked = np.abs(pixels - BACKGROUNDS["white"]).sum(-1) > 60
    assert inked[16:32, 16:32].sum() > 20 and inked.sum() == inked[15:33, 15:33].sum()
    strongest = pixels[inked][np.abs(pixels[inked] - BACKGROUNDS["white"]).sum(-1).argmax()]
    assert np.abs(strongest - COLOURS["red"]).max() < 70, f"{kind} is drawn in {strongest}"


def test_kinds_differ_in_their_pixels():
    drawn = {kind: np.asarray(render(Scene("white", (Thing(kind, "black", "small", 4),)))).astype(int)
             for kind in KINDS if kind != "digit"}
    for a in drawn:
        for b in drawn:
            assert a == b or np.abs(drawn[a] - drawn[b]).mean() > 0.5, f"{a} looks like {b}"


def test_an_unknown_split_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="train, audit, probe, test"):
        sample_scenes(1, "validation", 0)
