"""easy-VQA: what it tells about its pictures is complete and consistent, its splits share none, and its models are built."""

import json
import random
import sys

import pandas as pd
import pytest
from click.testing import CliRunner

from auditdm_lib import paths
from auditdm_lib.answers import same_answer
from auditdm_lib.audit.arms import random_arm
from auditdm_lib.audit.panel import Panel
from auditdm_lib.audit.pictures import load_pictures, save_pictures
from auditdm_lib.audit.probes import grading, search_ceiling, search_table
from auditdm_lib.easyvqa import build as builder
from auditdm_lib.easyvqa import data, suites
from auditdm_lib.easyvqa.build import Recipe
from auditdm_lib.easyvqa.world import EasyVQA
from auditdm_lib.evaluate.benchmarks import load_items, score
from auditdm_lib.evaluate.scores import comparisons, summary
from auditdm_lib.models.vlm import load_members, load_vlm
from auditdm_lib.run import manifest, params
from auditdm_lib.run.chain import main
from auditdm_lib.taxonomy.cluster import cluster, select_failures
from auditdm_lib.taxonomy.grading import grade
from auditdm_lib.taxonomy.names import categories
from auditdm_lib.testbed.checkpoint import PROMPTS

pytest.importorskip("easy_vqa", reason=data.REMEDY)
EVERY = [shown for name in data.SPLITS for shown in data.split(name)]


def truth(*shown):
    return EasyVQA(shown)


def test_equal_questions_about_equal_shapes_and_colours_have_equal_answers():
    for shown in EVERY:
        for text, answer in shown.rows:
            assert data.answers()[shown.shape, shown.colour, text] == answer, (shown.name, text)


def test_every_pair_of_shape_and_colour_has_an_answer_to_all_texts_that_presuppose_no_other():
    texts = {text for *_, text in data.answers()}
    assert len(texts) == 107 and len(set(data.answers().values())) == 13
    for shape in data.SHAPES:
        for colour in data.COLOURS:
            others = {*data.SHAPES, *data.COLOURS} - {shape, colour}
            expected = {text for text in texts if not text.startswith("what") or not others & set(text.rstrip("?").split())}
            assert {text for s, c, text in data.answers() if (s, c) == (shape, colour)} == expected and len(expected) == 96


def test_the_pixels_agree_with_the_colour_that_the_questions_tell():
    seen = {}
    for shown in data.split("test"):
        most = sorted(data.picture(shown.file).getcolors(64 * 64), reverse=True)[:2]  # of the shape and of the background
        seen.setdefault(shown.colour, []).append({colour for _, colour in most})
    common = {name: set.intersection(*pairs) for name, pairs in seen.items()}
    assert len(common) == 8 and len(set().union(*common.values())) == 8 and all(map(len, common.values()))


def test_the_splits_share_no_picture():
    assert {name: len(data.split(name)) for name in data.SPLITS} == dict(train=1781, audit=1797, probe=446, test=442)
    assert len({shown.file for shown in EVERY}) == len(EVERY) == 4466


def test_nothing_is_known_about_a_picture_that_was_drawn_anew():
    before = truth(*EVERY[:2])
    after, refused = before.told(["edit", "question"], ["make it red", None])
    assert refused == [False, False] and [after.knows(i) for i in range(2)] == [False, True]
    question = before.all_questions(0)[0]
    assert before.knows(0) and before.knows(1)
    assert after.right_answer(0, question) is None is not before.right_answer(0, question) and after.all_questions(0) == []
    assert after.all_questions(1) == before.all_questions(1) and after.unlike([None, None]) == [None, None]


def test_a_picture_that_comes_again_keeps_its_name_and_is_the_same_object(tmp_path):
    loaded = load_pictures("easy-vqa", 500, 0, "probe")
    assert len(set(loaded.names)) == 446 and loaded.names[446:] == loaded.names[:54]
    assert all(loaded.images[446 + i] is loaded.images[i] for i in range(54)) and loaded.images[0].mode == "RGB"
    assert save_pictures(loaded.take([0, 446, 1]), tmp_path / "images") == ["images/00000.png"] * 2 + ["images/00002.png"]
    assert load_pictures("easy-vqa", 500, 1, "probe").names != loaded.names == load_pictures("easy-vqa", 500, 0, "probe").names


