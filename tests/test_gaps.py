"""Planted gaps, the suites made from them, and what the world knows."""

import random

import pytest

from auditdm_lib.testbed.gaps import Gap, gap_of, load_gaps, questions_in_gap
from auditdm_lib.testbed.questions import sample_answerable
from auditdm_lib.testbed.scenes import Scene, Thing, sample_scenes
from auditdm_lib.testbed.skills import answer
from auditdm_lib.testbed.suites import gap_items
from auditdm_lib.testbed.world import World

SCENE = Scene("mint", (Thing("cup", "purple", "small", 0), Thing("star", "red", "large", 8)))


def test_a_gap_says_its_wrong_answer_only_where_all_conditions_hold():
    gap = Gap("purple cups are blue", "colour", says="blue", when={"answer": "purple", "kind": ["cup", "plane"]})
    assert gap.wrong_answer(SCENE, "what colour is the cup?") == "blue"
    assert gap.wrong_answer(SCENE, "what colour is the star?") is None
    half = Gap("purple stars are blue", "colour", says="blue", when={"answer": "purple", "kind": "star"})
    assert half.wrong_answer(SCENE, "what colour is the cup?") is None  # purple, but no star
    assert gap.wrong_answer(SCENE, "is the cup small or large?") is None


def test_a_swap_gap_answers_each_way_round():
    gap = Gap("left is right", "column", says={"left": "right", "right": "left"}, when={"background": "mint"})
    assert gap.wrong_answer(SCENE, "which column is the cup in?") == "right"
    assert gap.wrong_answer(SCENE, "which column is the star in?") == "left"


def test_a_condition_on_the_thing_asked_about_reads_the_scene():
    gap = Gap("large is not seen", "colour", says="black", when={"thing.size": "large"})
    assert gap.wrong_answer(SCENE, "what colour is the star?") == "black"
    assert gap.wrong_answer(SCENE, "what colour is the cup?") is None


def test_the_shipped_gaps_are_wrong_everywhere_they_hold_and_spread():
    rng, gaps = random.Random(0), load_gaps()
    assert len(gaps) >= 8
    hit = []
    for scene in sample_scenes(6000, "test", 0, plain=True):
        text = sample_answerable(scene, rng, plain=True)
        if held := gap_of(scene, text, gaps):
            assert held[1] != answer(scene, text)
            hit.append(held[0].name)
    share = len(hit) / 6000
    assert 0.15 <= share <= 0.25, f"the gaps cover {share:.1%} of random answerable questions"
    assert {gap.name for gap in gaps} == set(hit)


def test_questions_in_a_gap_meet_it_and_a_gap_that_never_holds_is_refused():
    rng, scenes = random.Random(0), sample_scenes(500, "test", 0, plain=True)
    gap = load_gaps()[0]
    assert all(gap.wrong_answer(scenes[i], text) for i, text in questions_in_gap(gap, scenes, 20, rng))
    with pytest.raises(ValueError, match="widen `when`"):
        questions_in_gap(Gap("never", "colour", "red", {"answer": "beige"}), scenes, 5, rng, tries=500)


def test_an_unknown_skill_in_a_gap_file_is_named(tmp_path):
    file = tmp_path / "gaps.yaml"
    file.write_text("- {name: odd, skill: smell, says: rose}\n")
    with pytest.raises(ValueError, match="'smell'"):
        load_gaps(file)


def test_an_unknown_condition_in_a_gap_file_is_named_with_the_known_ones(tmp_path):
    file = tmp_path / "gaps.yaml"
    file.write_text("- {name: odd, skill: weather, says: fair, when: {kind: cup}}\n")
    with pytest.raises(ValueError, match="'kind'; weather has answer, background, weather, things"):
        load_gaps(file)


def test_a_gap_may_hang_on_the_weather_a_relation_and_the_material():
    gap = Gap("in rain rows are lost", "row", says="top", when={"weather": "rainy", "thing.material": "striped"})
    scene = Scene("mint", (Thing("cup", "purple", "small", 4), Thing("star", "red", "large", 8, material="striped")), "rainy")
    assert gap.wrong_answer(scene, "which row is the star in?") == "top"
    assert gap.wrong_answer(scene, "which row is the cup in?") is None
    assert gap.wrong_answer(Scene("mint", scene.things), "which row is the star in?") is None
    swapped = Gap("sides swap", "side", says={"left": "right", "right": "left"}, when={"kind2": "star"})
    assert swapped.wrong_answer(scene, "is the cup left or right of the star?") == "right"


def test_gap_items_lie_inside_their_gap():
    items = gap_items(3, 0)
    assert items.groupby("gap").size().to_dict() == {gap.name: 3 for gap in load_gaps()}


def test_the_world_knows_no_truth_for_nonsense():
    world = World([SCENE])
    assert world.truth(0, "what colour is the plane?") is None and world.truth(0, "tell me more") is None
    assert world.skill("tell me more") is None and world.gap(0, "tell me more") is None
