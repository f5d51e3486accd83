"""Scores are counts over items, with intervals that hold at the edges; comparisons are paired."""

import numpy as np
import pandas as pd
import pytest
import tiny_models
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import f1_score

from auditdm_lib import benchmarks

SHORT = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def table(suites):
    """Items of {suite: {model: [correct, ...]}}."""
    rows = [(role, suite, f"{i}", right, "is it ?", "yes", "yes" if right else "no", "exists", None)
            for suite, by_model in suites.items() for role, marks in by_model.items()
            for i, right in enumerate(marks)]
    return pd.DataFrame(rows, columns=["model", "suite", "item", "correct", "question", "expected", "answer",
                                       "skill", "gap"])


@given(SHORT)
def test_f1_is_that_of_scikit_learn(pairs):
    said, true = np.array(pairs).T
    if (said | true).any():
        word = np.array(["no", "yes"])
        group = pd.DataFrame({"answer": word[said.astype(int)], "expected": word[true.astype(int)]})
        score, low, high = benchmarks._f1(group)
        assert score == pytest.approx(f1_score(true, said))
        assert low <= score + 1e-9 and score <= high + 1e-9


def test_average_is_the_mean_of_the_suites_without_gap_items():
    items = table({"a": {"target": [True] * 90 + [False] * 10}, "b": {"target": [True] * 10 + [False] * 10},
                   "gap-items": {"target": [False] * 50}})
    average = benchmarks.summary(items).set_index("suite").loc["average"]
    assert average["score"] == pytest.approx(0.7) and average["n"] == 120
    assert 0.5 < average["ci_low"] < 0.7 < average["ci_high"] < 0.9


def test_only_pope_reports_f1():
    items = table({"pope-mini": {"target": [True, False]}, "gqa-mini": {"target": [True, False]}})
    rows = benchmarks.summary(items)
    assert rows[rows["metric"] == "f1"]["suite"].tolist() == ["pope-mini"]
    # of two items that are truly "yes" one was found: precision 1, recall 1/2
    assert rows[rows["metric"] == "f1"]["score"].item() == pytest.approx(2 / 3)


def test_comparisons_are_paired_and_take_each_subset():
    items = table({"a": {"target": [True] * 90 + [False] * 10, "rectified": [False] * 1 + [True] * 99},
                   "gap-items": {"target": [False] * 50, "rectified": [True] * 40 + [False] * 10}})
    items.loc[(items["suite"] == "a") & (items["item"].astype(int) >= 90), "gap"] = "purple is blue"
    rows = benchmarks.comparisons(items).set_index("items")
    assert rows["n"].to_dict() == {
        "gap-items": 50, "suites": 100, "suites outside gaps": 90, "right before": 90}
    assert rows["difference"].to_dict() == pytest.approx(
        {"gap-items": 0.8, "suites": 0.09, "suites outside gaps": -1 / 90, "right before": -1 / 90})
    assert set(rows["model"]) == {"rectified"}


def test_unknown_suite_is_refused_with_the_valid_names():
    with pytest.raises(ValueError, match="No suite 'vqa': the suites are .*gap-items"):
        benchmarks.load_items(["vqa"], 5, 5, seed=0)


def test_testbed_items_are_answerable_and_gap_items_lie_in_a_gap():
    items = benchmarks.load_items([*benchmarks.testbed.SUITES, "gap-items"], 6, 2, seed=1)
    assert set(items["suite"]) == {*benchmarks.testbed.SUITES, "gap-items"}
    assert not items.duplicated(["suite", "item"]).any()
    assert items[items["suite"] == "gap-items"]["gap"].notna().all()
    assert items["image"].iloc[0].mode == "RGB"


def test_models_are_scored_on_the_same_items_by_their_own_answers(tmp_path, monkeypatch):
    red = tiny_models.gemma3(tmp_path / "a"), tiny_models.paligemma2(tmp_path / "b", seed=1)
    images = [Image.new("RGB", (24, 24), colour) for colour in ("red", "blue")]
    items = pd.DataFrame({"suite": "a", "item": ["0", "1"], "image": images, "skill": "colour", "gap": None,
                          "question": ["what colour is it ?", "how many ?"], "expected": ["grey", "Two"]})
    canned = {str(red[0]): ["red", "two."], str(red[1]): ["blue", "three"]}
    monkeypatch.setattr(benchmarks.models, "answer", lambda vlm, images, questions, **kw: canned[vlm.name])
    scored = benchmarks.score({"target": red[0], "reference_1": red[1]}, items)
    assert scored["correct"].tolist() == [False, True, False, False]  # "two." is "Two"
    assert scored["model"].tolist() == ["target"] * 2 + ["reference_1"] * 2
    assert "image" not in scored