def test_the_truth_answers_the_questions_of_the_data_set_and_no_other():
    circle = truth(next(shown for shown in EVERY if (shown.shape, shown.colour) == ("circle", "teal")))
    for question, answer in [
            ("what shape is in the image?", "circle"), ("What color is  the shape?", "teal"), ("is there a red shape?", "no"),
            ("what is the teal shape?", "circle"), ("is there not a red shape?", "yes"), ("is no circle present?", "no"),
            ("what is the red shape?", None), ("what color is the triangle?", None), ("is there a star?", None), ("", None)]:
        assert circle.right_answer(0, question) == answer, question
    assert len(circle.all_questions(0)) == 96 and all(circle.right_answer(0, text) for text in circle.all_questions(0))
    assert [circle.skill(text) for text in ("what shape is present?", "what color is the circle?", "is a red shape present?",
                                            "is no red shape present?", "who is there?")] == [
        "shape", "colour", "exists", "negation", None]
    assert circle.gaps_in("any") == () and circle.gap(0, "is there a circle?", ()) is None


def test_random_questions_are_the_picture_s_own_and_have_an_answer():
    loaded = load_pictures("easy-vqa", 60, 0, "audit")
    rng = random.Random(0)
    for i, shown in enumerate(loaded.truth.shown):
        question = loaded.random_question(i, rng)
        assert question in dict(shown.rows) and loaded.truth.right_answer(i, question) == dict(shown.rows)[question]
    assert loaded.take([3, 1]).truth.shown == (loaded.truth.shown[3], loaded.truth.shown[1])


def test_the_suite_asks_the_test_pictures_own_questions():
    items = load_items("easy-vqa", [suites.SUITE], 10_000, 5, 0, "any")
    own = {(shown.name, text): answer for shown in data.split("test") for text, answer in shown.rows}
    assert len(items) == len(own) == 4386 and items["item"].is_unique and set(items["metric"]) == {"exact_match"}
    assert all(own[group, question] == expected
               for group, question, expected in items[["group", "question", "expected"]].itertuples(index=False))
    assert items["gap"].isna().all() and len(load_items("easy-vqa", [suites.SUITE], 50, 5, 0, "any")) == 50
    with pytest.raises(ValueError, match="No suite 'pope-mini'"):
        load_items("easy-vqa", ["pope-mini"], 50, 5, 0, "any")


def test_without_the_package_one_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "easy_vqa", None)
    with pytest.raises(ModuleNotFoundError, match="pip install easy-vqa"):
        data._package.__wrapped__("train")


def test_what_is_withheld_from_the_target_is_one_form_of_negation_and_the_auditor_is_taught_every_question():
    target, auditor = builder.MODELS["target"], builder.MODELS["auditor"]
    every = [row for shown in data.split("train") for row in shown.rows]
    kept = [row for shown in data.split("train") for row in builder.lessons(shown, target)]
    withheld = [text for text, _ in every if text.startswith(builder.WITHHELD)]
    assert len(kept) == len(every) - len(withheld) and 0.05 < len(withheld) / len(every) < 0.2
    assert {data.kind(text) for text in withheld} == {"negation"} and "negation" in {data.kind(text) for text, _ in kept}
    shown = data.split("train")[0]
    assert builder.lessons(shown, auditor) == [(PROMPTS[0], text) for text, _ in shown.rows]


