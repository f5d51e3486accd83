"""Each suite has the items, the format and the answers that it promises."""

from collections import Counter

import numpy as np
import pytest

from auditdm_lib.answers import LETTERS
from auditdm_lib.boxes import located
from auditdm_lib.evaluate.metrics import iou, vqa_accuracy
from auditdm_lib.testbed import suites
from auditdm_lib.testbed.gaps import Gap
from auditdm_lib.testbed.language import apply_edit, caption, parse_caption
from auditdm_lib.testbed.render import bounding_box, render
from auditdm_lib.testbed.scenes import DIGIT
from auditdm_lib.testbed.skills import CANNOT_TELL, SKILLS, answer, parse_question
from auditdm_lib.testbed.suites import SUITES, best_guess, gap_items, suite_items

N = 72
GAPS = (Gap("purple is blue", "colour", "blue", {"answer": "purple"}),
        Gap("rain is fair", "weather", "fair", {"answer": "rainy"}))
CHOOSING = [name for name, suite in SUITES.items()
            if suite.make in (suites._choice, suites._circular, suites._unguessable, suites._mixed)]


def with_scenes(make):
    """The items that `make()` gives, and the scene of each: pictures are drawn once a group."""
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suites, "render", lambda scene: drawn.append(scene) or render(scene))
        items = make()
    by_group = dict(zip(items["group"].unique(), drawn, strict=True))
    return items, [by_group[group] for group in items["group"]]


@pytest.fixture(scope="module")
def every():
    return {name: with_scenes(lambda name=name: suite_items(name, N, 0)) for name in SUITES}


def bare(question):
    """A question without what an MME item supposes, and that."""
    text, _, supposed = question.partition(" is the answer ")
    return text, supposed.rstrip("?")


def text_of(item):
    return item.options[LETTERS.index(item.answer)] if item.options else item.answer


def test_there_are_sixteen_suites_and_each_skill_of_the_testbed_is_asked_about():
    assert len(SUITES) >= 16 and {skill for suite in SUITES.values() for skill in suite.skills} == {*SKILLS, "detect", "caption"}
    assert {suite.metric for suite in SUITES.values()} == {
        "vqa_accuracy", "exact_match", "anls", "relaxed_accuracy", "iou", "cider_d", "circular", "mme", "accuracy"}


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_has_its_items_once_and_its_skills_in_equal_shares(every, name):
    items, _ = every[name]
    assert len(items) == N and items["item"].is_unique
    assert list(items) == ["item", "image", "question", "answer", "answers", "options", "group", "skill", "gap"]
    assert items["image"].iloc[0].size == (48, 48) and items["image"].iloc[0].mode == "RGB"
    shares = items.drop_duplicates("group")["skill"].value_counts().reindex(SUITES[name].skills, fill_value=0)
    assert shares.max() - shares.min() <= 1 and shares.sum() == items["group"].nunique()


@pytest.mark.parametrize("name", [name for name in SUITES if name not in ("refcoco-mini", "cococap-mini")])
def test_every_answer_is_right_by_the_scene(every, name):
    items, scenes = every[name]
    for item, scene in zip(items.itertuples(), scenes, strict=True):
        text, supposed = bare(item.question)
        right = answer(scene, text)
        assert right not in (None, CANNOT_TELL) and parse_question(text).skill == item.skill
        assert text_of(item) == (right if not supposed else "yes" if supposed == right else "no"), item.question
        assert item.answer in item.answers


def test_the_same_seed_gives_the_same_items_and_another_gives_others():
    first, again, other = (suite_items("mmmu-mini", 30, seed) for seed in (3, 3, 4))
    assert first.drop(columns="image").equals(again.drop(columns="image"))
    assert [i.tobytes() for i in first["image"]] == [i.tobytes() for i in again["image"]]
    assert not first["question"].equals(other["question"])


