"""Each suite is scored as its benchmark is, with intervals that hold at the edges; comparisons are paired."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tiny_models
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scripted import replies_by
from sklearn.metrics import f1_score

from auditdm_lib import paths, stats
from auditdm_lib.answers import LETTERS
from auditdm_lib.audit.soundness import Broken
from auditdm_lib.evaluate import benchmarks, scores
from auditdm_lib.run import params
from auditdm_lib.testbed.gaps import Gap, save_gaps
from auditdm_lib.testbed.suites import SUITES

SHORT = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)
COLUMNS = ["model", "suite", "item", "group", "metric", "score", "correct", "question", "expected", "answer", "skill", "gap"]
N = 48


def table(suites):
    """Items of {suite: {model: [correct, ...]}}, each a group of its own."""
    metric = {suite: SUITES[suite].metric if suite in SUITES else "exact_match" for suite in suites}
    rows = [(role, suite, f"{i}", f"{i}", metric[suite], float(right), right, "is it ?", "yes", "yes" if right else "no",
             "exists", None)
            for suite, by_model in suites.items() for role, marks in by_model.items()
            for i, right in enumerate(marks)]
    return pd.DataFrame(rows, columns=COLUMNS)


def graded(suite, scores, per_group=1):
    """Items of one suite and model with these scores, `per_group` items a group."""
    items = table({suite: {"target": [score >= 0.5 for score in scores]}})
    return items.assign(score=scores, group=[f"{i // per_group:03d}" for i in range(len(scores))])


def measured(items):
    rows = scores.summary(items)
    return rows[rows["suite"] != "average"].set_index("metric")


@pytest.fixture(scope="module")
def every():
    return benchmarks.load_items("testbed", [*SUITES], N, 0, seed=0, target="org/model")


SCRIPTED = SimpleNamespace(processor=SimpleNamespace(chat_template="chat"), asking=SimpleNamespace(max_new_tokens=8))


def scored_as(items, answer_to):
    """The summary of a model that answers an item with `answer_to(item)`."""
    given = {(id(item.image), item.question): answer_to(item) for item in items.itertuples()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmarks, "load_vlm", lambda path, asked=None: SCRIPTED)
        patch.setattr(benchmarks, "check_answers", lambda *_, **__: None)  # what a constant answer scores is tested, too
        patch.setattr(benchmarks, "replies", replies_by(lambda vlm, images, questions: [
            given[id(image), question] for image, question in zip(images, questions, strict=True)]))
        return benchmarks.score({"target": "anything"}, items)


@given(SHORT)
def test_f1_is_that_of_scikit_learn(pairs):
    said, true = np.array(pairs).T
    if (said | true).any():
        word = np.array(["no", "yes"])
        group = pd.DataFrame({"answer": word[said.astype(int)], "expected": word[true.astype(int)]})
        score, low, high = scores._f1(group)
        assert score == pytest.approx(f1_score(true, said))
        assert low <= score + 1e-9 and score <= high + 1e-9


def test_average_is_the_mean_of_the_suites_without_gap_items():
    items = table({"a": {"target": [True] * 90 + [False] * 10}, "b": {"target": [True] * 10 + [False] * 10},
                   "gap-items": {"target": [False] * 50}})
    average = scores.summary(items).set_index("suite").loc["average"]
    assert average["score"] == pytest.approx(0.7) and average["n"] == 120
    assert 0.5 < average["ci_low"] < 0.7 < average["ci_high"] < 0.9


def test_pope_reports_f1_and_the_share_of_yes_too():
    items = table({"pope-mini": {"target": [True, False]}, "gqa-mini": {"target": [True, False]}})
    rows = scores.summary(items)
    assert rows[rows["suite"] == "pope-mini"]["metric"].tolist() == ["accuracy", "f1", "yes_ratio"]
    assert rows[rows["suite"] == "gqa-mini"]["metric"].tolist() == ["exact_match"]
    # of two items that are truly "yes" one was found: precision 1, recall 1/2
    assert rows[rows["metric"] == "f1"]["score"].item() == pytest.approx(2 / 3)
    assert rows[rows["metric"] == "yes_ratio"]["score"].item() == 0.5


def test_an_empty_answer_to_a_poll_is_neither_yes_nor_no():
    # four items with the answer yes: two are said yes to, two are answered by nothing: recall 1/2, precision 1
    items = table({"pope-mini": {"target": [True, True, False, False]}}).assign(answer=["yes", "It is.", "", " "])
    rows = measured(items)
    assert rows.loc["f1", "score"] == pytest.approx(2 / 3) and rows.loc["yes_ratio", "score"] == 0.5


def test_a_half_is_correct_and_so_is_a_caption_of_exactly_a_hundred_points(monkeypatch):
    half = ["<loc0000><loc0000><loc0500><loc1000>", "<loc0000><loc0000><loc0499><loc1000>"]
    items = pd.DataFrame({
        "suite": "refcoco-mini", "item": ["0", "1"], "group": ["0", "1"], "image": [Image.new("RGB", (8, 8)) for _ in half],
        "skill": "detect", "gap": None, "question": half, "expected": "", "options": None, "metric": "iou", "tokens": 8,
        "answers": [["<loc0000><loc0000><loc1000><loc1000>"]] * 2})
    assert scored_as(items, lambda item: item.question)["correct"].tolist() == [True, False]
    monkeypatch.setattr(benchmarks.metrics, "cider_d", lambda predictions, references: np.array([1.0, 0.999]))
    captions = items.assign(metric="cider_d", suite="cococap-mini")
    assert scored_as(captions, lambda item: item.question)["correct"].tolist() == [True, False]


def test_mme_adds_accuracy_and_accuracy_plus():
    # 3 of 4 questions and 1 of 2 pictures: 100 x (0.75 + 0.5) = 125 of 200
    rows = measured(graded("mme-mini", [1, 1, 1, 0], per_group=2))
    assert rows["score"].to_dict() == pytest.approx({"mme": 125 / 200, "accuracy": 0.75, "accuracy+": 0.5})
    assert (rows["n"] == 2).all()  # pictures


def test_every_task_of_mme_counts_the_same_however_many_items_it_has():
    # six pictures of counting, all right, and two of position, of which one is wrong in one of its two questions:
    # accuracy (1 + 3/4) / 2, accuracy+ (1 + 1/2) / 2
    items = graded("mme-mini", [1] * 12 + [1, 0, 1, 1], per_group=2).assign(skill=["count_all"] * 12 + ["row"] * 4)
    rows = measured(items)
    assert rows["score"].to_dict() == pytest.approx({"mme": 13 / 16, "accuracy": 7 / 8, "accuracy+": 3 / 4})
    assert (rows["n"] == 8).all() and (rows["ci_low"] < rows["score"]).all() and (rows["score"] < rows["ci_high"]).all()


def test_circular_items_count_only_where_every_rotation_is_right():
    rows = measured(graded("mmbench-mini", [1, 1, 1, 1, 1, 1, 1, 0], per_group=4))
    assert rows["score"].to_dict() == pytest.approx({"circular": 0.5, "exact_match": 7 / 8})


def test_all_or_nothing_scores_have_wilson_s_interval_and_graded_ones_a_bootstrap():
    wilson = measured(graded("vqav2-mini", [1.0] * 30))
    assert tuple(wilson.loc["vqa_accuracy", ["score", "ci_low", "ci_high"]]) == stats.proportion(30, 30)
    scores = np.random.default_rng(0).uniform(size=200)
    first, again = (measured(graded("refcoco-mini", scores)).loc["iou"] for _ in range(2))
    assert first.equals(again)
    # the standard error of 200 uniform numbers is sqrt(1/12 / 200) = 0.0204; a percentile of 500 rounds wavers by a tenth
    assert (first["ci_high"] - first["ci_low"]) / 2 == pytest.approx(1.96 * 0.0204, rel=0.15)


def test_a_caption_is_correct_above_a_hundred_points():
    assert benchmarks.RIGHT_CAPTION * benchmarks.CIDER_BEST * 100 == pytest.approx(100)


def test_comparisons_are_paired_and_take_each_subset():
    items = table({"a": {"target": [True] * 90 + [False] * 10, "rectified": [False] * 1 + [True] * 99},
                   "gap-items": {"target": [False] * 50, "rectified": [True] * 40 + [False] * 10}})
    items.loc[(items["suite"] == "a") & (items["item"].astype(int) >= 90), "gap"] = "purple is blue"
    rows = scores.comparisons(items).set_index("items")
    assert rows["n"].to_dict() == {
        "gap-items": 50, "suites": 100, "suites outside gaps": 90, "right before": 90}
    assert rows["difference"].to_dict() == pytest.approx(
        {"gap-items": 0.8, "suites": 0.09, "suites outside gaps": -1 / 90, "right before": -1 / 90})
    assert set(rows["model"]) == {"rectified"}


def test_unknown_suites_are_refused_with_the_valid_names():
    with pytest.raises(ValueError, match="No suite 'vqa': the suites are vqav2-mini, .*gap-items"):
        benchmarks.load_items("testbed", ["vqa"], 5, 5, seed=0, target="org/model")


def test_the_notebook_offers_every_suite():
    suites = params.declared(paths.NOTEBOOKS / "05_evaluate.ipynb")["suites"]
    assert suites.rule["choices"].split("|") == [*SUITES, "gap-items", "easy-vqa"]


def test_items_are_graded_by_the_gaps_of_the_target(tmp_path):
    save_gaps((Gap("purple is blue", "colour", "blue", {"answer": "purple"}),), tmp_path)
    items = benchmarks.load_items("testbed", [*SUITES, "gap-items"], 8, 2, seed=1, target=tmp_path)
    assert set(items["suite"]) == {*SUITES, "gap-items"} and set(items["gap"].dropna()) == {"purple is blue"}
    assert not items.duplicated(["suite", "item"]).any()
    assert items[items["suite"] == "gap-items"]["gap"].notna().all() and not items["gap"].notna().all()
    assert items["image"].iloc[0].mode == "RGB"


def test_a_target_without_planted_gaps_has_no_gap_items_and_a_line_says_so(tmp_path, capsys):
    items = benchmarks.load_items("testbed", ["gqa-mini", "gap-items"], 8, 2, seed=1, target=tmp_path)
    assert set(items["suite"]) == {"gqa-mini"} and items["gap"].isna().all()
    assert f"gap-items is left out: no gaps were planted in {tmp_path}." in capsys.readouterr().out
    with pytest.raises(ValueError, match="no suite to score; name one of vqav2-mini"):
        benchmarks.load_items("testbed", ["gap-items"], 8, 2, seed=1, target=tmp_path)


def test_one_who_knows_all_scores_the_maximum_everywhere(every):
    scored = scored_as(every, lambda item: item.options[LETTERS.index(item.expected)] if item.options else item.expected)
    assert scored["correct"].all()
    headline = scores.summary(scored).drop_duplicates("suite").set_index("suite")["score"]
    assert set(headline.index) == {*SUITES, "average"}
    # no caption can be all five references at once
    assert headline.drop(["cococap-mini", "average"]).eq(1).all() and 0.35 < headline["cococap-mini"] < 1


@pytest.mark.parametrize("said, most", [  # to POPE's script, all that has no "no" in it is a yes
    ("", 0), ("cannot tell", 0.5), ("A", 0.5), ("yes", 0.5), ("red", 0.5), ("three", 0.5)])
def test_one_who_always_says_the_same_scores_low(every, said, most):
    headline = scores.summary(scored_as(every, lambda item: said)).drop_duplicates("suite").set_index("suite")["score"]
    assert headline.max() <= most, headline.idxmax()


@pytest.mark.parametrize("said", ["", "yes", "cannot tell"])
def test_a_model_that_always_says_the_same_stops_the_scoring_with_its_name(every, said, monkeypatch):
    monkeypatch.setattr(benchmarks, "load_vlm", lambda path, asked=None: SCRIPTED)
    monkeypatch.setattr(benchmarks, "replies", replies_by(lambda vlm, images, questions: [said] * len(questions)))
    with pytest.raises(Broken, match="The rectified said "):
        benchmarks.score({"rectified": "anything"}, every)


def test_choices_are_right_by_letter_or_text_and_captions_get_room_to_end(every):
    named = scored_as(every, lambda item: item.options["ABCD".index(item.expected)] if item.options else item.expected)
    assert named["correct"].all()
    longest = every.groupby("suite")["tokens"].max()
    assert longest["cococap-mini"] > 100 > longest["gqa-mini"]


def test_models_are_scored_on_the_same_items_by_their_own_answers(tmp_path, monkeypatch):
    red = tiny_models.gemma3(tmp_path / "a"), tiny_models.paligemma2(tmp_path / "b", seed=1)
    images = [Image.new("RGB", (24, 24), colour) for colour in ("red", "blue")]
    items = pd.DataFrame({"suite": "a", "item": ["0", "1"], "group": ["0", "1"], "image": images, "skill": "colour", "gap": None,
                          "question": ["what colour is it ?", "how many ?"], "expected": ["grey", "Two"],
                          "answers": [["grey"], ["2", "Two"]], "options": None, "metric": "exact_match", "tokens": 8})
    canned = {str(red[0]): ["red", "two."], str(red[1]): ["blue", "three"]}
    monkeypatch.setattr(benchmarks, "replies", replies_by(lambda vlm, images, questions: canned[vlm.name]))
    scored = benchmarks.score({"target": red[0], "reference_1": red[1]}, items)
    assert scored["correct"].tolist() == [False, True, False, False]  # "two." is "Two"
    assert scored["model"].tolist() == ["target"] * 2 + ["reference_1"] * 2
    assert scored.columns.tolist() == COLUMNS