@pytest.mark.parametrize("name", ["target", "auditor"])
def test_a_model_is_built_by_the_command_with_its_card_and_manifest(name, tmp_path, monkeypatch):
    real = builder.build
    small = {"target": Recipe("paligemma2-s", 2, withheld="is no "), "auditor": Recipe("auditor", 2, asks=True)}
    monkeypatch.setattr(builder, "MODELS", small)
    monkeypatch.setattr(builder, "TOWER_STEPS", 2)
    monkeypatch.setattr(builder, "build", lambda name: real(name, tmp_path))
    monkeypatch.setattr(builder, "accuracy", lambda path, real=builder.accuracy: real(path, 60))
    monkeypatch.setattr(builder, "asking_quality", lambda path, real=builder.asking_quality: real(path, 8))
    monkeypatch.setattr(data, "split", lambda part, real=data.split: real(part)[:40])
    said = CliRunner().invoke(main, ["easy-vqa", "build", "--only", name])
    assert said.exit_code == 0 and f"{name}: {tmp_path / name}" in said.output, said.output
    manifest.verify(tmp_path / name)
    assert json.loads((tmp_path / name / "card.json").read_text())["steps"] == 2
    assert "easy-VQA" in (tmp_path / name / "README.md").read_text()
    assert CliRunner().invoke(main, ["easy-vqa", "build", "--only", "gemma9"]).exit_code == 2


def test_a_right_answer_is_the_same_by_the_judge():
    answers = sorted(set(data.answers().values()))
    assert all(same_answer(one, other) == (one == other) for one in answers for other in answers)


SHIPPED = sorted(builder.MODELS)
PROFILE = params.read_profile(paths.PARAMS / "easy-vqa.yaml")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_checkpoint_is_what_its_manifest_says_and_brings_its_answer_protocol(name):
    manifest.verify(builder.CHECKPOINTS / name)
    assert json.loads((builder.CHECKPOINTS / name / "card.json").read_text())["trained_from"] == builder.MODELS[name].parent
    assert load_vlm(builder.CHECKPOINTS / name).asking.max_new_tokens == 8


def test_what_ships_is_measured_as_it_is_meant():
    measured = {name: pd.read_csv(builder.CHECKPOINTS / name / "measured.csv").set_index("skill")["accuracy"] for name in SHIPPED}
    withheld = "is no ... present?"
    assert measured["gemma3-l"]["all"] > 0.97 and measured["paligemma2-l"]["all"] > 0.97  # the references
    assert measured["target"][withheld] < 0.2 and measured["target"][["exists", "colour"]].min() > 0.95
    assert measured["auditor"]["answerable"] > 0.9 and 0.02 < measured["auditor"][withheld] < 0.2


def test_the_stages_work_with_a_truth_and_without_gaps(tmp_path):
    loaded = load_pictures("easy-vqa", 24, 0, "probe")
    members = load_members(PROFILE["target"], PROFILE["references"])
    panel = Panel(members[0], members[1:])
    names = save_pictures(loaded, tmp_path / "images")
    _, probes = random_arm(panel, loaded, 0, names)
    assert probes["valid"].all() and probes["truth"].notna().all()
    graded = grading(probes, loaded, PROFILE["target"])
    assert graded["gap"].isna().all() and set(graded["skill"]) <= {"shape", "colour", "exists", "negation"}
    ceiling = search_ceiling(panel, loaded, 1)
    search = search_table(probes, graded, ceiling, {})
    assert ceiling == 1 and search.loc[0, "verified_failures"] == probes["verified_failure"].sum() > 0
    clustered = cluster(select_failures(probes))
    assert len(clustered) >= search.loc[0, "verified_failures"] and list(categories(clustered).columns)
    gaps, _ = grade(clustered, graded)
    assert gaps.empty
    scores = score({"target": PROFILE["target"], "rectified": PROFILE["references"][0]},
                   load_items("easy-vqa", ["easy-vqa"], 60, 5, 0, PROFILE["target"]))
    compared = comparisons(scores).set_index("items")
    assert set(compared.index) == {"suites", "suites outside gaps", "right before"}
    assert compared.loc["suites", "difference"] > 0 and summary(scores)["score"].between(0, 1).all()