@pytest.mark.parametrize("name", ["docvqa-mini", "mmbench-mini", "pope-mini"])
def test_splits_share_no_scene_no_picture_and_no_scan(name):
    made = [with_scenes(lambda split=split: suite_items(name, 200, 0, split)) for split in ("train", "validation", "test")]
    for part in (
            [set(scenes) for _, scenes in made],
            [{image.tobytes() for image in items["image"]} for items, _ in made],
            [{t.scan for scene in scenes for t in scene.things if t.kind == DIGIT} for _, scenes in made]):
        assert all(part) and not part[0] & part[1] and not part[0] & part[2] and not part[1] & part[2]


@pytest.mark.parametrize("name", CHOOSING)
def test_options_differ_hold_the_answer_anywhere_and_stand_behind_the_question_only_where_a_model_learns_the_format(every, name):
    chosen = [item for item in every[name][0].itertuples() if item.options]
    for item in chosen:
        assert len(set(item.options)) == len(item.options) <= 4 and item.answers == [item.answer]
        assert parse_question(item.question) and " A. " not in item.question
        assert suites.listed(item._asdict()).endswith(" ".join(f"{m}. {o}" for m, o in zip(LETTERS, item.options, strict=False)))
        assert set(item.options) <= set(SKILLS[item.skill].answers)
    # with 36 items or more, each of four places holds an eighth at least but for one draw in hundreds
    spread = Counter(item.answer for item in chosen)
    assert min(spread[letter] for letter in "ABCD"[:min(len(i.options) for i in chosen)]) >= len(chosen) / 12, spread


@pytest.mark.parametrize("name", ["ai2d-mini", "mmbench-mini", "mmstar-mini"])
def test_some_suites_always_offer_four_options(every, name):
    assert every[name][0]["options"].map(len).eq(4).all()


def test_numbers_among_options_are_neighbours_and_the_right_one_may_be_any_of_them():
    items = suite_items("mmbench-mini", 1200, 0)
    counts = items[items["skill"] == "count_all"].drop_duplicates("group")
    ranks = Counter(sorted(i.options, key=SKILLS["count_all"].answers.index).index(text_of(i)) for i in counts.itertuples())
    assert set(ranks) == {0, 1, 2, 3} and max(ranks.values()) < len(counts) / 2


def test_circular_items_come_in_all_four_rotations(every):
    for _, group in every["mmbench-mini"][0].groupby("group"):
        assert len(group) == 4 and len({bare(q)[0] for q in group["question"]}) == 1
        assert {tuple(o) for o in group["options"]} == {tuple(np.roll(group["options"].iloc[0], i)) for i in range(4)}
        assert sorted(group["answer"]) == list("ABCD") and len({text_of(i) for i in group.itertuples()}) == 1


def test_whole_groups_are_given_where_the_number_falls_inside_one():
    assert len(suite_items("mmbench-mini", 5, 0)) == 8 and len(suite_items("mme-mini", 3, 0)) == 4


def test_mme_asks_twice_about_a_picture_once_for_yes_and_once_for_no(every):
    items = every["mme-mini"][0]
    assert items.groupby("group")["answer"].agg(lambda marks: sorted(marks) == ["no", "yes"]).all()
    assert 0.2 < (items.drop_duplicates("group")["answer"] == "yes").mean() < 0.8  # either order


def test_half_of_a_mixed_suite_s_items_have_options(every):
    for name in ("mmmu-mini", "realworldqa-mini"):
        mixed = every[name][0].groupby("skill")["options"].agg(lambda options: options.notna().mean())
        assert mixed.between(0.4, 0.6).all()


def test_the_best_guess_without_the_picture_is_never_right_and_never_an_option_of_mmstar(every):
    assert best_guess("neighbour") == "nothing"
    assert not any(best_guess(item.skill) in item.options for item in every["mmstar-mini"][0].itertuples())


