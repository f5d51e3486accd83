"""Planted gaps, the suites made from them, and what the world knows."""

import random
from collections import Counter

import pytest

from auditdm_lib.testbed.gaps import Gap, gaps_of, load_gaps, questions_in_gap, random_gap, save_gaps
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


def test_the_shipped_gaps_are_wrong_where_they_hold_never_two_at_once_and_spread():
    rng, declared = random.Random(0), load_gaps()
    assert sum(map(len, declared.values())) >= 40 and len(declared["target"]) >= 22
    scenes = sample_scenes(6000, "test", 0)
    asked = [(scene, sample_answerable(scene, rng)) for scene in scenes]
    limits = {"target": (0.14, 0.22), "rare": (0.03, 0.05), "rarest": (0.006, 0.013), "needle": (0.007, 0.014),
              "paligemma2-m-flawed": (0, 0.05), "gemma3-l-flawed": (0, 0.05)}
    for model, gaps in declared.items():
        held = Counter()
        for scene, text in asked:
            says = {gap.name: said for gap in gaps if (said := gap.wrong_answer(scene, text))}
            assert len(says) <= 1 and answer(scene, text) not in says.values(), (model, text, says)
            held.update(list(says))
        low, high = limits.get(model, (0, 0.2))
        assert low <= held.total() / len(asked) <= high, f"the gaps of {model} cover {held.total() / len(asked):.1%}"
        assert set(held) == {gap.name for gap in gaps}
        assert model != "target" or max(held.values()) <= 0.1 * held.total()
    flawed = [{(gap.skill, str(gap.when)) for gap in gaps} for model, gaps in declared.items() if model.endswith("flawed")]
    assert all(len(gaps) <= 3 for gaps in flawed) and not set.intersection(*flawed)


def test_questions_in_a_gap_meet_it_and_a_gap_that_never_holds_is_refused():
    rng, scenes = random.Random(0), sample_scenes(500, "test", 0)
    gap = load_gaps()["target"][0]
    assert all(gap.wrong_answer(scenes[i], text) for i, text in questions_in_gap(gap, scenes, 20, rng))
    with pytest.raises(ValueError, match="widen `when`"):
        questions_in_gap(Gap("never", "colour", "red", {"answer": "beige"}), scenes, 5, rng, tries=500)


@pytest.mark.parametrize(("row", "reason"), [
    ("{name: odd, skill: smell, says: rose}", "'smell'"),
    ("{name: odd, skill: weather, says: fair, when: {kind: cup}}", "'kind'; weather has answer, background, weather, things"),
    ("{name: odd, skill: weather, says: hail}", "'hail' for 'says'; choose one of fair"),
    ("{name: odd, skill: weather, says: {rainy: hail}}", "'hail' for 'says'"),
    ("{name: odd, skill: exists, says: no}", "False for 'says'; choose one of yes, no, cannot tell; in YAML, put yes and no in"),
    ("{name: odd, skill: exists, says: 'no', when: {answer: yes}}", "True for 'answer'; .* in quotes"),
    ("{name: odd, skill: exists, says: {yes: 'no'}}", "True for 'says'; .* in quotes"),
    ("{name: odd, skill: colour, says: red, when: {answer: purpel}}", "'purpel' for 'answer'; choose one of red"),
    ("{name: odd, skill: colour, says: red, when: {thing.size: 3}}", "3 for 'thing.size'; choose one of small"),
    ("{name: odd, skill: colour, says: red, when: [answer]}", "maps conditions to words"),
    ("{name: odd, skill: [colour], says: red}", "unknown skill"), ("{name: odd, skill: colour, says: {}}", "is an answer"),
    ("{name: odd, skill: weather, says: fair, if: 1}", "unknown field 'if'"),
    ("[1]", "A gap is a mapping")])
def test_a_gap_that_the_world_does_not_have_is_named_with_the_remedy(row, reason, tmp_path):
    file = tmp_path / "gaps.yaml"
    file.write_text(f"target: [{row}]\n")
    with pytest.raises(ValueError, match=reason):
        load_gaps(file)


def test_a_checkpoint_carries_its_gaps(tmp_path):
    gaps = load_gaps()["gemma3-target"]
    save_gaps(gaps, tmp_path)
    assert gaps_of(tmp_path) == gaps and gaps_of(tmp_path / "elsewhere") == gaps_of("org/model") == ()


def test_random_gaps_hold_and_err_for_a_share_of_their_skill_s_questions():
    for seed in range(8):
        gap = random_gap(random.Random(seed))
        assert gap == random_gap(random.Random(seed))
        scenes = sample_scenes(300, "test", seed)
        assert len(questions_in_gap(gap, scenes, 10, random.Random(0), tries=5000)) == 10


def test_a_gap_may_hang_on_the_weather_a_relation_and_the_material():
    gap = Gap("in rain rows are lost", "row", says="top", when={"weather": "rainy", "thing.material": "striped"})
    scene = Scene("mint", (Thing("cup", "purple", "small", 4), Thing("star", "red", "large", 8, material="striped")), "rainy")
    assert gap.wrong_answer(scene, "which row is the star in?") == "top"
    assert gap.wrong_answer(scene, "which row is the cup in?") is None
    assert gap.wrong_answer(Scene("mint", scene.things), "which row is the star in?") is None
    swapped = Gap("sides swap", "side", says={"left": "right", "right": "left"}, when={"kind2": "star"})
    assert swapped.wrong_answer(scene, "is the cup left or right of the star?") == "right"


def test_gap_items_lie_inside_their_gap():
    gaps = load_gaps()["target"]
    items = gap_items(3, 0, gaps)
    assert items.groupby("gap").size().to_dict() == {gap.name: 3 for gap in gaps}


def test_the_world_knows_no_truth_for_nonsense():
    world = World([SCENE])
    assert world.right_answer(0, "what colour is the plane?") is None and world.right_answer(0, "tell me more") is None
    assert world.skill("tell me more") is None and world.gap(0, "tell me more", load_gaps()["target"]) is None