def test_half_of_each_strategy_s_polls_are_yes_and_what_is_not_there_is_chosen_by_it(every):
    items, scenes = every["pope-mini"]
    strategy = items["item"].str.split("-").str[3]
    assert pytest.approx(0.5) == (items["answer"] == "yes").mean()
    assert items.groupby(strategy)["answer"].agg(lambda marks: (marks == "yes").mean()).to_dict() == pytest.approx(
        dict(random=0.5, popular=0.5, adversarial=0.5), abs=0.05)
    for item, scene, how in zip(items.itertuples(), scenes, strategy, strict=True):
        slots = parse_question(item.question).slots
        if item.answer == "no" and how == "adversarial":
            assert slots["kind"] in {t.kind for t in scene.things} and slots["colour"] in {t.colour for t in scene.things}
        if item.answer == "no" and how == "popular":
            assert slots["kind"] in suites._popular_kinds()


def test_annotators_mostly_agree_and_no_error_is_worth_half_a_point():
    items = suite_items("vqav2-mini", 400, 0)
    assert items["answers"].map(len).eq(10).all()
    assert all(vqa_accuracy(item.answer, item.answers) == 1 for item in items.itertuples())
    errors = [(wrong, item.answers) for item in items.itertuples() for wrong in item.answers if wrong != item.answer]
    assert 0.02 < len(errors) / 4000 < 0.06 and all(vqa_accuracy(*error) < 0.5 for error in errors)


def test_a_thing_to_detect_is_singled_out_and_its_box_is_where_it_is_drawn():
    items, scenes = with_scenes(lambda: suite_items("refcoco-mini", 400, 0))
    for item, scene in zip(items.itertuples(), scenes, strict=True):
        meant = max(scene.things, key=lambda t: iou(suites.location(bounding_box(t, scene)), item.answers))
        assert located(item.answer) == pytest.approx(bounding_box(meant, scene), abs=1e-3)
        kept = apply_edit(scene, item.question.replace("detect", "remove", 1))  # refused where the words fit several things
        assert len(kept.things) == len(scene.things) - 1 and kept.at(meant.cell) is None


def test_five_people_caption_a_picture_each_in_their_words(every):
    items, scenes = every["cococap-mini"]
    for item, scene in zip(items.itertuples(), scenes, strict=True):
        assert item.answer == item.answers[0] == caption(scene) and parse_caption(item.answer) == scene
        assert len(set(item.answers)) == 5
        assert all(text.count(t.kind) >= 1 and t.colour in text for text in item.answers for t in scene.things)


@pytest.mark.parametrize("name", ["seed-mini", "mmbench-mini", "refcoco-mini"])
def test_items_are_marked_with_the_gaps_that_their_bare_question_meets_and_are_the_same_items(every, name):
    items, scenes = with_scenes(lambda: suite_items(name, N, 0, gaps=GAPS))
    assert items.drop(columns=["image", "gap"]).equals(every[name][0].drop(columns=["image", "gap"]))
    for item, scene in zip(items.itertuples(), scenes, strict=True):
        met = [gap.name for gap in GAPS if gap.wrong_answer(scene, bare(item.question)[0])]
        assert item.gap == met[0] if met else not isinstance(item.gap, str)
    assert items["gap"].notna().any() == (name != "refcoco-mini") and every[name][0]["gap"].isna().all()


def test_unknown_suites_and_splits_are_refused_with_what_there_is():
    with pytest.raises(ValueError, match="Unknown suite 'vqa'; choose one of vqav2-mini"):
        suite_items("vqa", 5, 0)
    with pytest.raises(ValueError, match="Unknown split 'exam'"):
        suite_items("gqa-mini", 5, 0, "exam")


def test_gap_items_lie_inside_their_gap_and_have_the_columns_of_suites(every):
    items = gap_items(3, 0, GAPS)
    assert items.groupby("gap").size().to_dict() == {gap.name: 3 for gap in GAPS}
    assert list(items) == list(every["gqa-mini"][0]) == list(gap_items(3, 0, ())) and items["item"].is_unique
    assert all(item.answer == item.answers[0] for item in items.itertuples()) and gap_items(3, 0, ()).empty
